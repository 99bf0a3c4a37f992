#![expect(clippy::disallowed_methods, reason = "they look at how long a probe took")]
use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use lb_core::{
    config::HttpProbe,
    io::{BackendId, Generation, Input},
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};

use super::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

/// Reads a request to the end of its head.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a whole head"));
    }
    String::from_utf8(head).expect("ASCII")
}

/// Serves one connection: reads a head, writes the answer, closes. Gives the head
/// and how the prober ended the connection.
async fn answers(answer: impl Into<Vec<u8>>) -> (SocketAddr, JoinHandle<(String, io::Result<usize>)>) {
    let (listener, address) = listener().await;
    let answer = answer.into();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let head = read_head(&mut stream).await;
        stream.write_all(&answer).await.expect("written");
        stream.shutdown().await.expect("shut down");
        let end = stream.read_to_end(&mut Vec::new()).await;
        (head, end)
    });
    (address, served)
}

fn request(address: SocketAddr, kind: ProbeKind) -> ProbeRequest {
    let timeout = Millis(300);
    ProbeRequest { backend: BackendId(1), generation: Generation(2), address, kind: Arc::new(kind), timeout }
}

async fn http(address: SocketAddr) -> ProbeResult {
    run(&request(address, ProbeKind::Http(HttpProbe::default()))).await
}

fn fail(text: &str) -> ProbeResult {
    ProbeResult::Fail(text.to_owned())
}

#[tokio::test]
async fn http_passes_and_asks_as_it_should() {
    let (address, served) = answers(OK).await;
    assert_eq!(http(address).await, ProbeResult::Pass);
    let (head, end) = served.await.expect("served");
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "GET / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\nuser-agent: shunt/{version}\r\n\r\n"
    );
    assert_eq!(head, expected);
    assert_eq!(end.expect("no reset"), 0);
}

#[tokio::test]
async fn the_request_is_as_configured() {
    let (address, served) = answers("HTTP/1.1 418 Teapot\r\n\r\n").await;
    let probe = HttpProbe {
        method: "HEAD".to_owned(),
        // Every character that the configuration lets through.
        path: "/-._~!$&'()*+,;=:@/?a=%20".to_owned(),
        host: Some("shop.example".to_owned()),
        headers: vec![("X-Probe".to_owned(), "1".to_owned()), ("user-agent".to_owned(), "me".to_owned())],
        expect: vec![200..=299, 418..=418],
        ..HttpProbe::default()
    };
    assert_eq!(run(&request(address, ProbeKind::Http(probe))).await, ProbeResult::Pass);
    let head = served.await.expect("served").0;
    assert!(head.starts_with("HEAD /-._~!$&'()*+,;=:@/?a=%20 HTTP/1.1\r\nhost: shop.example\r\n"), "{head}");
    assert!(head.contains("x-probe: 1\r\n") && head.contains("user-agent: me\r\n"), "{head}");
    assert!(!head.contains("shunt/"), "{head}");
}

#[tokio::test]
async fn a_status_that_is_not_expected_fails() {
    // More than is read along with the head: left unread, it would end in a reset.
    let answer = format!("HTTP/1.1 503 Sorry\r\nContent-Length: 60000\r\n\r\n{}", "x".repeat(60_000));
    let (address, served) = answers(answer).await;
    assert_eq!(http(address).await, fail("status 503"));
    assert_eq!(served.await.expect("served").1.expect("no reset"), 0);
}

#[tokio::test]
async fn an_interim_response_is_looked_past() {
    let (address, _served) = answers([b"HTTP/1.1 103 Early Hints\r\n\r\n", OK].concat()).await;
    assert_eq!(http(address).await, ProbeResult::Pass);
}

#[tokio::test]
async fn a_long_body_is_not_read_to_its_end() {
    let (listener, address) = listener().await;
    let endless = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("written");
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    });
    assert_eq!(http(address).await, ProbeResult::Pass);
    endless.await.expect("the connection was closed");
}

#[tokio::test]
async fn a_body_that_ends_early_fails() {
    let (address, _served) = answers("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nok").await;
    assert_eq!(http(address).await, fail("response ended early"));
}

#[tokio::test]
async fn nobody_listens() {
    let (listener, address) = listener().await;
    drop(listener);
    assert_eq!(http(address).await, fail("connection refused"));
    assert_eq!(run(&request(address, ProbeKind::Tcp)).await, fail("connection refused"));
}

#[tokio::test]
async fn silence_is_a_timeout() {
    let (listener, address) = listener().await;
    let begun = Instant::now();
    assert_eq!(http(address).await, fail("timeout after 300ms"));
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(300), "{took:?}");
    // The connection was ended, not left open.
    let (mut stream, _) = listener.accept().await.expect("a connection");
    stream.read_to_end(&mut Vec::new()).await.expect("the request and then its end");
}

#[tokio::test]
async fn a_body_that_never_ends_is_a_timeout() {
    let (listener, address) = listener().await;
    let _served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nso").await.expect("written");
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let slow =
        ProbeRequest { timeout: Millis(1000), ..request(address, ProbeKind::Http(HttpProbe::default())) };
    assert_eq!(run(&slow).await, fail("timeout after 1s"));
}

#[tokio::test]
async fn garbage_is_no_response() {
    for garbage in
        [&b"SSH-2.0-OpenSSH_9.2p1\r\n"[..], b"\x15\x03\x01\x00\x02\x02\x46", b"HTTP/1.1 abc\r\n\r\n", b"\0"]
    {
        let (address, _served) = answers(garbage).await;
        assert_eq!(http(address).await, fail("no valid HTTP response"), "{}", garbage.escape_ascii());
    }
}

#[tokio::test]
async fn a_greeting_before_the_request_is_no_response() {
    let (listener, address) = listener().await;
    let _served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.write_all(b"220 mail.example ESMTP\r\n").await.expect("written");
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    assert_eq!(http(address).await, fail("no valid HTTP response"));
}

#[tokio::test]
async fn an_end_before_the_response_fails() {
    for answer in [&b""[..], b"HTTP/1.1 200 OK\r\nA: b\r\n"] {
        let (address, _served) = answers(answer).await;
        assert_eq!(http(address).await, fail("connection closed before the response"));
    }
    let (listener, address) = listener().await;
    let _served = tokio::spawn(async move { drop(listener.accept().await) });
    let result = http(address).await;
    // Whether the end arrives before or after the request decides between an end and a reset.
    let ends = [fail("connection closed before the response"), fail("connection reset")];
    assert!(ends.contains(&result), "{result:?}");
}

#[tokio::test]
async fn tcp_passes_and_ends_without_a_reset() {
    for greeting in [&b""[..], b"220 mail.example ESMTP\r\n"] {
        let (listener, address) = listener().await;
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            stream.write_all(greeting).await.expect("written");
            stream.read_to_end(&mut Vec::new()).await.expect("no reset before the end");
            stream.shutdown().await.expect("still connected");
            stream
        });
        assert_eq!(run(&request(address, ProbeKind::Tcp)).await, ProbeResult::Pass);
        // Both ends are done, so a reset would have arrived.
        let stream = served.await.expect("served");
        let error = stream.take_error().expect("an open socket");
        assert!(error.is_none(), "{error:?}");
    }
}

#[tokio::test]
async fn tcp_passes_when_the_backend_says_and_does_nothing() {
    let (_listener, address) = listener().await;
    assert_eq!(run(&request(address, ProbeKind::Tcp)).await, ProbeResult::Pass);
}

#[tokio::test]
async fn a_request_that_cannot_be_made_fails() {
    let (_listener, address) = listener().await;
    let probe = HttpProbe { path: "/\n".to_owned(), ..HttpProbe::default() };
    let ProbeResult::Fail(text) = run(&request(address, ProbeKind::Http(probe))).await else {
        panic!("sent")
    };
    assert!(text.starts_with("request not possible: "), "{text}");
}

#[tokio::test]
async fn the_prober_answers_each_probe_once() {
    let (_listener, address) = listener().await;
    let (results, mut inputs) = mpsc::channel(4);
    let mut prober = Prober::new(results);
    for id in 0..20 {
        prober.start(ProbeRequest { backend: BackendId(id), ..request(address, ProbeKind::Tcp) });
    }
    let mut answered = BTreeSet::new();
    for _ in 0..20 {
        let Some(Input::Probe { backend, generation, result }) = inputs.recv().await else {
            panic!("an answer")
        };
        assert_eq!((generation, result), (Generation(2), ProbeResult::Pass));
        assert!(answered.insert(backend));
    }
    drop(prober);
    assert_eq!(inputs.recv().await, None);
}

#[tokio::test]
async fn no_more_probes_than_allowed_are_under_way() {
    let (listener, address) = listener().await;
    let (results, mut inputs) = mpsc::channel(16);
    let mut prober = Prober::with_limit(results, 2);
    for _ in 0..3 {
        prober.start(request(address, ProbeKind::Http(HttpProbe::default())));
    }
    let mut first = listener.accept().await.expect("a connection").0;
    let _second = listener.accept().await.expect("a connection").0;
    let third = timeout(Duration::from_millis(100), listener.accept()).await;
    assert!(third.is_err(), "a third connection while two are open");
    // One ends, and the third begins with a timeout of its own.
    read_head(&mut first).await;
    first.write_all(OK).await.expect("written");
    drop(first);
    let mut third = listener.accept().await.expect("a connection").0;
    read_head(&mut third).await;
    third.write_all(OK).await.expect("written");
    drop(third);
    let mut passes = 0;
    for _ in 0..3 {
        let Some(Input::Probe { result, .. }) = inputs.recv().await else { panic!("an answer") };
        passes += usize::from(result == ProbeResult::Pass);
    }
    assert_eq!(passes, 2);
}

#[tokio::test]
async fn dropping_the_prober_ends_its_probes() {
    let (listener, address) = listener().await;
    let (results, mut inputs) = mpsc::channel(1);
    let mut prober = Prober::new(results);
    let patient = ProbeRequest {
        timeout: Millis::secs(3600),
        ..request(address, ProbeKind::Http(HttpProbe::default()))
    };
    prober.start(patient);
    let (mut stream, _) = listener.accept().await.expect("a connection");
    read_head(&mut stream).await;
    drop(prober);
    assert_eq!(inputs.recv().await, None);
    assert_eq!(stream.read(&mut [0; 1]).await.expect("an orderly end"), 0);
}
