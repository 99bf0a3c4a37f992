//! `shunt-kube`: follows a Kubernetes cluster and keeps a discovery file for each port of a service.
//!
//! [`cluster`] lists and watches Services and EndpointSlices. [`sets`] makes a set of backends of them, by rules that
//! touch nothing. [`files`] replaces the file of each set that has changed. While the API server is away, nothing is
//! written: the last good sets stay in force.

mod args;
mod clock;
mod cluster;
mod connect;
mod exit;
mod files;
mod follow;
mod names;
mod objects;
mod outage;
mod sets;
mod table;

use std::{io, process::ExitCode};

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use self::{args::Args, exit::Failure};

fn main() -> ExitCode {
    let args = Args::parse();
    // Our own lines say what the libraries would say a second time.
    let quiet = format!("{},kube_client=off,rustls_platform_verifier=off", args.log);
    let chosen = if matches!(args.log.as_str(), "debug" | "trace") { &args.log } else { &quiet };
    let filter = EnvFilter::try_new(chosen).unwrap_or_else(|_| EnvFilter::new("info"));
    let colour = io::IsTerminal::is_terminal(&io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colour).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::from(anyhow::Error::from(error)).report(),
    };
    match runtime.block_on(follow::run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
