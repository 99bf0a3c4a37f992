//! A reload says beforehand what would not work after it, and is made only if the operator insists.

use std::fs;

use anyhow::{Context as _, Result};
use lb_core::snapshot::PathState;
use lb_lab::{Topology, until};
use lb_tests::{http, lab::skipped, site::NAMES};
use lb_userspace::control::model::{HazardCode, Reloaded};
use nix::sys::signal::Signal;

use crate::stage::{PATIENCE, SERVICES, Stage, interfaces, services};

const A: (&str, [&str; 2]) = ("a", ["10.20.0.2", "fd20:0::2"]);
const B: (&str, [&str; 2]) = ("b", ["10.20.1.2", "fd20:1::2"]);
const FAR: (&str, [&str; 2]) = ("far", ["10.77.0.1", "fd77::1"]);

impl Stage {
    fn configure(&self, used: &[String], members: &[(&str, [&str; 2])]) -> Result<()> {
        let text = fs::read_to_string(self.shunt.config())?;
        let head: String = text
            .lines()
            .take_while(|line| !line.starts_with('['))
            .filter(|line| !line.starts_with("interfaces"))
            .map(|line| format!("{line}\n"))
            .collect();
        fs::write(self.shunt.config(), head + &interfaces(used) + &services(members, ""))?;
        Ok(())
    }

    fn generation(&self) -> Result<u64> {
        Ok(self.shunt.status()?.snapshot.config_generation)
    }
}

#[test]
fn a_backend_that_would_be_unreachable_is_a_hazard() -> Result<()> {
    if skipped("a_backend_that_would_be_unreachable_is_a_hazard", &[]) {
        return Ok(());
    }
    let topology = Topology::new("hazard", &NAMES[..2])?;
    let used = topology.devices[..=1].to_vec();
    let mut stage = Stage::new(topology, &interfaces(&used), &[A], "")?;
    stage.has_faults(&[])?;
    let before = stage.generation()?;

    stage.configure(&used, &[A, B, FAR])?;
    let said = [
        "four/b: 10.20.1.2 would be unreachable: its replies arrive by an interface",
        "six/b: fd20:1::2 would be",
    ];
    let refused = stage.ask(&["reload"])?;
    refused.refuses(5, &said);
    refused
        .refuses(5, &["four/far: 10.77.0.1 would be unreachable: this node has no route to it", "--force"]);
    let dry = stage.ask(&["reload", "--dry-run"])?;
    assert_eq!(dry.code, Some(5), "{dry}");
    assert!(dry.stdout.contains("hazard: six/far: fd77::1 would be unreachable"), "{dry}");
    let json = stage.ask(&["reload", "--dry-run", "-o", "json"])?;
    let document: Reloaded = serde_json::from_str(&json.stdout)?;
    let mut hazards: Vec<_> =
        document.hazards.iter().map(|of| (of.subject.as_str(), of.code, of.path)).collect();
    hazards.sort_by_key(|(subject, ..)| *subject);
    let (code, path) = (HazardCode::Unreachable, [PathState::NotAttached, PathState::NoRoute].map(Some));
    assert_eq!(
        hazards,
        [
            ("four/b", code, path[0]),
            ("four/far", code, path[1]),
            ("six/b", code, path[0]),
            ("six/far", code, path[1])
        ]
    );
    stage.shunt.process().signal(Signal::SIGHUP)?;
    until("the log says why", PATIENCE, || stage.shunt.log().contains("not reloaded, nothing changes"))?;
    assert_eq!(stage.generation()?, before, "nothing has changed");

    // With the interface there is one hazard less, and `--force` takes the other.
    let all = stage.topology.devices.clone();
    stage.configure(&all, &[A, B, FAR])?;
    let refused = stage.ask(&["reload"])?;
    refused.refuses(5, &["four/far", "six/far"]);
    assert!(!refused.stderr.contains("four/b"), "{refused}");
    let forced = stage.ask(&["reload", "--force"])?;
    assert_eq!(forced.code, Some(0), "{forced}");
    stage.has_faults(&[("far", PathState::NoRoute)])?;
    // A fault that is there already is no hazard of a reload that leaves it as it is.
    stage.ask(&["reload"])?.succeeds();
    Ok(())
}

#[test]
fn an_interface_with_open_connections_is_not_detached_unasked() -> Result<()> {
    if skipped("an_interface_with_open_connections_is_not_detached_unasked", &[]) {
        return Ok(());
    }
    let topology = Topology::new("inuse", &NAMES[..2])?;
    let all = topology.devices.clone();
    let stage = Stage::new(topology, &interfaces(&all), &[A], "")?;
    stage.has_faults(&[])?;
    // Nobody uses the last one.
    stage.configure(&all[..=1], &[A])?;
    stage.ask(&["reload"])?.succeeds();
    stage.configure(&all[1..], &[A])?;
    for (vip, service) in ["10.99.0.10:80", "[fd99::10]:80"].into_iter().zip(SERVICES) {
        let mut kept = http::connect(&stage.topology.client, vip.parse()?, PATIENCE)?;
        http::ask(&mut kept, "GET /kept")?;
        let refused = stage.ask(&["reload"])?;
        refused.refuses(5, &["client: 1 connections have their clients behind this interface", "--force"]);
        http::ask(&mut kept, "GET /still").with_context(|| format!("{service} goes on"))?;
        drop(kept);
        until("the connection is over", PATIENCE, || {
            let counted = stage.ask(&["why", &format!("{service}/a")]);
            counted.is_ok_and(|why| !why.stdout.contains("1 connection is open"))
        })?;
    }
    // And the other way: a backend that only this interface reaches.
    stage.configure(&all[..1], &[A])?;
    stage.ask(&["reload"])?.refuses(5, &["four/a: 10.20.0.2 would be unreachable", "six/a: "]);
    Ok(())
}
