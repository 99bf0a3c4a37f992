//! Requests through Shunt and beside it: how many, how late, and what each costs the CPUs.
//!
//! Repetitions are interleaved and each measurement has namespaces of its own: connections that linger in
//! `TIME_WAIT` would stall the next peer. Rates flip between levels, so only ratios inside a repetition, or of the best
//! repetitions, are worth comparing. A closed loop saturates; latency and cost come from a fixed rate.

mod goals;
mod open;
mod pattern;
mod report;
mod row;
mod table;
mod wrk;

use std::{fs::File, path::Path, thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use lb_lab::{Host, Lab, Process, signals};
use lb_tests::lab::nginx;

use self::pattern::{Demand, LARGE, PATTERNS, Pattern};
pub(crate) use self::report::Report;
use crate::peers::{self, Peer, Rig};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) repetitions: u32,
    /// Of each measurement.
    pub(crate) span: Duration,
    /// All patterns of a peer in one lab, at once and several peers at a time: shows that each works, and measures nothing.
    pub(crate) at_once: bool,
    /// Bytes of a bulk body.
    pub(crate) body: u64,
}

impl Plan {
    pub(crate) const FULL: Self =
        Self { repetitions: 3, span: Duration::from_secs(3), at_once: false, body: 10 << 20 };
    // Many at a time would not finish a body of that length within a second.
    pub(crate) const SMOKE: Self =
        Self { repetitions: 1, span: Duration::from_secs(1), at_once: true, body: 64 << 10 };
}

/// The bases that others are compared with; they are always there. The first is the one of the costs.
const BASES: &[Peer] = &[Peer::Direct, Peer::Routing];
/// All peers, in the order of the tables.
pub(crate) const PEERS: &[Peer] = &[
    Peer::Direct,
    Peer::Routing,
    Peer::Nftables,
    Peer::HaproxyTcp,
    Peer::HaproxyHttp,
    Peer::NginxStream,
    Peer::EnvoyTcp,
    Peer::EnvoyHttp,
    Peer::Traefik,
    Peer::Nat,
    Peer::NatNoEvidence,
    Peer::Dnat,
    Peer::DnatNoEvidence,
];
const BACKENDS: [&str; 2] = ["web0", "web1"];

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    /// Requests a second that were answered well.
    rate: f64,
    /// The bits that came back, with heads; 0 at a fixed rate.
    gbits: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// CPU time of the whole machine for a request, at a fixed rate only.
    cpu_us: Option<f64>,
    /// The part of the CPUs' time that was left, 0 to 1.
    idle: f64,
    /// The part of the CPUs' time that others took just before.
    background: f64,
    errors: u64,
}

/// By pattern, then by peer, then by repetition.
type Samples = Vec<Vec<Vec<Sample>>>;

/// Facts that are the same for all.
#[derive(Clone, Debug, Default)]
struct Facts {
    offloads: String,
    xdp: Option<String>,
}

/// `chosen` narrows the peers down; the bases stay.
pub(crate) fn run(plan: Plan, chosen: Option<&[Peer]>, shunt: &Path) -> Result<Report> {
    let wanted = |peer: &&Peer| BASES.contains(peer) || chosen.is_none_or(|chosen| chosen.contains(peer));
    let wanted: Vec<_> = PEERS.iter().filter(wanted).copied().collect();
    let peers = Peer::installed(&wanted);
    let mut facts = Facts::default();
    let samples = if plan.at_once {
        at_once(plan, &peers, shunt, &mut facts)?
    } else {
        in_turn(plan, &peers, shunt, &mut facts)?
    };
    report::report(plan, &peers, &samples, facts).context("no repetitions")
}

fn in_turn(plan: Plan, peers: &[Peer], shunt: &Path, facts: &mut Facts) -> Result<Samples> {
    let mut samples = vec![vec![Vec::new(); peers.len()]; PATTERNS.len()];
    for repetition in 0..plan.repetitions as usize {
        for (pattern, samples) in PATTERNS.iter().zip(&mut samples) {
            for turn in 0..peers.len() {
                // Nobody is always the first.
                let number = (turn + repetition) % peers.len();
                let peer = peers[number];
                eprintln!(
                    "http: {} of {}: {}, {}",
                    repetition + 1,
                    plan.repetitions,
                    peer.name(),
                    pattern.name
                );
                let rig = rig(peer, plan.body, shunt, facts)?;
                samples[number].push(measure(&rig, peer, pattern, plan.span)?);
            }
        }
    }
    Ok(samples)
}

/// So many peers at a time, which takes two CPUs to their limit.
const TOGETHER: usize = 4;

fn at_once(plan: Plan, peers: &[Peer], shunt: &Path, facts: &mut Facts) -> Result<Samples> {
    let mut samples = vec![Vec::new(); PATTERNS.len()];
    for together in peers.chunks(TOGETHER) {
        let outcomes: Vec<Result<(Facts, Vec<Sample>)>> = thread::scope(|scope| {
            let work = |peer: Peer| {
                move || {
                    eprintln!("http: {}", peer.name());
                    let mut facts = Facts::default();
                    let rig = rig(peer, plan.body, shunt, &mut facts)?;
                    Ok((facts, all(&rig, peer, plan.span)?))
                }
            };
            let threads: Vec<_> = together.iter().map(|peer| scope.spawn(work(*peer))).collect();
            threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
        });
        for outcome in outcomes {
            let (seen, measured) = outcome?;
            facts.agree(seen)?;
            for (samples, sample) in samples.iter_mut().zip(measured) {
                samples.push(vec![sample]);
            }
        }
    }
    Ok(samples)
}

/// All patterns at the same time.
fn all(rig: &Rig<Vec<Process>>, peer: Peer, span: Duration) -> Result<Vec<Sample>> {
    thread::scope(|scope| {
        let work = |pattern| scope.spawn(move || measure(rig, peer, pattern, span));
        let threads: Vec<_> = PATTERNS.iter().map(work).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    })
}

fn rig(peer: Peer, body: u64, shunt: &Path, facts: &mut Facts) -> Result<Rig<Vec<Process>>> {
    if signals::interrupted() {
        bail!("interrupted");
    }
    let rig = Rig::new(peer, &BACKENDS, peers::vip().port(), shunt, |lab, hosts| serve(lab, hosts, body))?;
    facts.agree(Facts { offloads: rig.offloads()?, xdp: rig.attached()? })?;
    Ok(rig)
}

impl Facts {
    fn agree(&mut self, seen: Self) -> Result<()> {
        ensure!(
            self.offloads.is_empty() || self.offloads == seen.offloads,
            "peers differ in their links: {} and {}",
            self.offloads,
            seen.offloads
        );
        *self = Self { offloads: seen.offloads, xdp: seen.xdp.or(self.xdp.take()) };
        Ok(())
    }
}

fn measure(rig: &Rig<Vec<Process>>, peer: Peer, pattern: &Pattern, span: Duration) -> Result<Sample> {
    let sample = match pattern.demand {
        Demand::Closed { connections, close, path } => {
            let url = format!("http://{}{path}", peers::vip());
            wrk::run(&rig.client, &url, connections, close, span.as_secs().max(1) as u32)
        }
        Demand::Open { rate, workers, connections } => {
            open::run(&rig.client, peers::vip().into(), (rate, workers, connections), span)
        }
    };
    sample.with_context(|| format!("http {} {}", peer.name(), pattern.name))
}

/// nginx of one worker on each, with a short page and a long one.
fn serve(lab: &Lab, hosts: &[Host], body: u64) -> Result<Vec<Process>> {
    let file = lab.folder().join("large");
    let made = File::create(&file).and_then(|file| file.set_len(body));
    made.with_context(|| format!("making {}", file.display()))?;
    let server = format!(
        "sendfile on; tcp_nopush on; server {{ listen 80 backlog=4096; \
         location = {LARGE} {{ alias {}; }} location / {{ return 200 'served\\n'; }} }}",
        file.display()
    );
    let here = "127.0.0.1:80".parse().expect("an address");
    hosts.iter().map(|host| Ok(nginx(lab, host, here, &server)?)).collect()
}
