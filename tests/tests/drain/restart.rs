//! ResetSender go on without a daemon, and the next one finishes what this one has begun.

use std::{io::ErrorKind, time::Duration};

use anyhow::{Context as _, Result};
use lb_core::event::EventKind;
use lb_lab::{clock, until_ok};
use lb_tests::{
    http,
    lab::{Need, skipped},
    site::NAMES,
};
use nix::sys::signal::Signal;

use crate::stage::{Family, PATIENCE, Plan, Stage, busiest, of};

#[test]
fn a_daemon_that_is_killed_leaves_the_drains_to_the_next() -> Result<()> {
    const DRAIN: Duration = Duration::from_secs(6);
    if skipped("a_daemon_that_is_killed_leaves_the_drains_to_the_next", &[Need::Tool("ss")]) {
        return Ok(());
    }
    let policy = "on_eject = \"reset\"\ndrain_timeout = \"6s\"\n\
                  [service.web.breaker]\nbase_ejection_time = \"60s\"\n";
    let mut stage = Stage::new(&Plan {
        prefix: "restart",
        family: Family::V4,
        backends: 3,
        fallback: 0,
        delay: Duration::ZERO,
        policy,
    })?;
    let mut kept = stage.kept(15)?;
    let (victim, count) = busiest(&kept);
    let begun = clock::now();
    stage.order("eject", victim, &["--wait"])?;
    until_ok("the state is on the disk", PATIENCE, || {
        let state = std::fs::read_to_string(stage.shunt.state_file()).map_err(|error| error.to_string())?;
        if state.contains("\"open") { Ok(()) } else { Err(state) }
    })?;
    stage.shunt.process().signal(Signal::SIGKILL)?;
    stage.shunt.process().wait(PATIENCE)?;

    let first = kept.iter().position(|(_, backend)| *backend == victim).context("it has some")?;
    let (mut asked, _) = kept.swap_remove(first);
    let answer = http::ask(&mut asked, "GET /dead").map_err(|error| error.kind());
    assert_eq!(answer.err(), Some(ErrorKind::ConnectionReset), "the maps say so, with or without a daemon");
    assert!(!stage.ledgers[victim].seen().iter().any(|seen| seen.path == "/dead"));
    assert_eq!(stage.at_backend(victim)?.len(), count, "its backend has got no reset");

    stage.shunt.start_again()?;
    let events = stage.shunt.events()?;
    let left = stage.backend(victim)?.drain.context("its connections come to their end")?;
    assert!((left.until_ms - left.since_ms).0 < DRAIN.as_millis() as u64, "it begins again: {left:?}");
    until_ok("the backend keeps nothing", PATIENCE, || match stage.at_backend(victim) {
        Ok(left) if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    })?;
    events.wait("its time is over", 0, PATIENCE, |event| {
        event.kind == EventKind::Drained && event.backend.as_deref() == Some(NAMES[victim])
    })?;
    let took = clock::now() - begun;
    assert!(took >= DRAIN, "{took:?}");
    for (stream, backend) in &mut kept {
        let answer = http::ask(stream, "GET /after");
        if *backend == victim {
            assert_eq!(answer.err().map(|error| error.kind()), Some(ErrorKind::ConnectionReset));
        } else {
            assert_eq!(of(&answer?)?, *backend, "others notice nothing");
        }
    }
    let ends = stage.ended(victim, count)?;
    assert!(
        ends.len() == count && ends.iter().all(|end| end.error == Some(ErrorKind::ConnectionReset)),
        "{ends:?}"
    );
    Ok(())
}
