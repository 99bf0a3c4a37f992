use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, date_time_ymd};
use tokio_rustls::rustls;

use super::{certificates::Authority, *};

/// One connection as its server saw it.
struct Seen {
    name: Option<String>,
    alpn: Option<Vec<u8>>,
    head: String,
    /// How it ended: after TLS's own end, and without a reset.
    end: io::Result<usize>,
}

const EXPIRED: &str = "TLS: the certificate has expired: renew it, or check the clock of this node";
const NOT_YET: &str =
    "TLS: the certificate is not valid yet: check the clocks of the backend and of this node";
const UNTRUSTED: &str =
    "TLS: the certificate is signed by none that is trusted: name the file of its authority in `ca`";
const WRONG_NAME: &str =
    "TLS: the certificate is not for shop.example: write a name that it has into `server_name`";
const FOR_CLIENTS: &str = "TLS: the certificate is not for servers: issue one with the purpose `serverAuth`";

fn for_clients(params: &mut CertificateParams) {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
}

fn https(tls: Tls) -> ProbeKind {
    ProbeKind::Http(HttpProbe { tls: Some(tls), ..HttpProbe::default() })
}

/// Serves connections one after the other.
async fn serves(
    acceptor: tokio_rustls::TlsAcceptor,
    times: usize,
) -> (SocketAddr, JoinHandle<Vec<io::Result<Seen>>>) {
    let (listener, address) = listener_on("127.0.77.2").await;
    let served = tokio::spawn(async move {
        let mut all = Vec::new();
        for _ in 0..times {
            let (stream, _) = listener.accept().await.expect("a connection");
            all.push(serve(&acceptor, stream).await);
        }
        all
    });
    (address, served)
}

async fn serve(acceptor: &tokio_rustls::TlsAcceptor, stream: TcpStream) -> io::Result<Seen> {
    let mut stream = acceptor.accept(stream).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    stream.write_all(OK).await?;
    let end = stream.read_to_end(&mut Vec::new()).await;
    let session = stream.get_ref().1;
    let (name, alpn) =
        (session.server_name().map(str::to_owned), session.alpn_protocol().map(<[u8]>::to_vec));
    // As servers do: an end of our own, which finds the prober still reading.
    stream.shutdown().await?;
    Ok(Seen { name, alpn, head: String::from_utf8(head).expect("ASCII"), end })
}

#[tokio::test]
async fn it_passes_by_name_and_ends_in_order() {
    let authority = Authority::new();
    let acceptor = authority.signs(&["shop.example"]).acceptor(&[b"h2", b"http/1.1"]);
    let (address, served) = serves(acceptor, 1).await;
    let result = probe(address, https(authority.tls(Some("shop.example")))).await;
    assert_eq!(result, ProbeResult::Status(200));
    let seen = served.await.expect("served").pop().expect("one").expect("a session");
    assert_eq!((seen.name.as_deref(), seen.alpn.as_deref()), (Some("shop.example"), Some(&b"http/1.1"[..])));
    assert!(seen.head.starts_with("GET / HTTP/1.1\r\n"), "{}", seen.head);
    assert_eq!(seen.end.expect("announced, and no reset"), 0);
    ended_by_us(address).await;
}

#[tokio::test]
async fn without_a_name_the_certificate_is_for_the_address() {
    let authority = Authority::new();
    let (address, served) = serves(authority.signs(&["127.0.77.2"]).acceptor(&[]), 1).await;
    assert_eq!(probe(address, https(authority.tls(None))).await, ProbeResult::Status(200));
    let seen = served.await.expect("served").pop().expect("one").expect("a session");
    assert_eq!((seen.name, seen.alpn), (None, None));
}

#[tokio::test]
async fn an_ipv6_backend() {
    let authority = Authority::new();
    let acceptor = authority.signs(&["::1"]).acceptor(&[]);
    let listener = TcpListener::bind("[::1]:0").await.expect("IPv6 on loopback");
    let address = listener.local_addr().expect("bound");
    let served =
        tokio::spawn(async move { serve(&acceptor, listener.accept().await.expect("a connection").0).await });
    assert_eq!(probe(address, https(authority.tls(None))).await, ProbeResult::Status(200));
    served.await.expect("served").expect("a session");
}

#[tokio::test]
async fn a_wrong_certificate_fails_and_says_why() {
    let (authority, other) = (Authority::new(), Authority::new());
    let cases = [
        (authority.signs(&["other.example"]), WRONG_NAME),
        (authority.signs_until(&["shop.example"], 2001), EXPIRED),
        (
            authority.signs_as(&["shop.example"], |params| params.not_before = date_time_ymd(3000, 1, 1)),
            NOT_YET,
        ),
        (authority.signs_as(&["shop.example"], for_clients), FOR_CLIENTS),
        (other.signs(&["shop.example"]), UNTRUSTED),
    ];
    for (identity, why) in cases {
        let (address, served) = serves(identity.acceptor(&[]), 2).await;
        assert_eq!(probe(address, https(authority.tls(Some("shop.example")))).await, fail(why));
        // With `insecure` any certificate passes.
        let insecure = Tls { server_name: Some("shop.example".to_owned()), trust: Trust::Anyone };
        assert_eq!(probe(address, https(insecure)).await, ProbeResult::Status(200), "{why}");
        let seen = served.await.expect("served");
        assert!(seen[0].is_err() && seen[1].is_ok());
    }
}

/// The certificates of this host, whatever they are, did not sign one that was made just now.
#[tokio::test]
async fn by_default_this_host_says_who_is_trusted() {
    let (address, _served) = serves(Authority::new().signs(&["shop.example"]).acceptor(&[]), 1).await;
    let tls = Tls { server_name: Some("shop.example".to_owned()), trust: Trust::Platform };
    let ProbeResult::Fail(ProbeFailure { says: why, .. }) = probe(address, https(tls)).await else {
        panic!("trusted")
    };
    let none = "TLS: this host trusts no certificates: install `ca-certificates`, or name a file in `ca`";
    assert!(why == UNTRUSTED || why == none, "{why}");
}

#[tokio::test]
async fn each_probe_sees_the_certificate_that_is_shown_now() {
    let authority = Authority::new();
    let trusted = Trusted::default();
    let (listener, address) = listener().await;
    let acceptors = [
        authority.signs(&["a.example"]).acceptor(&[]),
        authority.signs_until(&["a.example"], 2001).acceptor(&[]),
    ];
    let served = tokio::spawn(async move {
        for acceptor in acceptors {
            let _ = serve(&acceptor, listener.accept().await.expect("a connection").0).await;
        }
    });
    let request = request(address, https(authority.tls(Some("a.example"))));
    assert_eq!(run(&request, &trusted).await, Ok(ProbeResult::Status(200)));
    assert_eq!(run(&request, &trusted).await, Ok(fail(EXPIRED)));
    served.await.expect("served");
}

#[tokio::test]
async fn who_does_not_speak_tls_fails() {
    let authority = Authority::new();
    let (plain, address) = listener().await;
    let served = tokio::spawn(async move {
        let (mut stream, _) = plain.accept().await.expect("a connection");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("written");
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let result = probe(address, https(authority.tls(None))).await;
    let expected = "TLS: the port does not speak TLS: probe it without TLS, or probe another port";
    assert_eq!(result, fail(expected));
    served.await.expect("served");

    let (closing, address) = listener().await;
    let served = tokio::spawn(async move {
        let (mut stream, _) = closing.accept().await.expect("a connection");
        // All of the hello, so that it ends without a reset.
        stream.read_u8().await.expect("a hello");
        let mut rest = [0; 8192];
        let _ = stream.read(&mut rest).await;
    });
    let result = probe(address, https(authority.tls(None))).await;
    let expected = "TLS: the connection was closed in the handshake: look at the log of the backend";
    assert_eq!(result, fail(expected));
    served.await.expect("served");
}

/// As `openssl req -x509` makes one, which is the usual self-signed certificate.
#[tokio::test]
async fn an_authoritys_own_certificate_is_named() {
    let authority = Authority::named(&["shop.example"]);
    let (address, _served) = serves(authority.own().acceptor(&[]), 1).await;
    let result = probe(address, https(authority.tls(Some("shop.example")))).await;
    let expected = "TLS: the certificate is an authority's own: let the backend show one that the authority has \
                    signed";
    assert_eq!(result, fail(expected));
}

/// In TLS 1.3 the backend refuses after the handshake, in TLS 1.2 within it.
#[tokio::test]
async fn a_backend_that_wants_a_client_certificate_is_named() {
    let authority = Authority::new();
    let expected = "TLS: the backend wants a client certificate, and probes have none: exempt them, or use a TCP \
                    probe";
    for versions in [&[&rustls::version::TLS13], &[&rustls::version::TLS12]] {
        let acceptor = authority.signs(&["shop.example"]).acceptor_for_clients_of(&authority, versions);
        let (address, served) = serves(acceptor, 1).await;
        let result = probe(address, https(authority.tls(Some("shop.example")))).await;
        assert_eq!(result, fail(expected), "{versions:?}");
        assert!(served.await.expect("served")[0].is_err());
    }
}

/// An alert as servers send it that speak older versions only, and one of a server with other cipher suites.
#[tokio::test]
async fn nothing_in_common_is_named() {
    let alerts = [
        (70, "TLS: the backend speaks neither TLS 1.2 nor TLS 1.3: turn one of them on there"),
        (
            40,
            "TLS: the backend and Shunt have no cipher suite, key exchange or signature in common: allow more \
             there",
        ),
    ];
    for (alert, expected) in alerts {
        let (listener, address) = listener().await;
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            stream.read_u8().await.expect("a hello");
            let _ = stream.read(&mut [0; 8192]).await;
            stream.write_all(&[21, 3, 1, 0, 2, 2, alert]).await.expect("written");
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        assert_eq!(probe(address, https(Authority::new().tls(None))).await, fail(expected));
        served.await.expect("served");
    }
}

#[tokio::test]
async fn silence_in_the_handshake_is_a_timeout() {
    let (_silent, address) = listener().await;
    let result = late(address, https(Authority::new().tls(None))).await;
    assert_eq!(result, fail("timeout after 300ms"));
}

#[tokio::test]
async fn a_body_up_to_an_end_that_is_not_announced() {
    let authority = Authority::new();
    let acceptor = authority.signs(&["127.0.0.1"]).acceptor(&[]);
    // The first says how long its body is, and sends less.
    for (answer, result) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"[..], fail("response ended early")),
        (b"HTTP/1.1 200 OK\r\n\r\nok", ProbeResult::Status(200)),
    ] {
        let (listener, address) = listener().await;
        let acceptor = acceptor.clone();
        let served = tokio::spawn(async move {
            let stream = listener.accept().await.expect("a connection").0;
            let mut stream = acceptor.accept(stream).await.expect("a session");
            stream.write_all(answer).await.expect("written");
            stream.flush().await.expect("sent");
            let (mut stream, _) = stream.into_inner();
            stream.shutdown().await.expect("shut down");
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        assert_eq!(probe(address, https(authority.tls(None))).await, result);
        served.await.expect("served");
    }
}

/// As after a reload: other certificates are trusted, and the earlier ones are not.
#[tokio::test]
async fn another_authority_holds_from_the_next_probe_on() {
    let (before, after) = (Authority::new(), Authority::new());
    let (address, served) = serves(after.signs(&["a.example"]).acceptor(&[]), 3).await;
    let trusted = Trusted::default();
    let untrusted = fail(UNTRUSTED);
    for (authority, result) in
        [(&before, &untrusted), (&after, &ProbeResult::Status(200)), (&before, &untrusted)]
    {
        let request = request(address, https(authority.tls(Some("a.example"))));
        assert_eq!(run(&request, &trusted).await.as_ref(), Ok(result));
        trusted.forget();
    }
    served.await.expect("served");
}
