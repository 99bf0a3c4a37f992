//! Interfaces that go away, come back, and change while the daemon runs.

use std::fs;

use anyhow::Result;
use lb_core::snapshot::PathState;
use lb_lab::{Host, Topology, until, until_ok};
use lb_tests::{attempt::programs, lab::skipped, site::NAMES};
use lb_userspace::attach_mode::Condition;
use nix::sys::signal::Signal;

use crate::stage::{PATIENCE, Stage, interfaces, services};

const MEMBERS: [(&str, [&str; 2]); 2] =
    [("a", ["10.20.0.2", "fd20:0::2"]), ("b", ["10.20.1.2", "fd20:1::2"])];

fn stage(prefix: &str, used: usize, members: &[(&str, [&str; 2])]) -> Result<Stage> {
    let topology = Topology::new(prefix, &NAMES[..2])?;
    let settings = interfaces(&topology.devices[..used]);
    Stage::new(topology, &settings, members, "")
}

impl Stage {
    fn has_conditions(&self, expected: &[Condition]) -> Result<()> {
        let conditions = || -> Result<Vec<Condition>> {
            Ok(self.shunt.status()?.interfaces.iter().map(|of| of.condition).collect())
        };
        until_ok(&format!("the interfaces are {expected:?}"), PATIENCE, || match conditions() {
            Ok(found) if found == expected => Ok(()),
            found => Err(format!("{found:?}\n{}", self.shunt.log())),
        })?;
        Ok(())
    }

    fn serves(&self, who: &[&str]) -> Result<()> {
        until(&format!("{who:?} answer"), PATIENCE, || {
            self.answers(10).is_ok_and(|answers| answers.keys().map(String::as_str).eq(who.iter().copied()))
        })?;
        Ok(())
    }

    fn says(&self, event: &str) -> Result<()> {
        until(event, PATIENCE, || self.ask(&["events"]).is_ok_and(|events| events.stdout.contains(event)))?;
        Ok(())
    }

    /// The link between the node and a host is made again, as a hot-plugged device is.
    fn link_again(&self, device: &str, host: &Host, ends: [(&str, &str); 2]) -> Result<()> {
        let node = &self.topology.node;
        node.ip(&format!("link add {device} type veth peer name node netns {}", host.namespace()))?;
        for (on, device, (v4, v6)) in [(node, device, ends[0]), (host, "node", ends[1])] {
            on.run(&["ethtool", "-K", device, "tx", "off"])?;
            on.ip(&format!("address add {v4}/24 dev {device}"))?;
            on.ip(&format!("address add {v6}/64 dev {device} nodad"))?;
            on.ip(&format!("link set {device} up"))?;
        }
        for (on, device) in [(node, device), (host, "node")] {
            on.run(&["ethtool", "-K", device, "gro", "on"])?;
        }
        host.ip(&format!("route add default via {}", ends[0].0))?;
        host.ip(&format!("route add default via {}", ends[0].1))?;
        Ok(())
    }
}

#[test]
fn an_interface_that_is_made_again_is_attached_again() -> Result<()> {
    if skipped("an_interface_that_is_made_again_is_attached_again", &[]) {
        return Ok(());
    }
    let stage = stage("again", 3, &MEMBERS)?;
    let Topology { node, client, backends, .. } = &stage.topology;
    stage.serves(&["web-0", "web-1"])?;
    assert_eq!(stage.check()?, Some(0));

    // Towards a backend.
    node.ip("link del web-0")?;
    stage.has_conditions(&[Condition::Attached, Condition::Gone, Condition::Attached])?;
    stage.has_faults(&[("a", PathState::NoRoute)])?;
    assert_eq!(stage.check()?, Some(8));
    stage.says("attached -> gone")?;
    assert!(stage.ask(&["status"])?.stdout.contains("web-0 (gone)"));
    stage.serves(&["web-1"])?;
    stage.link_again("web-0", &backends[0], [("10.20.0.1", "fd20:0::1"), ("10.20.0.2", "fd20:0::2")])?;
    stage.has_conditions(&[Condition::Attached; 3])?;
    stage.has_faults(&[])?;
    stage.serves(&["web-0", "web-1"])?;

    // Towards the clients.
    node.ip("link del client")?;
    stage.has_conditions(&[Condition::Gone, Condition::Attached, Condition::Attached])?;
    assert_eq!(stage.check()?, Some(8), "all backends serve, and nobody gets to them");
    stage.link_again("client", client, [("10.10.0.1", "fd10::1"), ("10.10.0.2", "fd10::2")])?;
    stage.has_conditions(&[Condition::Attached; 3])?;
    stage.serves(&["web-0", "web-1"])?;
    assert_eq!(stage.check()?, Some(0));
    assert_eq!(fs::read_dir(stage.shunt.pins())?.count(), 1);
    Ok(())
}

#[test]
fn an_interface_without_a_link_or_with_another_name_is_said() -> Result<()> {
    if skipped("an_interface_without_a_link_or_with_another_name_is_said", &[]) {
        return Ok(());
    }
    let stage = stage("named", 3, &MEMBERS)?;
    let Topology { node, client, .. } = &stage.topology;
    // No carrier, then down.
    client.ip("link set node down")?;
    stage.has_conditions(&[Condition::NoLink, Condition::Attached, Condition::Attached])?;
    assert_eq!(stage.check()?, Some(8));
    client.ip("link set node up")?;
    stage.has_conditions(&[Condition::Attached; 3])?;
    node.ip("link set client down")?;
    stage.has_conditions(&[Condition::NoLink, Condition::Attached, Condition::Attached])?;
    stage.says("attached -> no_link")?;

    // Renamed, which the kernel allows while it is down; the program goes on.
    node.ip("link set client name wan0")?;
    node.ip("link set wan0 up")?;
    stage.has_conditions(&[Condition::Renamed, Condition::Attached, Condition::Attached])?;
    assert_eq!(stage.check()?, Some(8));
    let status = stage.ask(&["status"])?.stdout;
    assert!(status.contains("interface client: it is called wan0 now"), "{status}");
    assert_eq!(programs(node)?.len(), 3);
    // The remedy: the new name in the file, and a reload.
    let mut stage = stage;
    let config = fs::read_to_string(stage.shunt.config())?.replace("\"client\"", "\"wan0\"");
    fs::write(stage.shunt.config(), config)?;
    stage.shunt.process().signal(Signal::SIGHUP)?;
    stage.has_conditions(&[Condition::Attached; 3])?;
    assert_eq!(programs(&stage.topology.node)?.len(), 3);
    stage.topology.client.ip("route replace default via 10.10.0.1")?;
    stage.topology.client.ip("address replace fd10::2/64 dev node nodad")?;
    stage.topology.client.ip("route replace default via fd10::1")?;
    stage.topology.node.ip("address replace fd10::1/64 dev wan0 nodad")?;
    stage.serves(&["web-0", "web-1"])
}

#[test]
fn a_program_that_somebody_takes_off_is_put_back() -> Result<()> {
    if skipped("a_program_that_somebody_takes_off_is_put_back", &[]) {
        return Ok(());
    }
    let stage = stage("takenoff", 3, &MEMBERS)?;
    let version = fs::read_dir(stage.shunt.pins())?.next().expect("one version")?.path();
    let links = || -> Result<Vec<_>> {
        let all = fs::read_dir(&version)?.collect::<Result<Vec<_>, _>>()?;
        Ok(all.into_iter().map(|of| of.path()).filter(|of| of.to_string_lossy().contains("/link-")).collect())
    };
    let before = links()?;
    assert_eq!(before.len(), 3);
    for pin in &before {
        fs::remove_file(pin)?;
    }
    until("the pins are back", PATIENCE, || links().is_ok_and(|links| links.len() == 3))?;
    stage.has_conditions(&[Condition::Attached; 3])?;
    assert_eq!(programs(&stage.topology.node)?.len(), 3);
    stage.serves(&["web-0", "web-1"])
}

#[test]
fn a_reload_attaches_and_detaches_interfaces() -> Result<()> {
    if skipped("a_reload_attaches_and_detaches_interfaces", &[]) {
        return Ok(());
    }
    let stage = stage("wider", 2, &MEMBERS[..1])?;
    let (node, devices) = (&stage.topology.node, &stage.topology.devices);
    let config = fs::read_to_string(stage.shunt.config())?;
    let (head, _) = config.split_once("interfaces").expect("it names its interfaces");
    let write = |devices: &[String], members: &[(&str, [&str; 2])]| {
        fs::write(stage.shunt.config(), head.to_owned() + &interfaces(devices) + &services(members, ""))
    };
    let before = programs(node)?;
    // One that cannot be attached: nothing changes, also not the other new one.
    let absent = [devices.clone(), vec!["eth7".to_owned()]].concat();
    write(&absent, &MEMBERS)?;
    for args in [["reload", "--dry-run"].as_slice(), &["reload"]] {
        stage.ask(args)?.refuses(3, &["interface eth7 does not exist", "nothing has changed"]);
        assert_eq!(programs(node)?, before);
        assert_eq!(stage.members("four")?.len(), 1);
    }
    write(devices, &MEMBERS)?;
    let dry = stage.ask(&["reload", "--dry-run"])?;
    assert!(dry.stdout.contains("interface web-1: attached"), "{dry}");
    assert_eq!(programs(node)?, before);
    let reloaded = stage.ask(&["reload"])?;
    assert!(reloaded.stdout.contains("interface web-1: attached"), "{reloaded}");
    assert!(!reloaded.stdout.contains("restart"), "{reloaded}");
    stage.has_conditions(&[Condition::Attached; 3])?;
    stage.serves(&["web-0", "web-1"])?;
    // The new backend was never out of reach.
    assert!(!stage.ask(&["events"])?.stdout.contains("not_attached"));

    write(&devices[..2], &MEMBERS)?;
    let reloaded = stage.ask(&["reload", "--force"])?;
    assert!(reloaded.stdout.contains("interface web-1: detached"), "{reloaded}");
    until("it is off", PATIENCE, || programs(node).is_ok_and(|now| now == before))?;
    stage.has_faults(&[("b", PathState::NotAttached)])?;
    stage.serves(&["web-0"])
}
