//! Three healthy servers and a bad one behind a node, a service for each attack and policy, and the clients' link.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
};

use anyhow::{Context, Result, ensure};
use lb_core::snapshot::{Effective, ProbeState};
use lb_lab::{Events, Process, Shunt, Topology, clock, until, until_ok};
use lb_tests::{
    http::{PATIENCE, read},
    lab::{at, nginx, shunt},
    socket::connect_from,
    swarm::Line,
};

use super::attack::{Attack, Kind, Policy};

/// Networks of users who find a bad backend.
const USERS: u8 = 8;

const HEALTHY: [&str; 3] = ["web-0", "web-1", "web-2"];
const PORT: u16 = 8080;
const TLS: u16 = 8443;
/// Of the server behind each server, for which nginx waits for whole requests.
const UPSTREAM: u16 = 8081;

/// Behind the node are no routers in this lab; the backends' hosts stand in for four.
const ROUTERS: &str =
    "table ip far { chain in { type filter hook prerouting priority -300; ip ttl < 5 drop; }; }";

/// nginx as many run it, but with time-outs that a test can wait for.
const TIMEOUTS: &str =
    "client_header_timeout 2s; client_body_timeout 2s; send_timeout 5s; keepalive_timeout 2s;";

/// A probe that fails because the machine is slow would confirm what an attack pretends.
const PROBE: &str = "interval = \"10s\"\ntimeout = \"10s\"\nfast_interval = \"1s\"\n";

pub(crate) struct Stage {
    _servers: Vec<Process>,
    pub(crate) events: Events,
    shunt: Shunt,
    pub(crate) topology: Topology,
}

impl Stage {
    pub(crate) fn new(attacks: &[Attack]) -> Result<Self> {
        let topology = Topology::new("campaign", &["web-0", "web-1", "web-2", "bad"])?;
        topology.lab.pin_neighbours()?;
        // The swarm's addresses lie behind the client, on which no stack has them.
        topology.node.ip("route add 10.64.0.0/14 via 10.10.0.2")?;
        topology.node.ip("route add 10.11.0.0/16 via 10.10.0.2")?;
        for number in 0..USERS {
            topology.client.ip(&format!("address add 10.11.{number}.1/32 dev lo"))?;
        }
        std::fs::write(topology.lab.folder().join("big"), vec![b'x'; 4 << 20])?;
        let servers = (0..4).map(|number| server(&topology, number)).collect::<Result<_>>()?;
        let shunt = Shunt::start(&topology.lab, &topology.node, shunt(), &configuration(&topology, attacks))?;
        let events = shunt.events()?;
        let stage = Self { _servers: servers, events, shunt, topology };
        until("all backends are up for their probes", PATIENCE, || stage.all_up())
            .with_context(|| stage.shunt.log())?;
        Ok(stage)
    }

    fn all_up(&self) -> bool {
        self.shunt.status().is_ok_and(|status| {
            let mut backends = status.snapshot.services.iter().flat_map(|service| &service.backends);
            backends.all(|backend| backend.probe == ProbeState::Up)
        })
    }

    /// That no event was missed: a follower that reads too slowly is hung up on.
    pub(crate) fn heard_all(&self) -> Result<()> {
        let last = until_ok("status", PATIENCE, || self.shunt.status())?.events_seq;
        let heard = || self.events.since(0).last().map_or(0, |heard| heard.event.seq) >= last;
        Ok(until("all events were heard", PATIENCE, heard)?)
    }

    /// Asks from several networks until the breaker has found the bad backend.
    pub(crate) fn convict(&self, service: &str, vip: SocketAddr) -> Result<()> {
        let is_out = || -> Result<bool> {
            // On a busy machine the daemon may answer too late for once.
            let Ok(status) = self.shunt.status() else { return Ok(false) };
            let of = status.snapshot.services.iter().find(|of| of.name == service).context("configured")?;
            let bad = of.backends.iter().find(|of| of.name == "bad").context("configured")?;
            Ok(bad.effective == Effective::Ejected)
        };
        let user = |number: u8| -> io::Result<()> {
            let own = SocketAddr::from(([10, 11, number, 1], 0));
            let mut stream = connect_from(own, vip, PATIENCE)?;
            stream.write_all(b"GET /work HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
            read(&mut stream, true).map(drop)
        };
        let end = clock::now() + PATIENCE * 4;
        while !is_out()? {
            ensure!(clock::now() < end, "the bad backend of {service} is not ejected");
            // A trial may fail, which is the bad backend's fault.
            self.topology.client.enter(|| (0..USERS).for_each(|number| drop(user(number))))?;
        }
        Ok(())
    }

    /// The clients' end of their link.
    pub(crate) fn line(&self) -> Result<Line> {
        Ok(Line::open(&self.topology.client, "node", [2, 0x5b, 0, 0, 0, 0xa], [2, 0x5b, 0, 0, 0, 0xb])?)
    }

    pub(crate) fn server(number: usize) -> SocketAddr {
        at(Topology::address(number), PORT)
    }
}

fn server(topology: &Topology, number: usize) -> Result<Process> {
    let listen = Stage::server(number);
    let work = if number == HEALTHY.len() { "return 500 \"no\\n\";" } else { "return 200 \"ok\\n\";" };
    let servers = format!(
        "{TIMEOUTS} server {{ listen {listen} backlog=4096; location = / {{ return 200 \"up\\n\"; }} \
         location = /big {{ root {}; }} location = /up {{ proxy_pass http://127.0.0.1:{UPSTREAM}; }} \
         location / {{ {work} }} }} \
         server {{ listen 127.0.0.1:{UPSTREAM}; location / {{ return 200 \"up\\n\"; }} }} \
         server {{ listen {}:{TLS} ssl backlog=4096; ssl_reject_handshake on; }}",
        topology.lab.folder().display(),
        listen.ip()
    );
    topology.backends[number].run(&["nft", ROUTERS])?;
    Ok(nginx(&topology.lab, &topology.backends[number], listen, &servers)?)
}

fn configuration(topology: &Topology, attacks: &[Attack]) -> String {
    // Crowds leave without a word, and their NAT ports are needed again. `connect_timeout` is shorter than a handshake may be.
    let mut toml = format!(
        "interfaces = {:?}\n[timeouts]\nestablished = \"10s\"\nclosing = \"1s\"\nhandshake = \"5s\"\n",
        topology.devices
    );
    for (number, attack) in attacks.iter().enumerate() {
        for policy in Policy::ALL {
            let (name, vip) = (policy.service(attack), policy.vip(number));
            toml += &format!("[service.{name}]\nvip = \"{vip}\"\n");
            if attack.service == Kind::Dnat {
                toml += "mode = \"dnat\"\n";
            }
            toml += &format!("[service.{name}.backends]\n");
            for (server, backend) in HEALTHY.iter().enumerate() {
                let mut address = Stage::server(server);
                if attack.service == Kind::Tls {
                    address.set_port(TLS);
                }
                toml += &format!("{backend} = \"{address}\"\n");
            }
            if attack.service == Kind::Bad {
                toml += &format!("bad = \"{}\"\n", Stage::server(HEALTHY.len()));
            }
            toml += &match attack.service {
                Kind::Tls => format!("[service.{name}.probe.tcp]\n{PROBE}"),
                Kind::Healthy | Kind::Dnat => {
                    format!("[service.{name}.probe.http]\npath = \"/\"\n{PROBE}")
                }
                // The bad one has to be down soon.
                Kind::Bad => format!("[service.{name}.probe.http]\npath = \"/\"\ninterval = \"1s\"\n"),
            };
            toml += &format!(
                "[service.{name}.breaker]\nconsecutive_5xx = 5\ninterval = \"2s\"\nbase_ejection_time = \"2s\"\n"
            );
            if policy == Policy::Strict {
                toml += "split_l4_failures = true\nresponse_timeout = \"1s\"\nslow_threshold = \"500ms\"\n\
                         slow_rate_min_responses = 10\n";
            }
        }
    }
    toml
}
