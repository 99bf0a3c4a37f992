//! `on_eject = "reset"`: what a client still sends of a request belongs to that request, whatever it looks
//! like.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_core::snapshot::Effective;
use lb_lab::until;
use lb_tests::{http, lab::skipped, scripted::Scripted, site::NAMES};

use crate::stage::{Family, PATIENCE, Plan, Stage};

/// Segments of bodies: as long as each other, and one looks like a request.
const PLAIN: &str = "------------------------------------------\r\n";
const LURE: &str = "GET /not/a/request HTTP/1.1\r\nHost: lab\r\n\r\n\r\n";

const PARTS: usize = 20;

/// Takes an upload, after `100 Continue` if the client waits for that, and says how long it was.
fn receiver(stage: &Stage) -> Result<(Scripted, mpsc::Receiver<()>)> {
    let (sender, arrived) = mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    // Beside the ledger, which stays silent.
    let listen = (lb_lab::Topology::address(0), 8081).into();
    let server = Scripted::start(&stage.topology.backends[0], listen, move |line| {
        while let Some(head) = line.request()? {
            // The waiting thread is there until it has come, or has failed already.
            let _ = sender.lock().expect("no holder panics").send(());
            if head.contains("100-continue") {
                line.say("HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let length = PLAIN.len() * PARTS;
            let body = if head.starts_with("POST") { line.body(length)? } else { Vec::new() };
            line.say(format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{:4}", body.len()))?;
        }
        Ok(())
    })?;
    Ok((server, arrived))
}

#[test]
fn an_upload_under_way_is_part_of_its_request() -> Result<()> {
    if skipped("an_upload_under_way_is_part_of_its_request", &[]) {
        return Ok(());
    }
    let policy = "on_eject = \"reset\"\nbackends.upload = \"10.20.0.2:8081\"\n\
                  [service.web.breaker]\nbase_ejection_time = \"60s\"\nmin_serving = 0\nmax_ejection_percent = 100\n";
    let stage = Stage::new(&Plan {
        prefix: "upload",
        family: Family::V4,
        backends: 1,
        fallback: 0,
        delay: Duration::ZERO,
        policy,
    })?;
    let (_server, arrived) = receiver(&stage)?;
    stage.order("disable", 0, &["--wait"])?;
    let upload = |expect: &str| -> Result<std::net::TcpStream> {
        let mut stream = stage.connect()?;
        assert_eq!(http::ask(&mut stream, "GET /first")?.status, 200);
        arrived.recv_timeout(PATIENCE)?;
        let length = PLAIN.len() * PARTS;
        write!(stream, "POST / HTTP/1.1\r\nHost: lab\r\n{expect}Content-Length: {length}\r\n\r\n")?;
        arrived.recv_timeout(PATIENCE).context("the head arrives")?;
        Ok(stream)
    };
    let mut plain = upload("")?;
    let mut luring = upload("")?;
    let mut expecting = upload("Expect: 100-continue\r\n")?;
    let mut interim = [0; 25];
    expecting.read_exact(&mut interim)?;
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");

    stage.ask(&["backend", "eject", "web/upload", "--force", "--wait"])?.succeeds();
    until("it is out", PATIENCE, || {
        stage.shunt.status().is_ok_and(|status| {
            let backends = &status.snapshot.services[0].backends;
            backends.iter().all(|one| one.name == NAMES[0] || one.effective == Effective::Ejected)
        })
    })?;
    for (what, part_of, stream) in
        [("plain", PLAIN, &mut plain), ("expecting", PLAIN, &mut expecting), ("luring", LURE, &mut luring)]
    {
        for part in 0..PARTS {
            stream.write_all(part_of.as_bytes()).with_context(|| format!("{what}, part {part}"))?;
            // Each in a segment of its own.
            until("it is acknowledged", PATIENCE, || {
                lb_tests::socket::unacknowledged(stream).map_or(true, |bytes| bytes == 0)
            })?;
        }
        let answer = http::read(stream, true).with_context(|| format!("{what}: the answer"))?;
        assert_eq!((answer.status, answer.body), (200, format!("{:4}", PLAIN.len() * PARTS).into_bytes()));
        let next = http::ask(stream, "GET /next").err().map(|error| error.kind());
        // A request before the answer to the last one comes from a client that pipelines; such a one
        // is left alone.
        let expected = (part_of == PLAIN).then_some(ErrorKind::ConnectionReset);
        assert_eq!(next, expected, "{what}");
    }
    Ok(())
}
