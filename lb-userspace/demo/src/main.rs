//! The founding case, on this machine, before your eyes.
//!
//! ```text
//!   client ── node (shunt run) ── app-v200   always 200
//!                            └─── app-v5xx   500 for half of its requests; its probe path says 200
//! ```
//!
//! Everything runs in network namespaces of its own, with the real daemon and its command line. The
//! [`story`] lists what must be seen; the demo succeeds only if all of it was. It leaves nothing behind, however
//! it ends: the scene owns all and takes it down when dropped.

mod founding;
mod load;
mod moment;
mod scene;
mod stage;
mod story;
mod summary;
mod terminal;
mod view;

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, bail};
use clap::Parser;
use lb_lab::signals;

use self::{scene::Scene, stage::Stage, story::End, terminal::Terminal, view::View};

/// Watch a failing backend be ejected and come back
///
/// Needs root, and touches nothing but network namespaces of its own, which it removes.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask demo", version)]
#[command(after_help = "\
Examples:
  cargo xtask demo             live, with keys to break and heal a backend
  cargo xtask demo --script    by itself, ends with a summary; exits 0 if every step was seen
  cargo xtask demo --founding  Istio's files, imported and run, beside what Envoy made of them")]
struct Args {
    /// Run by itself [default without a terminal]
    #[arg(long)]
    script: bool,

    /// Import the files of Istio and Kubernetes that Shunt was made for, and run them with three settings
    #[arg(long, conflicts_with = "script")]
    founding: bool,

    /// How long the clients of --founding work
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u64).range(10..=3600))]
    seconds: u64,
}

fn main() -> ExitCode {
    match play(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every step was seen and nothing was left behind.
fn play(args: &Args) -> Result<bool> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the demo needs root, to make network namespaces and load an XDP program; try it with sudo");
    }
    // Taken off last: until everything is down, a signal must not end the program.
    let signals = signals::Guard::install()?;
    if args.founding {
        let is_as_good = founding::play(Duration::from_secs(args.seconds));
        drop(signals);
        return is_as_good;
    }
    let interactive = !args.script && Terminal::is_there();
    let view = if interactive { View::live()? } else { View::lines() };
    view.opening();
    let scene = Scene::set()?;
    let name = scene.lab_name().to_owned();
    let mut stage = Stage::new(scene, view)?;
    let end = story::play(&mut stage);
    let end = match end {
        Ok(End::Seen) if interactive => story::linger(&mut stage).map(|()| End::Seen),
        end => end,
    };
    let report = stage.strike();
    let clean = summary::print(&report, &name);
    drop(signals);
    match end {
        Ok(End::Seen) => Ok(clean),
        Ok(End::Missed | End::Quit) => Ok(false),
        Err(error) => Err(error),
    }
}
