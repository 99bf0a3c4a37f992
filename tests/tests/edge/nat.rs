//! NAT addresses that the node does not have.

use anyhow::Result;
use lb_core::snapshot::PathState;
use lb_lab::Topology;
use lb_tests::{lab::skipped, site::NAMES};

use crate::stage::{Stage, interfaces};

const MEMBERS: [(&str, [&str; 2]); 2] =
    [("a", ["10.20.0.2", "fd20:0::2"]), ("b", ["10.20.1.2", "fd20:1::2"])];
const NONE: [(&str, PathState); 2] = [("a", PathState::NoNatAddress), ("b", PathState::NoNatAddress)];

fn stage(prefix: &str, nat: &[&str], more: &str) -> Result<Stage> {
    let topology = Topology::new(prefix, &NAMES[..2])?;
    let settings = interfaces(&topology.devices) + &format!("nat_addresses = {nat:?}\n");
    Stage::new(topology, &settings, &MEMBERS, more)
}

#[test]
fn a_node_without_its_nat_addresses_does_not_serve() -> Result<()> {
    if skipped("a_node_without_its_nat_addresses_does_not_serve", &[]) {
        return Ok(());
    }
    let stage = stage("natless", &["10.50.0.1", "fd50::1"], "")?;
    let node = &stage.topology.node;
    stage.has_faults(&NONE)?;
    assert_eq!(stage.check()?, Some(9));
    // An address, as a VRRP daemon brings it, and a whole local prefix.
    node.ip("address add 10.50.0.1/32 dev lo")?;
    node.ip("route add local fd50::/64 dev lo")?;
    stage.has_faults(&[])?;
    stage.answers(20)?;
    assert_eq!(stage.check()?, Some(0));
    node.ip("address del 10.50.0.1/32 dev lo")?;
    node.ip("route del local fd50::/64 dev lo")?;
    stage.has_faults(&NONE)
}

#[test]
fn only_the_nat_addresses_that_are_there_are_used() -> Result<()> {
    if skipped("only_the_nat_addresses_that_are_there_are_used", &[]) {
        return Ok(());
    }
    let nat = ["10.50.0.1", "10.50.0.2", "fd50::1", "fd50::2"];
    let topology = Topology::new("nathalf", &NAMES[..2])?;
    let node = topology.node.clone();
    for address in nat {
        node.ip(&format!("address add {address} dev lo"))?;
    }
    let settings = interfaces(&topology.devices) + &format!("nat_addresses = {nat:?}\n");
    let stage = Stage::new(topology, &settings, &MEMBERS, "")?;
    stage.answers(20)?;
    for gone in [[1, 3], [0, 2]] {
        for place in gone {
            node.ip(&format!("address del {} dev lo", nat[place]))?;
        }
        for place in gone {
            let said = format!("no new connection uses it address={}", nat[place]);
            lb_lab::until(&said, crate::stage::PATIENCE, || stage.shunt.log().contains(&said))?;
        }
        stage.has_faults(&[])?;
        stage.answers(40)?;
        for place in gone {
            node.ip(&format!("address add {} dev lo", nat[place]))?;
        }
    }
    Ok(())
}

#[test]
fn in_dnat_no_nat_address_is_needed() -> Result<()> {
    if skipped("in_dnat_no_nat_address_is_needed", &[]) {
        return Ok(());
    }
    let stage = stage("natnone", &["10.50.0.1", "fd50::1"], "mode = \"dnat\"")?;
    stage.answers(20)?;
    stage.has_faults(&[])
}
