//! At which MAC addresses the node takes frames: real daemon, real devices.

use std::time::Duration;

use anyhow::{Result, ensure};
use lb_lab::until;
use lb_tests::{
    http,
    lab::skipped,
    site::{PATIENCE, Site, VIP},
};

/// From now on the client sends frames for the node to this address.
fn use_mac(site: &Site, mac: &str) -> Result<()> {
    site.topology.client.ip(&format!("neighbour replace 10.10.0.1 lladdr {mac} dev node nud permanent"))?;
    Ok(())
}

/// Whether a connection through the VIP begins within a moment. An error: it was refused.
fn begins(site: &Site) -> Result<bool> {
    match http::connect(&site.topology.client, VIP.parse()?, Duration::from_millis(300)) {
        Ok(_) => Ok(true),
        Err(error) => {
            ensure!(!format!("{error:?}").contains("refused"), "somebody has answered: {error:?}");
            Ok(false)
        }
    }
}

fn serves(site: &Site, what: &str) -> Result<()> {
    until(what, PATIENCE, || begins(site).is_ok_and(|begins| begins))?;
    Ok(())
}

#[test]
fn only_frames_for_the_node_are_taken() -> Result<()> {
    const STRANGER: &str = "02:5b:00:00:99:99";
    const VIRTUAL: &str = "00:00:5e:00:01:33";
    const NEW: &str = "02:5b:00:00:77:01";
    if skipped("only_frames_for_the_node_are_taken", &[]) {
        return Ok(());
    }
    let site = Site::new("stations", 1, "enforce = false")?;
    let node = &site.topology.node;
    serves(&site, "the VIP accepts")?;
    for mac in [STRANGER, VIRTUAL, NEW] {
        let before = site.connections("web-0")?;
        use_mac(&site, mac)?;
        ensure!(!begins(&site)?, "{mac} is another station");
        ensure!(site.connections("web-0")? == before, "its frames are left to it");
        ensure!(
            site.shunt.status()?.drops.iter().all(|drops| drops.reasons.is_empty()),
            "nothing is dropped"
        );
    }
    // As a VRRP daemon does it when it becomes master.
    node.ip(&format!("link add vrrp0 link client address {VIRTUAL} type macvlan mode bridge"))?;
    node.ip("link set vrrp0 up")?;
    use_mac(&site, VIRTUAL)?;
    serves(&site, "the virtual address is the node's")?;
    node.ip("link delete vrrp0")?;
    until("it is another's again", PATIENCE, || begins(&site).is_ok_and(|begins| !begins))?;
    node.ip(&format!("link set client address {NEW}"))?;
    use_mac(&site, NEW)?;
    serves(&site, "the new address is the node's")
}
