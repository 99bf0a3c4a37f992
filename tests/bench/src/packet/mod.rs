//! Nanoseconds a packet, by `BPF_PROG_TEST_RUN`: what the program costs, without network, driver and copies.
//!
//! Each case plays frames of many connections through the program and, in turn, through an empty one, both
//! behind the same [`wrapper`]; the difference is the program's. Chunks of the two alternate, so that whatever
//! else disturbs the machine disturbs both.
//!
//! One file because the plan, the turns and the report of one measurement are read together.

mod assembly;
pub(crate) mod cases;
pub(crate) mod peer;
mod shape;
pub(crate) mod syscall;
pub(crate) mod wrapper;

use std::{
    fmt::Write as _,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};
use lb_lab::signals;
use lb_tests::kernel::{Action, Family, Kernel, NAT_PORTS, in_family};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use serde::Serialize;

use self::{
    assembly::Helper,
    cases::{BACKENDS, CASES, Case, Counts, Script},
    peer::{Manifest, Peer},
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
    pub(crate) const SMOKE: Self = Self { repetitions: 1, chunks: 2, most_flows: 1 };

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
    /// A call of the exact and of the coarse clock: what helpers cost on this kernel, and what evidence cannot do without.
    pub(crate) clock_ns: Spread,
    pub(crate) coarse_clock_ns: Spread,
    pub(crate) rows: Vec<Row>,
    pub(crate) peer: Vec<Versus>,
}

/// A case of a peer beside one of ours, in turns.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Versus {
    pub(crate) case: String,
    pub(crate) versus: &'static str,
    pub(crate) family: &'static str,
    pub(crate) flows: u32,
    pub(crate) peer_ns: Spread,
    pub(crate) ns: Spread,
    /// Ours to the peer's, in the same repetition.
    pub(crate) ratio: Spread,
}

/// One kind of packet over so many connections.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) case: &'static str,
    pub(crate) what: &'static str,
    pub(crate) family: &'static str,
    pub(crate) flows: u32,
    /// Nanoseconds a packet, or for both of an exchange; over repetitions.
    pub(crate) ns: Spread,
    /// The cost of the wrapper around the empty program, which is subtracted already.
    pub(crate) wrapper_ns: f64,
}

/// `only`: the names of the cases to measure; empty: all. `peer`: the file that says what another program is, and
/// what to play.
pub(crate) fn run(plan: Plan, only: &[String], peer: Option<&Path>) -> Result<Report> {
    let unknown = only.iter().find(|name| CASES.iter().all(|case| case.name != name.as_str()));
    if let Some(name) = unknown {
        let known: Vec<_> = CASES.iter().map(|case| case.name).collect();
        bail!("no case is called {name}; known are {}", known.join(", "));
    }
    let wanted = |case: &&Case| only.is_empty() || only.iter().any(|name| name == case.name);
    let _pinned = Pinned::to_last_cpu().context("staying on one CPU")?;
    let peer = peer.map(|path| Ok::<_, anyhow::Error>((path, Manifest::read(path)?))).transpose()?;
    let mut rows: Vec<Row> = Vec::new();
    let mut versus = Vec::new();
    let mut first = None;
    for family in [Family::V4, Family::V6] {
        in_family(family, || -> Result<()> {
            let mut bench = Bench::new(family)?;
            if first.is_none() {
                let clocks =
                    [Helper::KtimeGetNs, Helper::KtimeGetCoarseNs].map(|clock| bench.call(plan, clock));
                let [clock, coarse_clock] = clocks;
                first =
                    Some((shape::read(bench.kernel.program())?, bench.empty(plan)?, clock?, coarse_clock?));
            }
            let name = name(family);
            for case in CASES.iter().filter(wanted) {
                for flows in case.flows.iter().copied().filter(|flows| plan.includes(case, *flows)) {
                    eprintln!("packet: {} × {flows}, {name}", case.name);
                    let measured = bench.case(case, name, flows, plan);
                    let context = || format!("packet {} over {flows} flows, {name}", case.name);
                    rows.push(measured.with_context(context)?);
                }
            }
            if let Some((path, manifest)) = &peer {
                versus.extend(bench.peer(manifest, path, family, plan)?);
            }
            Ok(())
        })?;
    }
    let (shape, empty_ns, clock_ns, coarse_clock_ns) = first.context("no family was measured")?;
    Ok(Report { shape, empty_ns, clock_ns, coarse_clock_ns, rows, peer: versus })
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

    /// A call of a helper.
    fn call(&self, plan: Plan, helper: Helper) -> Result<Spread> {
        const TIMES: u32 = 16;
        let calling = wrapper::calling(helper, TIMES)?;
        let mut values = Vec::new();
        for _ in 0..plan.repetitions {
            let each = |_| {
                let (calls, empty) =
                    (wrapper::bare(&calling, EMPTY_PASSES)?, wrapper::bare(&self.empty, EMPTY_PASSES)?);
                Ok((calls - empty) / f64::from(TIMES))
            };
            values.extend(middle_mean((0..plan.chunks).map(each).collect::<Result<Vec<_>>>()?));
        }
        Spread::of(values).context("no repetitions")
    }

    fn case(&mut self, case: &Case, family: &'static str, flows: u32, plan: Plan) -> Result<Row> {
        let mut run = self.begin(case, flows)?;
        let (mut values, mut wrapper) = (Vec::new(), Vec::new());
        for _ in 0..plan.repetitions {
            let mut pairs = Vec::new();
            for _ in 0..plan.chunks {
                pairs.push(self.pair(case, &mut run)?);
            }
            let of = |side: fn(&(f64, f64)) -> f64| middle_mean(pairs.iter().map(side)).context("no chunks");
            let (program_ns, empty_ns) = (of(|pair| pair.0)?, of(|pair| pair.1)?);
            values.push((program_ns - empty_ns) * f64::from(run.script.each));
            wrapper.push(empty_ns);
        }
        self.end(&run)?;
        Ok(Row {
            case: case.name,
            what: case.what,
            family,
            flows,
            ns: Spread::of(values).context("no repetitions")?,
            wrapper_ns: Spread::of(wrapper).context("no repetitions")?.median,
        })
    }

    /// Each case of a peer in turns with the case of ours that it is held against.
    fn peer(&mut self, manifest: &Manifest, path: &Path, family: Family, plan: Plan) -> Result<Vec<Versus>> {
        let mut found = Vec::new();
        for theirs in manifest.cases.iter().filter(|case| case.is_of(family)) {
            let ours = CASES.iter().find(|case| case.name == theirs.versus);
            let ours = ours.with_context(|| format!("no case {}", theirs.versus))?;
            for flows in theirs.flows.iter().copied().filter(|flows| plan.includes(ours, *flows)) {
                eprintln!("packet: {} × {flows}, {}, beside {}", theirs.name, name(family), ours.name);
                // Each with tables of its own, as empty as ours.
                let mut peer = manifest.load(path, family)?;
                let measured = self.versus((ours, &mut peer, theirs), name(family), flows, plan);
                found.push(measured.with_context(|| format!("peer, {}", theirs.name))?);
            }
        }
        Ok(found)
    }

    fn versus(
        &mut self,
        (ours, peer, theirs): (&'static Case, &mut Peer, &peer::Case),
        family: &'static str,
        flows: u32,
        plan: Plan,
    ) -> Result<Versus> {
        peer.prepare(theirs, flows, ours.passes)?;
        let mut run = self.begin(ours, flows)?;
        ensure!(run.script.each == 1, "{} is more than a packet", ours.name);
        let mut values: [Vec<f64>; 3] = Default::default();
        for _ in 0..plan.repetitions {
            let (mut here, mut there) = (Vec::new(), Vec::new());
            for _ in 0..plan.chunks {
                let (program_ns, empty_ns) = self.pair(ours, &mut run)?;
                here.push(program_ns - empty_ns);
                there.push(peer.run(theirs, ours.passes)?);
            }
            let (here, there) = (middle_mean(here), middle_mean(there));
            let (here, there) = here.zip(there).context("no chunks")?;
            for (values, value) in values.iter_mut().zip([here, there, here / there]) {
                values.push(value);
            }
        }
        self.end(&run)?;
        let [ns, peer_ns, ratio] = values.map(Spread::of);
        let (case, versus) = (theirs.name.clone(), ours.name);
        let context = "no repetitions";
        Ok(Versus {
            case,
            versus,
            family,
            flows,
            peer_ns: peer_ns.context(context)?,
            ns: ns.context(context)?,
            ratio: ratio.context(context)?,
        })
    }

    /// Prepares the maps, and plays everything once, so that caches and tables are as they will be.
    fn begin(&mut self, case: &Case, flows: u32) -> Result<Run> {
        self.kernel.forget_connections();
        let script = (case.script)(&mut self.kernel, flows)?;
        self.around_program.play(&script.records, &script.frame)?;
        self.around_empty.play(&script.records, &script.frame)?;
        let mut run = Run { before: Counts::read(&mut self.kernel), script, passes: 0 };
        for _ in 0..=(run.script.records.len() as u32 / case.passes) {
            self.pair(case, &mut run)?;
        }
        Ok(run)
    }

    /// That what was measured is what the case is named for, the program's own counters say.
    fn end(&mut self, run: &Run) -> Result<()> {
        let counted = Counts::read(&mut self.kernel).since(run.before);
        let expected = run.script.counts.times(run.passes / u64::from(run.script.each));
        ensure!(
            counted == expected,
            "another path was measured: the program counted {counted:?}, not {expected:?}"
        );
        Ok(())
    }

    /// One chunk around each program: nanoseconds a pass.
    fn pair(&mut self, case: &Case, run: &mut Run) -> Result<(f64, f64)> {
        if signals::interrupted() {
            bail!("interrupted");
        }
        let script = &run.script;
        let (empty_ns, action) = self.around_empty.run(case.passes)?;
        ensure!(action == Action::Pass, "the empty program came to {action:?}");
        let (program_ns, action) = self.around_program.run(case.passes)?;
        ensure!(action == script.action, "the last frame came to {action:?}, not {:?}", script.action);
        run.passes += u64::from(case.passes);
        if script.counts.heads > 0 {
            self.kernel.forget_heads();
        }
        if case.room {
            self.kernel.forget_handshakes();
        }
        Ok((program_ns, empty_ns))
    }
}

/// A case under way.
struct Run {
    script: Script,
    before: Counts,
    passes: u64,
}

/// Keeps the thread on one CPU as long as it lives.
pub(crate) struct Pinned(CpuSet);

impl Pinned {
    pub(crate) fn to_last_cpu() -> nix::Result<Self> {
        Self::to_cpu_from_last(0)
    }

    /// 0: the last of those that it may use, 1: the one before …; the first, when there are not so many.
    pub(crate) fn to_cpu_from_last(number: usize) -> nix::Result<Self> {
        let this = Pid::from_raw(0);
        let before = sched_getaffinity(this)?;
        let mut allowed = (0..CpuSet::count()).rev().filter(|cpu| before.is_set(*cpu).unwrap_or(false));
        let mut one = CpuSet::new();
        one.set(allowed.nth(number).unwrap_or(0))?;
        sched_setaffinity(this, &one)?;
        Ok(Self(before))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // It was allowed before. If not, what is measured next shares one CPU, and its numbers mean nothing.
        if let Err(error) = sched_setaffinity(Pid::from_raw(0), &self.0) {
            eprintln!("this thread stays on one CPU: {error}");
        }
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
        line(row("a call of the exact clock, alone", "-", "-", &self.clock_ns));
        line(row("a call of the coarse clock, alone", "-", "-", &self.coarse_clock_ns));
        for measured in &self.rows {
            line(row(measured.what, measured.family, &measured.flows.to_string(), &measured.ns));
        }
        if !self.peer.is_empty() {
            line("packet, a peer beside ours, in turns:".to_owned());
            line(format!(
                "  {:<26} {:>6} {:>7} {:>8}   {:<18} {:>8} {:>8}   {}",
                "", "", "flows", "ns", "ours", "ns", "ratio", "least..most"
            ));
        }
        for row in &self.peer {
            line(format!(
                "  {:<26} {:>6} {:>7} {:>8.1}   {:<18} {:>8.1} {:>8.2}   {:.2}..{:.2}",
                row.case,
                row.family,
                row.flows,
                row.peer_ns.median,
                row.versus,
                row.ns.median,
                row.ratio.median,
                row.ratio.least,
                row.ratio.most
            ));
        }
        line(String::new());
        line(self.shape.table());
        text
    }

    /// Numbers that cannot be true.
    pub(crate) fn implausible(&self) -> Vec<String> {
        let plausible = |ns: f64| ns > 0.0 && ns < 100_000.0;
        let rows = self.rows.iter().filter(|row| !plausible(row.ns.median));
        let mut found: Vec<_> = rows
            .map(|row| format!("packet {} × {}, {}: {} ns", row.case, row.flows, row.family, row.ns.median))
            .collect();
        for (what, ns) in [("empty program", self.empty_ns), ("the clock", self.clock_ns)] {
            if !plausible(ns.median) {
                found.push(format!("packet, {what}: {} ns", ns.median));
            }
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
