//! Segments that are lost and sent again, and clients that pipeline.

use std::{
    io::{self, Write as _},
    net::TcpStream,
};

use anyhow::Result;
use lb_lab::{Error, until};
use lb_tests::{
    http::{self, PATIENCE, ask},
    lab::skipped,
    socket,
    tally::Tally,
};

use crate::stage::{Stage, bad, each, plain, response};

#[test]
fn a_head_that_is_sent_again_counts_once() -> Result<()> {
    if skipped("a_head_that_is_sent_again_counts_once", &[]) {
        return Ok(());
    }
    lost_behind_shunt("again", socket::lose_payload, 0)
}

#[test]
fn an_exchange_that_is_repeated_by_both_ends_counts_once() -> Result<()> {
    if skipped("an_exchange_that_is_repeated_by_both_ends_counts_once", &[]) {
        return Ok(());
    }
    // The client does not even learn that its request has arrived.
    lost_behind_shunt("both", socket::lose_everything, 2)
}

/// The response is lost behind Shunt, which has seen it: the backend sends it again, twice at least, and the
/// client its request as often as is said.
fn lost_behind_shunt(
    prefix: &str,
    lose: impl Fn(&TcpStream) -> io::Result<()>,
    requests_again: u32,
) -> Result<()> {
    let stage = Stage::new(prefix)?;
    let (sender, repeats) = std::sync::mpsc::channel();
    let _server = stage.scripted(move |line| {
        each(line, |line, path| {
            plain(line, path)?;
            // Nobody listens to the last ones.
            let _ = sender.send(socket::retransmissions(line.stream())?);
            Ok(())
        })
    })?;
    let mut stream = stage.connect()?;
    lose(&stream)?;
    stream.write_all(b"GET /bad HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    let passed = || -> Result<u64, Error> {
        Ok(Tally::traffic(&stage.status()?, "web").map(|counters| counters.bytes_from).sum())
    };
    // SYN-ACK, acknowledgements and what else has no payload stay below 80 bytes each.
    let enough = 3 * bad().len() as u64 + 6 * 80;
    until("all is sent three times", PATIENCE, || {
        passed().is_ok_and(|bytes| bytes >= enough)
            && socket::retransmissions(&stream).is_ok_and(|count| count >= requests_again)
    })?;
    socket::lose_nothing(&stream)?;
    assert_eq!(http::read(&mut stream, true)?.status, 500);
    assert!(repeats.recv_timeout(PATIENCE)? >= 2, "the backend had to repeat it");
    assert_eq!(ask(&mut stream, "GET /")?.status, 200);
    stage.counts(Tally { s2xx: 1, s5xx: 1, heads: 2, ..Tally::default() });
    Ok(())
}

#[test]
fn a_request_that_is_sent_again_is_answered_once() -> Result<()> {
    if skipped("a_request_that_is_sent_again_is_answered_once", &[]) {
        return Ok(());
    }
    let stage = Stage::new("asked")?;
    let (arrived, arrivals) = std::sync::mpsc::channel();
    let _server = stage.scripted(move |line| {
        // The request is lost between Shunt and the backend until the test has seen enough.
        let copy = line.stream().try_clone()?;
        if arrived.send(copy).is_err() {
            return Ok(());
        }
        each(line, plain)
    })?;
    let mut stream = stage.connect()?;
    let far = arrivals.recv_timeout(PATIENCE)?;
    socket::lose_payload(&far)?;
    stream.write_all(b"GET /bad HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    until("the request is sent three times", PATIENCE, || {
        socket::retransmissions(&stream).is_ok_and(|count| count >= 2)
    })?;
    socket::lose_nothing(&far)?;
    assert_eq!(http::read(&mut stream, true)?.status, 500);
    assert_eq!(ask(&mut stream, "GET /")?.status, 200);
    stage.counts(Tally { s2xx: 1, s5xx: 1, heads: 2, ..Tally::default() });
    Ok(())
}

#[test]
fn a_pipelining_client_is_recognised() -> Result<()> {
    if skipped("a_pipelining_client_is_recognised", &[]) {
        return Ok(());
    }
    let stage = Stage::new("pipe")?;
    // Answers when both requests are there, in one segment.
    let _server = stage.scripted(|line| {
        while let Some(head) = line.request()? {
            if head.contains("/first") {
                line.request()?;
                line.say(response("200 OK", "one") + &bad())?;
            } else {
                line.say(response("418 I'm a teapot", ""))?;
            }
        }
        Ok(())
    })?;
    let mut stream = stage.connect()?;
    stream.write_all(b"GET /first HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    until("the first request is acknowledged", PATIENCE, || {
        socket::unacknowledged(&stream).is_ok_and(|bytes| bytes == 0)
    })?;
    stream.write_all(b"GET /second HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    assert_eq!(http::read(&mut stream, true)?.status, 200);
    assert_eq!(http::read(&mut stream, true)?.status, 500);
    // Of two responses that follow one another only the first is sure to be one.
    stage.counts(Tally { s2xx: 1, heads: 1, pipelined: 1, ..Tally::default() });
    Ok(())
}
