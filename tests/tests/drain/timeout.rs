//! `on_eject = "drain"`: no request fails, and what is left at the end is reset on both sides.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_core::{event::EventKind, io::FlowReset};
use lb_lab::{clock, until, until_ok};
use lb_tests::{
    http,
    lab::{Need, skipped},
    load::{Connections, Load, Sample},
    site::NAMES,
};

use crate::stage::{Family, PATIENCE, Plan, Stage, busiest, of};

const DRAIN: Duration = Duration::from_secs(4);

const POLICY: &str = "on_eject = \"drain\"\ndrain_timeout = \"4s\"\n\
                      [service.web.breaker]\nbase_ejection_time = \"60s\"\n";

/// A connection to the victim with a response under way that takes longer than there is time.
fn downloading(stage: &Stage, victim: usize) -> Result<TcpStream> {
    for _ in 0..200 {
        let mut stream = stage.connect()?;
        if of(&http::ask(&mut stream, "GET /choose")?)? == victim {
            return Ok(stream);
        }
    }
    anyhow::bail!("no connection of 200 goes to {}", NAMES[victim])
}

/// The result of reading it.
fn fate(stream: &mut TcpStream) -> Option<ErrorKind> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).err().map(|error| error.kind())
}

fn drained(prefix: &str, family: Family) -> Result<()> {
    let plan = Plan { prefix, family, backends: 3, fallback: 0, delay: Duration::ZERO, policy: POLICY };
    let stage = Stage::new(&plan)?;
    let events = stage.shunt.events()?;
    let mut kept = stage.kept(12)?;
    let (victim, _) = busiest(&kept);
    let mut slow = downloading(&stage, victim)?;
    let mut half = downloading(&stage, victim)?;
    let load = Load::start(&stage.topology.client, stage.vip, 200, 24, Connections::Kept);
    let on_victim = |sample: &Sample| sample.backend.as_deref() == Some(NAMES[victim]);
    until("the load has a connection there", PATIENCE, || load.samples().iter().any(on_victim))?;

    let begun = clock::now();
    stage.order("eject", victim, &["--wait"])?;
    let ordered = clock::now();
    let drain = stage.backend(victim)?.drain.context("its connections come to their end")?;
    assert_eq!(
        (drain.flow_reset, (drain.until_ms - drain.since_ms).0),
        (FlowReset::Never, DRAIN.as_millis() as u64)
    );
    // One second before its end.
    until("the end is near", PATIENCE, || {
        stage.shunt.status().is_ok_and(|status| status.snapshot.t_ms.0 + 1000 >= drain.until_ms.0)
    })?;
    for (stream, backend) in &mut kept {
        assert_eq!(of(&http::ask(stream, "GET /later")?)?, *backend, "connections go on where they are");
    }
    let left = stage.shunt.status()?.remaining_connections.first().map(|left| left.connections);
    slow.write_all(b"GET /slow/1 HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    half.write_all(b"GET /slow/2 HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    half.shutdown(Shutdown::Write)?;
    let at_victim = stage.at_backend(victim)?;
    assert_eq!(left, Some(at_victim.len() as u64), "status counts what ss counts");
    events.wait("the rest is reset", 0, PATIENCE, |event| {
        event.kind == EventKind::Drained && event.backend.as_deref() == Some(NAMES[victim])
    })?;

    until_ok("the backend keeps nothing", PATIENCE, || match stage.at_backend(victim) {
        Ok(left) if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    })?;
    let resets: Vec<String> = kept
        .iter()
        .filter(|(_, backend)| *backend == victim)
        .map(|(stream, _)| stream)
        .chain([&slow, &half])
        .map(|stream| stream.local_addr().map(|address| address.to_string()))
        .collect::<std::io::Result<_>>()?;
    until_ok("nor does the client", PATIENCE, || {
        let mut left = stage.at_client().map_err(|error| error.to_string())?;
        left.retain(|line| line.split_whitespace().any(|word| resets.iter().any(|address| word == address)));
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })?;
    for (stream, backend) in &mut kept {
        if *backend == victim {
            assert_eq!(fate(stream), Some(ErrorKind::ConnectionReset));
        } else {
            assert_eq!(of(&http::ask(stream, "GET /last")?)?, *backend, "others notice nothing");
        }
    }
    assert_eq!([fate(&mut slow), fate(&mut half)], [Some(ErrorKind::ConnectionReset); 2]);
    // A client that spoke between the write and the scan got its reset from the program, and its backend in
    // the scan.
    let count = at_victim.len() as u64;
    stage.resets_are(victim, |resets| (resets.drain + resets.at_request, resets.idle) == (count, 0))?;
    let before = load.samples().len();
    until("the load goes on", PATIENCE, || load.samples().len() > before + 50)?;
    let samples = load.stop();

    let failed: Vec<_> = samples.iter().filter(|sample| sample.answer != Ok(200)).collect();
    let early: Vec<_> = failed.iter().filter(|sample| sample.ended < begun + DRAIN).collect();
    assert!(early.is_empty(), "no request fails while there is time: {early:?}");
    assert!(failed.iter().all(|sample| sample.answer == Err(ErrorKind::ConnectionReset)), "{failed:?}");
    assert!(!failed.is_empty() && failed.len() <= at_victim.len(), "once a connection: {failed:?}");
    let went_on = samples.iter().filter(|sample| on_victim(sample) && sample.begun > ordered);
    assert!(went_on.count() > 10, "its connections were used to the end");
    let late = stage.ledgers[victim].accepted().into_iter().filter(|at| *at > ordered).count();
    assert_eq!(late, 0, "and it got no new ones");
    let ends: Vec<_> = stage.ledgers[victim].ends().into_iter().filter(|end| end.at > ordered).collect();
    assert_eq!(ends.len(), at_victim.len(), "{ends:?}");
    // A socket whose peer has closed reports a reset as EPIPE (Linux, `tcp_reset`).
    let reset = |error| matches!(error, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe));
    assert!(ends.iter().all(|end| reset(end.error) && end.at >= begun + DRAIN), "{ends:?}");
    Ok(())
}

#[test]
fn a_drain_breaks_nothing_until_its_time_is_over() -> Result<()> {
    if skipped("a_drain_breaks_nothing_until_its_time_is_over", &[Need::Tool("ss")]) {
        return Ok(());
    }
    drained("dodrain", Family::V4)
}

#[test]
fn in_ipv6_a_drain_breaks_nothing_either() -> Result<()> {
    if skipped("in_ipv6_a_drain_breaks_nothing_either", &[Need::Tool("ss")]) {
        return Ok(());
    }
    drained("dodrainsix", Family::V6)
}
