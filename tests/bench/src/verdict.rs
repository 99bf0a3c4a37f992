//! From the third bad response to the moment when no new connection reaches its backend.
//!
//! Four scripted backends get 200 new connections a second. One of them turns bad and is ejected; later it
//! is healed, comes back through its trials, and the next one turns bad. Each ejection is measured twice:
//! by the daemon itself, from the moment at which its program saw the deciding response; and from outside, where the
//! backend's and the client's stamps enclose that moment. All clocks are `CLOCK_MONOTONIC`. [`beside`] puts other
//! balancers before the same fault.
//!
//! One file because one ejection is followed from the failing response to the table in force.

pub(crate) mod beside;
mod server;
mod swaps;

use std::{fmt::Write as _, path::Path, thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use lb_core::event::{Event, EventKind};
use lb_lab::{
    Events, Heard, Shunt, Topology,
    backend::{self, Remote},
    clock, signals, until, until_ok,
};
use lb_tests::{
    lab::{at, connects},
    load::{Connections, Load, Sample},
};
use serde::Serialize;

use self::swaps::Swaps;
use crate::{peers::Peer, statistics::Spread};

const BACKENDS: [&str; 4] = ["app0", "app1", "app2", "app3"];
const VIP: &str = "203.0.113.10:80";
const PORT: u16 = 8080;
const RATE: u64 = 200;
const WORKERS: usize = 4;
/// So many bad responses in a row eject.
const THRESHOLD: usize = 3;
const PATIENCE: Duration = Duration::from_secs(15);
/// From the third bad response leaving its backend until another table is in force: what the specification promises.
const MEDIAN_US: f64 = 1_000.0;
const WORST_US: f64 = 10_000.0;
/// How long the silence after an announcement is watched: less than an ejection lasts.
const WATCHED: Duration = Duration::from_millis(600);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) ejections: u32,
    /// Of each peer.
    pub(crate) beside: u32,
}

impl Plan {
    pub(crate) const FULL: Self = Self { ejections: 100, beside: 20 };
    pub(crate) const SMOKE: Self = Self { ejections: 1, beside: 1 };
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) ejections: u32,
    pub(crate) new_connections_per_second: u64,
    pub(crate) backends: usize,
    /// From the third bad response, as the program saw it, to the first map write in force, in microseconds: from
    /// then on no new connection begins there.
    pub(crate) seen_to_first_write_us: Spread,
    /// To the return of the table swap: from then on no packet is steered by the former table any more.
    pub(crate) seen_to_swap_us: Spread,
    /// From the same response leaving the backend. At most, because the moment at which the program saw it is taken
    /// to be the one at which the client had read it.
    pub(crate) left_to_first_write_us: Spread,
    /// To the moment at which the kernel's map was seen to have another table: from then on its share belongs to the others.
    pub(crate) left_to_table_us: Spread,
    pub(crate) left_to_swap_us: Spread,
    /// To the moment at which a reader of `shunt events` had the announcement.
    pub(crate) left_to_announced_us: Spread,
    /// Bad responses that clients got, for one ejection.
    pub(crate) client_errors: Spread,
    pub(crate) offered_after: u64,
    pub(crate) reached_after: u64,
    pub(crate) runs: Vec<Ejection>,
    pub(crate) beside: Vec<beside::Row>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Ejection {
    pub(crate) backend: &'static str,
    pub(crate) seen_to_first_write_us: u64,
    pub(crate) seen_to_swap_us: u64,
    /// From the backend's stamp to the client's.
    pub(crate) left_to_client_us: u64,
    pub(crate) left_to_table_us: u64,
    pub(crate) left_to_announced_us: u64,
    pub(crate) client_errors: u64,
    /// Connections that clients began after the announcement, while it was watched.
    pub(crate) offered_after: u64,
    /// Of these, those that the ejected backend answered.
    pub(crate) answered_after: u64,
    /// Connections that the ejected backend accepted after the announcement.
    pub(crate) accepted_after: u64,
    /// Of these, those that may have begun before it: answered by that backend, begun before and ended after.
    pub(crate) under_way: u64,
}

impl Ejection {
    /// New connections that reached the backend although its ejection had been announced.
    fn reached_after(&self) -> u64 {
        self.answered_after.max(self.accepted_after.saturating_sub(self.under_way))
    }
}

struct Bench {
    // Dropped in this order; the lab is the last to go.
    clients: Load,
    events: Events,
    swaps: Swaps,
    remotes: Vec<Remote>,
    shunt: Shunt,
    _topology: Topology,
}

/// `peers` narrows down the balancers beside Shunt; `None`: every one that looks at responses.
pub(crate) fn run(plan: Plan, peers: Option<&[Peer]>, shunt: &Path) -> Result<Report> {
    let runs = own(plan, shunt)?;
    let wanted = beside::PEERS.iter().filter(|peer| peers.is_none_or(|peers| peers.contains(peer)));
    let wanted: Vec<_> = wanted.copied().collect();
    let rows = beside::run(&wanted, plan.beside, shunt)?;
    report(runs, rows).context("no ejections")
}

fn own(plan: Plan, shunt: &Path) -> Result<Vec<Ejection>> {
    let mut bench = Bench::start(shunt)?;
    let mut runs = Vec::new();
    for number in 0..plan.ejections {
        eprintln!("verdict: ejection {} of {}", number + 1, plan.ejections);
        let backend = number as usize % BACKENDS.len();
        let last = number + 1 == plan.ejections;
        runs.push(bench.eject(backend, last).with_context(|| format!("ejection {}", number + 1))?);
    }
    Ok(runs)
}

fn report(runs: Vec<Ejection>, beside: Vec<beside::Row>) -> Option<Report> {
    let of = |value: fn(&Ejection) -> u64| Spread::of(runs.iter().map(|run| value(run) as f64));
    Some(Report {
        ejections: runs.len() as u32,
        new_connections_per_second: RATE,
        backends: BACKENDS.len(),
        seen_to_first_write_us: of(|run| run.seen_to_first_write_us)?,
        seen_to_swap_us: of(|run| run.seen_to_swap_us)?,
        left_to_first_write_us: of(|run| run.left_to_client_us + run.seen_to_first_write_us)?,
        left_to_table_us: of(|run| run.left_to_table_us)?,
        left_to_swap_us: of(|run| {
            // Nothing is announced before the swap.
            (run.left_to_client_us + run.seen_to_swap_us).min(run.left_to_announced_us)
        })?,
        left_to_announced_us: of(|run| run.left_to_announced_us)?,
        client_errors: of(|run| run.client_errors)?,
        offered_after: runs.iter().map(|run| run.offered_after).sum(),
        reached_after: runs.iter().map(Ejection::reached_after).sum(),
        runs,
        beside,
    })
}

impl Bench {
    fn start(binary: &Path) -> Result<Self> {
        let topology = Topology::new("verdict", &BACKENDS)?;
        topology.lab.pin_neighbours()?;
        let mut remotes = Vec::new();
        for (number, (host, name)) in topology.backends.iter().zip(BACKENDS).enumerate() {
            let args = backend::Args {
                listen: at(Topology::address(number), PORT),
                name: name.to_owned(),
                mode: backend::Mode::Ok,
                broken: 1.0,
                seed: 1,
                probe_path: "/healthz".to_owned(),
            };
            remotes.push(Remote::start(host, &binary.with_file_name("lab-backend"), &args)?);
        }
        let shunt = Shunt::start(&topology.lab, &topology.node, binary, &config(&topology))?;
        let events = shunt.events()?;
        let target = VIP.parse().context("the VIP")?;
        until_ok("the VIP answers", PATIENCE, || connects(&topology.client, target))?;
        let swaps = Swaps::watch(&shunt)?;
        let clients = Load::start(&topology.client, target, RATE, WORKERS, Connections::Each);
        Ok(Self { clients, events, swaps, remotes, shunt, _topology: topology })
    }

    /// Breaks a backend, watches it go and, unless it is the last time, heals it and waits until it is back.
    fn eject(&mut self, number: usize, last: bool) -> Result<Ejection> {
        let name = BACKENDS[number];
        let before = self.shunt.status()?.reactions.map_or(0, |reactions| reactions.count);
        let place = self.events.since(0).len();
        let broken = clock::now();
        self.remotes[number].fail()?;
        let is = |event: &Event, kind| event.kind == kind && event.backend.as_deref() == Some(name);
        let (announced, place) = self
            .events
            .wait("the ejection is announced", place, PATIENCE, |event| is(event, EventKind::Eject))?;
        let mut reactions = None;
        until("the daemon has measured its reaction", PATIENCE, || {
            reactions = self.shunt.status().ok().and_then(|status| status.reactions);
            reactions.is_some_and(|reactions| reactions.count > before)
        })?;
        let reactions = reactions.context("just seen")?;
        ensure!(reactions.count == before + 1, "{} ejections at once", reactions.count - before);

        let end = announced.at + WATCHED;
        thread::sleep(end.saturating_sub(clock::now()));
        if signals::interrupted() {
            bail!("interrupted");
        }
        let book = self.remotes[number].report(broken)?;
        let mut samples = self.clients.samples();
        samples.retain(|sample| sample.ended >= broken);
        if !last {
            self.remotes[number].heal()?;
            self.events.wait("it is readmitted", place, PATIENCE, |event| is(event, EventKind::Readmit))?;
        }

        let mut run = Ejection {
            seen_to_first_write_us: reactions.last_first_write_us,
            seen_to_swap_us: reactions.last_swap_us,
            ..outside(name, &announced, &book, &samples, &self.swaps)?
        };
        run.offered_after = samples.iter().filter(|sample| sample.begun >= announced.at).count() as u64;
        Ok(run)
    }
}

/// An ejection as the backend and the clients saw it.
fn outside(
    name: &'static str,
    announced: &Heard,
    book: &backend::Report,
    samples: &[Sample],
    swaps: &Swaps,
) -> Result<Ejection> {
    let mut bad: Vec<_> = book.failures.iter().map(|failure| Duration::from_nanos(failure.at_ns)).collect();
    bad.sort();
    let left = *bad.get(THRESHOLD - 1).context("the backend sent fewer bad responses than it takes")?;
    let table = swaps.since(left).context("the map has the same table as before")?;
    let deciding = announced.event.evidence.last.last().and_then(|seen| seen.client);
    let deciding = deciding.context("the event does not say whose response decided")?;
    let got = samples
        .iter()
        .find(|sample| sample.client == Some(deciding) && sample.answer == Ok(500))
        .and_then(|sample| sample.head_at)
        .context("the client knows nothing of the response that decided")?;
    let (after, before): (Vec<_>, Vec<_>) = samples
        .iter()
        .filter(|sample| sample.backend.as_deref() == Some(name))
        .partition(|sample| sample.begun >= announced.at);
    let accepted = book.clients().filter(|seen| Duration::from_nanos(seen.at_ns) > announced.at);
    Ok(Ejection {
        backend: name,
        seen_to_first_write_us: 0,
        seen_to_swap_us: 0,
        left_to_client_us: microseconds(got.saturating_sub(left)),
        left_to_table_us: microseconds(table - left),
        left_to_announced_us: microseconds(announced.at.saturating_sub(left)),
        client_errors: samples.iter().filter(|sample| sample.answer == Ok(500)).count() as u64,
        offered_after: 0,
        answered_after: after.len() as u64,
        accepted_after: accepted.count() as u64,
        under_way: before.iter().filter(|sample| sample.ended > announced.at).count() as u64,
    })
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).expect("a benchmark runs less than 500 000 years")
}

fn config(topology: &Topology) -> String {
    let backends: Vec<_> = BACKENDS
        .iter()
        .enumerate()
        .map(|(number, name)| format!("{name} = \"{}:{PORT}\"\n", Topology::address(number)))
        .collect();
    // An ejection lasts as long each time, and longer than it is watched. No probe: the backend would count its
    // connections among those of clients until it has read them.
    format!(
        "interfaces = {:?}\n[service.web]\nvip = \"{VIP}\"\n[service.web.backends]\n{}\
         [service.web.breaker]\nconsecutive_5xx = {THRESHOLD}\ninterval = \"500ms\"\n\
         base_ejection_time = \"1s\"\nmax_ejection_time = \"1s\"\n",
        topology.devices,
        backends.concat(),
    )
}

impl Report {
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let mut line = |line: String| writeln!(text, "{line}").expect("a string takes everything");
        line(format!(
            "verdict: {} ejections, {} new connections/s through {} backends of which one turns bad",
            self.ejections, self.new_connections_per_second, self.backends
        ));
        line(format!("  {:<66} {:>9} {:>9}", "", "median", "worst"));
        let rows = [
            ("3rd bad response seen by the program → first map write, µs", &self.seen_to_first_write_us),
            ("3rd bad response seen by the program → swap returned, µs", &self.seen_to_swap_us),
            (
                "3rd bad response left the backend → first map write, at most, µs",
                &self.left_to_first_write_us,
            ),
            ("3rd bad response left the backend → another table in force, µs", &self.left_to_table_us),
            ("3rd bad response left the backend → swap returned, at most, µs", &self.left_to_swap_us),
            ("3rd bad response left the backend → a reader has the event, µs", &self.left_to_announced_us),
            ("bad responses that clients got", &self.client_errors),
        ];
        for (what, spread) in rows {
            line(format!("  {what:<66} {:>9.0} {:>9.0}", spread.median, spread.most));
        }
        line(format!(
            "  connections begun after an announcement: {}; that reached the ejected backend: {}",
            self.offered_after, self.reached_after
        ));
        if !self.beside.is_empty() {
            line(String::new());
            line(beside::table(&self.beside));
        }
        text
    }

    /// Why the promises do not hold: once an ejection is announced, no new connection reaches that backend; and how soon.
    pub(crate) fn broken_promise(&self) -> Option<String> {
        let late: Vec<_> = self.runs.iter().filter(|run| run.reached_after() > 0).collect();
        if !late.is_empty() {
            return Some(format!(
                "verdict: new connections reached an ejected backend after the announcement: {late:?}"
            ));
        }
        let table = &self.left_to_table_us;
        (table.median > MEDIAN_US || table.most > WORST_US).then(|| {
            format!(
                "verdict: another table was in force {:.0} µs after the bad response in the median and {:.0} at worst; promised are {MEDIAN_US:.0} and {WORST_US:.0}",
                table.median, table.most
            )
        })
    }

    /// Numbers that cannot be true.
    pub(crate) fn implausible(&self) -> Vec<String> {
        let mut found = beside::implausible(&self.beside);
        for run in &self.runs {
            if run.seen_to_first_write_us == 0 || run.seen_to_first_write_us > run.seen_to_swap_us {
                found.push(format!("verdict: first write and swap are out of order: {run:?}"));
            }
            if run.seen_to_swap_us > 5_000_000 || run.left_to_announced_us > 5_000_000 {
                found.push(format!("verdict: it took seconds: {run:?}"));
            }
            if run.client_errors < THRESHOLD as u64 {
                found.push(format!("verdict: fewer errors than it takes: {run:?}"));
            }
            // Half of what was offered is enough of a proof on a busy machine.
            if u128::from(run.offered_after) < u128::from(RATE) * WATCHED.as_millis() / 2_000 {
                found.push(format!("verdict: too little was offered: {run:?}"));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three connections were accepted late, of which so many had begun before the announcement.
    fn late(answered_after: u64, under_way: u64) -> Ejection {
        Ejection {
            backend: BACKENDS[0],
            seen_to_first_write_us: 100,
            seen_to_swap_us: 200,
            left_to_client_us: 50,
            left_to_table_us: 200,
            left_to_announced_us: 300,
            client_errors: 3,
            offered_after: 300,
            answered_after,
            accepted_after: 3,
            under_way,
        }
    }

    #[test]
    fn a_connection_after_the_announcement_breaks_the_promise() {
        for (run, reached) in [(late(0, 3), 0), (late(0, 2), 1), (late(1, 3), 1), (late(0, 9), 0)] {
            let report = report(vec![run], Vec::new()).expect("one run");
            assert_eq!(report.reached_after, reached, "{run:?}");
            assert_eq!(report.broken_promise().is_some(), reached > 0, "{run:?}");
        }
    }

    #[test]
    fn nothing_takes_longer_than_the_announcement() {
        let run = Ejection { left_to_client_us: 150, ..late(0, 3) };
        let report = report(vec![run], Vec::new()).expect("one run");
        assert_eq!(report.left_to_first_write_us.median, 250.0);
        assert_eq!(report.left_to_swap_us.median, 300.0);
    }

    #[test]
    fn a_table_that_comes_late_breaks_the_promise() {
        let promise = |times: &[u64]| {
            let runs = times.iter().map(|time| Ejection { left_to_table_us: *time, ..late(0, 3) });
            report(runs.collect(), Vec::new()).expect("runs").broken_promise()
        };
        assert_eq!(promise(&[900, 1_000, 9_000]), None);
        assert!(promise(&[900, 1_001, 9_000]).is_some());
        assert!(promise(&[900, 900, 10_001]).is_some());
    }
}
