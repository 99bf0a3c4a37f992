//! `on_eject = "reset"`: no request fails that may be asked again, and none is seen twice.

use std::{collections::BTreeMap, io::ErrorKind, time::Duration};

use anyhow::{Context as _, Result};
use lb_core::{event::EventKind, snapshot::Effective};
use lb_lab::{clock, until, until_ok};
use lb_tests::{
    http,
    lab::{Need, skipped},
    ledger::{End, SLOW_LENGTH, Seen},
    site::NAMES,
};

use crate::{
    pool::{Asked, Pool},
    stage::{Family, PATIENCE, Plan, Stage, drops, of},
};

/// How long each answer takes: at 500 a second so many are under way that 64 connections are used.
const DELAY: Duration = Duration::from_millis(100);

/// Requests a second.
const RATE: u64 = 500;

const POLICY: &str =
    "on_eject = \"reset\"\n[service.web.breaker]\nconsecutive_5xx = 3\nbase_ejection_time = \"60s\"\n";

pub(crate) fn plan<'a>(prefix: &'a str, family: Family) -> Plan<'a> {
    Plan { prefix, family, backends: 4, fallback: 0, delay: DELAY, policy: POLICY }
}

/// No backend has seen any path that another one has seen, or seen one twice.
pub(crate) fn each_once(stage: &Stage) -> Vec<Seen> {
    let seen: Vec<Seen> = stage.ledgers.iter().flat_map(|ledger| ledger.seen()).collect();
    let mut counts = BTreeMap::new();
    for one in &seen {
        *counts.entry(one.path.as_str()).or_insert(0) += 1;
    }
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "seen more than once: {twice:?}");
    seen
}

/// Ends of connections that carried requests.
fn ends(stage: &Stage, number: usize) -> Vec<End> {
    stage.ledgers[number].ends().into_iter().filter(|end| end.requests > 0).collect()
}

enum By {
    Failures,
    Operator,
}

/// Ejects a backend in the middle of it all.
fn ejection(prefix: &str, family: Family, by: &By) -> Result<()> {
    let stage = Stage::new(&plan(prefix, family))?;
    let events = stage.shunt.events()?;
    let pool = Pool::start(&stage.topology.client, stage.vip, RATE, true);
    until("traffic flows", PATIENCE, || pool.asked().len() > 300)?;
    // A response is under way when its backend goes.
    let mut slow = stage.connect()?;
    let victim = of(&http::ask(&mut slow, "GET /first")?)?;
    std::io::Write::write_all(&mut slow, b"GET /slow/1 HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    until("it has the slow request", PATIENCE, || {
        stage.ledgers[victim].seen().iter().any(|seen| seen.path == "/slow/1")
    })?;
    let begun = clock::now();
    match by {
        By::Failures => stage.ledgers[victim].fail(true),
        By::Operator => stage.order("eject", victim, &["--wait"])?,
    }
    let (heard, _) = events.wait("it is ejected", 0, PATIENCE, |event| {
        event.kind == EventKind::Eject && event.backend.as_deref() == Some(NAMES[victim])
    })?;
    assert_eq!(stage.backend(victim)?.effective, Effective::Ejected);

    let response = http::read(&mut slow, true)?;
    assert_eq!(
        (response.body.len(), of(&response)?),
        (SLOW_LENGTH, victim),
        "a response in flight completes"
    );
    let last = http::ask(&mut slow, "GET /after").map_err(|error| error.kind());
    assert_eq!(last.err(), Some(ErrorKind::ConnectionReset), "and is the last one");

    until_ok("the backend gets all resets", PATIENCE, || match stage.at_backend(victim) {
        Ok(left) if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    })?;
    let before = pool.asked().len();
    until("the load goes on", PATIENCE, || pool.asked().len() > before + 300)?;
    let asked = pool.stop()?;

    no_request_failed(&asked);
    let resets = ends(&stage, victim);
    let bad = |one: &&Asked| one.answer != Ok(200);
    match by {
        By::Operator => assert_eq!(asked.iter().find(bad).map(|one| &one.answer), None),
        // As many as were with it when the third failure was seen.
        By::Failures => {
            let bad: Vec<_> = asked.iter().filter(bad).collect();
            assert!((3..=resets.len() + 3).contains(&bad.len()), "{} bad answers", bad.len());
            assert!(bad.iter().all(|one| one.answer == Ok(500) && one.begun <= heard.at), "{bad:?}");
        }
    }
    let retried: Vec<_> = asked.iter().filter(|one| one.again.is_some()).collect();
    assert!(!retried.is_empty());
    let seen = each_once(&stage);
    for one in &retried {
        assert!(seen.iter().any(|seen| seen.path == one.path), "nobody saw {}", one.path);
    }
    assert!(!seen.iter().any(|seen| seen.path == "/after"), "nothing of it reached the backend");
    let last = stage.ledgers[victim].seen().iter().map(|seen| seen.at).max().context("it saw some")?;
    assert!(last <= heard.at, "its last request came {:?} after the announcement", last - heard.at);
    assert!(resets.iter().all(|end| end.error == Some(ErrorKind::ConnectionReset)), "{resets:?}");
    // A pool connects ahead of need, so that a connection may be cut at its first request.
    let resets = stage.ledgers[victim].ends();
    let resets = resets.iter().filter(|end| end.error == Some(ErrorKind::ConnectionReset)).count();
    assert!(resets > retried.len(), "{resets} resets, {} retried", retried.len());

    // One connection more than those of the pool: the slow one.
    let cut = stage.traffic(victim)?.resets.at_request;
    assert_eq!(cut, retried.len() as u64 + 1, "each was counted once");
    assert!(drops(&stage.shunt.status()?, "ejected") >= cut);
    eprintln!(
        "{prefix}: {} requests, {} retried, ejected after {:?}, last request {:?} after the beginning",
        asked.len(),
        retried.len(),
        heard.at - begun,
        last.saturating_sub(begun)
    );
    Ok(())
}

/// Each has an answer, at the second try at the latest.
#[track_caller]
pub(crate) fn no_request_failed(asked: &[Asked]) {
    let failed: Vec<_> = asked.iter().filter(|one| one.answer.is_err()).collect();
    assert!(failed.is_empty(), "{} of {} failed: {:?}", failed.len(), asked.len(), failed.first());
}

const SS: [Need; 1] = [Need::Tool("ss")];

#[test]
fn an_ejection_by_failures_costs_a_pool_no_request() -> Result<()> {
    if skipped("an_ejection_by_failures_costs_a_pool_no_request", &SS) {
        return Ok(());
    }
    ejection("poolbad", Family::V4, &By::Failures)
}

#[test]
fn an_ejection_by_an_operator_costs_a_pool_no_request() -> Result<()> {
    if skipped("an_ejection_by_an_operator_costs_a_pool_no_request", &SS) {
        return Ok(());
    }
    ejection("poolop", Family::V4, &By::Operator)
}

#[test]
fn in_ipv6_a_pool_loses_no_request_either() -> Result<()> {
    if skipped("in_ipv6_a_pool_loses_no_request_either", &SS) {
        return Ok(());
    }
    ejection("poolsix", Family::V6, &By::Failures)
}
