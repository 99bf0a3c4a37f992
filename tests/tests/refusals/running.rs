//! While it runs: a configuration that is wrong, and a backend that is not there.

use std::fs;

use anyhow::Result;
use lb_core::snapshot::{Effective, ProbeState};
use lb_lab::until;
use lb_tests::{
    http::{PATIENCE, ask, connect, get},
    lab::skipped,
};
use lb_userspace::control::model::Status;
use nix::sys::signal::Signal;

use crate::site::{Site, interfaces, service, vip};

impl Site {
    /// Writes a new configuration, with the same first lines, and asks for it.
    fn reload(&mut self, config: &str) -> Result<()> {
        let old = fs::read_to_string(self.shunt.config())?;
        let head: String = old.lines().take(3).map(|line| format!("{line}\n")).collect();
        fs::write(self.shunt.config(), head + config)?;
        Ok(self.shunt.process().signal(Signal::SIGHUP)?)
    }

    fn logs(&self, what: &str) -> Result<()> {
        Ok(until(&format!("it logs `{what}`"), PATIENCE, || self.shunt.log().contains(what))?)
    }
}

#[test]
fn a_broken_configuration_changes_nothing() -> Result<()> {
    if skipped("a_broken_configuration_changes_nothing", &[]) {
        return Ok(());
    }
    let mut site = Site::new("broken", 2, 2)?;
    let good = interfaces(&site.topology.devices) + &service(&[0, 1]);
    // All but what traffic counts.
    let steady = |status: Status| {
        let backends = status.snapshot.services.into_iter().flat_map(|service| service.backends);
        let shares: Vec<_> =
            backends.map(|backend| (backend.name, backend.effective, backend.share)).collect();
        (status.config_generation, status.events_seq, shares)
    };
    let before = steady(site.shunt.status()?);
    // Open all along.
    let mut stream = connect(&site.topology.client, vip(), PATIENCE)?;

    // Third line of the service, after the three lines that stay.
    site.reload(&good.replace("consecutive_5xx = 0", "consecutive_5xx = \"none\""))?;
    site.logs("not reloaded, nothing changes: ")?;
    let log = site.shunt.log();
    let place = format!("--> {}:7:27", site.shunt.config().display());
    for word in [" ERROR ", place.as_str(), "expected an integer, found a string", "help: "] {
        assert!(log.contains(word), "`{word}` is missing in\n{log}");
    }

    fs::remove_file(site.shunt.config())?;
    site.shunt.process().signal(Signal::SIGHUP)?;
    site.logs("nothing changes: cannot read ")?;

    assert_eq!(steady(site.shunt.status()?), before);
    assert_eq!(ask(&mut stream, "GET /")?.status, 200);
    site.serves(2)
}

#[test]
fn a_good_configuration_is_followed() -> Result<()> {
    if skipped("a_good_configuration_is_followed", &[]) {
        return Ok(());
    }
    // The daemon is attached towards all three.
    let mut site = Site::new("reload", 3, 3)?;
    let devices = interfaces(&site.topology.devices);
    site.reload(&(devices.clone() + &service(&[0, 1])))?;
    site.logs("reloaded")?;
    until("web-2 leaves", PATIENCE, || {
        site.answers(30).is_ok_and(|answers| answers.keys().eq(["web-0", "web-1"]))
    })?;
    let generation = site.shunt.status()?.config_generation;

    let mut stays = connect(&site.topology.client, vip(), PATIENCE)?;
    while ask(&mut stays, "GET /")?.header("x-backend") != Some("web-1") {
        stays = connect(&site.topology.client, vip(), PATIENCE)?;
    }
    site.reload(&(devices + &service(&[1, 2])))?;
    until("web-0 leaves and web-2 is back", PATIENCE, || {
        site.answers(30).is_ok_and(|answers| answers.keys().eq(["web-1", "web-2"]))
    })?;
    let answers = site.answers(60)?;
    assert!(answers.values().all(|count| *count > 10), "{answers:?}");
    assert_eq!(ask(&mut stays, "GET /")?.header("x-backend"), Some("web-1"), "its connection goes on");

    let status = site.shunt.status()?;
    assert!(status.config_generation > generation);
    let names: Vec<_> = status.snapshot.services[0].backends.iter().map(|backend| &backend.name).collect();
    assert_eq!(names, ["web-1", "web-2"]);
    let events = site.ask(&["events"])?;
    for word in ["web/web-0: present -> absent (removed)", "web/web-2: absent -> present (added)"] {
        assert!(events.stdout.contains(word), "{events}");
    }
    Ok(())
}

#[test]
fn a_backend_that_never_resolves() -> Result<()> {
    if skipped("a_backend_that_never_resolves", &[]) {
        return Ok(());
    }
    let mut site = Site::new("ghost", 1, 1)?;
    // Nobody on that link has this address.
    let ghost = "ghost = \"10.20.0.77:8080\"\n";
    let without_probe = interfaces(&site.topology.devices) + &service(&[0]) + ghost;
    site.reload(&without_probe)?;
    site.logs("next hop does not answer yet address=10.20.0.77")?;
    until("half of the traffic is its", PATIENCE, || {
        site.shunt.status().is_ok_and(|status| status.snapshot.services[0].backends.len() == 2)
    })?;

    // Its share of the new connections goes to the other, and status says why.
    for _ in 0..24 {
        let response = get(&site.topology.client, vip(), "/")?;
        assert_eq!(response.header("x-backend"), Some("web-0"));
    }
    let status = site.shunt.status()?;
    let traffic = status.traffic.iter().find(|traffic| traffic.backend == "ghost").expect("configured");
    assert_eq!((traffic.reachable, traffic.counters.packets_to), (false, 0));
    let shown = site.ask(&["status"])?;
    assert!(shown.stdout.contains("why ghost: its next hop does not answer"), "{shown}");

    // With a probe it is taken out, and says why.
    let probe = "[service.web.probe.tcp]\ninterval = \"200ms\"\nfall = 2\n";
    site.reload(&(without_probe + probe))?;
    until("the probe takes it down", PATIENCE, || {
        site.shunt.status().is_ok_and(|status| {
            let ghost = status.snapshot.services[0].backends.iter().find(|backend| backend.name == "ghost");
            ghost.is_some_and(|ghost| ghost.effective == Effective::Down && ghost.probe == ProbeState::Down)
        })
    })?;
    for _ in 0..24 {
        let response = get(&site.topology.client, vip(), "/")?;
        assert_eq!(response.header("x-backend"), Some("web-0"));
    }
    let shown = site.ask(&["status"])?;
    assert!(shown.stdout.contains("ghost: "), "{shown}");
    site.ask(&["status", "--check"]).map(|answer| assert_eq!(answer.code, Some(8), "{answer}"))
}
