//! Backends that no frame reaches.

use anyhow::Result;
use lb_core::snapshot::PathState;
use lb_lab::Topology;
use lb_tests::{lab::skipped, site::NAMES};

use crate::stage::{Stage, interfaces};

const GOOD: (&str, [&str; 2]) = ("good", ["10.20.0.2", "fd20:0::2"]);

#[test]
fn a_backend_that_no_frame_reaches_is_not_serving() -> Result<()> {
    if skipped("a_backend_that_no_frame_reaches_is_not_serving", &[]) {
        return Ok(());
    }
    let topology = Topology::new("reach", &NAMES[..3])?;
    let node = &topology.node;
    for (kind, net) in [("blackhole", 71), ("unreachable", 72), ("prohibit", 73)] {
        node.ip(&format!("route add {kind} 10.{net}.0.1/32"))?;
        node.ip(&format!("route add {kind} fd{net}::1/128"))?;
    }
    // An address that only the host knows, and the node by a local route.
    node.ip("route add local 10.74.0.1/32 dev lo")?;
    node.ip("route add local fd74::1/128 dev lo")?;
    let used = interfaces(&topology.devices[..=1]);
    let members = [
        GOOD,
        ("own", ["10.20.0.1", "fd20:0::1"]),
        ("any-ip", ["10.74.0.1", "fd74::1"]),
        ("far", ["10.77.0.1", "fd77::1"]),
        ("blackhole", ["10.71.0.1", "fd71::1"]),
        ("unreachable", ["10.72.0.1", "fd72::1"]),
        ("prohibit", ["10.73.0.1", "fd73::1"]),
        ("silent", ["10.20.0.99", "fd20:0::99"]),
        ("aside", ["10.20.1.2", "fd20:1::2"]),
    ];
    let mut stage = Stage::new(
        topology,
        &used,
        &members,
        "breaker = { consecutive_5xx = 3, min_clients = 1, max_ejection_percent = 100 }",
    )?;
    stage.has_faults(&[
        ("own", PathState::Local),
        ("any-ip", PathState::Local),
        ("far", PathState::NoRoute),
        ("blackhole", PathState::NoRoute),
        ("unreachable", PathState::NoRoute),
        ("prohibit", PathState::NoRoute),
        ("silent", PathState::NoNeighbour),
        ("aside", PathState::NotAttached),
    ])?;
    assert_eq!(stage.check()?, Some(8));
    assert_eq!(stage.answers(20)?.into_iter().collect::<Vec<_>>(), [("web-0".to_owned(), 40)]);
    let shown = stage.ask(&["status"])?;
    for words in ["unreachable", "it is on this node", "1 of 9 serving"] {
        assert!(shown.stdout.contains(words), "{words}: {shown}");
    }
    let why = stage.ask(&["why", "four/silent"])?;
    assert!(why.stdout.contains("it serves again once frames reach it"), "{why}");
    let json = stage.ask(&["status", "-o", "json"])?;
    assert!(json.stdout.contains("\"path\":\"no_neighbour\""), "{json}");

    // The only good one stays, however bad it is.
    stage.backends[0].fail()?;
    stage.answers(10)?;
    let events = stage.ask(&["events"])?;
    assert!(events.stdout.contains("floor"), "{events}\n{}", stage.ask(&["status"])?);
    assert_eq!(stage.check()?, Some(8));
    Ok(())
}

#[test]
fn a_fault_that_is_mended_is_over() -> Result<()> {
    if skipped("a_fault_that_is_mended_is_over", &[]) {
        return Ok(());
    }
    let topology = Topology::new("mend", &NAMES[..2])?;
    let used = interfaces(&topology.devices);
    // The last ones are addresses of the second server that the node does not know yet.
    let members = [
        ("other", ["10.20.1.2", "fd20:1::2"]),
        ("far", ["10.77.0.1", "fd77::1"]),
        ("silent", ["10.20.1.99", "fd20:1::99"]),
    ];
    let stage = Stage::new(topology, &used, &members, "")?;
    let (node, host) = (&stage.topology.node, &stage.topology.backends[1]);
    stage.has_faults(&[("far", PathState::NoRoute), ("silent", PathState::NoNeighbour)])?;
    for address in ["10.77.0.1/32", "10.20.1.99/32", "fd77::1/128", "fd20:1::99/128"] {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        host.ip(&format!("address add {address} dev node {nodad}"))?;
    }
    // IPv4 by an IPv6 next hop, too.
    node.ip("route add 10.77.0.1/32 via inet6 fd20:1::2 dev web-1")?;
    node.ip("route add fd77::1/128 via fd20:1::2")?;
    stage.has_faults(&[])?;
    assert_eq!(stage.check()?, Some(0));
    assert_eq!(stage.answers(30)?.into_iter().collect::<Vec<_>>(), [("web-1".to_owned(), 60)]);

    // The cable is pulled: nothing serves, and that is no panic.
    host.ip("link set node down")?;
    stage.has_faults(&["other", "far", "silent"].map(|name| (name, PathState::NoLink)))?;
    assert_eq!(stage.check()?, Some(9));
    host.ip("link set node up")?;
    // The host forgot its IPv6 addresses and routes with the link.
    host.ip("address replace fd20:1::2/64 dev node nodad")?;
    for address in ["fd77::1/128", "fd20:1::99/128"] {
        host.ip(&format!("address replace {address} dev node nodad"))?;
    }
    host.ip("route replace default via 10.20.1.1")?;
    host.ip("route replace default via fd20:1::1")?;
    stage.has_faults(&[])?;
    stage.answers(10)?;

    // The interface is taken down on the node, with its routes.
    node.ip("link set web-1 down")?;
    stage.has_faults(&["other", "far", "silent"].map(|name| (name, PathState::NoRoute)))?;
    Ok(())
}

#[test]
fn a_broadcast_address_is_no_host() -> Result<()> {
    if skipped("a_broadcast_address_is_no_host", &[]) {
        return Ok(());
    }
    let topology = Topology::new("cast", &NAMES[..1])?;
    let used = interfaces(&topology.devices);
    // No address of IPv6 is a broadcast address: there the second is of the other server.
    topology.backends[0].ip("address add fd20:0::3/64 dev node nodad")?;
    let stage = Stage::new(topology, &used, &[GOOD, ("all", ["10.20.0.255", "fd20:0::3"])], "")?;
    let is_out = || {
        let members = stage.members("four")?;
        anyhow::Ok(
            members.iter().map(|of| of.path).collect::<Vec<_>>() == [PathState::Ok, PathState::NotUnicast],
        )
    };
    lb_lab::until("it is no host", crate::stage::PATIENCE, || is_out().unwrap_or(false))?;
    stage.answers(20)?;
    Ok(())
}
