//! A start warns of what keeps traffic from working.

use anyhow::Result;
use lb_lab::Topology;
use lb_tests::{lab::skipped, site::NAMES};

use crate::stage::{Stage, interfaces};

const MEMBERS: [(&str, [&str; 2]); 1] = [("a", ["10.20.0.2", "fd20:0::2"])];

impl Stage {
    /// The checks that status warns about, with their interfaces.
    fn warnings(&self) -> Result<Vec<(String, Option<String>)>> {
        Ok(self.shunt.status()?.warnings.into_iter().map(|of| (of.check, of.interface)).collect())
    }
}

#[test]
fn a_start_says_what_keeps_traffic_from_working() -> Result<()> {
    if skipped("a_start_says_what_keeps_traffic_from_working", &[]) {
        return Ok(());
    }
    let topology = Topology::new("says", &NAMES[..1])?;
    let (node, client) = (topology.node.clone(), topology.client.clone());
    let settings = interfaces(&topology.devices) + "xdp_mode = \"native\"\nvlans = [7]\n";
    client.run(&["ethtool", "-K", "node", "tx", "on"])?;
    node.run(&["ethtool", "-K", "client", "rxvlan", "off"])?;
    node.run(&["ethtool", "-K", "web-0", "rxvlan", "on"])?;
    // Port 80 becomes one of the host's own.
    node.sysctl("net/ipv4/ip_unprivileged_port_start", "0")?;
    node.sysctl("net/ipv4/ip_local_port_range", "50 1023")?;
    let mut stage = Stage::new(topology, &settings, &MEMBERS, "")?;
    let on = |check: &str, interface: Option<&str>| (check.to_owned(), interface.map(str::to_owned));
    let mut found = stage.warnings()?;
    found.retain(|(check, _)| check != "mtu");
    assert_eq!(found, [on("vip_ports", None), on("checksums", Some("client")), on("vlan", Some("web-0"))]);
    let log = stage.shunt.log();
    for words in ["ethtool -K node tx off", "ip_local_reserved_ports=80", "rxvlan off"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    let shown = stage.ask(&["status"])?;
    assert!(shown.stdout.contains("unfinished TCP checksums"), "{shown}");

    // The remedies help.
    client.run(&["ethtool", "-K", "node", "tx", "off"])?;
    node.run(&["ethtool", "-K", "web-0", "rxvlan", "off"])?;
    node.sysctl("net/ipv4/ip_local_reserved_ports", "80")?;
    stage.shunt.process().stop(crate::stage::PATIENCE)?;
    stage.shunt.start_again()?;
    assert_eq!(stage.warnings()?, []);
    stage.answers(10)?;
    Ok(())
}
