//! When nobody serves: the fallback, or what `no_backend` says.

use std::{fs, io::ErrorKind, time::Duration};

use anyhow::{Context as _, Result};
use lb_core::event::EventKind;
use lb_lab::{until, until_ok};
use lb_tests::{http, lab::skipped};

use crate::stage::{Family, PATIENCE, Plan, Stage, drops, of};

const BREAKER: &str = "[service.web.breaker]\nbase_ejection_time = \"60s\"\nmin_serving = 0\n";

/// Which backends so many new connections reach.
fn reached(stage: &Stage, count: usize) -> Result<Vec<usize>> {
    let mut reached = Vec::new();
    for number in 0..count {
        let mut stream = stage.connect()?;
        reached.push(of(&http::ask(&mut stream, &format!("GET /new/{number}"))?)?);
    }
    reached.sort_unstable();
    reached.dedup();
    Ok(reached)
}

#[test]
fn the_fallback_is_used_only_while_nobody_serves() -> Result<()> {
    if skipped("the_fallback_is_used_only_while_nobody_serves", &[]) {
        return Ok(());
    }
    let policy = format!("on_eject = \"reset\"\n{BREAKER}");
    let stage = Stage::new(&Plan {
        prefix: "fallback",
        family: Family::V4,
        backends: 3,
        fallback: 1,
        delay: Duration::ZERO,
        policy: &policy,
    })?;
    let events = stage.shunt.events()?;
    let of_fallback = |event: &lb_core::event::Event| event.kind == EventKind::Fallback;
    assert_eq!(reached(&stage, 40)?, [0, 1]);
    stage.order("eject", 0, &["--wait"])?;
    assert_eq!(reached(&stage, 20)?, [1]);
    stage.order("eject", 1, &["--wait"])?;
    let (used, place) = events.wait("the fallback is used", 0, PATIENCE, of_fallback)?;
    assert_eq!((used.event.to.as_str(), used.event.reason.as_str()), ("used", "nobody_serves"));
    assert_eq!(reached(&stage, 20)?, [2]);
    assert!(stage.shunt.status()?.snapshot.services[0].fallback);
    assert!(stage.ask(&["status"])?.stdout.contains("FALLBACK"));

    let mut kept = stage.connect()?;
    assert_eq!(of(&http::ask(&mut kept, "GET /before")?)?, 2);
    stage.order("admit", 1, &["--wait"])?;
    let (unused, _) = events.wait("it is over", place, PATIENCE, of_fallback)?;
    assert_eq!((unused.event.to.as_str(), unused.event.reason.as_str()), ("unused", "others_serve"));
    assert_eq!(reached(&stage, 20)?, [1]);
    for _ in 0..20 {
        assert_eq!(of(&http::ask(&mut kept, "GET /after")?)?, 2, "who is there stays there");
    }
    assert!(!stage.shunt.status()?.snapshot.services[0].fallback);
    Ok(())
}

#[test]
fn with_nobody_left_no_backend_decides() -> Result<()> {
    const SHORT: Duration = Duration::from_millis(1500);
    if skipped("with_nobody_left_no_backend_decides", &[]) {
        return Ok(());
    }
    let policy = format!("no_backend = \"reset\"\n{BREAKER}");
    let stage = Stage::new(&Plan {
        prefix: "nobody",
        family: Family::V4,
        backends: 2,
        fallback: 0,
        delay: Duration::ZERO,
        policy: &policy,
    })?;
    let (mut kept, at) = stage.kept(1)?.pop().context("one was asked for")?;
    for victim in 0..2 {
        stage.order("eject", victim, &["--wait"])?;
    }
    let attempt = || http::connect(&stage.topology.client, stage.vip, SHORT).err().map(|error| error.kind());
    assert_eq!(attempt(), Some(ErrorKind::ConnectionRefused));
    until_ok("it is counted", PATIENCE, || match stage.shunt.status() {
        Ok(status) if drops(&status, "no_backend") > 0 => Ok(()),
        status => Err(format!("{:?}", status.map(|status| status.drops))),
    })?;

    let config = fs::read_to_string(stage.shunt.config())?;
    let reload = |what: &str| -> Result<()> {
        fs::write(stage.shunt.config(), config.replace("no_backend = \"reset\"", what))?;
        stage.ask(&["reload"])?.succeeds();
        Ok(())
    };
    reload("no_backend = \"drop\"")?;
    let silent = [ErrorKind::TimedOut, ErrorKind::WouldBlock].map(Some);
    until("it is dropped", PATIENCE, || silent.contains(&attempt()))?;
    reload("no_backend = \"any\"")?;
    until("all are used", PATIENCE, || {
        stage.shunt.status().is_ok_and(|status| status.snapshot.services[0].panic.is_some())
    })?;
    until("in the maps too", PATIENCE, || attempt().is_none())?;
    assert_eq!(reached(&stage, 40)?, [0, 1]);
    assert_eq!(of(&http::ask(&mut kept, "GET /still")?)?, at, "who is there has stayed there all the time");
    Ok(())
}
