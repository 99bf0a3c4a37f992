//! A node with web servers that answer in both families.

use std::{collections::BTreeMap, net::SocketAddr, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lb_core::snapshot::{BackendSnapshot, Effective, PathState};
use lb_lab::{
    Shunt, Topology,
    backend::{Args, Mode, Remote},
    until_ok,
};
use lb_tests::{
    answer::Answer,
    http,
    lab::{lab_backend, shunt},
    site::NAMES,
};

/// Longer than it takes until a fault counts.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The services, each in its family.
pub(crate) const SERVICES: [&str; 2] = ["four", "six"];
const VIPS: [&str; 2] = ["10.99.0.10:80", "[fd99::10]:80"];

/// Fields end in this order.
pub(crate) struct Stage {
    pub(crate) backends: Vec<Remote>,
    pub(crate) shunt: Shunt,
    pub(crate) topology: Topology,
}

impl Stage {
    /// `settings`: the lines above the services. `members`: the backends of both services, name and host addresses.
    pub(crate) fn new(
        topology: Topology,
        settings: &str,
        members: &[(&str, [&str; 2])],
        more: &str,
    ) -> Result<Self> {
        let backends = topology.backends.iter().zip(NAMES).map(|(host, name)| {
            let args = Args {
                listen: "[::]:8080".parse().expect("literal"),
                name: name.to_owned(),
                mode: Mode::Ok,
                broken: 1.0,
                seed: 1,
                probe_path: "/healthz".to_owned(),
            };
            Remote::start(host, lab_backend(), &args)
        });
        let backends = backends.collect::<Result<_, _>>()?;
        let toml = settings.to_owned() + &services(members, more);
        let shunt = Shunt::start(&topology.lab, &topology.node, shunt(), &toml)?;
        Ok(Self { backends, shunt, topology })
    }

    /// Until exactly these backends of both services are not `ok`, each with its code, and everything else serves.
    pub(crate) fn has_faults(&self, faults: &[(&str, PathState)]) -> Result<()> {
        let expected: BTreeMap<_, _> =
            faults.iter().map(|(name, path)| ((*name).to_owned(), *path)).collect();
        until_ok(&format!("the faults are {faults:?}"), PATIENCE, || {
            for service in SERVICES {
                let found = self.faults(service).map_err(|error| error.to_string())?;
                if found != expected {
                    return Err(format!("{service}: {found:?}\n{}", self.shunt.log()));
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    pub(crate) fn members(&self, service: &str) -> Result<Vec<BackendSnapshot>> {
        let services = self.shunt.status()?.snapshot.services;
        let found = services.into_iter().find(|of| of.name == service).context("it is configured")?;
        Ok(found.backends)
    }

    fn faults(&self, service: &str) -> Result<BTreeMap<String, PathState>> {
        let mut faults = BTreeMap::new();
        for backend in self.members(service)? {
            let is_out = backend.effective == Effective::Unreachable;
            ensure!(is_out == (backend.path != PathState::Ok), "{backend:?}");
            if is_out {
                let reason = backend.reason.as_deref().unwrap_or_default();
                ensure!(reason.contains(backend.path.message()), "{backend:?}");
                ensure!(backend.share == 0, "{backend:?}");
                faults.insert(backend.name, backend.path);
            }
        }
        Ok(faults)
    }

    /// So many connections to each service, and who answers them. None fails.
    pub(crate) fn answers(&self, connections: usize) -> Result<BTreeMap<String, usize>> {
        let mut answers = BTreeMap::new();
        for vip in VIPS {
            let vip: SocketAddr = vip.parse()?;
            for _ in 0..connections {
                let response =
                    http::get(&self.topology.client, vip, "/").with_context(|| self.shunt.log())?;
                let backend = response.header("x-backend").context("it says who it is")?;
                *answers.entry(backend.to_owned()).or_default() += 1;
            }
        }
        Ok(answers)
    }

    /// The exit code of `status --check`.
    pub(crate) fn check(&self) -> Result<Option<i32>> {
        Ok(self.ask(&["status", "--check"])?.code)
    }

    pub(crate) fn ask(&self, args: &[&str]) -> Result<Answer> {
        let node = &self.topology.node;
        let mut command: Command = node.command(shunt());
        Ok(Answer::of(node, command.arg("--socket").arg(self.shunt.socket()).args(args))?)
    }
}

pub(crate) fn interfaces(devices: &[String]) -> String {
    format!("interfaces = {devices:?}\n")
}

/// Both services with these backends. `more` follows in each service.
pub(crate) fn services(members: &[(&str, [&str; 2])], more: &str) -> String {
    let mut toml = String::new();
    for family in [0, 1] {
        let service = SERVICES[family];
        toml +=
            &format!("[service.{service}]\nvip = {:?}\n{more}\n[service.{service}.backends]\n", VIPS[family]);
        for (name, addresses) in members {
            let address = match family {
                0 => format!("{}:8080", addresses[0]),
                _ => format!("[{}]:8080", addresses[1]),
            };
            toml += &format!("{name} = {address:?}\n");
        }
    }
    toml
}
