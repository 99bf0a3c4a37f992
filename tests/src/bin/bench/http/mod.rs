//! Requests a second through Shunt and beside it, and what a request costs the CPUs.
//!
//! Repetitions are interleaved and each measurement has namespaces of its own: connections that linger in
//! `TIME_WAIT` would stall the next peer. Only ratios inside a repetition are worth comparing. The rate of a
//! closed loop is taken by wrk; the cost by requests at a fixed rate well below what any peer can do, since a
//! saturated machine spends all it has.

mod peers;
mod wrk;

use std::{fmt::Write as _, net::SocketAddr, path::Path, thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use lb_tests::load::{Connections, Load};
use lb_userspace::lab::{Host, signals};
use serde::Serialize;

use self::peers::{PEERS, Peer, VIP};
use crate::{machine::Busy, statistics::Spread};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) repetitions: u32,
    /// Of each measurement.
    pub(crate) seconds: u32,
}

impl Plan {
    pub(crate) const FULL: Self = Self { repetitions: 5, seconds: 4 };
    pub(crate) const SMOKE: Self = Self { repetitions: 1, seconds: 1 };
}

/// How the client uses connections.
struct Mode {
    name: &'static str,
    what: &'static str,
    connections: Connections,
    /// Of the closed loop.
    at_a_time: u32,
    /// Of the open loop, requests a second.
    offered: u64,
}

const MODES: &[Mode] = &[
    Mode {
        name: "keep_alive",
        what: "keep-alive, 32 connections",
        connections: Connections::Kept,
        at_a_time: 32,
        offered: 4_000,
    },
    Mode {
        name: "new_connections",
        what: "one connection per request, 64 at a time",
        connections: Connections::Each,
        at_a_time: 64,
        offered: 1_500,
    },
];

/// So long it is watched what the CPUs do without us.
const BACKGROUND: Duration = Duration::from_millis(300);
/// If others take more than this part of the CPUs' time, a request's cost is lost in theirs.
const QUIET: f64 = 0.05;

/// Clients of the open loop.
const WORKERS: usize = 4;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) seconds: u32,
    /// Of the client's device, the same on every end of every link.
    pub(crate) offloads: String,
    /// How Shunt's program is attached: native or generic.
    pub(crate) xdp: Option<String>,
    pub(crate) rows: Vec<Row>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) mode: &'static str,
    pub(crate) peer: &'static str,
    pub(crate) what: &'static str,
    pub(crate) requests_per_second: Spread,
    /// Over the direct path of the same repetition; of the best repetitions in `best_ratio`.
    pub(crate) ratio: Spread,
    pub(crate) best_ratio: f64,
    pub(crate) p99_ms: Spread,
    /// CPU time of the whole machine for a request at a fixed rate, client and server included, in microseconds.
    pub(crate) cpu_us: Spread,
    /// The same without what the direct path takes in the same repetition.
    pub(crate) cpu_us_over_direct: Spread,
    pub(crate) offered_per_second: u64,
    /// The part of the CPUs' time that others took just before, 0 to 1, at its most.
    pub(crate) background: f64,
    /// Requests that failed, of both loops.
    pub(crate) errors: u64,
}

/// One repetition of one peer.
#[derive(Clone, Copy, Debug)]
struct Sample {
    rate: f64,
    p99_ms: f64,
    cpu_us: f64,
    background: f64,
    errors: u64,
}

pub(crate) fn run(plan: Plan, shunt: &Path) -> Result<Report> {
    let mut facts = Facts::default();
    // By mode, then by peer, then by repetition.
    let mut samples = vec![vec![Vec::new(); PEERS.len()]; MODES.len()];
    for repetition in 0..plan.repetitions as usize {
        for (mode, samples) in MODES.iter().zip(&mut samples) {
            for turn in 0..PEERS.len() {
                // Nobody is always the first.
                let number = (turn + repetition) % PEERS.len();
                let peer = &PEERS[number];
                eprintln!("http: {} of {}: {}, {}", repetition + 1, plan.repetitions, peer.name, mode.name);
                let sample = measure(peer, mode, plan, shunt, &mut facts);
                samples[number].push(sample.with_context(|| format!("http {} {}", peer.name, mode.name))?);
            }
        }
    }
    let mut rows = Vec::new();
    for (mode, samples) in MODES.iter().zip(&samples) {
        let [direct, ..] = samples.as_slice() else { bail!("no peers") };
        for (peer, samples) in PEERS.iter().zip(samples) {
            rows.push(row(mode, peer, samples, direct).context("no repetitions")?);
        }
    }
    Ok(Report { seconds: plan.seconds, offloads: facts.offloads, xdp: facts.xdp, rows })
}

#[derive(Debug, Default)]
struct Facts {
    offloads: String,
    xdp: Option<String>,
}

fn measure(peer: &Peer, mode: &Mode, plan: Plan, shunt: &Path, facts: &mut Facts) -> Result<Sample> {
    if signals::interrupted() {
        bail!("interrupted");
    }
    let Cost { cpu_us, background, failed } = {
        let rig = (peer.build)(shunt)?;
        let offloads = rig.offloads()?;
        ensure!(
            facts.offloads.is_empty() || facts.offloads == offloads,
            "peers differ in their links: {} and {offloads}",
            facts.offloads
        );
        facts.offloads = offloads;
        facts.xdp = rig.attached()?.or(facts.xdp.take());
        cost(&rig.client, mode, plan.seconds)?
    };
    let rig = (peer.build)(shunt)?;
    let close = mode.connections == Connections::Each;
    let url = format!("http://{VIP}/");
    let outcome = wrk::run(&rig.client, &url, mode.at_a_time, close, plan.seconds)?;
    Ok(Sample {
        rate: outcome.requests_per_second,
        p99_ms: outcome.p99_ms,
        cpu_us,
        background,
        errors: outcome.errors + failed,
    })
}

/// What requests at a fixed rate came to.
struct Cost {
    /// For each of them.
    cpu_us: f64,
    background: f64,
    failed: u64,
}

fn cost(client: &Host, mode: &Mode, seconds: u32) -> Result<Cost> {
    let target: SocketAddr = format!("{VIP}:80").parse().context("the VIP")?;
    let quiet = Busy::begin()?;
    thread::sleep(BACKGROUND);
    let background = 1.0 - quiet.end()?.1;
    let busy = Busy::begin()?;
    let load = Load::start(client, target, mode.offered, WORKERS, mode.connections);
    thread::sleep(Duration::from_secs(seconds.into()));
    let samples = load.stop();
    let (busy, _) = busy.end()?;
    ensure!(!samples.is_empty(), "no request was made");
    let failed = samples.iter().filter(|sample| sample.answer != Ok(200)).count();
    let cpu_us = busy.as_secs_f64() * 1e6 / samples.len() as f64;
    Ok(Cost { cpu_us, background, failed: failed as u64 })
}

fn row(mode: &Mode, peer: &Peer, samples: &[Sample], direct: &[Sample]) -> Option<Row> {
    let of = |value: fn(&Sample) -> f64| Spread::of(samples.iter().map(value));
    let pairs = || samples.iter().zip(direct);
    let best = |samples: &[Sample]| samples.iter().map(|sample| sample.rate).fold(f64::NAN, f64::max);
    Some(Row {
        mode: mode.name,
        peer: peer.name,
        what: peer.what,
        requests_per_second: of(|sample| sample.rate)?,
        ratio: Spread::of(pairs().map(|(own, direct)| own.rate / direct.rate))?,
        best_ratio: best(samples) / best(direct),
        p99_ms: of(|sample| sample.p99_ms)?,
        cpu_us: of(|sample| sample.cpu_us)?,
        cpu_us_over_direct: Spread::of(pairs().map(|(own, direct)| own.cpu_us - direct.cpu_us))?,
        offered_per_second: mode.offered,
        background: samples.iter().map(|sample| sample.background).fold(0.0, f64::max),
        errors: samples.iter().map(|sample| sample.errors).sum(),
    })
}

impl Report {
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let mut line = |line: String| writeln!(text, "{line}").expect("a string takes everything");
        line(format!(
            "http: 2 nginx of one worker behind one VIP, {} s a measurement, namespaces of its own each; {}; shunt's XDP: {}",
            self.seconds,
            self.offloads,
            self.xdp.as_deref().unwrap_or("?")
        ));
        for peer in PEERS {
            line(format!("  {:<7} {}", peer.name, peer.what));
        }
        for mode in MODES {
            line(format!("\n  {}; CPU at {} requests/s", mode.what, mode.offered));
            line(format!(
                "  {:<7} {:>8} {:>17}  {:>9} {:>11} {:>5}  {:>8}  {:>11} {:>15}  {:>6}",
                "",
                "req/s",
                "least..most",
                "÷ direct",
                "least..most",
                "best",
                "p99 ms",
                "CPU µs/req",
                "over direct",
                "errors"
            ));
            for row in self.rows.iter().filter(|row| row.mode == mode.name) {
                let rate = &row.requests_per_second;
                let (ratio, over) = (&row.ratio, &row.cpu_us_over_direct);
                line(format!(
                    "  {:<7} {:>8.0} {:>17}  {:>9.2} {:>11} {:>5.2}  {:>8.2}  {:>11.1} {:>15}  {:>6}",
                    row.peer,
                    rate.median,
                    format!("{:.0}..{:.0}", rate.least, rate.most),
                    ratio.median,
                    format!("{:.2}..{:.2}", ratio.least, ratio.most),
                    row.best_ratio,
                    row.p99_ms.median,
                    row.cpu_us.median,
                    format!("{:+.1} ({:+.1}..{:+.1})", over.median, over.least, over.most),
                    row.errors,
                ));
            }
        }
        let background = self.rows.iter().map(|row| row.background).fold(0.0, f64::max);
        if background > QUIET {
            line(format!(
                "\n  Others took up to {:.0} % of the CPUs: CPU µs/req and `over direct` are not to be trusted.",
                background * 100.0
            ));
        }
        text
    }

    /// What cannot be true.
    pub(crate) fn implausible(&self) -> Vec<String> {
        let mut found = Vec::new();
        for row in &self.rows {
            let name = format!("http {} {}", row.peer, row.mode);
            let rate = row.requests_per_second.median;
            if !(100.0..10_000_000.0).contains(&rate) {
                found.push(format!("{name}: {rate} requests/s"));
            }
            if !(0.01..100.0).contains(&row.ratio.median) {
                found.push(format!("{name}: {} of the direct path", row.ratio.median));
            }
            if !(0.1..1e6).contains(&row.cpu_us.median) {
                found.push(format!("{name}: {} µs of CPU for a request", row.cpu_us.median));
            }
            // A few may fail on a machine that is busy; a peer that does not work fails most.
            if row.errors as f64 > rate * f64::from(self.seconds) / 100.0 {
                found.push(format!("{name}: {} requests failed", row.errors));
            }
        }
        if self.rows.len() != PEERS.len() * MODES.len() {
            found.push(format!("http: {} rows", self.rows.len()));
        }
        found
    }
}
