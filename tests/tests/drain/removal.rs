//! Connections of backends that people take out: of the file, or by a verb.

use std::{fs, io::ErrorKind, net::TcpStream, time::Duration};

use anyhow::{Context as _, Result};
use lb_core::{event::EventKind, io::FlowReset, snapshot::Effective};
use lb_lab::{clock, until, until_ok};
use lb_tests::{
    http,
    lab::{Need, skipped},
    site::NAMES,
};

use crate::{
    boundary::{each_once, no_request_failed},
    pool::Pool,
    stage::{Family, PATIENCE, Plan, Stage, busiest, of},
};

const DRAIN: Duration = Duration::from_secs(3);

fn nothing_left(stage: &Stage, victim: usize) -> Result<()> {
    Ok(until_ok("the backend keeps nothing", PATIENCE, || match stage.at_backend(victim) {
        Ok(left) if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    })?)
}

#[test]
fn a_removed_backend_costs_a_pool_no_request() -> Result<()> {
    if skipped("a_removed_backend_costs_a_pool_no_request", &[Need::Tool("ss")]) {
        return Ok(());
    }
    let stage = Stage::new(&Plan {
        prefix: "removed",
        family: Family::V4,
        backends: 3,
        fallback: 0,
        delay: Duration::from_millis(50),
        policy: "on_drain = \"reset\"\ndrain_timeout = \"3s\"\n",
    })?;
    let events = stage.shunt.events()?;
    let mut idle = stage.kept(9)?;
    let (victim, _) = busiest(&idle);
    let pool = Pool::start(&stage.topology.client, stage.vip, 300, true);
    until("traffic flows", PATIENCE, || pool.asked().len() > 200)?;
    let config = fs::read_to_string(stage.shunt.config())?;
    let line = config
        .lines()
        .find(|line| line.starts_with(&format!("backends.{} ", NAMES[victim])))
        .context("it is in the file")?;
    fs::write(stage.shunt.config(), config.replace(&format!("{line}\n"), ""))?;
    let begun = clock::now();
    stage.ask(&["reload"])?.succeeds();

    let status = stage.shunt.status()?;
    let leaving = status.snapshot.leaving.first().context("it has connections left")?;
    assert_eq!(
        (leaving.name.as_deref(), leaving.drain.flow_reset),
        (Some(NAMES[victim]), FlowReset::AtRequest)
    );
    let status = stage.ask(&["status"])?.stdout;
    assert!(
        status.contains(&format!("web/{} at ", NAMES[victim])) && status.contains("removed; "),
        "{status}"
    );
    // Idle ones too: they are reset when the time is over, which is before they have been idle for long.
    events.wait("the rest is reset", 0, PATIENCE, |event| {
        event.kind == EventKind::Drained && event.backend.as_deref() == Some(NAMES[victim])
    })?;
    assert!(clock::now() >= begun + DRAIN);
    nothing_left(&stage, victim)?;
    until("the maps forget it", PATIENCE, || {
        stage.shunt.status().is_ok_and(|status| status.snapshot.leaving.is_empty())
    })?;
    let asked = pool.stop()?;
    no_request_failed(&asked);
    assert_eq!(asked.iter().find(|one| one.answer != Ok(200)).map(|one| &one.path), None);
    assert!(asked.iter().any(|one| one.again.is_some()), "some had to ask again");
    each_once(&stage);
    let last = stage.ledgers[victim].seen().iter().map(|seen| seen.at).max().context("it saw some")?;
    assert!(last < begun + Duration::from_millis(500), "nothing reaches it soon after the reload");
    for (stream, backend) in &mut idle {
        let answer = http::ask(stream, "GET /again").map_err(|error| error.kind());
        if *backend == victim {
            assert_eq!(answer.err(), Some(ErrorKind::ConnectionReset));
        } else {
            assert_eq!(answer.map(|answer| answer.status), Ok(200), "others notice nothing");
        }
    }
    Ok(())
}

/// It stays as long as a client is connected, and not for `drain_timeout`.
#[test]
fn a_removed_backend_leaves_with_its_last_connection() -> Result<()> {
    if skipped("a_removed_backend_leaves_with_its_last_connection", &[]) {
        return Ok(());
    }
    let stage = Stage::new(&Plan {
        prefix: "leaves",
        family: Family::V4,
        backends: 3,
        fallback: 0,
        delay: Duration::ZERO,
        policy: "drain_timeout = \"5m\"\n",
    })?;
    let mut kept = stage.kept(9)?;
    let (victim, count) = busiest(&kept);
    let config = fs::read_to_string(stage.shunt.config())?;
    let is_its = |line: &&str| line.starts_with(&format!("backends.{} ", NAMES[victim]));
    let line = config.lines().find(is_its).context("it is in the file")?;
    fs::write(stage.shunt.config(), config.replace(&format!("{line}\n"), ""))?;
    stage.ask(&["reload"])?.succeeds();
    let leaving = || stage.shunt.status().map(|status| status.snapshot.leaving.len());
    let left = || {
        let status = stage.shunt.status()?;
        Ok::<_, anyhow::Error>(status.remaining_connections.iter().map(|of| of.connections).sum::<u64>())
    };
    assert_eq!((leaving()?, left()?), (1, count as u64));
    for (stream, backend) in &mut kept {
        assert_eq!(of(&http::ask(stream, "GET /still")?)?, *backend);
    }
    // All but one of its clients close.
    let mut last = None;
    for (stream, backend) in kept {
        if backend == victim && last.is_none() {
            last = Some(stream);
        }
    }
    until("one connection is left", PATIENCE, || left().is_ok_and(|left| left == 1))?;
    let mut last = last.context("it has connections")?;
    assert_eq!((leaving()?, of(&http::ask(&mut last, "GET /last")?)?), (1, victim));
    drop(last);
    until("the maps forget it", PATIENCE, || leaving().is_ok_and(|leaving| leaving == 0))?;
    Ok(())
}

/// How many of these there are, and that each was reset.
fn reset(kept: &mut [(TcpStream, usize)], victim: usize) -> usize {
    let mut count = 0;
    for (stream, _) in kept.iter_mut().filter(|(_, backend)| *backend == victim) {
        let answer = http::ask(stream, "GET /late").map_err(|error| error.kind());
        assert_eq!(answer.err(), Some(ErrorKind::ConnectionReset));
        count += 1;
    }
    count
}

#[test]
fn a_drain_ends_when_its_time_is_over_and_says_for_how_long_and_why() -> Result<()> {
    if skipped("a_drain_ends_when_its_time_is_over_and_says_for_how_long_and_why", &[Need::Tool("ss")]) {
        return Ok(());
    }
    let stage = Stage::new(&Plan {
        prefix: "verbs",
        family: Family::V4,
        backends: 3,
        fallback: 0,
        delay: Duration::ZERO,
        policy: "drain_timeout = \"3s\"\n",
    })?;
    let events = stage.shunt.events()?;
    let mut kept = stage.kept(18)?;
    let (victim, count) = busiest(&kept);
    let begun = clock::now();
    // Nobody closes: what ends the waiting is the end of the time.
    stage.order("drain", victim, &["--for", "10m", "--reason", "deploy", "--wait", "--timeout", "15s"])?;
    let took = clock::now() - begun;
    assert!(took >= DRAIN, "it waited {took:?}");
    nothing_left(&stage, victim)?;
    assert_eq!(reset(&mut kept, victim), count);
    let drained = count as u64;
    let status = stage.ask(&["status"])?.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in ["by alice (as root)", "deploy", "9 m 5"] {
        assert!(status.contains(words), "`{words}` is missing in {status}");
    }

    // The same with `disable`, of another.
    kept.retain(|(_, backend)| *backend != victim);
    let (disabled, count) = busiest(&kept);
    stage.order("disable", disabled, &["--reason", "broken-disk", "--wait"])?;
    let ordered = clock::now();
    assert_eq!(stage.backend(disabled)?.effective, Effective::Disabled);
    for (stream, backend) in &mut kept {
        assert_eq!(of(&http::ask(stream, "GET /meanwhile")?)?, *backend, "they go on");
    }
    events.wait("the rest is reset", 0, PATIENCE, |event| {
        event.kind == EventKind::Drained && event.backend.as_deref() == Some(NAMES[disabled])
    })?;
    nothing_left(&stage, disabled)?;
    assert_eq!(reset(&mut kept, disabled), count);
    let late = stage.ledgers[disabled].accepted().into_iter().filter(|at| *at > ordered).count();
    assert_eq!(late, 0, "and it got no new ones");
    // Each was counted once, by its cause.
    for (number, drained) in [(victim, drained), (disabled, count as u64)] {
        stage.resets_are(number, |resets| (resets.drain, resets.idle) == (drained, 0))?;
    }

    // Back, it gets new ones, and nobody ends those.
    stage.order("enable", victim, &["--wait"])?;
    assert!(stage.backend(victim)?.overrides.is_empty() && stage.backend(victim)?.drain.is_none());
    let mut again = stage.kept(12)?;
    assert!(again.iter().any(|(_, backend)| *backend == victim));
    for (stream, backend) in &mut again {
        assert_eq!(of(&http::ask(stream, "GET /more")?)?, *backend);
    }
    Ok(())
}
