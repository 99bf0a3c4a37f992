//! `redispatch` with real clients: of four backends one refuses and one swallows SYNs.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_core::{event::EventKind, io::L4Failure, snapshot::BackendSnapshot};
use lb_lab::{Shunt, Topology, clock, until};
use lb_tests::{
    flock::Flock,
    http,
    lab::{at, shunt, skipped},
    site::{NAMES, PATIENCE},
    socket::{deaf_listener, retransmissions},
};
use lb_userspace::control::model::{Counters, Status};

const GOOD: [&str; 2] = ["web-0", "web-1"];
const REFUSES: &str = "web-2";
const SWALLOWS: &str = "web-3";

/// A SYN comes again after a second (RFC 6298), and the next time two seconds after the first at the
/// earliest.
const ONE_RETRANSMISSION: Duration = Duration::from_millis(1900);

/// The same four backends behind a VIP of each family. Fields end in this order.
struct Stage {
    shunt: Shunt,
    _good: Vec<Flock>,
    _full: Vec<(TcpListener, Vec<TcpStream>)>,
    topology: Topology,
}

/// Service and VIP of each family.
fn services() -> [(&'static str, SocketAddr); 2] {
    [("web", "10.99.0.10:80"), ("six", "[fd99::10]:80")]
        .map(|(name, vip)| (name, vip.parse().expect("a literal")))
}

fn backends(number: usize) -> [SocketAddr; 2] {
    [at(Topology::address(number), 8080), SocketAddr::new(Topology::address6(number).into(), 8080)]
}

/// A client's view of its connection.
#[derive(Debug)]
struct Attempt {
    took: Duration,
    /// How often its first segment went out again, once it was connected and answered.
    outcome: io::Result<u32>,
}

impl Stage {
    /// Nobody is probed. The way to all backends is known once this returns.
    fn new(prefix: &str, policy: &str) -> Result<Self> {
        let topology = Topology::new(prefix, &NAMES)?;
        let hosts = &topology.backends;
        let good = [0, 1].map(|number| Flock::start(&hosts[number], backends(number)));
        let good = good.into_iter().collect::<Result<_, _>>()?;
        // Nobody listens on the third host: its system refuses.
        let full = backends(3).map(|address| hosts[3].enter(|| deaf_listener(address)));
        let full = full.into_iter().map(|full| Ok(full??)).collect::<Result<_>>()?;
        let mut toml = format!("interfaces = {:?}\n", topology.devices);
        for (family, (name, vip)) in services().into_iter().enumerate() {
            toml += &format!("[service.{name}]\nvip = \"{vip}\"\n{policy}\n");
            for (number, name) in NAMES.iter().enumerate() {
                toml += &format!("backends.{name} = \"{}\"\n", backends(number)[family]);
            }
        }
        let shunt = Shunt::start(&topology.lab, &topology.node, shunt(), &toml)?;
        let stage = Self { shunt, _good: good, _full: full, topology };
        until("all next hops answer", PATIENCE, || {
            stage.shunt.status().is_ok_and(|status| {
                status.traffic.len() == 8 && status.traffic.iter().all(|traffic| traffic.reachable)
            })
        })?;
        Ok(stage)
    }

    /// `count` connections with a request each, a hundred at a time.
    fn attempts(&self, to: SocketAddr, count: usize, patience: Duration) -> Result<Vec<Attempt>> {
        const AT_A_TIME: usize = 100;
        let clients = (0..AT_A_TIME).map(|_| {
            self.topology
                .client
                .thread(move || (0..count / AT_A_TIME).map(|_| attempt(to, patience)).collect::<Vec<_>>())
        });
        let mut all = Vec::new();
        for client in clients.collect::<Vec<_>>() {
            all.extend(client.join().expect("it does not panic")?);
        }
        Ok(all)
    }
}

fn attempt(to: SocketAddr, patience: Duration) -> Attempt {
    let begun = clock::now();
    let connected = TcpStream::connect_timeout(&to, patience);
    let took = clock::now() - begun;
    let outcome = connected.and_then(|mut stream| {
        let again = retransmissions(&stream)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let answer = http::ask(&mut stream, "GET /")?;
        if answer.status == 200 { Ok(again) } else { Err(io::Error::other(answer.head)) }
    });
    Attempt { took, outcome }
}

/// The counts of one backend.
fn counted(status: &Status, service: &str, name: &str) -> Result<(Counters, BackendSnapshot)> {
    let traffic = status.traffic.iter().find(|one| one.service == service && one.backend == name);
    let of = status.snapshot.services.iter().find(|one| one.name == service);
    let backend = of.and_then(|of| of.backends.iter().find(|one| one.name == name));
    Ok((traffic.context("traffic")?.counters, backend.context("a backend")?.clone()))
}

#[test]
fn no_connection_fails_and_none_waits_twice() -> Result<()> {
    const COUNT: usize = 400;
    if skipped("no_connection_fails_and_none_waits_twice", &[]) {
        return Ok(());
    }
    let stage = Stage::new("redispatch", "redispatch = true\nbreaker.consecutive_5xx = 0")?;
    for (service, vip) in services() {
        let attempts = stage.attempts(vip, COUNT, PATIENCE)?;
        let failed: Vec<_> = attempts.iter().filter(|one| one.outcome.is_err()).collect();
        assert!(failed.is_empty(), "{service}: {} of {COUNT} failed: {failed:?}", failed.len());
        let again = |one: &Attempt| one.outcome.as_ref().is_ok_and(|again| *again > 0);
        let twice: Vec<_> = attempts
            .iter()
            .filter(|one| one.took > ONE_RETRANSMISSION || one.outcome.as_ref().is_ok_and(|again| *again > 1))
            .collect();
        assert!(twice.is_empty(), "{service}: {} waited more than once: {twice:?}", twice.len());
        let delayed = attempts.iter().filter(|one| again(one)).count();

        // Each of them is a failure of one of the two, reported once, and a handshake that continued
        // elsewhere.
        let settled = || -> Result<bool> {
            let status = stage.shunt.status()?;
            let mut all = 0;
            for name in [REFUSES, SWALLOWS] {
                let (counters, backend) = counted(&status, service, name)?;
                let alike = [counters.redispatched, backend.responses.l4_failures];
                if alike != [counters.connections; 2] {
                    return Ok(false);
                }
                all += counters.connections as usize;
            }
            Ok(all == delayed)
        };
        let settled_in_time = until("each is reported", PATIENCE, || settled().unwrap_or(false));
        let status = stage.shunt.status()?;
        settled_in_time.with_context(|| format!("{delayed} delayed; {:?}", status.traffic))?;
        for name in [REFUSES, SWALLOWS] {
            let (counters, backend) = counted(&status, service, name)?;
            assert!(counters.connections as usize > COUNT / 8, "it had its share: {counters:?}");
            assert_eq!((counters.established, backend.ejection), (0, 0), "nobody judges here");
        }
        for name in GOOD {
            let (counters, backend) = counted(&status, service, name)?;
            assert_eq!((counters.redispatched, backend.responses.l4_failures), (0, 0), "{name}");
        }
    }
    let table = stage.shunt.ask(&["status", "-o", "wide"])?;
    assert!(table.contains("REDISPATCHED"), "{table}");
    Ok(())
}

#[test]
fn failed_handshakes_eject_both() -> Result<()> {
    if skipped("failed_handshakes_eject_both", &[]) {
        return Ok(());
    }
    let policy = "redispatch = true\nbreaker.consecutive_5xx = 3\nbreaker.base_ejection_time = \"60s\"";
    let stage = Stage::new("rejudge", policy)?;
    let events = stage.shunt.events()?;
    for (service, vip) in services() {
        let before = stage.attempts(vip, 100, PATIENCE)?;
        assert!(before.iter().all(|one| one.outcome.is_ok()), "{before:?}");
        for (name, failure) in [(REFUSES, L4Failure::ConnectRefused), (SWALLOWS, L4Failure::ConnectTimeout)] {
            let (heard, _) = events.wait(&format!("{name} is ejected"), 0, PATIENCE, |event| {
                event.kind == EventKind::Eject
                    && event.service == service
                    && event.backend.as_deref() == Some(name)
            })?;
            assert_eq!(heard.event.reason, "consecutive_5xx");
            let last = heard.event.evidence.last.last().context("the evidence is in the event")?;
            assert_eq!(last.failure, Some(failure), "{:?}", heard.event);
        }
        let after = stage.attempts(vip, 200, PATIENCE)?;
        let delayed: Vec<_> =
            after.iter().filter(|one| one.outcome.as_ref().map_or(true, |again| *again > 0)).collect();
        assert!(delayed.is_empty(), "nobody meets them any more: {delayed:?}");
    }
    Ok(())
}

#[test]
fn without_it_clients_are_refused_or_wait() -> Result<()> {
    if skipped("without_it_clients_are_refused_or_wait", &[]) {
        return Ok(());
    }
    let stage = Stage::new("refused", "breaker.consecutive_5xx = 0")?;
    for (service, vip) in services() {
        // Longer than one retransmission takes.
        let attempts = stage.attempts(vip, 100, ONE_RETRANSMISSION)?;
        let failed =
            |kind| attempts.iter().filter(move |one| one.outcome.as_ref().is_err_and(|e| e.kind() == kind));
        let (refused, waited) =
            (failed(io::ErrorKind::ConnectionRefused).count(), failed(io::ErrorKind::TimedOut).count());
        assert!(refused > 5 && waited > 5, "{service}: {refused} refused, {waited} waited: {attempts:?}");
        let status = stage.shunt.status()?;
        assert!(status.traffic.iter().all(|one| one.counters.redispatched == 0));
    }
    Ok(())
}
