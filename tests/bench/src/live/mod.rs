//! Packets a second that really cross veth pairs, by test runs with live frames.
//!
//! A live test run does with each frame what the program decides, so this measures the program together with the
//! kernel's redirect and the receiving end's ring, but without a sender's copies. Every program stands behind the
//! [`wrapper`](crate::packet::wrapper), the empty ones too; the wrapper's own part shows in the row without it. Only what the
//! far ends have counted is taken as sent.
//!
//! Another balancer's program, built elsewhere, is measured beside as [`packet`](crate::packet::peer) does it: those of its
//! cases that send IPv4 frames back.

mod field;

use std::{
    fmt::Write as _,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};
use lb_common::abi::Link;
use lb_lab::signals;
use lb_tests::kernel::{Action, Family, Kernel, NAT_PORTS, OWN_MAC, backend_mac};
use serde::Serialize;

use self::field::Field;
use crate::{
    packet::{
        cases::{BACKENDS, CASES, Counts, Script},
        peer::Manifest,
        syscall::Live,
        wrapper::{self, Wrapper},
    },
    statistics::Spread,
};

/// Of each CPU.
const FLOWS: u32 = 1_024;
const MAX_FLOWS: u32 = 16_384;
const MOST_CPUS: usize = 2;
/// Of an empty redirect, on one CPU: what the specification promises.
const PROMISED: f64 = 0.8;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) repetitions: u32,
    /// Of each measurement and CPU.
    pub(crate) frames: u32,
}

impl Plan {
    pub(crate) const FULL: Self = Self { repetitions: 9, frames: 1 << 20 };
    pub(crate) const SMOKE: Self = Self { repetitions: 1, frames: 1 << 16 };
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) flows_of_each_cpu: u32,
    pub(crate) rows: Vec<Row>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) cpus: usize,
    /// Millions of frames a second that arrived; of frames that never leave, that were dropped.
    pub(crate) mpps: Spread,
    /// To the empty redirect in the same repetition.
    pub(crate) to_redirect: Spread,
    /// Of another balancer's row: ours of the same frames, to it.
    pub(crate) ours: Option<Versus>,
    /// Least part of the frames that arrived.
    pub(crate) crossed: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Versus {
    pub(crate) what: &'static str,
    /// In the same repetition.
    pub(crate) to_it: Spread,
}

/// One program, ready to run on each CPU.
struct Entrant {
    what: String,
    program: Program,
    /// Which device the frames seem to come by.
    ingress: u32,
    /// The counters of the program for each frame; `None`: it is not ours.
    counts: Option<Counts>,
    /// Whether frames leave at all.
    leaves: bool,
    /// Ours that another balancer's is compared with.
    versus: Option<&'static str>,
}

enum Program {
    /// For each CPU one, with connections of its own.
    Wrapped(Vec<Wrapper>),
    Bare(OwnedFd, Vec<u8>),
}

impl Program {
    fn on(&self, cpus: usize) -> Vec<Live<'_>> {
        match self {
            Self::Wrapped(wrappers) => wrappers.iter().take(cpus).map(Wrapper::live).collect(),
            Self::Bare(program, frame) => vec![Live { program: program.as_fd(), frame }; cpus],
        }
    }
}

const DROP: &str = "empty program, XDP_DROP";
const TX: &str = "empty program, XDP_TX";
const REDIRECT: &str = "empty program, XDP_REDIRECT";
const ACK: &str = "Shunt, client to backend, no payload";
const REQUEST: &str = "Shunt, client to backend, pipelined requests";
const REPLY: &str = "Shunt, backend to client";

/// `object`: of another balancer.
pub(crate) fn run(plan: Plan, object: Option<&Path>) -> Result<Report> {
    let available = std::thread::available_parallelism().context("counting CPUs")?.get();
    let most = available.min(MOST_CPUS);
    let field = Field::new(most)?;
    let mut kernel = field.node.enter(|| Kernel::with(BACKENDS, NAT_PORTS, MAX_FLOWS))?;
    for id in 0..BACKENDS {
        kernel.next_hop(id, Link::new(backend_mac(id), OWN_MAC), field.backend);
    }
    // The way back to the clients.
    kernel.come_by(field.client);
    let mut entrants = field.node.enter(|| entrants(&field, &mut kernel, most))??;
    let manifest = object.map(Manifest::read).transpose()?;
    let peer = object.zip(manifest.as_ref()).map(|(path, manifest)| manifest.load(path, Family::V4));
    let peer = peer.transpose()?;
    for case in manifest.iter().flat_map(|manifest| &manifest.cases) {
        let versus = [("ack", ACK), ("request", REQUEST), ("reply", REPLY)];
        let versus = versus.into_iter().find(|(name, _)| *name == case.versus);
        if let (Some(peer), Some((_, versus))) = (&peer, versus)
            && case.is_of(Family::V4)
            && Action::new(case.action) == Action::Tx
        {
            let program = Program::Wrapped(peer.live(case, FLOWS, most)?);
            let what = format!("peer, {}", case.name);
            let (ingress, counts, leaves) = (field.client, None, true);
            entrants.push(Entrant { what, program, ingress, counts, leaves, versus: Some(versus) });
        }
    }
    let mut rows = Vec::new();
    for cpus in 1..=most {
        rows.extend(measure(plan, &field, &mut kernel, &entrants, cpus)?);
    }
    Ok(Report { flows_of_each_cpu: FLOWS, rows })
}

fn entrants(field: &Field, kernel: &mut Kernel, cpus: usize) -> Result<Vec<Entrant>> {
    let flows = FLOWS * cpus.next_power_of_two() as u32;
    let mut prepare = |name| {
        let case = CASES.iter().find(|case| case.name == name).expect("there is such a case");
        (case.script)(kernel, flows)
    };
    let (ack, request, reply) = (prepare("ack")?, prepare("request")?, prepare("reply")?);
    let [drop, tx, redirect] =
        [wrapper::dropping()?, wrapper::transmitting()?, wrapper::redirecting(field.backend)?];
    let shunt = kernel.program().fd()?.as_fd();
    let entrant = |what: &str, program: BorrowedFd<'_>, script: &Script, ingress, counts| {
        let program = Program::Wrapped(wrappers(program, script, cpus)?);
        anyhow::Ok(Entrant { what: what.into(), program, ingress, counts, leaves: true, versus: None })
    };
    let entrants = [
        Entrant { leaves: false, ..entrant(DROP, drop.as_fd(), &request, field.client, None)? },
        entrant(TX, tx.as_fd(), &request, field.client, None)?,
        entrant(REDIRECT, redirect.as_fd(), &request, field.client, None)?,
        entrant(ACK, shunt, &ack, field.client, Some(ack.counts))?,
        entrant(REQUEST, shunt, &request, field.client, Some(request.counts))?,
        entrant(REPLY, shunt, &reply, field.backend, Some(reply.counts))?,
        Entrant {
            what: "XDP_REDIRECT without the wrapper".into(),
            program: Program::Bare(redirect, request.frame.bytes()),
            ingress: field.client,
            counts: None,
            leaves: true,
            versus: None,
        },
    ];
    Ok(entrants.into())
}

fn wrappers(program: BorrowedFd<'_>, script: &Script, cpus: usize) -> Result<Vec<Wrapper>> {
    let parts = script.records.chunks(FLOWS as usize).take(cpus);
    let wrappers = parts.map(|records| {
        let mut wrapper = Wrapper::new(program, Family::V4)?;
        wrapper.play(records, &script.frame)?;
        Ok(wrapper)
    });
    wrappers.collect()
}

fn measure(
    plan: Plan,
    field: &Field,
    kernel: &mut Kernel,
    entrants: &[Entrant],
    cpus: usize,
) -> Result<Vec<Row>> {
    let mut rates = vec![Vec::new(); entrants.len()];
    let mut crossed = vec![1.0f64; entrants.len()];
    for number in 1..=plan.repetitions {
        eprintln!("live: {number} of {}, {cpus} CPUs", plan.repetitions);
        for (place, entrant) in entrants.iter().enumerate() {
            if signals::interrupted() {
                bail!("interrupted");
            }
            let before = Counts::read(kernel);
            let sent = field.send(&entrant.program.on(cpus), plan.frames, entrant.ingress);
            let sent = sent.with_context(|| entrant.what.clone())?;
            if let Some(counts) = entrant.counts {
                // The first replies to requests of another measurement have heads, too.
                let forwarded = |counts: Counts| (counts.to_backend, counts.to_client);
                let counted = forwarded(Counts::read(kernel).since(before));
                let expected = forwarded(counts.times(u64::from(plan.frames) * cpus as u64));
                ensure!(counted == expected, "{}: counted {counted:?}, not {expected:?}", entrant.what);
            }
            let arrived = if entrant.leaves { sent.crossed } else { 1.0 };
            rates[place].push(sent.per_second * arrived / 1e6);
            crossed[place] = crossed[place].min(sent.crossed);
        }
    }
    let rates_of = |what| {
        let place = entrants.iter().position(|entrant| entrant.what == what).expect("it is entered");
        &rates[place]
    };
    let rows = entrants.iter().enumerate().map(|(place, entrant)| {
        let ratios =
            |own: &[f64], base: &[f64]| Spread::of(own.iter().zip(base).map(|(own, base)| own / base));
        let ours = match entrant.versus {
            Some(what) => Some(Versus { what, to_it: ratios(rates_of(what), &rates[place])? }),
            None => None,
        };
        Some(Row {
            what: entrant.what.clone(),
            cpus,
            mpps: Spread::of(rates[place].iter().copied())?,
            to_redirect: ratios(&rates[place], rates_of(REDIRECT))?,
            ours,
            crossed: crossed[place],
        })
    });
    rows.collect::<Option<_>>().context("no repetitions")
}

impl Report {
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let mut line = |line: String| writeln!(text, "{line}").expect("a string takes everything");
        line(format!(
            "live: millions of frames a second that crossed a veth pair, {} connections on each CPU;\n\
             promised on one CPU: at least {PROMISED} × an empty redirect",
            self.flows_of_each_cpu
        ));
        line(format!(
            "  {:<42} {:>4} {:>8} {:>12}   {:>11}  {:>7}",
            "", "CPUs", "Mpps", "least..most", "× redirect", "arrived"
        ));
        for row in &self.rows {
            line(format!(
                "  {:<42} {:>4} {:>8.2} {:>12}   {:>11.2}  {:>6.1}%",
                row.what,
                row.cpus,
                row.mpps.median,
                format!("{:.2}..{:.2}", row.mpps.least, row.mpps.most),
                row.to_redirect.median,
                row.crossed * 100.0
            ));
        }
        for row in &self.rows {
            if let Some(Versus { what, to_it: Spread { median, least, most, .. } }) = &row.ours {
                let cpus = row.cpus;
                line(format!("  {what} ÷ {}, {cpus} CPUs: {median:.2} ({least:.2}..{most:.2})", row.what));
            }
        }
        text
    }

    /// Why the promise does not hold.
    pub(crate) fn broken_promise(&self) -> Option<String> {
        let ours =
            self.rows.iter().filter(|row| row.cpus == 1 && [ACK, REQUEST, REPLY].contains(&&*row.what));
        let slow = ours.filter(|row| row.to_redirect.median < PROMISED);
        let lines: Vec<_> =
            slow.map(|row| format!("{}: {:.2} × redirect", row.what, row.to_redirect.median)).collect();
        (!lines.is_empty()).then(|| format!("live: {}; promised is at least {PROMISED}", lines.join(", ")))
    }

    /// Numbers that cannot be true.
    pub(crate) fn implausible(&self) -> Vec<String> {
        let mut found = Vec::new();
        for row in &self.rows {
            if !(0.01..1_000.0).contains(&row.mpps.median) {
                found.push(format!("live, {}: {} Mpps", row.what, row.mpps.median));
            }
        }
        found
    }
}
