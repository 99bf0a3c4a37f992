//! Limits of connections and affinity, with real sockets: clients, servers, the daemon, and its death.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_core::{codes::EventReason, event::EventKind};
use lb_lab::{
    Shunt, Topology,
    backend::{Args, Mode, Remote},
    until, until_ok,
};
use lb_tests::{
    http,
    lab::{lab_backend, shunt, skipped},
    site::{NAMES, PATIENCE},
};
use lb_userspace::control::model::LimitUse;
use nix::sys::signal::Signal;

/// How long a client waits whose SYN nobody answers.
const SHORT: Duration = Duration::from_millis(1500);

struct Site {
    _backends: Vec<Remote>,
    shunt: Shunt,
    vip: SocketAddr,
    topology: Topology,
}

impl Site {
    /// Two web servers. `keys`: more of the service.
    fn new(prefix: &str, vip: &str, keys: &str) -> Result<Self> {
        let topology = Topology::new(prefix, &NAMES[..2])?;
        let vip: SocketAddr = vip.parse()?;
        let mut backends = Vec::new();
        let mut toml =
            format!("interfaces = {:?}\n[service.web]\nvip = \"{vip}\"\n{keys}\n", topology.devices);
        toml += "[service.web.backends]\n";
        for (number, host) in topology.backends.iter().enumerate() {
            let address = match vip.is_ipv6() {
                true => Topology::address6(number).into(),
                false => Topology::address(number).into(),
            };
            let listen = SocketAddr::new(address, 8080);
            let args = Args {
                listen,
                name: NAMES[number].to_owned(),
                mode: Mode::Ok,
                broken: 1.0,
                seed: 1,
                probe_path: "/healthz".to_owned(),
            };
            backends.push(Remote::start(host, lab_backend(), &args)?);
            toml += &format!("{} = \"{listen}\"\n", NAMES[number]);
        }
        let shunt = Shunt::start(&topology.lab, &topology.node, shunt(), &toml)?;
        let site = Self { _backends: backends, shunt, vip, topology };
        // While the next hop of one is unknown, the other one alone is full sooner.
        until("both backends can be reached", PATIENCE, || {
            site.shunt.status().is_ok_and(|status| status.traffic.iter().all(|of| of.reachable))
        })?;
        until_ok("the VIP answers", PATIENCE, || site.get().map(drop).map_err(|error| error.to_string()))?;
        Ok(site)
    }

    fn get(&self) -> lb_lab::Result<http::Response> {
        http::get(&self.topology.client, self.vip, "/")
    }

    /// A connection that has carried a request and stays open.
    fn keep(&self) -> Result<TcpStream> {
        let mut stream = http::connect(&self.topology.client, self.vip, PATIENCE)?;
        assert_eq!(http::ask(&mut stream, "GET /")?.status, 200);
        Ok(stream)
    }

    fn limit(&self) -> Result<LimitUse> {
        self.shunt.status()?.forwarding[0].limit.context("the connections count")
    }

    /// Connections that end are over when both ends have said so.
    fn used(&self, used: u32) -> Result<()> {
        until_ok("so many connections count", PATIENCE, || match self.limit() {
            Ok(limit) if limit.used == used => Ok(()),
            other => Err(format!("{other:?} and not {used}")),
        })?;
        Ok(())
    }

    fn reload(&self, from: &str, to: &str) -> Result<()> {
        let config = fs::read_to_string(self.shunt.config())?;
        assert!(config.contains(from), "{config}");
        fs::write(self.shunt.config(), config.replace(from, to))?;
        self.shunt.ask(&["reload"])?;
        Ok(())
    }
}

fn counts_and_refuses(prefix: &str, vip: &str) -> Result<()> {
    let keys = "max_connections = 6\nmax_connections_per_backend = 4";
    let mut site = Site::new(prefix, vip, keys)?;
    let events = site.shunt.events()?;
    site.used(0)?;
    let mut kept: Vec<TcpStream> = (0..6).map(|_| site.keep()).collect::<Result<_>>()?;
    assert_eq!(site.limit()?, LimitUse { used: 6, handshakes: 0, limit: 6 });
    let refused = http::connect(&site.topology.client, site.vip, PATIENCE).expect_err("it is full");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "at once, and by a reset");
    let is_limit = |to: &'static str| {
        move |event: &lb_core::event::Event| event.kind == EventKind::Limit && event.to == to
    };
    let (heard, _) = events.wait("an event says so", 0, PATIENCE, is_limit("full"))?;
    assert_eq!((heard.event.reason, heard.event.service.as_str()), (EventReason::Full, "web"));
    let text = site.shunt.ask(&["status"])?;
    assert!(text.contains("6 of 6 connections"), "{text}");
    let why = site.shunt.ask(&["why", "web/web-1"])?;
    assert!(why.contains(" of 4 connections"), "{why}");
    // One goes, and the next one has its place.
    drop(kept.pop());
    site.used(5)?;
    kept.push(site.keep()?);

    // Killed, the daemon leaves the limit in force, and the counts too.
    site.shunt.process().signal(Signal::SIGKILL)?;
    site.shunt.process().wait(PATIENCE)?;
    http::connect(&site.topology.client, site.vip, PATIENCE).expect_err("it is full");
    kept.truncate(3);
    until("places are free without the daemon", PATIENCE, || {
        site.keep().map(|stream| kept.push(stream)).is_ok()
    })?;
    site.shunt.start_again()?;
    let events = site.shunt.events()?;
    site.used(4)?;
    for stream in &mut kept {
        assert_eq!(http::ask(stream, "GET /")?.status, 200, "it lives on");
    }
    // A reload changes the limit for new connections.
    site.reload("max_connections = 6", "max_connections = 4")?;
    until("the new limit is there", PATIENCE, || site.limit().is_ok_and(|limit| limit.limit == 4))?;
    http::connect(&site.topology.client, site.vip, PATIENCE).expect_err("it is full");
    site.reload("max_connections = 4\n", "")?;
    site.reload("max_connections_per_backend = 4", "max_connections_per_backend = 3")?;
    until("the limits of the backends are there", PATIENCE, || {
        site.shunt.status().is_ok_and(|status| {
            status.traffic.iter().all(|of| of.limit.is_some_and(|limit| limit.limit == 3))
        })
    })?;
    // Until both are full, also the one that had more before.
    while let Ok(stream) = site.keep() {
        kept.push(stream);
        assert!(kept.len() <= 8, "three at each, or four from before");
    }
    let full = site.shunt.status()?.traffic.iter().all(|of| of.limit.is_some_and(|limit| limit.is_full()));
    assert!(full, "{}", site.shunt.ask(&["status", "--wide"])?);
    drop(kept);
    site.used(0)?;
    events.wait("an event says that it is over", 0, PATIENCE * 2, is_limit("free"))?;
    Ok(())
}

#[test]
fn a_service_counts_its_connections_and_refuses_the_next() -> Result<()> {
    if skipped("a_service_counts_its_connections_and_refuses_the_next", &[]) {
        return Ok(());
    }
    counts_and_refuses("lim", "203.0.113.10:80")
}

#[test]
fn a_service_counts_its_connections_and_refuses_the_next_ipv6() -> Result<()> {
    if skipped("a_service_counts_its_connections_and_refuses_the_next_ipv6", &[]) {
        return Ok(());
    }
    counts_and_refuses("lim6", "[fd99::10]:80")
}

/// With a single place a new client always has to prove its address, and a real stack does so by itself.
#[test]
fn a_real_client_proves_its_address() -> Result<()> {
    if skipped("a_real_client_proves_its_address", &[]) {
        return Ok(());
    }
    let site = Site::new("prove", "203.0.113.10:80", "max_connections = 1")?;
    let unproven = |site: &Site| -> Result<u64> {
        let status = site.shunt.status()?;
        Ok(status.drops.iter().filter_map(|of| of.reasons.get("unproven")).sum())
    };
    // The first request of this site was the first of this client.
    let before = unproven(&site)?;
    assert!(before > 0, "it was asked");
    site.used(0)?;
    let kept = site.keep()?;
    assert_eq!(unproven(&site)?, before, "and is known now");
    drop(kept);
    site.used(0)?;
    Ok(())
}

/// `queue-by-retry`: the client waits for as long as its stack tries again.
#[test]
fn a_client_that_waits_gets_the_place_that_becomes_free() -> Result<()> {
    if skipped("a_client_that_waits_gets_the_place_that_becomes_free", &[]) {
        return Ok(());
    }
    let keys = "max_connections = 2\noverflow = \"queue-by-retry\"";
    let site = Site::new("queue", "203.0.113.10:80", keys)?;
    site.used(0)?;
    let kept = [site.keep()?, site.keep()?];
    let error = http::connect(&site.topology.client, site.vip, SHORT).expect_err("nobody answers");
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "and nobody refuses: {error}");
    let (client, vip) = (site.topology.client.clone(), site.vip);
    let waits = std::thread::spawn(move || -> Result<u16> {
        let mut stream = http::connect(&client, vip, PATIENCE)?;
        Ok(http::ask(&mut stream, "GET /")?.status)
    });
    until("it waits", PATIENCE, || {
        site.shunt.status().is_ok_and(|status| {
            status.drops.iter().any(|of| of.reasons.get("full").is_some_and(|count| *count >= 3))
        })
    })?;
    drop(kept);
    assert_eq!(waits.join().expect("no panic")?, 200);
    Ok(())
}

/// One client address, one backend. An ejection moves it, and it comes back.
#[test]
fn a_client_stays_at_its_backend() -> Result<()> {
    if skipped("a_client_stays_at_its_backend", &[]) {
        return Ok(());
    }
    for (prefix, vip) in [("stay", "203.0.113.10:80"), ("stay6", "[fd99::10]:80")] {
        let site = Site::new(prefix, vip, "affinity = \"source\"\non_drain = \"reset\"")?;
        let name = |site: &Site| -> Result<String> {
            Ok(site.get()?.header("x-backend").context("it says its name")?.to_owned())
        };
        let home = name(&site)?;
        for _ in 0..20 {
            assert_eq!(name(&site)?, home);
        }
        let backend = format!("web/{home}");
        site.shunt.ask(&["backend", "disable", &backend])?;
        until("new connections go elsewhere", PATIENCE, || name(&site).is_ok_and(|now| now != home))?;
        site.shunt.ask(&["backend", "enable", &backend])?;
        until("it is back", PATIENCE, || name(&site).is_ok_and(|now| now == home))?;
        for _ in 0..20 {
            assert_eq!(name(&site)?, home);
        }
        // Not by the port: explain computes the same for each.
        let source = if site.vip.is_ipv6() { "[fd10::2]" } else { "10.10.0.2" };
        for port in [1025, 40_000, 65_535] {
            let said = site.shunt.ask(&["explain", &format!("{source}:{port}"), "web"])?;
            assert!(said.contains(&home), "{said}");
        }
    }
    Ok(())
}
