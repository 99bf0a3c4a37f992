//! Named network namespaces, as `ip netns` keeps them.

use std::{process::Command, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Error, Result, wait::settled};

/// Where `ip netns` keeps them.
pub(super) const FOLDER: &str = "/run/netns";

pub(super) fn add(name: &str) -> Result<()> {
    ip(&["netns", "add", name]).map(drop)
}

/// Ends what runs inside and removes the namespace; its devices go with it.
pub(super) fn remove(name: &str) -> Result<()> {
    let inside = || -> Result<Vec<Pid>> {
        let pids = ip(&["netns", "pids", name])?;
        Ok(pids.lines().filter_map(|pid| pid.trim().parse().ok()).map(Pid::from_raw).collect())
    };
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let pids = inside()?;
        if pids.is_empty() {
            break;
        }
        for pid in pids {
            // It may have ended by itself meanwhile.
            let _ = kill(pid, signal);
        }
        // Not an error yet after the first signal, and after the second nothing more can be done.
        let _ =
            settled("processes end", Duration::from_secs(2), || inside().is_ok_and(|pids| pids.is_empty()));
    }
    ip(&["netns", "delete", name]).map(drop)
}

pub(super) fn ip(args: &[&str]) -> Result<String> {
    checked(Command::new("ip").args(args))
}

/// Runs to the end; its standard error is the reason of a failure.
pub(super) fn checked(command: &mut Command) -> Result<String> {
    let words = || {
        let all = std::iter::once(command.get_program()).chain(command.get_args());
        all.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    };
    let shown = words();
    let output = command.output().map_err(Error::io(format!("`{shown}` could not be started")))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
        return Err(Error::Command { command: shown, stderr });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
