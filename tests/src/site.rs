//! The usual service: plain web servers behind the real daemon.

use std::{fs, net::SocketAddr};

use anyhow::{Context as _, Result};
use lb_core::snapshot::BackendSnapshot;
use lb_lab::{
    Shunt, Topology,
    backend::{Args, Mode, Remote},
    until,
};
use lb_userspace::control::model::{BackendTraffic, BackendView, Status};

use nix::sys::signal::Signal;

use crate::{
    answer::Answer,
    lab::{at, lab_backend, shunt},
    load::{Connections, Load, Sample},
};

pub use crate::http::PATIENCE;

pub const VIP: &str = "10.99.0.10:80";
pub const NAMES: [&str; 4] = ["web-0", "web-1", "web-2", "web-3"];

/// Fields end in this order.
#[derive(Debug)]
pub struct Site {
    pub backends: Vec<Remote>,
    pub shunt: Shunt,
    pub topology: Topology,
}

impl Site {
    /// As many backends as asked for, all good, probed; waits until all serve.
    pub fn new(prefix: &str, backends: usize, breaker: &str) -> Result<Self> {
        let probe = "[service.web.probe.http]\npath = \"/healthz\"\ninterval = \"500ms\"\n";
        let site = Self::start(prefix, backends, &format!("{probe}[service.web.breaker]\n{breaker}\n"))?;
        site.all_serve()?;
        Ok(site)
    }

    /// The same with a policy as it is.
    pub fn start(prefix: &str, backends: usize, policy: &str) -> Result<Self> {
        Self::with_keys(prefix, backends, "", policy)
    }

    /// And with more keys of the service itself.
    pub fn with_keys(prefix: &str, backends: usize, keys: &str, policy: &str) -> Result<Self> {
        let topology = Topology::new(prefix, &NAMES[..backends])?;
        let mut remotes = Vec::new();
        let mut toml = format!("interfaces = {:?}\n[service.web]\nvip = {VIP:?}\n{keys}", topology.devices);
        // A request that meets the ejection of its backend may be reset otherwise. The drain tests are about that.
        if !keys.contains("on_eject") {
            toml += "on_eject = \"drain\"\n";
        }
        toml += "[service.web.backends]\n";
        for (number, host) in topology.backends.iter().enumerate() {
            let listen = at(Topology::address(number), 8080);
            let args = Args {
                listen,
                name: NAMES[number].to_owned(),
                mode: Mode::Ok,
                broken: 1.0,
                seed: 1,
                probe_path: "/healthz".to_owned(),
            };
            remotes.push(Remote::start(host, lab_backend(), &args)?);
            toml += &format!("{} = \"{listen}\"\n", NAMES[number]);
        }
        toml += policy;
        let shunt = Shunt::start(&topology.lab, &topology.node, shunt(), &toml)?;
        Ok(Self { backends: remotes, shunt, topology })
    }

    pub fn all_serve(&self) -> Result<()> {
        until("all backends are up", PATIENCE, || {
            self.shunt.status().is_ok_and(|status| {
                let probe = lb_core::snapshot::ProbeState::Up;
                status.snapshot.services[0].backends.iter().all(|backend| backend.probe == probe)
            })
        })?;
        Ok(())
    }

    /// Waits until the next hop of each backend has answered.
    pub fn reachable(&self) -> Result<()> {
        until("all next hops answer", PATIENCE, || {
            self.shunt.status().is_ok_and(|status| {
                status.traffic.len() == self.backends.len()
                    && status.traffic.iter().all(|traffic| traffic.reachable)
            })
        })?;
        Ok(())
    }

    pub fn load(&self, rate: u64, workers: usize, connections: Connections) -> Load {
        let vip: SocketAddr = VIP.parse().expect("a literal");
        Load::start(&self.topology.client, vip, rate, workers, connections)
    }

    pub fn traffic(&self, name: &str) -> Result<BackendTraffic> {
        let status = self.shunt.status()?;
        of(&status, name)
    }

    pub fn backend(&self, name: &str) -> Result<BackendSnapshot> {
        let status = self.shunt.status()?;
        let found = status.snapshot.services[0].backends.iter().find(|backend| backend.name == name);
        found.cloned().with_context(|| format!("no backend {name}"))
    }

    pub fn connections(&self, name: &str) -> Result<u64> {
        Ok(self.traffic(name)?.counters.connections)
    }

    /// Rights of the daemon's user.
    pub fn ask(&self, words: &[&str]) -> Result<Answer> {
        let mut command = self.topology.node.command(shunt());
        command.arg("--socket").arg(self.shunt.socket()).args(words).env("SUDO_USER", "alice");
        Ok(Answer::of(&self.topology.node, &mut command)?)
    }

    /// The same, and Ctrl-C after this many seconds.
    pub fn interrupted(&self, seconds: u32, words: &[&str]) -> Result<Answer> {
        let mut command = self.topology.node.command("timeout");
        command.args(["--preserve-status", "--signal", "INT", &seconds.to_string()]).arg(shunt());
        command.arg("--socket").arg(self.shunt.socket()).args(words).env("SUDO_USER", "alice");
        Ok(Answer::of(&self.topology.node, &mut command)?)
    }

    pub fn why(&self, name: &str) -> Result<BackendView> {
        Ok(serde_json::from_str(&self.shunt.ask(&["why", &format!("web/{name}"), "-o", "json"])?)?)
    }

    pub fn kill(&mut self) -> Result<()> {
        self.shunt.process().signal(Signal::SIGKILL)?;
        self.shunt.process().wait(PATIENCE)?;
        Ok(())
    }

    pub fn state(&self) -> String {
        fs::read_to_string(self.shunt.state_file()).unwrap_or_default()
    }
}

fn of(status: &Status, name: &str) -> Result<BackendTraffic> {
    let found = status.traffic.iter().find(|traffic| traffic.backend == name);
    found.cloned().with_context(|| format!("no traffic of {name}"))
}

/// Those without an answer.
pub fn failed(samples: &[Sample]) -> Vec<&Sample> {
    samples.iter().filter(|sample| sample.answer.is_err()).collect()
}
