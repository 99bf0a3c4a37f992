//! A backend process, from the side of the program that started it.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{ChildStdin, ChildStdout, Stdio},
    time::Duration,
};

use super::{Args, Report};
use crate::{Error, Host, Process, Result};

/// A backend on a host. Ends when it is dropped.
#[derive(Debug)]
pub struct Remote {
    process: Process,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Remote {
    /// Starts `lab-backend`, which is `program`, and returns once it listens.
    pub fn start(host: &Host, program: &Path, args: &Args) -> Result<Self> {
        let mut command = host.command(program);
        command
            .args(["--listen", &args.listen.to_string(), "--name", &args.name])
            .args(["--mode", args.mode.name(), "--broken", &args.broken.to_string()])
            .args(["--seed", &args.seed.to_string(), "--probe-path", &args.probe_path])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = host.spawn(&mut command)?;
        let orders = process.child().stdin.take().expect("standard input is piped");
        let answers = process.child().stdout.take().expect("standard output is piped");
        let mut remote = Self { process, orders, answers: BufReader::new(answers) };
        let first = remote.line()?;
        if first.starts_with("listening ") { Ok(remote) } else { Err(refused("start", &first)) }
    }

    pub fn fail(&mut self) -> Result<()> {
        self.order("break")
    }

    pub fn heal(&mut self) -> Result<()> {
        self.order("heal")
    }

    /// Fails this part of its requests from now on.
    pub fn fraction(&mut self, fraction: f64) -> Result<()> {
        self.order(&format!("fraction {fraction}"))
    }

    /// Takes this many milliseconds for each answer from now on; probes are answered at once.
    pub fn delay(&mut self, ms: u64) -> Result<()> {
        self.order(&format!("delay {ms}"))
    }

    /// Whether the probe path answers 200 or 503 from now on.
    pub fn probe(&mut self, up: bool) -> Result<()> {
        self.order(if up { "probe up" } else { "probe down" })
    }

    /// Totals, and what happened since this moment of [`clock`](crate::clock).
    pub fn report(&mut self, since: Duration) -> Result<Report> {
        let answer = self.ask(&format!("report {}", since.as_nanos()))?;
        serde_json::from_str(&answer).map_err(|_| refused("report", &answer))
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn order(&mut self, order: &str) -> Result<()> {
        match self.ask(order)?.as_str() {
            "ok" => Ok(()),
            other => Err(refused(order, other)),
        }
    }

    fn ask(&mut self, order: &str) -> Result<String> {
        writeln!(self.orders, "{order}").map_err(Error::io(format!("ordering a backend to {order}")))?;
        self.line()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        // Reads again after a signal; a backend that is gone gives an empty line.
        self.answers.read_line(&mut line).map_err(Error::io("reading a backend's answer"))?;
        Ok(line.trim_end().to_owned())
    }
}

fn refused(order: &str, answer: &str) -> Error {
    let stderr = if answer.is_empty() { "it ended".to_owned() } else { answer.to_owned() };
    Error::Command { command: format!("lab-backend: {order}"), stderr }
}
