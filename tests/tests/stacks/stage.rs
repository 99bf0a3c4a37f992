//! Two services of IPv4 and one of IPv6, all on the same backends.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use lb_lab::{Shunt, Topology, until};
use lb_tests::{
    lab::{at, shunt},
    site::NAMES,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const PORT: u16 = 8080;

/// Fields end in this order.
pub(crate) struct Stage {
    pub(crate) shunt: Shunt,
    pub(crate) topology: Topology,
}

/// Of the service `web`.
pub(crate) fn vip() -> SocketAddr {
    "10.99.0.10:80".parse().expect("a literal")
}

/// Of the service `other`, which has the backends of `web`.
pub(crate) fn other_vip() -> SocketAddr {
    "10.99.0.11:81".parse().expect("a literal")
}

/// Of the service `six`.
pub(crate) fn vip6() -> SocketAddr {
    "[fd99::10]:80".parse().expect("a literal")
}

/// Where the backend of `web` and `other` listens.
pub(crate) fn backend(number: usize) -> SocketAddr {
    at(Topology::address(number), PORT)
}

/// Where that of `six` does.
pub(crate) fn backend6(number: usize) -> SocketAddr {
    SocketAddr::new(Topology::address6(number).into(), PORT)
}

impl Stage {
    /// The way to all backends is known once this returns; nobody need listen there.
    pub(crate) fn new(prefix: &str, backends: usize) -> Result<Self> {
        let topology = Topology::new(prefix, &NAMES[..backends])?;
        let mut toml = format!("interfaces = {:?}\n", topology.devices);
        type Service = (&'static str, SocketAddr, fn(usize) -> SocketAddr);
        let services: [Service; 3] =
            [("web", vip(), backend), ("other", other_vip(), backend), ("six", vip6(), backend6)];
        for (name, vip, backend) in services {
            toml += &format!("[service.{name}]\nvip = \"{vip}\"\nbreaker.consecutive_5xx = 0\n");
            for (number, name) in NAMES[..backends].iter().enumerate() {
                toml += &format!("backends.{name} = \"{}\"\n", backend(number));
            }
        }
        let shunt = Shunt::start(&topology.lab, &topology.node, shunt(), &toml)?;
        let stage = Self { shunt, topology };
        stage.reachable().with_context(|| stage.shunt.log())?;
        Ok(stage)
    }

    /// Waits until the next hop of each backend has answered.
    pub(crate) fn reachable(&self) -> Result<()> {
        until("all next hops answer", PATIENCE, || {
            self.shunt.status().is_ok_and(|status| {
                status.traffic.len() == 3 * self.topology.backends.len()
                    && status.traffic.iter().all(|traffic| traffic.reachable)
            })
        })?;
        Ok(())
    }
}
