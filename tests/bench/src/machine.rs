//! The machine of a measurement, and what its CPUs did meanwhile.

use std::{fs, thread, time::Duration};

use anyhow::{Context, Result};
use lb_lab::clock;
use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpus: usize,
    pub(crate) model: String,
    pub(crate) kernel: String,
    /// Over the last minute, before the benchmark began. Much above 0: others worked here too.
    pub(crate) load: f64,
    pub(crate) jit: bool,
}

impl Machine {
    pub(crate) fn read() -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| format!("reading {path}"));
        let model = read("/proc/cpuinfo")?
            .lines()
            .find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim().to_owned()));
        let load = read("/proc/loadavg")?;
        Ok(Self {
            cpus: thread::available_parallelism().context("counting CPUs")?.get(),
            model: model.unwrap_or_else(|| "?".to_owned()),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            load: load.split(' ').next().and_then(|minute| minute.parse().ok()).unwrap_or(f64::NAN),
            // Without the file the JIT is compiled in for good.
            jit: read("/proc/sys/net/core/bpf_jit_enable").map_or(true, |text| text.trim() != "0"),
        })
    }

    pub(crate) fn sentence(&self) -> String {
        let Self { cpus, model, kernel, load, jit } = self;
        let jit = if *jit { "on" } else { "OFF" };
        format!("machine: {cpus} CPUs ({model}), Linux {kernel}, BPF JIT {jit}, load {load} before the start")
    }
}

/// How long the CPUs have been busy, all of them together.
///
/// Work in softirq is charged to no process, so it is what was not idle that counts. `/proc/stat` counts in
/// hundredths of a second.
pub(crate) struct Busy {
    begun: Duration,
    idle: Duration,
    cpus: u32,
}

impl Busy {
    pub(crate) fn begin() -> Result<Self> {
        let (idle, cpus) = idle()?;
        Ok(Self { begun: clock::now(), idle, cpus })
    }

    /// The time they were busy, and the part of their time that was left, 0 to 1.
    pub(crate) fn end(self) -> Result<(Duration, f64)> {
        let all = (clock::now() - self.begun) * self.cpus;
        let idle = idle()?.0.saturating_sub(self.idle);
        Ok((all.saturating_sub(idle), idle.as_secs_f64() / all.as_secs_f64()))
    }
}

/// Idle time of all CPUs since boot, waiting for disks included, and how many they are.
fn idle() -> Result<(Duration, u32)> {
    let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    let all = text.lines().next().context("/proc/stat is empty")?;
    let ticks: u64 = all.split_whitespace().skip(4).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
    let cpus = text.lines().skip(1).filter(|line| line.starts_with("cpu")).count();
    Ok((Duration::from_secs_f64(ticks as f64 / per_second as f64), cpus as u32))
}
