//! A service with a discovery file, and the servers that the file may name.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_core::snapshot::{BackendSnapshot, Effective};
use lb_lab::{Shunt, Topology, until, until_ok};
use lb_tests::{answer::Answer, lab::shunt, ledger::Ledger, site::NAMES};
use lb_userspace::control::model::{Discovery, Status};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const PORT: u16 = 8080;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// One backend of the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listed {
    /// Of the server.
    pub(crate) number: usize,
    pub(crate) state: &'static str,
    pub(crate) id: &'static str,
}

pub(crate) const fn ready(number: usize, id: &'static str) -> Listed {
    Listed { number, state: "ready", id }
}

/// Fields end in this order.
pub(crate) struct Stage {
    pub(crate) ledgers: Vec<Ledger>,
    pub(crate) shunt: Shunt,
    pub(crate) topology: Topology,
    pub(crate) vip: SocketAddr,
    family: Family,
}

impl Stage {
    /// Returns once these backends serve.
    pub(crate) fn new(prefix: &str, family: Family, first: &[Listed]) -> Result<Self> {
        let topology = Topology::new(prefix, &NAMES[..3])?;
        let vip: SocketAddr = match family {
            Family::V4 => "10.99.0.10:80",
            Family::V6 => "[fd99::10]:80",
        }
        .parse()?;
        let mut ledgers = Vec::new();
        for (number, host) in topology.backends.iter().enumerate() {
            let delay = Duration::from_millis(5);
            ledgers.push(Ledger::start(host, address(family, number), NAMES[number], delay)?);
        }
        let folder = topology.lab.folder();
        write(&path(folder), family, first)?;
        let toml = format!(
            "interfaces = {:?}\nrecord.path = {:?}\n\
             [service.web]\nvip = \"{vip}\"\non_drain = \"reset\"\ndrain_timeout = \"6s\"\n\
             discovery.file = {:?}\ndiscovery.interval = \"100ms\"\n\
             [service.web.breaker]\nmin_serving = 0\n",
            topology.devices,
            recording(folder),
            path(folder),
        );
        let shunt = Shunt::start(&topology.lab, &topology.node, shunt(), &toml)?;
        let stage = Self { ledgers, shunt, topology, vip, family };
        stage.all_serve(first.len()).with_context(|| stage.shunt.log())?;
        Ok(stage)
    }

    pub(crate) fn all_serve(&self, count: usize) -> Result<()> {
        let serves = |status: &Status| {
            let backends = &status.snapshot.services[0].backends;
            backends.len() == count
                && backends.iter().all(|of| of.effective == Effective::Serving)
                && status.traffic.iter().all(|of| of.reachable)
        };
        until_ok("all serve", PATIENCE, || match self.shunt.status() {
            Ok(status) if serves(&status) => Ok(()),
            seen => Err(format!("{seen:?}")),
        })?;
        Ok(())
    }

    /// Replaces the file by one with these.
    pub(crate) fn list(&self, listed: &[Listed]) -> Result<()> {
        write(&self.file(), self.family, listed)
    }

    pub(crate) fn file(&self) -> PathBuf {
        path(self.topology.lab.folder())
    }

    pub(crate) fn recording(&self) -> PathBuf {
        recording(self.topology.lab.folder())
    }

    /// A command of `shunt`.
    pub(crate) fn ask(&self, words: &[&str]) -> Result<Answer> {
        let mut command = self.topology.node.command(shunt());
        command.arg("--socket").arg(self.shunt.socket()).args(words);
        Ok(Answer::of(&self.topology.node, &mut command)?)
    }

    /// The exit code of `status --check`.
    pub(crate) fn health(&self) -> Result<Option<i32>> {
        Ok(self.ask(&["status", "--check"])?.code)
    }

    /// Of this name; the last one, if an earlier incarnation is in the list.
    pub(crate) fn backend(&self, number: usize) -> Result<BackendSnapshot> {
        let status = self.shunt.status()?;
        let found = status.snapshot.services[0].backends.iter().find(|one| one.name == NAMES[number]);
        found.cloned().with_context(|| format!("no backend {}", NAMES[number]))
    }

    /// Waits until a backend is in this state.
    pub(crate) fn becomes(&self, number: usize, state: Effective) -> Result<BackendSnapshot> {
        Ok(until_ok("the state of a backend", PATIENCE, || match self.backend(number) {
            Ok(backend) if backend.effective == state => Ok(backend),
            other => Err(format!("{other:?}")),
        })?)
    }

    /// Waits until the source is in this condition.
    pub(crate) fn source(&self, code: &str) -> Result<Discovery> {
        Ok(until_ok("the condition of the source", PATIENCE, || match self.shunt.status() {
            Ok(status) if status.discovery[0].code == *code => Ok(status.discovery[0].clone()),
            other => Err(format!("{:?}", other.map(|status| status.discovery))),
        })?)
    }

    /// Names of the backends that are configured now.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let status = self.shunt.status()?;
        Ok(status.snapshot.services[0].backends.iter().map(|one| one.name.clone()).collect())
    }

    /// Waits until a server has no connection.
    pub(crate) fn is_left(&self, number: usize) -> Result<()> {
        let address = address(self.family, number).to_string();
        let host = &self.topology.backends[number];
        until("its connections end", PATIENCE, || {
            let all = host.run(&["ss", "--no-header", "--tcp", "--all", "--numeric"]).unwrap_or_default();
            let living = |line: &&str| {
                let mut words = line.split_whitespace();
                let state = words.next().unwrap_or_default();
                !["LISTEN", "TIME-WAIT"].contains(&state) && words.any(|word| word == address)
            };
            all.lines().find(living).is_none()
        })?;
        Ok(())
    }
}

fn address(family: Family, number: usize) -> SocketAddr {
    match family {
        Family::V4 => (Topology::address(number), PORT).into(),
        Family::V6 => (Topology::address6(number), PORT).into(),
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("web.json")
}

fn recording(folder: &Path) -> PathBuf {
    folder.join("events.jsonl")
}

/// Puts a new file in the place of the one before, as programs that keep such files do.
fn write(path: &Path, family: Family, listed: &[Listed]) -> Result<()> {
    let mut text = "{\"schema\":1,\"source\":\"test\",\"backends\":[".to_owned();
    for (place, Listed { number, state, id }) in listed.iter().enumerate() {
        let comma = if place == 0 { "" } else { "," };
        let (name, address) = (NAMES[*number], address(family, *number));
        write!(text, "{comma}{{\"name\":{name:?},\"address\":\"{address}\",")?;
        write!(text, "\"state\":{state:?},\"id\":{id:?}}}")?;
    }
    text += "]}\n";
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, path)?;
    Ok(())
}
