//! Responses that arrive as the backend sends them.

use std::io::{self, Write as _};

use anyhow::Result;
use lb_lab::{Topology, until};
use lb_tests::{
    http::{self, PATIENCE, ask},
    lab::{Need, at, nginx, skipped},
    scripted::Scripted,
    tally::Tally,
};
use lb_userspace::control::model::Evidence;

use crate::stage::{Stage, backend, bad, each, plain, response, teapot, vip};

#[test]
fn nginx_is_read_right() -> Result<()> {
    if skipped("nginx_is_read_right", &[Need::Tool("nginx"), Need::Tool("curl")]) {
        return Ok(());
    }
    let stage = Stage::new("nginx")?;
    // `/chunked`: proxied over HTTP/1.0 without a length, so that nginx has to cut it into chunks.
    let inner = at(Topology::address(0), 8081);
    let servers = format!(
        "server {{ listen {}; etag off;\n\
         location /ok {{ return 200 'fine\\n'; }}\n\
         location /bad {{ return 500 'oops\\n'; }}\n\
         location /empty {{ return 204; }}\n\
         location /same {{ return 304; }}\n\
         location /away {{ return 302 /ok; }}\n\
         location /chunked {{ chunked_transfer_encoding on; proxy_http_version 1.0; proxy_pass http://{inner}; }}\n\
         location /gone {{ proxy_pass http://127.0.0.1:9; }}\n\
         location /teapot {{ return 418; }}\n\
         }}",
        backend(),
    );
    let _nginx = nginx(&stage.topology.lab, &stage.topology.backends[0], backend(), &servers)?;
    let unsized_body = "HTTP/1.0 200 OK\r\n\r\nHTTP/1.1 500 Internal Server Error\r\n\r\n";
    let _inner = Scripted::start(&stage.topology.backends[0], inner, move |line| {
        line.request()?;
        line.say(unsized_body)
    })?;
    drop(stage.connect()?);

    // Each URL is asked for twice by one curl, which keeps its connection.
    let curl = |options: &[&str], path: &str, expected: &str| -> Result<()> {
        let url = format!("http://{}{path}", vip());
        let mut words = vec!["curl", "--silent", "--max-time", "5", "--http1.1", "--output", "/dev/null"];
        words.extend(["--output", "/dev/null", "--write-out", "%{http_code} %{num_connects}\n"]);
        words.extend(options);
        words.extend([url.as_str(), url.as_str()]);
        let said = stage.topology.client.run(&words)?;
        assert_eq!(said, format!("{expected} 1\n{expected} 0\n"), "{path}");
        Ok(())
    };
    curl(&[], "/ok", "200")?;
    curl(&[], "/bad", "500")?;
    curl(&[], "/empty", "204")?;
    curl(&[], "/same", "304")?;
    curl(&[], "/away", "302")?;
    curl(&[], "/gone", "502")?;
    curl(&["--head"], "/ok", "200")?;
    curl(&["--head"], "/bad", "500")?;
    curl(&[], "/chunked", "200")?;
    let text = stage.topology.client.run(&[
        "curl",
        "--silent",
        "--max-time",
        "5",
        "--include",
        &format!("http://{}/chunked", vip()),
    ])?;
    assert!(text.contains("Transfer-Encoding: chunked"), "{text}");
    assert!(text.contains("\r\n\r\nHTTP/1.1 500 "), "the body begins like a head: {text}");

    // ok, 204, HEAD, chunked: two each, and chunked once more; 304 and 302; 500, 502 and HEAD of 500.
    let (s2xx, s3xx, s5xx) = (9, 4, 6);
    stage.settles(
        || {
            let response = http::get(&stage.topology.client, vip(), "/teapot")?;
            anyhow::ensure!(response.status == 418, "{response:?}");
            Ok(())
        },
        Tally { s2xx, s3xx, s5xx, heads: s2xx + s3xx + s5xx, ..Tally::default() },
    );
    assert_eq!(stage.status()?.forwarding[0].evidence, Evidence::Inline);
    Ok(())
}

#[test]
fn many_requests_of_one_connection() -> Result<()> {
    if skipped("many_requests_of_one_connection", &[]) {
        return Ok(());
    }
    let stage = Stage::new("many")?;
    let _server = stage.scripted(|line| each(line, plain))?;
    let mut stream = stage.connect()?;
    for round in 0..300 {
        let (path, status) = if round % 3 == 0 { ("/bad", 500) } else { ("/", 200) };
        assert_eq!(ask(&mut stream, &format!("GET {path}"))?.status, status);
    }
    stage.counts(Tally { s2xx: 200, s5xx: 100, heads: 300, ..Tally::default() });
    Ok(())
}

#[test]
fn a_head_in_two_segments() -> Result<()> {
    if skipped("a_head_in_two_segments", &[]) {
        return Ok(());
    }
    let stage = Stage::new("split")?;
    let _server = stage.scripted(|line| {
        each(line, |line, path| match path.strip_prefix("/cut/") {
            Some(cut) => line.say_in_two(bad().as_bytes(), cut.parse().map_err(io::Error::other)?),
            None => plain(line, path),
        })
    })?;
    let mut stream = stage.connect()?;
    // Up to `HTTP/1.1 500 ` takes 13 bytes: cut before that, the kernel mirrors both segments.
    let cuts = [(5, 2), (20, 1), (1, 2), (12, 2), (13, 1), (bad().len() - 1, 1)];
    for (cut, _) in cuts {
        assert_eq!(ask(&mut stream, &format!("GET /cut/{cut}"))?.status, 500);
        assert_eq!(ask(&mut stream, "GET /")?.status, 200);
    }
    let count = cuts.len() as u64;
    let heads = cuts.iter().map(|(_, heads)| heads).sum::<u64>() + count;
    stage.counts(Tally { s2xx: count, s5xx: count, heads, ..Tally::default() });
    Ok(())
}

#[test]
fn a_status_line_byte_by_byte() -> Result<()> {
    if skipped("a_status_line_byte_by_byte", &[]) {
        return Ok(());
    }
    let stage = Stage::new("bytes")?;
    let _server = stage.scripted(|line| {
        each(line, |line, path| match path {
            "/slow" => bad().as_bytes().chunks(1).try_for_each(|byte| line.say(byte)),
            _ => plain(line, path),
        })
    })?;
    let mut stream = stage.connect()?;
    assert_eq!(ask(&mut stream, "GET /slow")?.status, 500);
    assert_eq!(ask(&mut stream, "GET /")?.status, 200);
    let tally = stage.tally()?;
    teapot(&stage)?;
    until("all is counted", PATIENCE, || stage.tally().is_ok_and(|tally| tally.s4xx == 1))?;
    let counted = stage.tally()?;
    assert_eq!((counted.s2xx, counted.s5xx, counted.outcomes()), (1, 1, 3), "{counted:?} after {tally:?}");
    Ok(())
}

#[test]
fn an_interim_response_is_not_the_answer() -> Result<()> {
    if skipped("an_interim_response_is_not_the_answer", &[]) {
        return Ok(());
    }
    const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
    let stage = Stage::new("interim")?;
    let _server = stage.scripted(|line| {
        while let Some(head) = line.request()? {
            match head.split(' ').nth(1).unwrap_or_default() {
                "/upload" => {
                    line.say(CONTINUE)?;
                    line.body(9)?;
                    line.say(bad())?;
                }
                // The body does not come, and both heads are in one segment.
                "/at-once" => line.say(CONTINUE.to_owned() + &bad())?,
                "/hints" => {
                    line.say("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")?;
                    line.say("HTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n")?;
                    line.say(response("200 OK", "fine"))?;
                }
                path => plain(line, path)?,
            }
        }
        Ok(())
    })?;
    let mut stream = stage.connect()?;
    let post = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: lab\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n")
    };
    stream.write_all(post("/upload").as_bytes())?;
    assert_eq!(http::read(&mut stream, true)?.status, 100);
    stream.write_all(b"some body")?;
    assert_eq!(http::read(&mut stream, true)?.status, 500);
    assert_eq!(ask(&mut stream, "GET /")?.status, 200, "the connection goes on");

    stream.write_all(post("/at-once").as_bytes())?;
    assert_eq!(http::read(&mut stream, true)?.status, 100);
    assert_eq!(http::read(&mut stream, true)?.status, 500);
    assert_eq!(ask(&mut stream, "GET /")?.status, 200, "the connection goes on");

    stream.write_all(b"GET /hints HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    for expected in [103, 103, 200] {
        assert_eq!(http::read(&mut stream, true)?.status, expected);
    }
    // Mirrored: 100, 500, 200; 100 with 500, 200; 103, 103, 200.
    stage.counts(Tally { s2xx: 3, s5xx: 2, heads: 8, ..Tally::default() });
    Ok(())
}

#[test]
fn a_body_that_begins_like_a_head() -> Result<()> {
    if skipped("a_body_that_begins_like_a_head", &[]) {
        return Ok(());
    }
    let stage = Stage::new("body")?;
    let _server = stage.scripted(|line| {
        each(line, |line, path| {
            let ok = response("200 OK", &bad());
            let head = ok.len() - bad().len();
            match path {
                "/together" => line.say(ok),
                "/apart" => line.say_in_two(ok.as_bytes(), head),
                // The head in two, the second of which ends where the body begins.
                "/in-three" => {
                    line.say(&ok[..7])?;
                    line.say_in_two(&ok.as_bytes()[7..], head - 7)
                }
                _ => plain(line, path),
            }
        })
    })?;
    let mut stream = stage.connect()?;
    for path in ["/together", "/apart", "/in-three"] {
        let response = ask(&mut stream, &format!("GET {path}"))?;
        assert_eq!((response.status, response.body), (200, bad().into_bytes()), "{path}");
    }
    stage.counts(Tally { s2xx: 3, heads: 4, ..Tally::default() });
    Ok(())
}

#[test]
fn a_large_body_is_one_response() -> Result<()> {
    if skipped("a_large_body_is_one_response", &[]) {
        return Ok(());
    }
    let stage = Stage::new("large")?;
    let _server = stage.scripted(|line| {
        // Every segment has heads inside, some at its beginning.
        each(line, |line, path| match path {
            "/large" => line.say(response("200 OK", &bad().repeat(20_000))),
            _ => plain(line, path),
        })
    })?;
    let mut stream = stage.connect()?;
    for _ in 0..2 {
        assert_eq!(ask(&mut stream, "GET /large")?.body.len(), bad().len() * 20_000);
    }
    stage.counts(Tally { s2xx: 2, heads: 2, ..Tally::default() });
    Ok(())
}
