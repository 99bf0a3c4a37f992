use std::str;

use tokio::time::Instant;

use super::*;

#[tokio::test]
async fn http_passes_and_asks_as_it_should() {
    let (address, served) = answers(OK).await;
    assert_eq!(http(address).await, ProbeResult::Status(200));
    let (head, end) = served.await.expect("served");
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!("GET / HTTP/1.1\r\nhost: {address}\r\nuser-agent: shunt/{version}\r\n\r\n");
    assert_eq!(head, expected);
    assert_eq!(end.expect("no reset"), 0);
}

#[tokio::test]
async fn the_request_is_as_configured() {
    let (address, served) = answers("HTTP/1.1 418 Teapot\r\n\r\n").await;
    let kind = HttpProbe {
        method: "HEAD".to_owned(),
        // Every character that the configuration lets through.
        path: "/-._~!$&'()*+,;=:@/?a=%20".to_owned(),
        host: Some("shop.example".to_owned()),
        headers: vec![("X-Probe".to_owned(), "1".to_owned()), ("user-agent".to_owned(), "me".to_owned())],
        expect: vec![200..=299, 418..=418],
        ..HttpProbe::default()
    };
    assert_eq!(probe(address, ProbeKind::Http(kind)).await, ProbeResult::Status(418));
    let head = served.await.expect("served").0;
    assert!(head.starts_with("HEAD /-._~!$&'()*+,;=:@/?a=%20 HTTP/1.1\r\nhost: shop.example\r\n"), "{head}");
    assert!(head.contains("x-probe: 1\r\n") && head.contains("user-agent: me\r\n"), "{head}");
    assert!(!head.contains("shunt/"), "{head}");
}

#[tokio::test]
async fn a_status_that_is_not_expected_is_reported_as_it_came() {
    // More than is read along with the head: left unread, it would end in a reset.
    let answer = format!("HTTP/1.1 503 Sorry\r\nContent-Length: 60000\r\n\r\n{}", "x".repeat(60_000));
    let (address, served) = answers(answer).await;
    assert_eq!(http(address).await, ProbeResult::Status(503));
    assert_eq!(served.await.expect("served").1.expect("no reset"), 0);
}

#[tokio::test]
async fn an_interim_response_is_looked_past() {
    let (address, _served) = answers([b"HTTP/1.1 103 Early Hints\r\n\r\n", OK].concat()).await;
    assert_eq!(http(address).await, ProbeResult::Status(200));
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
    assert_eq!(http(address).await, ProbeResult::Status(200));
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
    assert_eq!(probe(address, ProbeKind::Tcp).await, fail("connection refused"));
}

#[tokio::test]
async fn silence_is_a_timeout() {
    let (listener, address) = listener().await;
    let begun = Instant::now();
    assert_eq!(late(address, ProbeKind::Http(HttpProbe::default())).await, fail("timeout after 300ms"));
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
    assert_eq!(run(&slow, &Trusted::default()).await, Ok(fail("timeout after 1s")));
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
async fn a_request_that_cannot_be_made_fails() {
    let (_listener, address) = listener().await;
    let kind = HttpProbe { path: "/\n".to_owned(), ..HttpProbe::default() };
    let ProbeResult::Fail(failed) = probe(address, ProbeKind::Http(kind)).await else { panic!("sent") };
    assert!(failed.says.starts_with("request not possible: "), "{failed:?}");
}

/// Answers each connection with a head and then as `body` says, until the prober has had enough.
async fn serves(
    head: &'static [u8],
    body: fn(usize) -> Option<&'static [u8]>,
) -> (SocketAddr, JoinHandle<usize>) {
    let (listener, address) = listener().await;
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        read_head(&mut stream).await;
        stream.write_all(head).await.expect("written");
        let mut written = 0;
        while let Some(part) = body(written) {
            match stream.write_all(part).await {
                Ok(()) => written += 1,
                Err(_) => break,
            }
        }
        written
    });
    (address, served)
}

#[tokio::test]
async fn we_close_first_and_the_backend_has_nothing_to_remember() {
    let (listener, address) = listener_on("127.0.77.1").await;
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        read_head(&mut stream).await;
        stream.write_all(OK).await.expect("written");
        // Kept open, as HTTP/1.1 has it, until the other side closes.
        stream.read_to_end(&mut Vec::new()).await
    });
    assert_eq!(http(address).await, ProbeResult::Status(200));
    assert_eq!(served.await.expect("served").expect("no reset"), 0);
    ended_by_us(address).await;
}

#[tokio::test]
async fn an_ipv6_backend() {
    let listener = TcpListener::bind("[::1]:0").await.expect("IPv6 on loopback");
    let address = listener.local_addr().expect("bound");
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let head = read_head(&mut stream).await;
        stream.write_all(OK).await.expect("written");
        (head, stream)
    });
    assert_eq!(http(address).await, ProbeResult::Status(200));
    let (head, _stream) = served.await.expect("served");
    assert!(head.contains(&format!("host: [::1]:{}\r\n", address.port())), "{head}");
}

fn wants(text: &str) -> ProbeKind {
    ProbeKind::Http(HttpProbe { expect_body: Some(text.to_owned()), ..HttpProbe::default() })
}

#[tokio::test]
async fn the_body_must_have_the_text() {
    const BODY: &[u8] =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\ndb: read\r\n2\r\ny\n\r\n0\r\n\r\n";
    for (text, result) in [
        ("ready", ProbeResult::Status(200)),
        ("db: ready\n", ProbeResult::Status(200)),
        ("Ready", fail("status 200, but its body lacks `expect_body`")),
        ("ready\n\n", fail("status 200, but its body lacks `expect_body`")),
    ] {
        let (address, _served) = answers(BODY).await;
        assert_eq!(probe(address, wants(text)).await, result, "{text:?}");
    }
}

#[tokio::test]
async fn the_body_of_another_status_is_not_judged() {
    let (address, _served) = answers("HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno").await;
    assert_eq!(probe(address, wants("ready")).await, ProbeResult::Status(503));
}

#[tokio::test]
async fn a_text_far_down_an_endless_body_is_not_waited_for() {
    let (address, served) = serves(b"HTTP/1.1 200 OK\r\n\r\n", |written| {
        Some(if written < 100 { &[b'x'; 1024] } else { b"ready" })
    })
    .await;
    let result = probe(address, wants("ready")).await;
    assert_eq!(result, fail("status 200, but the first 64 KiB of its body lack `expect_body`"));
    served.await.expect("the connection was closed");
}

#[tokio::test]
async fn a_head_that_never_ends_is_no_response() {
    let (address, served) =
        serves(b"HTTP/1.1 200 OK\r\n", |_| Some(b"X-More: and more of the same\r\n")).await;
    assert_eq!(http(address).await, fail("no valid HTTP response"));
    // Bounded: what the prober read, and what fits into the sockets' buffers.
    let written = served.await.expect("the connection was closed");
    assert!(written * 30 < 32 << 20, "{written} lines");
}

/// Sends a byte of `answer` each few milliseconds, for ever.
async fn trickles(answer: &'static [u8]) -> (SocketAddr, JoinHandle<()>) {
    let (listener, address) = listener().await;
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        for byte in answer.iter().chain(std::iter::repeat(&b'x')) {
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    (address, served)
}

#[tokio::test]
async fn bytes_that_trickle_do_not_prolong_the_timeout() {
    for answer in [&b"HTTP/1.1 200 OK\r\nX-Slow: "[..], b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 "] {
        let (address, served) = trickles(answer).await;
        let result = late(address, ProbeKind::Http(HttpProbe::default())).await;
        assert_eq!(result, fail("timeout after 300ms"), "{:?}", str::from_utf8(answer));
        served.await.expect("the connection was closed");
    }
}

#[tokio::test]
async fn an_unexpected_status_with_an_endless_body_is_known_at_once() {
    let (address, served) = serves(b"HTTP/1.1 500 No\r\n\r\n", |_| Some(&[b'x'; 4096])).await;
    assert_eq!(http(address).await, ProbeResult::Status(500));
    served.await.expect("the connection was closed");
}
