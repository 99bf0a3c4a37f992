//! `on_eject = "reset"`: a client that asks for nothing more gets a reset too, and so does the backend.

use std::{
    io::{ErrorKind, Read as _},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_core::io::FlowReset;
use lb_lab::until_ok;
use lb_tests::{
    http,
    lab::{Need, skipped},
};

use crate::stage::{Family, Plan, Stage, busiest, of};

/// Fifteen seconds of silence, and time for a busy machine. `drain_timeout` would be a minute.
const BOUND: Duration = Duration::from_secs(45);

/// The error that a waiting client gets. `WouldBlock`: none yet.
fn error_of(stream: &mut TcpStream) -> Option<ErrorKind> {
    stream.set_nonblocking(true).ok()?;
    let error = stream.read(&mut [0]).err().map(|error| error.kind());
    stream.set_nonblocking(false).ok()?;
    error
}

/// Both ends are idle for longer than `timeouts.established`, and nobody has ordered anything.
#[test]
fn both_ends_of_a_forgotten_connection_are_reset() -> Result<()> {
    if skipped("both_ends_of_a_forgotten_connection_are_reset", &[Need::Tool("ss")]) {
        return Ok(());
    }
    for (prefix, family) in [("idle4", Family::V4), ("idle6", Family::V6)] {
        let policy = "[timeouts]\nestablished = \"10s\"\n";
        let stage =
            Stage::new(&Plan { prefix, family, backends: 2, fallback: 0, delay: Duration::ZERO, policy })?;
        let mut kept = stage.kept(6)?;
        for number in 0..2 {
            until_ok("the backend keeps nothing", BOUND, || match stage.at_backend(number) {
                Ok(left) if left.is_empty() => Ok(()),
                left => Err(format!("{left:?}")),
            })?;
        }
        for (stream, _) in &mut kept {
            assert_eq!(error_of(stream), Some(ErrorKind::ConnectionReset));
        }
    }
    Ok(())
}

fn swept(prefix: &str, family: Family, mode: &str) -> Result<()> {
    let policy = format!(
        "mode = \"{mode}\"\non_eject = \"reset\"\n[service.web.breaker]\nbase_ejection_time = \"60s\"\n"
    );
    let policy = policy.as_str();
    let stage =
        Stage::new(&Plan { prefix, family, backends: 3, fallback: 0, delay: Duration::ZERO, policy })?;
    let mut kept = stage.kept(12)?;
    let (victim, of_victim) = busiest(&kept);
    // Nobody has said anything on these.
    let mut silent = (0..12).map(|_| stage.connect()).collect::<std::io::Result<Vec<_>>>()?;
    let before = stage.at_backend(victim)?;
    assert!(before.len() > of_victim, "{before:?}");
    stage.order("eject", victim, &["--wait"])?;
    let drain = stage.backend(victim)?.drain.context("its connections come to their end")?;
    assert_eq!(drain.flow_reset, FlowReset::AtRequest);
    until_ok("the backend keeps nothing", BOUND, || match stage.at_backend(victim) {
        Ok(left) if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    })?;
    until_ok("nor does the client", BOUND, || match stage.at_client() {
        Ok(left) if left.len() == 24 - before.len() => Ok(()),
        left => Err(format!("{left:?}")),
    })?;
    assert!(stage.at_client()?.iter().all(|line| line.starts_with("ESTAB")), "{:?}", stage.at_client()?);

    for (stream, backend) in &mut kept {
        let expected = if *backend == victim { ErrorKind::ConnectionReset } else { ErrorKind::WouldBlock };
        assert_eq!(error_of(stream), Some(expected));
        if *backend != victim {
            assert_eq!(of(&http::ask(stream, "GET /again")?)?, *backend, "others notice nothing");
        }
    }
    let mut reset = 0;
    for stream in &mut silent {
        match error_of(stream) {
            Some(ErrorKind::ConnectionReset) => reset += 1,
            Some(ErrorKind::WouldBlock) => assert_ne!(of(&http::ask(stream, "GET /first")?)?, victim),
            other => anyhow::bail!("{other:?} instead of a reset or nothing"),
        }
    }
    assert_eq!(reset, before.len() - of_victim);
    let count = before.len() as u64;
    stage.resets_are(victim, |resets| (resets.idle, resets.drain, resets.at_request) == (count, 0, 0))?;
    let ends = stage.ended(victim, before.len())?;
    assert_eq!(ends.len(), before.len(), "{ends:?}");
    assert!(ends.iter().all(|end| end.error == Some(ErrorKind::ConnectionReset)), "{ends:?}");
    Ok(())
}

#[test]
fn idle_connections_are_ended_at_both_ends() -> Result<()> {
    if skipped("idle_connections_are_ended_at_both_ends", &[Need::Tool("ss")]) {
        return Ok(());
    }
    swept("idle", Family::V4, "nat")
}

#[test]
fn in_ipv6_and_dnat_idle_connections_are_ended_too() -> Result<()> {
    if skipped("in_ipv6_and_dnat_idle_connections_are_ended_too", &[Need::Tool("ss")]) {
        return Ok(());
    }
    swept("idlesix", Family::V6, "dnat")
}
