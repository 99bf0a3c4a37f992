//! The control socket: who asks in vain, who asks badly, who stops listening.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    process::Stdio,
};

use anyhow::{Context, Result};
use lb_lab::{Lab, until};
use lb_tests::{
    http::PATIENCE,
    lab::{shunt, skipped},
};
use nix::sys::signal::Signal;

use crate::site::{Site, ask};

#[test]
fn nobody_is_there() -> Result<()> {
    if skipped("nobody_is_there", &[]) {
        return Ok(());
    }
    let mut lab = Lab::new("nobody")?;
    let host = lab.host("node")?;
    let stale = lab.folder().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale)?);
    let cases = [
        (lab.folder().join("none.sock"), "No such file or directory"),
        (lab.folder().join("no/such/folder.sock"), "No such file or directory"),
        (stale, "Connection refused"),
    ];
    for (socket, reason) in cases {
        for words in [&["status"][..], &["status", "--check", "-o", "json"], &["events"], &["events", "-f"]] {
            let said = format!("error: cannot reach the daemon at {}: {reason}", socket.display());
            ask(&host, &socket, words)?.refuses(4, &[&said, "help: is `shunt run` running?"]);
        }
        assert!(!lab.folder().join("no").exists(), "who asks makes nothing");
    }
    Ok(())
}

#[test]
fn there_is_no_such_service() -> Result<()> {
    if skipped("there_is_no_such_service", &[]) {
        return Ok(());
    }
    let site = Site::new("names", 1, 1)?;
    for words in [&["status", "wbe"][..], &["events", "--service", "wbe"]] {
        site.ask(words)?.refuses(2, &["error: no service is named `wbe`", "help: did you mean `web`?"]);
    }
    site.ask(&["status", "mail"])?
        .refuses(2, &["error: no service is named `mail`", "help: the services are web"]);
    let odd = "../../etc/passwd?service=web&x=\u{1b}[2J";
    let answer = site.ask(&["status", odd])?;
    answer.refuses(2, &["error: no service is named "]);
    site.ask(&["events", "--since", "999"])?
        .refuses(2, &["error: since=999 is ahead of the last event", "help: "]);
    Ok(())
}

#[test]
fn a_reader_that_has_seen_enough() -> Result<()> {
    if skipped("a_reader_that_has_seen_enough", &[]) {
        return Ok(());
    }
    let mut site = Site::new("pipe", 1, 1)?;
    let node = site.topology.node.clone();
    // As `shunt events | head -1` does it; and the one that follows notices with the next event.
    for args in [&["events"][..], &["events", "-f"], &["events", "-f", "-o", "jsonl"], &["status"]] {
        let mut command = node.command(shunt());
        command.arg("-s").arg(site.shunt.socket()).args(args);
        let mut process =
            node.spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        let mut reader = BufReader::new(process.child().stdout.take().context("it is piped")?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        assert!(!line.is_empty(), "{args:?}");
        drop(reader);
        // A backend more or less is an event.
        let weight = 100 + line.len() + args.len();
        let renamed = std::fs::read_to_string(site.shunt.config())?
            .lines()
            .map(|line| match line.split_once(" = \"10.20.0.2:8080\"") {
                Some(_) => format!("web-{weight} = \"10.20.0.2:8080\"\n"),
                None => format!("{line}\n"),
            })
            .collect::<String>();
        std::fs::write(site.shunt.config(), renamed)?;
        site.shunt.process().signal(Signal::SIGHUP)?;
        let ended = process.wait(PATIENCE).with_context(|| format!("{args:?}"))?;
        let mut stderr = String::new();
        process.child().stderr.take().context("it is piped")?.read_to_string(&mut stderr)?;
        assert_eq!((ended.code(), stderr.as_str()), (Some(0), ""), "{args:?}");
    }
    Ok(())
}

#[test]
fn garbage_on_the_control_socket() -> Result<()> {
    if skipped("garbage_on_the_control_socket", &[]) {
        return Ok(());
    }
    let mut site = Site::new("garbage", 1, 1)?;
    let path = site.shunt.socket().to_owned();
    let connect = || -> io::Result<UnixStream> {
        let stream = UnixStream::connect(&path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    };
    // Its answer before it hangs up. It may hang up while we still write.
    let send = |bytes: &[u8], whole: bool| -> io::Result<String> {
        let mut stream = connect()?;
        let _ = stream.write_all(bytes);
        // A client that closes behind a whole request waits for no answer to it.
        if !whole {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => return Err(error),
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answers = |site: &Site, after: &str| -> Result<()> {
        site.ask(&["status"]).context(after.to_owned())?.succeeds();
        Ok(())
    };

    let mut random = Random(7);
    for length in [0, 1, 2, 16, 255, 4096, 65_536] {
        let bytes: Vec<u8> = (0..length).map(|_| random.byte()).collect();
        let answer = send(&bytes, false)?;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{length} bytes: {answer}");
    }
    answers(&site, "random bytes")?;

    let huge = format!("GET /v1/status HTTP/1.1\r\nHost: x\r\nX-Huge: {}\r\n\r\n", "x".repeat(2 << 20));
    let many = format!("GET /v1/status HTTP/1.1\r\n{}\r\n", "X-Many: x\r\n".repeat(10_000));
    for (name, request) in [("a huge header", huge), ("many headers", many)] {
        let answer = send(request.as_bytes(), false)?;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{name}: {answer}");
        answers(&site, name)?;
    }
    let long = format!("GET /v1/{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(70_000));
    let answer = send(long.as_bytes(), false)?;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");

    for (request, status) in [
        ("GET /v2/status", "404"),
        ("POST /v1/status", "405"),
        ("DELETE /v1/events", "405"),
        ("GET /v1/events?since=-1", "400"),
        ("GET /v1/status?nonsense=1", "400"),
    ] {
        let answer =
            send(format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(), true)?;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        assert!(answer.contains("\"error\":") && answer.contains("\"remedy\":"), "{request}: {answer}");
    }

    // Writers that never come to an end, and readers that never read.
    let mut slow = Vec::new();
    for number in 0..200 {
        let mut stream = connect()?;
        stream.write_all(if number % 2 == 0 {
            b"GET /v1/sta"
        } else {
            b"GET /v1/events?follow=true HTTP/1.1\r\nHost: x\r\n\r\n"
        })?;
        slow.push(stream);
    }
    answers(&site, "200 connections that hang")?;
    for stream in slow.iter_mut().step_by(2) {
        stream.write_all(b"t")?;
    }
    answers(&site, "one letter more")?;
    site.serves(1)?;
    assert_eq!(site.shunt.process().ended(), None);

    // None of them keeps the daemon from stopping.
    site.shunt.process().signal(Signal::SIGTERM)?;
    let ended = site.shunt.process().wait(PATIENCE)?;
    assert_eq!(ended.code(), Some(0));
    drop(slow);
    until("the socket is gone", PATIENCE, || !path.exists())?;
    assert!(!site.shunt.log().contains("panicked"), "{}", site.shunt.log());
    Ok(())
}

/// splitmix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        (self.next() >> 56) as u8
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
