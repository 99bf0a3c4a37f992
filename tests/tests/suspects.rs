//! Confirmation against the real thing: nginx that answers its probe and breaks requests off, clients of
//! several prefixes, the real daemon.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_core::{
    event::{Event, EventKind},
    snapshot::ProbeState,
};
use lb_lab::{Events, Process, Shunt, Topology, until};
use lb_tests::{
    lab::{Need, at, nginx, shunt, skipped},
    site::PATIENCE,
    socket::connect_from,
};

const NAMES: [&str; 3] = ["web-0", "web-1", "web-2"];
const PORT: u16 = 8080;
const LIMIT: Duration = Duration::from_secs(3);
const NEEDS: [Need; 1] = [Need::Tool("nginx")];

/// Clients of three prefixes of each family.
const CLIENTS: [&str; 3] = ["10.64.1.2", "10.64.2.2", "10.64.3.2"];
const CLIENTS6: [&str; 3] = ["fd64:1:1::2", "fd64:1:2::2", "fd64:1:3::2"];

/// Three nginx behind the real daemon. `/healthz` answers; `/` is what the test makes of it.
struct Bench {
    servers: Vec<Process>,
    shunt: Shunt,
    events: Events,
    topology: Topology,
    vip: SocketAddr,
    clients: [&'static str; 3],
}

impl Bench {
    /// `broken`: what nginx of the first backend does with a request that is no probe.
    fn new(prefix: &str, v6: bool, broken: &str, probe: bool) -> Result<Self> {
        Self::with_probe(prefix, v6, broken, probe.then_some(PORT))
    }

    /// `probe`: the port of the probe. Where it is another one, the first backend listens there alone.
    fn with_probe(prefix: &str, v6: bool, broken: &str, probe: Option<u16>) -> Result<Self> {
        let topology = Topology::new(prefix, &NAMES)?;
        let clients = if v6 { CLIENTS6 } else { CLIENTS };
        for client in clients {
            let length = if v6 { "128 nodad" } else { "32" };
            topology.client.ip(&format!("address add {client}/{length} dev lo"))?;
        }
        topology.client.ip("link set lo up")?;
        let vip: SocketAddr = if v6 { "[fd99::10]:80" } else { "10.99.0.10:80" }.parse()?;
        let mut toml = format!("interfaces = {:?}\n[service.web]\nvip = \"{vip}\"\n", topology.devices);
        toml += "[service.web.backends]\n";
        let mut servers = Vec::new();
        for (number, host) in topology.backends.iter().enumerate() {
            let to = if v6 {
                SocketAddr::from((Topology::address6(number), PORT))
            } else {
                at(Topology::address(number), PORT)
            };
            let elsewhere = SocketAddr::new(to.ip(), probe.unwrap_or(PORT));
            let listens = if number == 0 { elsewhere } else { to };
            let also = if elsewhere == listens { String::new() } else { format!("listen {elsewhere};") };
            let other = if number == 0 { broken } else { "return 200 'fine';" };
            let server = format!(
                "server {{ listen {listens}; {also} client_header_timeout 2s; client_body_timeout 2s;\n\
                 location = /healthz {{ return 200 'up'; }} location / {{ {other} }} }}"
            );
            servers.push(nginx(&topology.lab, host, listens, &server)?);
            toml += &format!("{} = \"{to}\"\n", NAMES[number]);
        }
        if let Some(port) = probe {
            toml += "[service.web.probe.http]\npath = \"/healthz\"\ninterval = \"500ms\"\n";
            toml += &format!("port = {port}\n");
        }
        toml += "[service.web.breaker]\nconsecutive_5xx = 3\nbase_ejection_time = \"60s\"\n";
        let shunt = Shunt::start(&topology.lab, &topology.node, shunt(), &toml)?;
        let events = shunt.events()?;
        let bench = Self { servers, shunt, events, topology, vip, clients };
        until("all serve", PATIENCE, || {
            let status = bench.shunt.status();
            status.is_ok_and(|status| {
                // Without a next hop, which IPv6 may take seconds to find, a backend gets nothing.
                let reachable = status.traffic.iter().all(|traffic| traffic.reachable);
                let mut all = status.snapshot.services[0].backends.iter();
                // Where all first probes failed, all have a share too: the panic gives it to them.
                let up = |state: ProbeState| probe.is_none() || state == ProbeState::Up;
                reachable && all.all(|backend| backend.share > 3000 && up(backend.probe))
            })
        })?;
        Ok(bench)
    }

    /// One request by a connection of its own, from that client. `None`: no answer.
    fn ask(&self, client: usize, request: &str) -> Result<Option<String>> {
        let (from, to, request) = (self.clients[client].parse()?, self.vip, request.to_owned());
        let asked = self.topology.client.enter(move || -> std::io::Result<String> {
            let mut stream = connect_from(SocketAddr::new(from, 0), to, LIMIT)?;
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })?;
        Ok(asked.ok().filter(|answer| !answer.is_empty()))
    }

    /// So many ordinary requests of a client: how many were answered.
    fn requests(&self, client: usize, count: usize) -> Result<usize> {
        let mut answered = 0;
        for _ in 0..count {
            answered += usize::from(
                self.ask(client, "GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?.is_some(),
            );
        }
        Ok(answered)
    }

    fn heard(&self, kind: EventKind) -> Option<Event> {
        let all = self.events.since(0).into_iter().map(|heard| heard.event);
        all.filter(|event| event.backend.as_deref() == Some(NAMES[0])).find(|event| event.kind == kind)
    }
}

/// Runs a test in both families.
fn in_both(test: fn(bool) -> Result<()>) -> Result<()> {
    test(false).context("IPv4")?;
    test(true).context("IPv6")
}

#[test]
fn a_server_that_breaks_the_requests_of_different_clients_is_out_though_its_probe_passes() -> Result<()> {
    if skipped(
        "a_server_that_breaks_the_requests_of_different_clients_is_out_though_its_probe_passes",
        &NEEDS,
    ) {
        return Ok(());
    }
    in_both(|v6| {
        // 444: nginx closes without a word.
        let bench = Bench::new(if v6 { "susp6" } else { "susp4" }, v6, "return 444;", true)?;
        for round in 0..20 {
            if bench.heard(EventKind::Eject).is_some() {
                break;
            }
            bench.requests(round % 3, 6)?;
        }
        // The requests can be over before the daemon has read what became of them.
        let event = until_heard(&bench, EventKind::Eject)?;
        ensure!(event.reason == "consecutive_5xx", "{event:?}");
        let answered = bench.requests(1, 12)?;
        ensure!(answered == 12, "{answered} of 12 after the ejection");
        Ok(())
    })
}

#[test]
fn one_client_whose_requests_break_is_a_suspicion_and_no_ejection() -> Result<()> {
    if skipped("one_client_whose_requests_break_is_a_suspicion_and_no_ejection", &NEEDS) {
        return Ok(());
    }
    in_both(|v6| {
        // nginx closes without a word for this client alone: it asks for what the server refuses to serve.
        let refuses = "if ($uri = /forbidden) { return 444; } return 200 'fine';";
        let bench = Bench::new(if v6 { "lone6" } else { "lone4" }, v6, refuses, true)?;
        // The service has other clients.
        bench.requests(1, 6)?;
        bench.requests(2, 6)?;
        for _ in 0..60 {
            bench.ask(0, "GET /forbidden HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
        }
        let event = until_heard(&bench, EventKind::Suspected)?;
        let detail = event.evidence.detail.context("with a sentence")?;
        ensure!(detail.contains("that nothing confirms"), "{detail}");
        ensure!(bench.heard(EventKind::Eject).is_none(), "{:?}", bench.heard(EventKind::Eject));
        Ok(())
    })
}

#[test]
fn without_a_probe_a_handshake_decides_about_refusals() -> Result<()> {
    if skipped("without_a_probe_a_handshake_decides_about_refusals", &NEEDS) {
        return Ok(());
    }
    in_both(|v6| {
        let mut bench = Bench::new(if v6 { "bare6" } else { "bare4" }, v6, "return 200 'fine';", false)?;
        bench.requests(0, 6)?;
        bench.servers[0].stop(PATIENCE)?;
        is_ejected_for_a_lone_client(&bench)
    })
}

#[test]
fn a_server_that_refuses_is_out_though_its_probe_passes_at_another_port() -> Result<()> {
    if skipped("a_server_that_refuses_is_out_though_its_probe_passes_at_another_port", &NEEDS) {
        return Ok(());
    }
    in_both(|v6| {
        let prefix = if v6 { "port6" } else { "port4" };
        let bench = Bench::with_probe(prefix, v6, "return 200 'fine';", Some(8081))?;
        // From one client: the daemon's own handshake is what confirms.
        is_ejected_for_a_lone_client(&bench)
    })
}

/// One client asks until the first backend is ejected. From then on each of its requests is answered.
fn is_ejected_for_a_lone_client(bench: &Bench) -> Result<()> {
    for _ in 0..20 {
        if bench.heard(EventKind::Eject).is_some() {
            break;
        }
        bench.requests(0, 6)?;
    }
    let event = until_heard(bench, EventKind::Eject)?;
    ensure!(event.reason == "consecutive_5xx", "{event:?}");
    let answered = bench.requests(0, 12)?;
    ensure!(answered == 12, "{answered} of 12 after the ejection");
    Ok(())
}

/// An event of the first backend, soon.
fn until_heard(bench: &Bench, kind: EventKind) -> Result<Event> {
    until("the event", PATIENCE, || bench.heard(kind).is_some())?;
    bench.heard(kind).context("it was heard")
}
