//! What status says of responses, on real traffic: each is counted once, by its class, whatever its segments look like.
//!
//! Every test ends with a response of a class of its own, 418. The ring keeps the order, so once
//! that one is counted nothing that came before it can still be under way, and counts are compared whole.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context, Result};
use lb_lab::{Error, Shunt, Topology, until};
use lb_tests::{
    http::{self, PATIENCE, ask, connect},
    lab::{Need, at, nginx, shunt, skipped},
    scripted::{Line, Scripted},
    socket,
    tally::Tally,
};
use lb_userspace::control::model::{Evidence, Status};

const PORT: u16 = 8080;

/// One service with one backend, on which nothing is ejected.
struct Stage {
    shunt: Shunt,
    topology: Topology,
}

impl Stage {
    fn new(prefix: &str) -> Result<Self, Error> {
        let topology = Topology::new(prefix, &["app"])?;
        topology.lab.pin_neighbours()?;
        let config = format!(
            "interfaces = {:?}\n\
             [service.web]\nvip = \"{}\"\n\
             backends.app = \"{}\"\n\
             breaker.consecutive_5xx = 0\n",
            topology.devices,
            vip(),
            backend(),
        );
        let shunt = Shunt::start(&topology.lab, &topology.node, shunt(), &config)?;
        until("the way to the backend is known", PATIENCE, || shunt.log().contains("next hop"))?;
        Ok(Self { shunt, topology })
    }

    fn scripted(
        &self,
        script: impl Fn(&mut Line) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Scripted> {
        Ok(Scripted::start(&self.topology.backends[0], backend(), script)?)
    }

    /// A connection through the VIP, once there is a way to the backend.
    fn connect(&self) -> Result<TcpStream> {
        let connected = connect(&self.topology.client, vip(), PATIENCE);
        connected.with_context(|| format!("{:?}\n{}", self.status(), self.shunt.log()))
    }

    fn status(&self) -> Result<Status, Error> {
        self.shunt.status()
    }

    fn tally(&self) -> Result<Tally, Error> {
        Ok(Tally::of(&self.status()?, "web"))
    }

    /// Has the backend answer 418, by whatever `last` does, and then compares everything but that.
    #[track_caller]
    fn settles(&self, last: impl FnOnce() -> Result<()>, expected: Tally) {
        last().expect("the last exchange");
        let counted = Tally { s4xx: expected.s4xx + 1, heads: expected.heads + 1, ..expected };
        let waited = until("the last response is counted", PATIENCE, || {
            self.tally().is_ok_and(|tally| tally.s4xx >= counted.s4xx)
        });
        let tally = self.tally().expect("the daemon answers");
        assert_eq!(tally, counted, "{waited:?}\n{}", self.shunt.log());
    }

    /// `settles` with a server that knows `/teapot`.
    #[track_caller]
    fn counts(&self, expected: Tally) {
        self.settles(|| teapot(self), expected);
    }
}

fn teapot(stage: &Stage) -> Result<()> {
    let mut stream = stage.connect()?;
    anyhow::ensure!(ask(&mut stream, "GET /teapot")?.status == 418);
    Ok(())
}

fn vip() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 10], 80))
}

fn backend() -> SocketAddr {
    at(Topology::address(0), PORT)
}

/// A whole response.
fn response(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn bad() -> String {
    response("500 Internal Server Error", "oops")
}

/// What every script answers unless the path means something to it.
fn plain(line: &mut Line, path: &str) -> io::Result<()> {
    match path {
        "/teapot" => line.say(response("418 I'm a teapot", "")),
        "/bad" => line.say(bad()),
        _ => line.say(response("200 OK", "fine")),
    }
}

/// Plays `answer` for each request of a connection.
fn each(line: &mut Line, answer: impl Fn(&mut Line, &str) -> io::Result<()>) -> io::Result<()> {
    while let Some(head) = line.request()? {
        answer(line, head.split(' ').nth(1).unwrap_or_default())?;
    }
    Ok(())
}

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

/// The response is lost behind Shunt, which has seen it: the backend sends it again, twice at least, and the client its
/// request as often as is said.
fn lost_behind_shunt(
    prefix: &str,
    lose: impl Fn(&TcpStream) -> io::Result<()>,
    requests_again: u32,
) -> Result<()> {
    let stage = Stage::new(prefix)?;
    let (told, repeats) = std::sync::mpsc::channel();
    let _server = stage.scripted(move |line| {
        each(line, |line, path| {
            plain(line, path)?;
            // Nobody listens to the last ones.
            let _ = told.send(socket::retransmissions(line.stream())?);
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

#[test]
fn tls_tells_nothing_and_is_no_error() -> Result<()> {
    if skipped(
        "tls_tells_nothing_and_is_no_error",
        &[Need::Tool("nginx"), Need::Tool("curl"), Need::Tool("openssl")],
    ) {
        return Ok(());
    }
    let stage = Stage::new("tls")?;
    let folder = stage.topology.lab.folder().display().to_string();
    let (key, certificate) = (format!("{folder}/key.pem"), format!("{folder}/certificate.pem"));
    let host = &stage.topology.backends[0];
    host.run(&[
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=lab",
        "-keyout",
        &key,
        "-out",
        &certificate,
    ])?;
    let server = format!(
        "server {{ listen {} ssl http2; ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {certificate}; ssl_certificate_key {key};\n\
         location / {{ return 500 'oops\n'; }} }}",
        backend(),
    );
    let _nginx = nginx(&stage.topology.lab, host, backend(), &server)?;
    drop(stage.connect()?);
    let url = format!("https://{}/", vip());
    let kinds = [["--http1.1", "--tlsv1.2"], ["--http1.1", "--tlsv1.3"], ["--http2", "--tlsv1.3"]];
    for options in kinds {
        let mut words = vec![
            "curl",
            "--silent",
            "--show-error",
            "--insecure",
            "--max-time",
            "5",
            "--output",
            "/dev/null",
        ];
        words.extend([
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code} %{num_connects} %{http_version}\n",
        ]);
        words.extend(options);
        words.extend([url.as_str(), url.as_str()]);
        let said = stage.topology.client.run(&words)?;
        let version = if options[0] == "--http2" { "2" } else { "1.1" };
        assert_eq!(
            said,
            format!(
                "500 1 {version}
500 0 {version}
"
            ),
            "{options:?}"
        );
    }
    assert_eq!(stage.tally()?, Tally { opaque_connections: 3, ..Tally::default() });
    let status = stage.status()?;
    assert_eq!(status.forwarding[0].evidence, Evidence::Opaque);
    let shown = stage.shunt.ask(&["status"])?;
    assert!(shown.contains("opaque"), "{shown}");
    assert!(shown.contains("Shunt cannot read its responses (TLS, HTTP/2 or no HTTP)"), "{shown}");
    Ok(())
}

#[test]
fn http2_in_the_clear_tells_nothing() -> Result<()> {
    if skipped("http2_in_the_clear_tells_nothing", &[Need::Tool("nginx"), Need::Tool("curl")]) {
        return Ok(());
    }
    let stage = Stage::new("h2c")?;
    let server = format!("server {{ listen {} http2; location / {{ return 500 'oops\\n'; }} }}", backend());
    let _nginx = nginx(&stage.topology.lab, &stage.topology.backends[0], backend(), &server)?;
    let url = format!("http://{}/", vip());
    let mut words = vec!["curl", "--silent", "--show-error", "--max-time", "5", "--http2-prior-knowledge"];
    words.extend(["--output", "/dev/null", "--write-out", "%{http_code} %{http_version}", url.as_str()]);
    assert_eq!(stage.topology.client.run(&words)?, "500 2");
    assert_eq!(stage.tally()?, Tally { opaque_connections: 1, ..Tally::default() });
    assert_eq!(stage.status()?.forwarding[0].evidence, Evidence::Opaque);
    Ok(())
}

#[test]
fn what_is_not_http_is_no_error() -> Result<()> {
    if skipped("what_is_not_http_is_no_error", &[]) {
        return Ok(());
    }
    let stage = Stage::new("other")?;
    let _server = stage.scripted(|line| {
        // The server speaks first, as SMTP and SSH do.
        line.say("220 lab ESMTP\r\n")?;
        let mut buffer = [0; 64];
        while line.stream().read(&mut buffer)? > 0 {
            line.say("500 HTTP/1.1 500 what?\r\n")?;
        }
        Ok(())
    })?;
    let mut stream = stage.connect()?;
    let listen =
        |stream: &mut TcpStream, length: usize| -> io::Result<()> { stream.read_exact(&mut vec![0; length]) };
    listen(&mut stream, 15)?;
    // Looks like a method, so the answer is looked at, and is no HTTP.
    stream.write_all(b"EHLO lab\r\n")?;
    listen(&mut stream, 24)?;
    until("the answer is counted", PATIENCE, || stage.tally().is_ok_and(|tally| tally.opaque == 1))?;

    let mut other = stage.connect()?;
    listen(&mut other, 15)?;
    other.write_all(b"\x00\x01\x02\x03")?;
    listen(&mut other, 24)?;
    other.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    listen(&mut other, 24)?;
    // The last exchange of the first connection comes after all of the second.
    stream.write_all(b"QUIT\r\n")?;
    listen(&mut stream, 24)?;
    until("the last answer is counted", PATIENCE, || stage.tally().is_ok_and(|tally| tally.opaque >= 2))?;
    assert_eq!(stage.tally()?, Tally { opaque: 2, heads: 2, opaque_connections: 1, ..Tally::default() });
    Ok(())
}
