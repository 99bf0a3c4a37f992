//! Sets up, builds, checks and runs Shunt from a checkout: `cargo xtask --help`.

mod checks;
mod command;
mod fuzz;
mod layers;
mod promises;
mod setup;
mod vm;

use std::{ffi::OsString, os::unix::process::CommandExt, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;

use crate::command::cargo;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Sets up, builds, checks and runs Shunt from a checkout")]
enum Task {
    /// Install what building and testing need and this machine lacks
    Setup,
    /// Build the release binary, with the XDP program inside
    Build,
    /// Watch the breaker work between network namespaces
    Demo {
        /// Passed on to the demo; its own `--help` stands behind `--`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run every check: format, layers, lints, tests, namespace labs
    Test {
        /// Leave out the namespace labs
        #[arg(long)]
        quick: bool,
    },
    /// Measure beside a direct path and other balancers in the same run
    ///
    /// `http` and `verdict` install the balancers that are missing, as far as they can be had, unless it is a smoke test.
    #[command(after_help = "\
Examples:
  cargo xtask bench --install-peers
  cargo xtask bench http --repeat 9
  cargo xtask bench http --peer haproxy-tcp --peer shunt-nat
  cargo xtask bench verdict --json
  cargo xtask bench --smoke")]
    Bench {
        /// Only install the balancers to compare with: from Debian, and Python packages into target/peers
        #[arg(long)]
        install_peers: bool,
        /// Passed on to the benchmark; its own `--help` stands behind `--`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Look for input that breaks a reader; the targets are the folders of tests/fuzz/corpus, and `packet`
    ///
    /// `packet` tries frames on the XDP program and holds what becomes of them against a model of it (root).
    #[command(after_help = "\
Examples:
  cargo xtask fuzz config --seconds 300
  cargo xtask fuzz config --keep
  cargo xtask fuzz packet --frames 5000000
  cargo xtask fuzz packet --frames 100000 --seed 42")]
    Fuzz {
        target: String,
        /// How long
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// Only add to the committed corpus what was found before and reaches something new
        #[arg(long)]
        keep: bool,
        /// Of `packet`: how many
        #[arg(long, default_value_t = 2_000_000)]
        frames: u64,
        /// Of `packet`: which, as an earlier run has told [default: others each time]
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Load the program into Debian's kernels, in QEMU, and run some packet fixtures there
    #[command(after_help = "Example: cargo xtask vm\n         cargo xtask vm --update")]
    Vm {
        /// Write what the verifier had to do there, and on this kernel, to tests/verifier.toml
        #[arg(long)]
        update: bool,
    },
    /// Check who may depend on whom
    Layers,
    /// What continuous integration runs
    Ci,
}

fn main() -> Result<ExitCode> {
    let task = Task::parse();
    std::env::set_current_dir(workspace()).context("entering the workspace")?;
    match task {
        Task::Setup => setup::run(setup::Need::Tests)?,
        Task::Build => build()?,
        Task::Demo { args } => demo(&args)?,
        Task::Test { quick } => return checks::run(quick),
        Task::Ci => return checks::run(false),
        Task::Bench { install_peers: true, .. } => setup::peers(),
        Task::Bench { args, .. } => bench(&args)?,
        Task::Fuzz { target, frames, seed, .. } if target == "packet" => fuzz_packet(frames, seed)?,
        Task::Fuzz { target, seconds, keep, .. } => fuzz::run(&fuzz::Order { target, seconds, keep })?,
        Task::Vm { update } => return vm::run(update),
        Task::Layers => return layers(),
    }
    Ok(ExitCode::SUCCESS)
}

fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}

fn build() -> Result<()> {
    setup::run(setup::Need::Build)?;
    command::run(cargo().args(["build", "--release", "--package", "lb-userspace"]))
}

/// Becomes the demo, so that keys, signals and the exit code are its own.
fn demo(args: &[OsString]) -> Result<()> {
    setup::run(setup::Need::Demo)?;
    // In one go, so that no crate is built twice with other features.
    let packages = ["lb-userspace", "lb-lab", "lb-demo"].iter().flat_map(|package| ["--package", package]);
    command::run(cargo().args(["build", "--release", "--bins"]).args(packages))?;
    let program = target_dir().join("release/shunt-demo");
    let error = std::process::Command::new(&program).args(args).exec();
    Err(error).with_context(|| format!("running {}", program.display()))
}

fn bench(args: &[OsString]) -> Result<()> {
    setup::run(setup::Need::Tests)?;
    let has = |word: &str| args.iter().any(|arg| arg == word);
    let others = ["packet", "live", "scale", "storm"].into_iter().any(has);
    if !has("--smoke") && !has("--help") && !others {
        setup::peers();
    }
    command::run(cargo().args(["run", "--release", "--package", "lb-bench", "--"]).args(args))
}

/// The test that continuous integration runs, on more frames.
fn fuzz_packet(frames: u64, seed: Option<u64>) -> Result<()> {
    setup::run(setup::Need::Tests)?;
    let mut fuzz = cargo();
    fuzz.args(["test", "--package", "lb-tests", "--test", "model", "--", "--nocapture"]);
    fuzz.env("SHUNT_FRAMES", frames.to_string());
    if let Some(seed) = seed {
        fuzz.env("SHUNT_SEED", seed.to_string());
    }
    command::run(&mut fuzz)
}

fn layers() -> Result<ExitCode> {
    let broken = layers::check(&workspace())?;
    for line in &broken {
        eprintln!("{line}");
    }
    if broken.is_empty() {
        println!("layers: every dependency points the right way");
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}

fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}
