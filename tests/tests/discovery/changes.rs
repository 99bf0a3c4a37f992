//! The file changes while requests flow.

use std::fs;

use anyhow::Result;
use lb_core::{
    event::{Event, EventKind},
    snapshot::{BreakerState, Effective},
};
use lb_lab::until;
use lb_tests::{
    lab::{Need, skipped},
    site::NAMES,
};
use nix::sys::signal::Signal;

use crate::{
    pool::Pool,
    stage::{Family, Listed, PATIENCE, Stage, ready},
};

#[test]
fn a_set_changes_under_traffic_v4() -> Result<()> {
    if skipped("a_set_changes_under_traffic_v4", &[Need::Tool("ss")]) {
        return Ok(());
    }
    changes("disco4", Family::V4)
}

#[test]
fn a_set_changes_under_traffic_v6() -> Result<()> {
    if skipped("a_set_changes_under_traffic_v6", &[Need::Tool("ss")]) {
        return Ok(());
    }
    changes("disco6", Family::V6)
}

fn changes(prefix: &str, family: Family) -> Result<()> {
    let mut stage = Stage::new(prefix, family, &[ready(0, "a"), ready(1, "b")])?;
    assert_eq!(stage.health()?, Some(0));
    let pool = Pool::start(&stage.topology.client, stage.vip, 200, true);
    let flows = |more: usize| {
        let before = pool.asked().len();
        until("traffic flows", PATIENCE, || pool.asked().len() > before + more)
    };
    flows(100)?;

    // Add. Clients open connections of their own now and then; the pool keeps its own.
    stage.list(&[ready(0, "a"), ready(1, "b"), ready(2, "c")])?;
    stage.all_serve(3)?;
    until("the new one has its share", PATIENCE, || {
        let _ = lb_tests::http::get(&stage.topology.client, stage.vip, "/fresh");
        !stage.ledgers[2].seen().is_empty()
    })?;

    // Drain.
    let draining = Listed { number: 0, state: "draining", id: "a" };
    stage.list(&[draining, ready(1, "b"), ready(2, "c")])?;
    let backend = stage.becomes(0, Effective::Draining)?;
    assert_eq!(backend.reason.as_deref(), Some("draining: no new connections, by discovery"));
    stage.is_left(0)?;
    let seen = stage.ledgers[0].seen().len();
    flows(200)?;
    assert_eq!(stage.ledgers[0].seen().len(), seen, "nothing comes after the drain");

    // Remove.
    stage.list(&[ready(1, "b"), ready(2, "c")])?;
    stage.all_serve(2)?;
    // Out, and back.
    stage.list(&[ready(1, "b"), Listed { number: 2, state: "out", id: "c" }])?;
    stage.becomes(2, Effective::Disabled)?;
    stage.is_left(2)?;
    stage.list(&[ready(1, "b"), ready(2, "c")])?;
    stage.becomes(2, Effective::Serving)?;
    flows(100)?;

    // A new incarnation on the same address.
    stage.ask(&["backend", "eject", "web/web-2", "--wait"])?.succeeds();
    let before = stage.backend(2)?;
    assert_eq!((before.breaker, before.identity.as_deref()), (BreakerState::Open, Some("c")));
    stage.list(&[ready(1, "b"), ready(2, "c2")])?;
    let after = stage.becomes(2, Effective::Serving)?;
    assert_eq!((after.ejection, after.identity.as_deref()), (0, Some("c2")));
    assert_eq!(after.address, before.address);
    assert_ne!((after.id, after.generation), (before.id, before.generation));
    flows(100)?;

    // A broken file keeps the set.
    let whole = fs::read(stage.file())?;
    fs::write(stage.file(), &whole[..whole.len() / 2])?;
    let source = stage.source("broken")?;
    assert!(source.error.is_some_and(|error| error.contains("line 1 column")));
    assert_eq!((stage.names()?, stage.health()?), (vec![NAMES[1].to_owned(), NAMES[2].to_owned()], Some(8)));
    let table = stage.ask(&["status"])?.stdout;
    assert!(table.contains("DISCOVERY broken") && table.contains("the last good set stays"), "{table}");
    flows(100)?;
    let asked = pool.stop()?;
    let bad = asked.iter().filter(|one| one.answer != Ok(200));
    let bad: Vec<_> = bad.map(|one| (&one.path, one.begun, &one.again, &one.answer)).collect();
    assert!(bad.is_empty(), "{bad:?}");
    let said = stage.ask(&["events", "-o", "jsonl"])?.stdout;
    assert_eq!(said.lines().filter(|line| line.contains("\"to\":\"broken\"")).count(), 1, "{said}");

    restart(&mut stage, &whole)?;
    replay(&mut stage)
}

/// A restart with a missing file keeps the set. The file of before mends it, and an empty list empties the service.
fn restart(stage: &mut Stage, whole: &[u8]) -> Result<()> {
    fs::remove_file(stage.file())?;
    stage.source("missing")?;
    let before = stage.backend(2)?;
    until("the state file has the set", PATIENCE, || {
        fs::read_to_string(stage.shunt.state_file()).is_ok_and(|text| text.contains("\"c2\""))
    })?;
    stage.shunt.process().signal(Signal::SIGKILL)?;
    stage.shunt.process().wait(PATIENCE)?;
    stage.shunt.start_again()?;
    let source = stage.source("missing")?;
    assert!(source.backends == 2 && source.age_ms.is_some(), "{source:?}");
    stage.all_serve(2)?;
    let after = stage.backend(2)?;
    assert_eq!((after.id, after.generation), (before.id, before.generation), "the maps have it still");
    assert_eq!(stage.health()?, Some(8));
    let response = lb_tests::http::get(&stage.topology.client, stage.vip, "/after")?;
    assert_eq!(response.status, 200);

    fs::write(stage.file(), whole)?;
    stage.source("current")?;
    assert_eq!(stage.health()?, Some(0));
    let events = stage.shunt.events()?;
    let (heard, _) = events.wait("it works again", 0, PATIENCE, |event| event.to == "current")?;
    assert_eq!((heard.event.kind, heard.event.actor.as_str()), (EventKind::Discovery, "discovery"));
    let of_source = |event: &Event| event.kind == EventKind::Discovery && event.backend.is_none();
    let count = events.since(0).iter().filter(|heard| of_source(&heard.event)).count();
    assert_eq!(count, 2, "one event for each change");
    let lines = stage.shunt.log().lines().filter(|line| line.contains("web: missing -> current")).count();
    assert_eq!(lines, 1, "and one line of the log");

    stage.list(&[])?;
    until("the service is empty", PATIENCE, || stage.names().is_ok_and(|names| names.is_empty()))?;
    assert_eq!(stage.health()?, Some(9));
    Ok(())
}

/// The recording of both runs has what happened to the members.
fn replay(stage: &mut Stage) -> Result<()> {
    stage.shunt.process().stop(PATIENCE)?;
    let (config, recording) = (stage.shunt.config().to_owned(), stage.recording());
    let words = ["replay", "-c", &config.to_string_lossy(), &recording.to_string_lossy()].map(str::to_owned);
    let answer = stage.ask(&words.each_ref().map(String::as_str))?;
    assert_eq!(answer.code, Some(0), "{answer}");
    let events: Vec<Event> = answer.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let said = |kind, backend: usize, to: &str| {
        let fits = |event: &&Event| event.backend.as_deref() == Some(NAMES[backend]) && event.to == to;
        events.iter().filter(fits).filter(|event| event.kind == kind).all(|event| event.actor == "discovery")
            && events.iter().filter(fits).any(|event| event.kind == kind)
    };
    for (kind, backend, to) in [
        (EventKind::Membership, 2, "present"),
        (EventKind::Discovery, 0, "draining"),
        (EventKind::Membership, 0, "absent"),
        (EventKind::Discovery, 2, "out"),
        (EventKind::Membership, 2, "absent"),
    ] {
        assert!(said(kind, backend, to), "{kind} of {backend} to {to} in {}", answer.stdout);
    }
    Ok(())
}
