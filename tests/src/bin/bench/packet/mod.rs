//! Nanoseconds a packet, by `BPF_PROG_TEST_RUN`: what the program costs, without network, driver and copies.
//!
//! Each case plays frames of many connections through the program and, in turn, through an empty one, both
//! behind the same [`wrapper`]; the difference is the program's. Chunks of the two alternate, so that whatever
//! else disturbs the machine disturbs both.

mod assembly;
pub(crate) mod cases;
mod shape;
pub(crate) mod syscall;
pub(crate) mod wrapper;

use std::{
    fmt::Write as _,
    os::fd::{AsFd, OwnedFd},
};

use anyhow::{Context, Result, bail, ensure};
use lb_tests::kernel::{Action, Family, Kernel, NAT_PORTS, in_family};
use lb_userspace::lab::signals;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use serde::Serialize;

use self::{
    cases::{BACKENDS, CASES, Case, Counts, Script},
    wrapper::Wrapper,
};
use crate::statistics::{Spread, middle_mean};

/// Passes of one test run of the empty program.
const EMPTY_PASSES: u32 = 65_536;
/// As many connections as the daemon provides for by default.
const MAX_FLOWS: u32 = 131_072;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) repetitions: u32,
    /// Test runs of each kind in a repetition.
    pub(crate) chunks: u32,
    pub(crate) most_flows: u32,
}

impl Plan {
    pub(crate) const FULL: Self = Self { repetitions: 5, chunks: 10, most_flows: u32::MAX };
    pub(crate) const SMOKE: Self = Self { repetitions: 1, chunks: 4, most_flows: 1_024 };

    /// Every case is measured in some way.
    fn includes(&self, case: &Case, flows: u32) -> bool {
        flows <= self.most_flows || case.flows == [flows]
    }
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) shape: shape::Shape,
    /// An empty program, without the wrapper.
    pub(crate) empty_ns: Spread,
    pub(crate) rows: Vec<Row>,
}

/// One kind of packet over so many connections.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) case: &'static str,
    pub(crate) what: &'static str,
    pub(crate) family: &'static str,
    pub(crate) flows: u32,
    /// Nanoseconds a packet; over repetitions.
    pub(crate) ns: Spread,
    /// What the wrapper cost around the empty program, which is subtracted already.
    pub(crate) wrapper_ns: f64,
}

pub(crate) fn run(plan: Plan) -> Result<Report> {
    let _pinned = Pinned::to_last_cpu().context("staying on one CPU")?;
    let mut rows: Vec<Row> = Vec::new();
    let mut first = None;
    for family in [Family::V4, Family::V6] {
        in_family(family, || -> Result<()> {
            let mut bench = Bench::new(family)?;
            if first.is_none() {
                first = Some((shape::read(bench.kernel.program())?, bench.empty(plan)?));
            }
            let name = name(family);
            for case in CASES {
                for flows in case.flows.iter().copied().filter(|flows| plan.includes(case, *flows)) {
                    eprintln!("packet: {} × {flows}, {name}", case.name);
                    let beside = case.beside.map(|beside| {
                        let row = rows
                            .iter()
                            .find(|row| row.case == beside && row.flows == flows && row.family == name);
                        row.expect("what a case subtracts is measured before it").ns.median
                    });
                    let measured = bench.case(case, name, flows, plan, beside.unwrap_or_default());
                    let context = || format!("packet {} over {flows} flows, {name}", case.name);
                    rows.push(measured.with_context(context)?);
                }
            }
            Ok(())
        })?;
    }
    let (shape, empty_ns) = first.context("no family was measured")?;
    Ok(Report { shape, empty_ns, rows })
}

fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

struct Bench {
    kernel: Kernel,
    around_program: Wrapper,
    around_empty: Wrapper,
    empty: OwnedFd,
}

impl Bench {
    fn new(family: Family) -> Result<Self> {
        let mut kernel = Kernel::with(BACKENDS, NAT_PORTS, MAX_FLOWS);
        let around_program = Wrapper::new(kernel.program().fd()?.as_fd(), family)?;
        let empty = wrapper::empty()?;
        let around_empty = Wrapper::new(&empty, family)?;
        Ok(Self { kernel, around_program, around_empty, empty })
    }

    fn empty(&self, plan: Plan) -> Result<Spread> {
        let mut values = Vec::new();
        for _ in 0..plan.repetitions {
            let chunks = (0..plan.chunks).map(|_| wrapper::bare(&self.empty, EMPTY_PASSES));
            values.extend(middle_mean(chunks.collect::<Result<Vec<_>>>()?));
        }
        Spread::of(values).context("no repetitions")
    }

    fn case(
        &mut self,
        case: &Case,
        family: &'static str,
        flows: u32,
        plan: Plan,
        beside_ns: f64,
    ) -> Result<Row> {
        self.kernel.forget_connections();
        let script = (case.script)(&mut self.kernel, flows)?;
        self.around_program.play(&script.records, &script.frame)?;
        self.around_empty.play(&script.records, &script.frame)?;
        let before = Counts::read(&mut self.kernel);
        let mut passes = 0u64;
        // Once through everything, so that caches and tables are as they will be.
        for _ in 0..=(script.records.len() as u32 / case.passes) {
            self.pair(case, &script)?;
            passes += u64::from(case.passes);
        }
        let (mut values, mut wrapper) = (Vec::new(), Vec::new());
        for _ in 0..plan.repetitions {
            if signals::interrupted() {
                bail!("interrupted");
            }
            let mut pairs = Vec::new();
            for _ in 0..plan.chunks {
                pairs.push(self.pair(case, &script)?);
                passes += u64::from(case.passes);
            }
            let of = |side: fn(&(f64, f64)) -> f64| middle_mean(pairs.iter().map(side)).context("no chunks");
            let (program_ns, empty_ns) = (of(|pair| pair.0)?, of(|pair| pair.1)?);
            values.push((program_ns - empty_ns) * f64::from(script.each) - beside_ns);
            wrapper.push(empty_ns);
        }
        let counted = Counts::read(&mut self.kernel).since(before);
        let expected = script.counts.times(passes / u64::from(script.each));
        ensure!(
            counted == expected,
            "another path was measured: the program counted {counted:?}, not {expected:?}"
        );
        Ok(Row {
            case: case.name,
            what: case.what,
            family,
            flows,
            ns: Spread::of(values).context("no repetitions")?,
            wrapper_ns: Spread::of(wrapper).context("no repetitions")?.median,
        })
    }

    /// One chunk around each program: nanoseconds a pass.
    fn pair(&mut self, case: &Case, script: &Script) -> Result<(f64, f64)> {
        let (empty_ns, action) = self.around_empty.run(case.passes)?;
        ensure!(action == Action::Pass, "the empty program came to {action:?}");
        let (program_ns, action) = self.around_program.run(case.passes)?;
        ensure!(action == script.action, "the last frame came to {action:?}, not {:?}", script.action);
        if script.counts.heads > 0 {
            self.kernel.forget_heads();
        }
        if case.room {
            self.kernel.forget_handshakes();
        }
        Ok((program_ns, empty_ns))
    }
}

/// Keeps the thread on one CPU as long as it lives.
struct Pinned(CpuSet);

impl Pinned {
    fn to_last_cpu() -> nix::Result<Self> {
        let this = Pid::from_raw(0);
        let before = sched_getaffinity(this)?;
        let last = (0..CpuSet::count()).rev().find(|cpu| before.is_set(*cpu).unwrap_or(false));
        let mut one = CpuSet::new();
        one.set(last.unwrap_or(0))?;
        sched_setaffinity(this, &one)?;
        Ok(Self(before))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // It was allowed before.
        let _ = sched_setaffinity(Pid::from_raw(0), &self.0);
    }
}

impl Report {
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let mut line = |line: String| writeln!(text, "{line}").expect("a string takes everything");
        line("packet: ns a packet by BPF_PROG_TEST_RUN, cost of the wrapper subtracted".to_owned());
        line(format!("  {:<58} {:>6} {:>7} {:>8}   {}", "", "", "flows", "ns", "least..most"));
        let row = |what: &str, family: &str, flows: &str, ns: &Spread| {
            format!(
                "  {what:<58} {family:>6} {flows:>7} {:>8.1}   {:.1}..{:.1}",
                ns.median, ns.least, ns.most
            )
        };
        line(row("empty program (without the wrapper, not subtracted)", "-", "-", &self.empty_ns));
        for measured in &self.rows {
            line(row(measured.what, measured.family, &measured.flows.to_string(), &measured.ns));
        }
        line(String::new());
        line(self.shape.table());
        text
    }

    /// What cannot be true.
    pub(crate) fn implausible(&self) -> Vec<String> {
        let plausible = |ns: f64| ns > 0.0 && ns < 100_000.0;
        let rows = self.rows.iter().filter(|row| !plausible(row.ns.median));
        let mut found: Vec<_> = rows
            .map(|row| format!("packet {} × {}, {}: {} ns", row.case, row.flows, row.family, row.ns.median))
            .collect();
        if !plausible(self.empty_ns.median) {
            found.push(format!("packet, empty program: {} ns", self.empty_ns.median));
        }
        found.extend(
            CASES
                .iter()
                .filter(|case| self.rows.iter().all(|row| row.case != case.name))
                .map(|case| format!("packet {}: not measured", case.name)),
        );
        found.extend(self.shape.implausible());
        found
    }
}
