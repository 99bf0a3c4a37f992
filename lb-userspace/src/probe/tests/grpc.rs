use h2::Reason;
use tonic::transport::{Identity, Server, ServerTlsConfig, server::TcpIncoming};
use tonic_health::ServingStatus;

use super::{certificates::Authority, *};

fn grpc(service: &str, tls: Option<Tls>) -> ProbeKind {
    ProbeKind::Grpc(GrpcProbe { service: service.to_owned(), host: None, tls })
}

/// A server as people run it: serving as a whole and for `up`, not for `down`.
async fn health(listener: TcpListener, tls: Option<ServerTlsConfig>) -> JoinHandle<()> {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("up", ServingStatus::Serving).await;
    reporter.set_service_status("down", ServingStatus::NotServing).await;
    reporter.set_service_status("later", ServingStatus::Unknown).await;
    let mut server = Server::builder();
    if let Some(tls) = tls {
        server = server.tls_config(tls).expect("a certificate");
    }
    let server = server.add_service(service).serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(async move { server.await.expect("served") })
}

#[tokio::test]
async fn only_who_serves_passes() {
    let (listener, address) = listener().await;
    let server = health(listener, None).await;
    for (service, result) in [
        ("", ProbeResult::Pass),
        ("up", ProbeResult::Pass),
        ("down", fail("health is NOT_SERVING")),
        ("later", fail("health is UNKNOWN")),
        ("other", fail("gRPC status NOT_FOUND: it does not know the service")),
    ] {
        assert_eq!(probe(address, grpc(service, None)).await, result, "{service}");
    }
    server.abort();
}

#[tokio::test]
async fn we_close_first_and_the_backend_has_nothing_to_remember() {
    let (listener, address) = listener_on("127.0.77.3").await;
    let server = health(listener, None).await;
    assert_eq!(probe(address, grpc("", None)).await, ProbeResult::Pass);
    ended_by_us(address).await;
    server.abort();
}

#[tokio::test]
async fn an_ipv6_backend() {
    let listener = TcpListener::bind("[::1]:0").await.expect("IPv6 on loopback");
    let address = listener.local_addr().expect("bound");
    let server = health(listener, None).await;
    assert_eq!(probe(address, grpc("", None)).await, ProbeResult::Pass);
    server.abort();
}

#[tokio::test]
async fn in_tls_it_is_the_same() {
    let authority = Authority::new();
    let (certificate, key) = authority.signs(&["shop.example"]).pem();
    let (listener, address) = listener().await;
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
    let server = health(listener, Some(tls)).await;
    let named = |name| Some(authority.tls(Some(name)));
    assert_eq!(probe(address, grpc("up", named("shop.example"))).await, ProbeResult::Pass);
    assert_eq!(probe(address, grpc("down", named("shop.example"))).await, fail("health is NOT_SERVING"));
    let result = probe(address, grpc("up", named("other.example"))).await;
    assert_eq!(
        result,
        fail("TLS: the certificate is not for other.example: write a name that it has into `server_name`")
    );
    server.abort();
}

#[tokio::test]
async fn without_http2_in_tls_it_fails() {
    let authority = Authority::new();
    let acceptor = authority.signs(&["127.0.0.1"]).acceptor(&[b"http/1.1"]);
    let (listener, address) = listener().await;
    let served = tokio::spawn(async move {
        let _ = acceptor.accept(listener.accept().await.expect("a connection").0).await;
    });
    let result = probe(address, grpc("", Some(authority.tls(None)))).await;
    assert_eq!(
        result,
        fail("TLS: the backend does not offer the protocol of the probe inside TLS (ALPN): turn it on there")
    );
    served.await.expect("served");
}

/// Takes one request and answers it by hand.
async fn by_hand<F>(
    answer: impl FnOnce(h2::server::Connection<TcpStream, bytes::Bytes>) -> F + Send + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send,
{
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        let stream = listener.accept().await.expect("a connection").0;
        answer(h2::server::handshake(stream).await.expect("HTTP/2")).await;
    });
    address
}

/// Answers with these parts: a head's fields, data, trailers.
async fn parts(
    head: &'static [(&str, &str)],
    data: &'static [u8],
    trailers: &'static [(&str, &str)],
) -> ProbeResult {
    let address = by_hand(move |mut connection| async move {
        let (_, mut respond) = connection.accept().await.expect("a request").expect("well-formed");
        let mut response = hyper::http::Response::builder();
        for (name, value) in head {
            response = response.header(*name, *value);
        }
        let mut send = respond.send_response(response.body(()).expect("a head"), false).expect("sent");
        send.send_data(bytes::Bytes::from_static(data), trailers.is_empty()).expect("sent");
        if !trailers.is_empty() {
            let fields = trailers.iter().map(|(name, value)| {
                (name.parse().expect("a name"), hyper::http::HeaderValue::from_static(value))
            });
            send.send_trailers(fields.collect()).expect("sent");
        }
        while connection.accept().await.is_some() {}
    })
    .await;
    probe(address, grpc("", None)).await
}

#[tokio::test]
async fn every_part_of_the_answer_counts() {
    const KIND: &[(&str, &str)] = &[("content-type", "application/grpc+proto")];
    const FINE: &[(&str, &str)] = &[("grpc-status", "0")];
    const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
    assert_eq!(parts(KIND, SERVING, FINE).await, ProbeResult::Pass);
    let html = &[("content-type", "text/html")];
    for (head, data, trailers, why) in [
        (&[][..], SERVING, FINE, "not gRPC: content type missing"),
        (html, SERVING, FINE, "not gRPC: content type text/html"),
        (KIND, SERVING, &[], "response ended early"),
        (KIND, SERVING, &[("grpc-status", "14")], "gRPC status UNAVAILABLE"),
        (KIND, SERVING, &[("grpc-status", "99")], "gRPC status 99"),
        (KIND, b"", FINE, "not gRPC: no message"),
        (KIND, &[1, 0, 0, 0, 2, 8, 1], FINE, "not gRPC: a compressed message that nobody asked for"),
        (KIND, &[0, 0, 0, 0, 3, 8, 1], FINE, "not gRPC: a message of another length than it says"),
        (KIND, &[0, 0, 0, 0, 1, 8], FINE, "not gRPC: a message that cannot be decoded"),
        (KIND, &[0, 0, 0, 0, 0], FINE, "health is UNKNOWN"),
        (KIND, &[0, 0, 0, 0, 2, 8, 77], FINE, "health is 77"),
        (KIND, &[0; 9000], FINE, "not gRPC: a message that is too long"),
    ] {
        assert_eq!(parts(head, data, trailers).await, fail(why));
    }
}

#[tokio::test]
async fn a_server_without_the_health_service_is_recognized() {
    let address = by_hand(|mut connection| async move {
        let (request, mut respond) = connection.accept().await.expect("a request").expect("well-formed");
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        assert_eq!(request.headers()["te"], "trailers");
        assert_eq!(request.headers()["grpc-timeout"], "30000m");
        let response = hyper::http::Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "12");
        respond.send_response(response.body(()).expect("a head"), true).expect("sent");
        while connection.accept().await.is_some() {}
    })
    .await;
    assert_eq!(
        probe(address, grpc("", None)).await,
        fail("gRPC status UNIMPLEMENTED: it has no grpc.health.v1")
    );
}

#[tokio::test]
async fn a_server_that_goes_away_fails() {
    // Length, type, flags and stream of each frame, then its payload: empty settings, and GOAWAY after
    // stream 0 for ENHANCE_YOUR_CALM.
    const FRAMES: &[u8] =
        &[0, 0, 0, 4, 0, 0, 0, 0, 0, /**/ 0, 0, 8, 7, 0, 0, 0, 0, 0, /**/ 0, 0, 0, 0, 0, 0, 0, 11];
    let (listener, address) = listener().await;
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.write_all(FRAMES).await.expect("written");
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    assert_eq!(probe(address, grpc("", None)).await, fail("HTTP/2: GOAWAY ENHANCE_YOUR_CALM"));
    served.await.expect("the connection was closed");
    let abrupt = by_hand(|mut connection| async move {
        let _held = connection.accept().await;
        connection.abrupt_shutdown(Reason::NO_ERROR);
        while connection.accept().await.is_some() {}
    })
    .await;
    // How far the end has come when we write decides.
    let result = probe(abrupt, grpc("", None)).await;
    let ends = ["connection closed before the response", "connection reset", "HTTP/2: GOAWAY NO_ERROR"];
    assert!(ends.map(fail).contains(&result), "{result:?}");
    let resets = by_hand(|mut connection| async move {
        let (_, mut respond) = connection.accept().await.expect("a request").expect("well-formed");
        respond.send_reset(Reason::REFUSED_STREAM);
        while connection.accept().await.is_some() {}
    })
    .await;
    assert_eq!(probe(resets, grpc("", None)).await, fail("HTTP/2: RST_STREAM REFUSED_STREAM"));
}

/// GOAWAY says what comes next, not that what was asked is lost.
#[tokio::test]
async fn a_server_that_goes_away_after_its_answer_passes() {
    let address = by_hand(|mut connection| async move {
        let (_, mut respond) = connection.accept().await.expect("a request").expect("well-formed");
        connection.graceful_shutdown();
        let response = hyper::http::Response::builder().header("content-type", "application/grpc");
        let mut send = respond.send_response(response.body(()).expect("a head"), false).expect("sent");
        send.send_data(bytes::Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]), false).expect("sent");
        let end = (hyper::http::HeaderName::from_static("grpc-status"), "0".parse().expect("a value"));
        send.send_trailers([end].into_iter().collect()).expect("sent");
        while connection.accept().await.is_some() {}
    })
    .await;
    assert_eq!(probe(address, grpc("", None)).await, ProbeResult::Pass);
}

#[tokio::test]
async fn silence_is_a_timeout() {
    let (_silent, address) = listener().await;
    assert_eq!(late(address, grpc("", None)).await, fail("timeout after 300ms"));
    // Also when HTTP/2 is spoken, but the call is not answered.
    let address = by_hand(|mut connection| async move {
        let _held = connection.accept().await;
        while connection.accept().await.is_some() {}
    })
    .await;
    assert_eq!(late(address, grpc("", None)).await, fail("timeout after 300ms"));
}

#[tokio::test]
async fn who_speaks_another_protocol_fails() {
    let (listener, address) = listener().await;
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.expect("written");
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    assert_eq!(probe(address, grpc("", None)).await, fail("HTTP/2: FRAME_SIZE_ERROR"));
    served.await.expect("served");
}
