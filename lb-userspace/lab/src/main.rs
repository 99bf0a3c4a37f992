//! `lab-backend`: the web server of labs, in a process of its own.

use clap::Parser;
use lb_lab::backend;

#[derive(Parser)]
#[command(name = "lab-backend", about = "A web server that fails on command", version)]
struct Program {
    #[command(flatten)]
    args: backend::Args,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    backend::main(Program::parse().args).await
}
