//! A start warns of what keeps traffic from working.

use std::{fs, thread, time::Duration};

use anyhow::Result;
use lb_lab::{Topology, until};
use lb_tests::{
    answer::Answer,
    attempt::Attempt,
    lab::{shunt, skipped},
    site::NAMES,
};

use crate::stage::{PATIENCE, Stage, interfaces, services};

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
    stage.shunt.process().stop(PATIENCE)?;
    stage.shunt.start_again()?;
    assert_eq!(stage.warnings()?, []);
    stage.answers(10)?;
    Ok(())
}

#[test]
fn status_says_that_the_daemon_is_starting() -> Result<()> {
    if skipped("status_says_that_the_daemon_is_starting", &[]) {
        return Ok(());
    }
    let topology = Topology::new("starting", &NAMES[..1])?;
    let node = &topology.node;
    let toml = interfaces(&topology.devices) + &services(&MEMBERS, "");
    let attempt = Attempt::new(&topology.lab, node, "starting", &toml)?;
    let status = || Answer::of(node, node.command(shunt()).arg("-s").arg(&attempt.socket).arg("status"));
    let mut command = node.command(shunt());
    let mut daemon = node.spawn(command.arg("run").arg("-c").arg(&attempt.config))?;
    // The verifier takes long enough that some question meets it.
    let mut said = Vec::new();
    until("it answers", PATIENCE, || {
        let answer = status().expect("it ends");
        let done = answer.code == Some(0);
        said.push(answer.stderr);
        thread::sleep(Duration::from_millis(5));
        done
    })?;
    let starting = "the daemon is starting: the kernel verifies the program";
    assert!(said.iter().any(|text| text.contains(starting)), "{said:?}");
    daemon.stop(PATIENCE)?;
    Answer::of(node, node.command(shunt()).args(["detach", "--instance", &attempt.instance]))?.succeeds();
    Ok(())
}

#[test]
fn a_new_max_flows_is_said_until_it_is_in_force() -> Result<()> {
    if skipped("a_new_max_flows_is_said_until_it_is_in_force", &[]) {
        return Ok(());
    }
    let topology = Topology::new("flows", &NAMES[..1])?;
    let settings = interfaces(&topology.devices) + "max_flows = 1024\n";
    let mut stage = Stage::new(topology, &settings, &MEMBERS, "")?;
    assert_eq!(stage.warnings()?, []);
    let config = fs::read_to_string(stage.shunt.config())?;
    fs::write(stage.shunt.config(), config.replace("max_flows = 1024", "max_flows = 200000"))?;
    let needs = |stage: &Stage| Ok::<_, anyhow::Error>(stage.ask(&["reload"])?.stdout);
    assert!(needs(&stage)?.contains("with a restart only: max_flows"));
    stage.shunt.process().stop(PATIENCE)?;
    stage.shunt.start_again()?;
    let log = stage.shunt.log();
    for words in ["max_flows=1030", "max_flows = 200000 is not in force", "shunt detach --instance"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    assert_eq!(stage.warnings()?, [("max_flows".to_owned(), None)]);
    assert!(needs(&stage)?.contains("with a restart only: max_flows"));

    stage.shunt.process().stop(PATIENCE)?;
    stage.ask(&["detach", "--instance", stage.shunt.instance()])?.succeeds();
    stage.shunt.start_again()?;
    assert_eq!(stage.warnings()?, []);
    assert!(!needs(&stage)?.contains("restart"));
    stage.answers(5)?;
    Ok(())
}
