//! The command line: parses arguments, asks the daemon, prints, and returns an exit code.
//!
//! Results go to stdout, everything else goes to stderr. If the reader of stdout goes away, the program ends without
//! an error. Commands about a running daemon use its control socket, as other programs do.

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use tokio::runtime;

use crate::{config, control::client::Client};

pub mod args;
mod backend;
mod check;
mod detach;
mod doctor;
mod events;
pub mod exit;
mod explain;
mod import;
#[cfg(test)]
mod json;
pub mod logging;
pub mod out;
pub mod palette;
mod reload;
pub mod render;
mod replay;
mod status;
mod version;
mod why;
pub mod wiring;

use args::{Cli, Command};
use exit::{Exit, Failure};

/// The whole program.
pub fn main() -> Exit {
    let cli = Cli::parse();
    dispatch(cli).unwrap_or_else(|failure| {
        out::remark(&failure);
        failure.exit
    })
}

fn dispatch(cli: Cli) -> Result<Exit, Failure> {
    let socket = cli.socket;
    match cli.command {
        Command::Run(run) => {
            let runtime = runtime::Builder::new_multi_thread().enable_all().build();
            let runtime = runtime.context("cannot start the runtime")?;
            runtime.block_on(wiring::run_daemon(&run.config, socket.as_deref(), run.record))
        }
        Command::Check(args) => check::run(&args),
        Command::Status(args) => ask(async || status::run(&client(socket), &args).await),
        Command::Events(args) => ask(async || events::run(&client(socket), args).await),
        Command::Why(args) => ask(async || why::run(&client(socket), &args).await),
        Command::Explain(args) => ask(async || explain::run(&client(socket), &args).await),
        Command::Backend(args) => ask(async || backend::run(&client(socket), args).await),
        Command::Reload(args) => ask(async || reload::run(&client(socket), &args).await),
        Command::Replay(args) => replay::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Doctor(args) => ask(async || doctor::run(&args).await),
        Command::Detach(args) => detach::run(&args),
        Command::Config(args::Config::Example) => {
            out::print(config::EXAMPLE)?;
            Ok(Exit::Done)
        }
        Command::Config(args::Config::Reference) => {
            out::print(&config::reference())?;
            Ok(Exit::Done)
        }
        Command::Version(args) => ask(async || version::run(&client(socket), &args).await),
    }
}

/// Runs a command that asks a daemon. One thread is enough.
fn ask(question: impl AsyncFnOnce() -> Result<Exit, Failure>) -> Result<Exit, Failure> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(question())
}

fn client(socket: Option<PathBuf>) -> Client {
    Client::new(socket.unwrap_or_else(|| args::DEFAULT_SOCKET.into()))
}
