use super::*;

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
        assert_eq!(probe(address, ProbeKind::Tcp).await, ProbeResult::Pass);
        // Both ends are done, so a reset would have arrived.
        let stream = served.await.expect("served");
        let error = stream.take_error().expect("an open socket");
        assert!(error.is_none(), "{error:?}");
    }
}

#[tokio::test]
async fn tcp_passes_when_the_backend_says_and_does_nothing() {
    let (_listener, address) = listener().await;
    assert_eq!(probe(address, ProbeKind::Tcp).await, ProbeResult::Pass);
}

#[tokio::test]
async fn the_backend_has_nothing_to_remember() {
    let (listener, address) = listener_on("127.0.77.4").await;
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.read_to_end(&mut Vec::new()).await
    });
    assert_eq!(probe(address, ProbeKind::Tcp).await, ProbeResult::Pass);
    assert_eq!(served.await.expect("served").expect("no reset"), 0);
    ended_by_us(address).await;
}

#[tokio::test]
async fn an_ipv6_backend() {
    let listener = TcpListener::bind("[::1]:0").await.expect("IPv6 on loopback");
    let address = listener.local_addr().expect("bound");
    assert_eq!(probe(address, ProbeKind::Tcp).await, ProbeResult::Pass);
}
