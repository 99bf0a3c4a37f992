//! A service whose backends keep a ledger, and what the kernels at both ends know of connections.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_core::snapshot::BackendSnapshot;
use lb_lab::{Host, Shunt, Topology, until, until_ok};
use lb_tests::{
    answer::Answer,
    http::{self, Response},
    lab::shunt,
    ledger::{End, Ledger},
    site::NAMES,
};
use lb_userspace::control::model::{BackendTraffic, ResetCounts, Status};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const PORT: u16 = 8080;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn vip(self) -> SocketAddr {
        let vip = match self {
            Self::V4 => "10.99.0.10:80",
            Self::V6 => "[fd99::10]:80",
        };
        vip.parse().expect("a literal")
    }

    pub(crate) fn backend(self, number: usize) -> SocketAddr {
        match self {
            Self::V4 => (Topology::address(number), PORT).into(),
            Self::V6 => (Topology::address6(number), PORT).into(),
        }
    }
}

/// How a service is to be.
pub(crate) struct Plan<'a> {
    pub(crate) prefix: &'a str,
    pub(crate) family: Family,
    pub(crate) backends: usize,
    /// The last so many of them are the fallback.
    pub(crate) fallback: usize,
    /// How long each answer takes.
    pub(crate) delay: Duration,
    /// Keys of `[service.web]`, then whatever tables.
    pub(crate) policy: &'a str,
}

/// Fields end in this order.
pub(crate) struct Stage {
    pub(crate) ledgers: Vec<Ledger>,
    pub(crate) shunt: Shunt,
    pub(crate) topology: Topology,
    pub(crate) vip: SocketAddr,
}

impl Stage {
    /// Returns once all next hops have answered.
    pub(crate) fn new(plan: &Plan<'_>) -> Result<Self> {
        let topology = Topology::new(plan.prefix, &NAMES[..plan.backends])?;
        let vip = plan.family.vip();
        let mut ledgers = Vec::new();
        let mut toml = format!("interfaces = {:?}\n[service.web]\nvip = \"{vip}\"\n", topology.devices);
        for (number, host) in topology.backends.iter().enumerate() {
            let listen = plan.family.backend(number);
            ledgers.push(Ledger::start(host, listen, NAMES[number], plan.delay)?);
            let group = if number < plan.backends - plan.fallback { "backends" } else { "fallback" };
            toml += &format!("{group}.{} = \"{listen}\"\n", NAMES[number]);
        }
        toml += plan.policy;
        let shunt = Shunt::start(&topology.lab, &topology.node, shunt(), &toml)?;
        let stage = Self { ledgers, shunt, topology, vip };
        until("all next hops answer", PATIENCE, || {
            stage.shunt.status().is_ok_and(|status| {
                status.traffic.len() >= plan.backends
                    && status.traffic.iter().all(|traffic| traffic.reachable)
            })
        })
        .with_context(|| stage.shunt.log())?;
        Ok(stage)
    }

    /// A command of `shunt`, as `alice` gives it.
    pub(crate) fn ask(&self, words: &[&str]) -> Result<Answer> {
        let mut command = self.topology.node.command(shunt());
        command.arg("--socket").arg(self.shunt.socket()).args(words).env("SUDO_USER", "alice");
        Ok(Answer::of(&self.topology.node, &mut command)?)
    }

    /// `shunt backend VERB web/NAME …`, done when the maps hold it.
    pub(crate) fn order(&self, verb: &str, victim: usize, more: &[&str]) -> Result<()> {
        let name = format!("web/{}", NAMES[victim]);
        self.ask(&[&["backend", verb, &name], more].concat())?.succeeds();
        Ok(())
    }

    pub(crate) fn connect(&self) -> io::Result<TcpStream> {
        http::connect(&self.topology.client, self.vip, PATIENCE)
    }

    /// So many connections that are kept after a request each, with the numbers of their backends.
    pub(crate) fn kept(&self, count: usize) -> Result<Vec<(TcpStream, usize)>> {
        (0..count)
            .map(|number| {
                let mut stream = self.connect()?;
                let backend = of(&http::ask(&mut stream, &format!("GET /kept/{number}"))?)?;
                Ok((stream, backend))
            })
            .collect()
    }

    pub(crate) fn backend(&self, number: usize) -> Result<BackendSnapshot> {
        let status = self.shunt.status()?;
        let found = status.snapshot.services[0].backends.iter().find(|one| one.name == NAMES[number]);
        found.cloned().with_context(|| format!("no backend {}", NAMES[number]))
    }

    pub(crate) fn traffic(&self, number: usize) -> Result<BackendTraffic> {
        let status = self.shunt.status()?;
        let found = status.traffic.iter().find(|one| one.backend == NAMES[number]);
        found.cloned().with_context(|| format!("no traffic of {}", NAMES[number]))
    }

    /// Waits until the resets of a backend are counted like this. The count follows the frames.
    pub(crate) fn resets_are(&self, number: usize, expected: impl Fn(&ResetCounts) -> bool) -> Result<()> {
        Ok(until_ok("its resets are counted", PATIENCE, || match self.traffic(number) {
            Ok(traffic) if expected(&traffic.resets) => Ok(()),
            Ok(traffic) => Err(format!("{:?}", traffic.resets)),
            Err(error) => Err(format!("{error:#}")),
        })?)
    }

    /// The connections to the VIP in the client's kernel.
    pub(crate) fn at_client(&self) -> Result<Vec<String>> {
        sockets(&self.topology.client, &self.vip.to_string())
    }

    /// The connections to a backend in its own kernel.
    pub(crate) fn at_backend(&self, number: usize) -> Result<Vec<String>> {
        let family = if self.vip.is_ipv4() { Family::V4 } else { Family::V6 };
        sockets(&self.topology.backends[number], &family.backend(number).to_string())
    }

    /// How connections of a backend have ended, once so many have: its server hears of it a little later than
    /// its kernel.
    pub(crate) fn ended(&self, number: usize, count: usize) -> Result<Vec<End>> {
        let ends = || self.ledgers[number].ends();
        until_ok("its server hears of all ends", PATIENCE, || match ends().len() {
            heard if heard >= count => Ok(()),
            heard => Err(format!("{heard} of {count}")),
        })?;
        Ok(ends())
    }
}

/// The number of the backend that answered.
pub(crate) fn of(response: &Response) -> Result<usize> {
    let name = response.header("x-backend").context("a backend gives its name")?;
    NAMES.iter().position(|known| *known == name).context("a backend has one of the names")
}

/// The backend that most of these are connected to, and how many.
pub(crate) fn busiest(kept: &[(TcpStream, usize)]) -> (usize, usize) {
    let count = |number| kept.iter().filter(|(_, of)| *of == number).count();
    let numbers = 0..NAMES.len();
    numbers.map(|number| (number, count(number))).max_by_key(|(_, count)| *count).expect("there are names")
}

/// How many frames the service refused for that reason.
pub(crate) fn drops(status: &Status, reason: &str) -> u64 {
    status.drops.first().and_then(|drops| drops.reasons.get(reason)).copied().unwrap_or(0)
}

/// Connections from or to this address, in any state but TIME-WAIT: that is the rest of one that ended in
/// order.
fn sockets(host: &Host, address: &str) -> Result<Vec<String>> {
    let all = host.run(&["ss", "--no-header", "--tcp", "--all", "--numeric"])?;
    let living = |line: &&str| {
        let mut words = line.split_whitespace();
        let state = words.next().unwrap_or_default();
        !["LISTEN", "TIME-WAIT"].contains(&state) && words.any(|word| word == address)
    };
    Ok(all.lines().filter(living).map(str::to_owned).collect())
}
