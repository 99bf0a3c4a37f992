//! The usual lab: a client, the node that Shunt runs on, and backends behind it.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Host, Lab, Result};

/// ```text
///   client 10.10.0.2 ── 10.10.0.1 node 10.20.N.1 ── 10.20.N.2 backend N
///          fd10::2   ── fd10::1        fd20:N::1 ── fd20:N::2
/// ```
///
/// Client and backends send everything to the node, so any other address may be a VIP; none
/// is on a host. The node does not route, so what arrives at a backend came through Shunt, or from the node itself.
#[derive(Debug)]
pub struct Topology {
    pub client: Host,
    pub node: Host,
    pub backends: Vec<Host>,
    /// The node's devices: towards the client first, then towards each backend.
    pub devices: Vec<String>,
    /// Last, so that a thread that still holds a host ends before its namespace goes.
    pub lab: Lab,
}

impl Topology {
    pub fn new(prefix: &str, backends: &[&str]) -> Result<Self> {
        let mut lab = Lab::new(prefix)?;
        let client = lab.host("client")?;
        let node = lab.host("node")?;
        let [_, toward] = lab.link((&client, "10.10.0.2/24"), (&node, "10.10.0.1/24"))?;
        client.ip("route add default via 10.10.0.1")?;
        also_v6((&client, "node", "fd10::2"), (&node, "client", "fd10::1"))?;
        let mut devices = vec![toward.device];
        let mut hosts = Vec::new();
        for (number, name) in backends.iter().enumerate() {
            let host = lab.host(name)?;
            let here = format!("10.20.{number}.1");
            let there = Self::address(number);
            let [toward, _] = lab.link((&node, &format!("{here}/24")), (&host, &format!("{there}/24")))?;
            host.ip(&format!("route add default via {here}"))?;
            let [here, there] = [format!("fd20:{number:x}::1"), Self::address6(number).to_string()];
            also_v6((&host, "node", &there), (&node, &toward.device, &here))?;
            devices.push(toward.device);
            hosts.push(host);
        }
        Ok(Self { client, node, backends: hosts, devices, lab })
    }

    /// The address of a backend, by its number.
    pub fn address(number: usize) -> Ipv4Addr {
        let third = u8::try_from(number).expect("a lab has fewer than 256 backends");
        Ipv4Addr::new(10, 20, third, 2)
    }

    /// The same in IPv6.
    pub fn address6(number: usize) -> Ipv6Addr {
        let second = u16::try_from(number).expect("a lab has fewer than 256 backends");
        Ipv6Addr::new(0xfd20, second, 0, 0, 0, 0, 0, 2)
    }

    /// Lets the node route: the plain path that Shunt is compared with.
    pub fn route(&self) -> Result<()> {
        self.node.sysctl("net/ipv4/ip_forward", "1")
    }
}

/// Gives a link IPv6 addresses too, each end by its device; the first end sends everything to the second.
/// Nobody else is there, so nobody is asked whether the addresses are free.
fn also_v6(end: (&Host, &str, &str), node: (&Host, &str, &str)) -> Result<()> {
    for (host, device, address) in [end, node] {
        host.ip(&format!("address add {address}/64 dev {device} nodad"))?;
    }
    end.0.ip(&format!("route add default via {}", node.2))?;
    Ok(())
}
