//! A storm: two hundred backends that fall ill and recover every second, under load, on the real daemon.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_core::{
    event::EventKind,
    snapshot::{BreakerState, ProbeState, ServiceSnapshot},
};
use lb_lab::{Shunt, Topology, clock, until};

use crate::{
    flock::Flock,
    lab::at,
    load::{Connections, Load},
};

pub const BACKENDS: usize = 200;
/// `min_serving`. Two thirds are ill at a time and the ceiling lets all of them go: this is what holds.
const FLOOR: usize = 40;
const PATIENCE: Duration = Duration::from_secs(20);
const VIP: &str = "10.99.0.30:80";
const POLICY: &str = "
[service.web.probe.http]
interval = \"500ms\"
rise = 1
fall = 1
[service.web.breaker]
consecutive_5xx = 1
interval = \"250ms\"
base_ejection_time = \"250ms\"
max_ejection_time = \"250ms\"
max_ejection_percent = 100
min_serving = 40
half_open_trials = 1
";

/// Measurements of a storm. [`run`] has checked that no rule was broken during it.
#[derive(Debug)]
pub struct Storm {
    pub requests: usize,
    pub unanswered: usize,
    /// How late the daemon's loop was at most, in milliseconds.
    pub worst_lag_ms: u64,
    /// Events by their type.
    pub events: BTreeMap<String, usize>,
    /// Backends that changed their state.
    pub flapped: usize,
    /// Ejections that the floor refused.
    pub kept_by_the_floor: usize,
}

/// For so long, with this binary.
pub fn run(prefix: &str, binary: &Path, length: Duration) -> Result<Storm> {
    let topology = Topology::new(prefix, &["flock"])?;
    let address = |number: usize| at(Topology::address(0), 9000 + number as u16);
    let flock = Flock::start(&topology.backends[0], (0..BACKENDS).map(address))?;
    let mut toml =
        format!("interfaces = {:?}\n[service.web]\nvip = {VIP:?}\non_eject = \"drain\"\n", topology.devices);
    toml += "[service.web.backends]\n";
    for number in 0..BACKENDS {
        toml += &format!("b{number:03} = \"{}\"\n", address(number));
    }
    toml += POLICY;
    let shunt = Shunt::start(&topology.lab, &topology.node, binary, &toml)?;
    let all_serve = || {
        shunt.status().is_ok_and(|status| {
            let service = &status.snapshot.services[0];
            service.backends.iter().all(|backend| backend.share > 0)
        })
    };
    until("all of them serve", PATIENCE, all_serve)?;
    let events = shunt.events()?;
    let vip: SocketAddr = VIP.parse().context("a literal")?;
    let load = Load::start(&topology.client, vip, 1000, 16, Connections::Each);

    // A third of them is well at any time: each second another one.
    let end = clock::now() + length;
    let mut well = 0;
    let mut lags = Vec::new();
    while clock::now() < end {
        well = (well + 1) % 3;
        for number in 0..BACKENDS {
            flock.answer(number, if number % 3 == well { 200 } else { 500 });
        }
        let next = clock::now() + Duration::from_secs(1);
        while clock::now() < next {
            let status = shunt.status()?;
            keeps_the_rules(&status.snapshot.services[0])?;
            lags.push(status.daemon.loop_lag_ms.worst);
            thread::sleep(Duration::from_millis(100));
        }
    }
    let answered = load.samples().len();
    let without = load.samples().iter().filter(|sample| sample.answer.is_err()).count();

    // The storm is over: everything returns, in the maps too.
    (0..BACKENDS).for_each(|number| flock.answer(number, 200));
    until("all of them serve again", PATIENCE, all_serve)?;
    let before: Vec<u64> = (0..BACKENDS).map(|number| flock.accepted(number)).collect();
    let reached = || (0..BACKENDS).filter(|number| flock.accepted(*number) > before[*number] + 4).count();
    until("each of them is given connections", PATIENCE, || reached() == BACKENDS)?;
    load.stop();

    let heard = events.since(0);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for one in &heard {
        *counts.entry(one.event.kind.to_string()).or_default() += 1;
    }
    let seqs: Vec<u64> = heard.iter().map(|one| one.event.seq).collect();
    ensure!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "events are missing");
    let writes = heard.iter().filter(|one| one.event.kind == EventKind::Dataplane).count();
    ensure!(writes == 0, "{writes} events of map writes: {}", shunt.log());
    let events_of = |kind| heard.iter().map(|one| &one.event).filter(move |event| event.kind == kind);
    for event in events_of(EventKind::Eject).filter(|event| event.from == BreakerState::Closed.to_string()) {
        // A late answer of one that its probe has taken down already takes nobody away.
        let itself = usize::from(event.evidence.probe == Some(ProbeState::Up));
        ensure!(event.evidence.serving as usize >= FLOOR + itself, "below the floor: {event:?}");
    }
    let kept = events_of(EventKind::Refused).filter(|event| event.reason == "floor").count();
    let moved = heard.iter().filter(|one| one.event.from != one.event.to);
    let flapped: BTreeSet<_> = moved.filter_map(|one| one.event.backend.as_deref()).collect();
    Ok(Storm {
        requests: answered,
        unanswered: without,
        worst_lag_ms: lags.into_iter().max().context("it was asked")?,
        events: counts,
        flapped: flapped.len(),
        kept_by_the_floor: kept,
    })
}

fn keeps_the_rules(service: &ServiceSnapshot) -> Result<()> {
    // Probes may take down what the breaker has left, and not the other way round: a backend that serves
    // after an ejection is closed.
    let closed = service.backends.iter().filter(|backend| backend.breaker == BreakerState::Closed).count();
    ensure!(closed >= FLOOR, "the breaker has left {closed} of them");
    for backend in &service.backends {
        ensure!(
            backend.until_ms.is_some() == (backend.breaker == BreakerState::Open),
            "an ejection without an end: {backend:?}"
        );
    }
    ensure!(service.pending.is_none(), "{:?}", service.pending);
    Ok(())
}
