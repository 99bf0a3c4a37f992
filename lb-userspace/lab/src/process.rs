//! A program that runs on a host.

use std::{
    io,
    process::{Child, ExitStatus},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Error, Result, until_ok, wait::settled};

/// ResetCounts when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    pub(super) fn new(child: Child) -> Self {
        Self { child }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its pipes, where the command asked for them.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// How it ended, once it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        // Once it is waited for, its number may be another's.
        if self.ended().is_some() {
            return Ok(());
        }
        kill(pid, signal).map_err(io::Error::from).map_err(Error::io(format!("{signal} to {pid}")))
    }

    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("process {} ends", self.child.id());
        until_ok(&what, limit, || self.ended().ok_or("it still runs"))
    }

    /// Asks it to end, and kills it when it has not within `limit`.
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        if settled("it ends", limit, || self.ended().is_some()).is_err() {
            self.child.kill().map_err(Error::io("SIGKILL"))?;
        }
        self.child.wait().map_err(Error::io("waiting for a process"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            // Nobody is left to report it to.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
