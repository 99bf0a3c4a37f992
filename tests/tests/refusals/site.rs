//! A node with a running daemon and good backends, which must not notice any of it.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use lb_lab::{
    Host, Shunt, Topology,
    backend::{Args, Mode, Remote},
    until,
};
use lb_tests::{
    answer::Answer,
    http::{PATIENCE, get},
    lab::{at, lab_backend, shunt},
};

const NAMES: [&str; 3] = ["web-0", "web-1", "web-2"];

pub(crate) struct Site {
    _backends: Vec<Remote>,
    pub(crate) shunt: Shunt,
    pub(crate) topology: Topology,
}

impl Site {
    /// The daemon serves the first `used` of the backends, from the devices that lead to them.
    pub(crate) fn new(prefix: &str, backends: usize, used: usize) -> Result<Self> {
        let topology = Topology::new(prefix, &NAMES[..backends])?;
        topology.lab.pin_neighbours()?;
        let remotes: Result<_, _> = (0..backends).map(|number| backend(&topology, number)).collect();
        let numbers: Vec<usize> = (0..used).collect();
        let toml = interfaces(&topology.devices[..=used]) + &service(&numbers);
        let shunt = Shunt::start(&topology.lab, &topology.node, shunt(), &toml)?;
        let site = Self { _backends: remotes?, shunt, topology };
        site.serves(used)?;
        Ok(site)
    }

    /// That so many connections come through that each of these backends has had some.
    pub(crate) fn serves(&self, backends: usize) -> Result<()> {
        until("each backend answers", PATIENCE, || {
            self.answers(8 * backends).is_ok_and(|answers| answers.len() == backends)
        })
        .with_context(|| self.shunt.log())
    }

    /// Which backends answer so many connections, and how many each. None may fail.
    pub(crate) fn answers(&self, connections: usize) -> Result<BTreeMap<String, usize>> {
        let mut answers = BTreeMap::new();
        for _ in 0..connections {
            let response = get(&self.topology.client, vip(), "/")?;
            ensure!(response.status == 200, "{response:?}");
            let backend = response.header("x-backend").context("it says who it is")?;
            *answers.entry(backend.to_owned()).or_default() += 1;
        }
        Ok(answers)
    }

    /// `shunt` with this daemon's socket.
    pub(crate) fn ask(&self, args: &[&str]) -> Result<Answer> {
        ask(&self.topology.node, self.shunt.socket(), args)
    }
}

pub(crate) fn ask(host: &Host, socket: &Path, args: &[&str]) -> Result<Answer> {
    let mut command: Command = host.command(shunt());
    Ok(Answer::of(host, command.arg("--socket").arg(socket).args(args))?)
}

pub(crate) fn interfaces(devices: &[String]) -> String {
    format!("interfaces = {devices:?}\n")
}

/// The service `web` with these backends, on which nothing is ejected.
pub(crate) fn service(numbers: &[usize]) -> String {
    let mut toml = format!("[service.web]\nvip = \"{}\"\nbreaker.consecutive_5xx = 0\n", vip());
    toml += "[service.web.backends]\n";
    for number in numbers {
        toml += &format!("{} = \"{}\"\n", NAMES[*number], address(*number));
    }
    toml
}

pub(crate) fn vip() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 10], 80))
}

fn address(number: usize) -> SocketAddr {
    at(Topology::address(number), 8080)
}

fn backend(topology: &Topology, number: usize) -> lb_lab::Result<Remote> {
    let args = Args {
        listen: address(number),
        name: NAMES[number].to_owned(),
        mode: Mode::Ok,
        broken: 0.5,
        seed: 1,
        probe_path: "/healthz".to_owned(),
    };
    Remote::start(&topology.backends[number], lab_backend(), &args)
}
