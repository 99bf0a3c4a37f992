#![expect(clippy::disallowed_methods, reason = "they look at how long a probe took")]
//! All on loopback, against servers that each test makes.

use std::{fs, io, net::SocketAddr, sync::Arc, time::Duration};

use lb_core::{
    codes::{DaemonCode, ProbeCode},
    config::{GrpcProbe, HttpProbe, ProbeKind, Tls, Trust},
    io::{BackendId, Generation, ProbeFailure, ProbeRequest, ProbeResult},
    time::Millis,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{exchange::run, tls::Trusted, *};

mod certificates;
mod grpc;
mod http;
mod https;
mod lack;
mod many;
mod tcp;

/// The machine may be busy.
const TIMEOUT: Millis = Millis::secs(30);
/// Of those that are to wait in vain.
const SHORT: Millis = Millis(300);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn listener() -> (TcpListener, SocketAddr) {
    listener_on("127.0.0.1").await
}

/// An address of its own keeps apart what the kernel remembers of connections.
async fn listener_on(address: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((address, 0)).await.expect("a port on loopback");
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
    let timeout = TIMEOUT;
    ProbeRequest { backend: BackendId(1), generation: Generation(2), address, kind: Arc::new(kind), timeout }
}

async fn probe(address: SocketAddr, kind: ProbeKind) -> ProbeResult {
    run(&request(address, kind), &Trusted::default()).await.expect("this host lacks nothing")
}

/// Of a server that does not answer in time.
async fn late(address: SocketAddr, kind: ProbeKind) -> ProbeResult {
    let request = ProbeRequest { timeout: SHORT, ..request(address, kind) };
    let result = timeout(Duration::from_secs(60), run(&request, &Trusted::default())).await;
    result.expect("it waits no longer than it may").expect("this host lacks nothing")
}

async fn http(address: SocketAddr) -> ProbeResult {
    probe(address, ProbeKind::Http(HttpProbe::default())).await
}

/// With the code that belongs to the text.
fn fail(text: &str) -> ProbeResult {
    let code = match text {
        "connection refused" => ProbeCode::ConnectionRefused,
        "connection reset" => ProbeCode::ConnectionReset,
        "no valid HTTP response" => ProbeCode::NotHttp,
        "connection closed before the response" => ProbeCode::ClosedEarly,
        "response ended early" => ProbeCode::EndedEarly,
        text if text.starts_with("timeout after ") => ProbeCode::Timeout,
        text if text.ends_with("`expect_body`") => ProbeCode::Body,
        text if text.starts_with("health is ") => ProbeCode::NotServing,
        text if text.starts_with("gRPC status ") => ProbeCode::GrpcStatus,
        text if text.starts_with("not gRPC: ") => ProbeCode::NotGrpc,
        text if text.starts_with("HTTP/2: ") => ProbeCode::Http2,
        text if text.starts_with("TLS: ") => return tls(text),
        _ => panic!("which code has {text:?}?"),
    };
    ProbeResult::fail(code, text)
}

/// A failure of TLS, by a part of its text that no other one has.
fn tls(text: &str) -> ProbeResult {
    let codes = [
        ("has expired", ProbeCode::TlsExpired),
        ("is not valid yet", ProbeCode::TlsNotYetValid),
        ("none that is trusted", ProbeCode::TlsUnknownIssuer),
        ("the certificate is not for servers", ProbeCode::TlsPurpose),
        ("the certificate is not for ", ProbeCode::TlsWrongName),
        ("an authority's own", ProbeCode::TlsAuthority),
        ("does not speak TLS", ProbeCode::TlsNone),
        ("neither TLS 1.2 nor TLS 1.3", ProbeCode::TlsVersion),
        ("no cipher suite", ProbeCode::TlsParameters),
        ("wants a client certificate", ProbeCode::TlsClientCertificate),
        ("(ALPN)", ProbeCode::TlsAlpn),
        ("closed in the handshake", ProbeCode::TlsClosed),
    ];
    let (_, code) = codes.into_iter().find(|(part, _)| text.contains(part)).expect("a known text");
    ProbeResult::fail(code, text)
}

/// How many connections with this backend are in TIME_WAIT on its side, and how many on ours.
fn remembered(backend: SocketAddr) -> (usize, usize) {
    const TIME_WAIT: &str = "06";
    let SocketAddr::V4(backend) = backend else { panic!("only IPv4 is looked up") };
    let backend = format!("{:08X}:{:04X}", u32::from_le_bytes(backend.ip().octets()), backend.port());
    let (mut theirs, mut ours) = (0, 0);
    for line in fs::read_to_string("/proc/net/tcp").expect("the kernel's table").lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        theirs += usize::from(fields[3] == TIME_WAIT && fields[1] == backend);
        ours += usize::from(fields[3] == TIME_WAIT && fields[2] == backend);
    }
    (theirs, ours)
}

/// The connection of a probe is over at both ends, and only this host remembers it.
async fn ended_by_us(backend: SocketAddr) {
    // The backend's last segment is on its way when the probe has returned.
    let ended = async {
        while !matches!(remembered(backend), (0, 1..)) {
            tokio::task::yield_now().await;
        }
    };
    let ended = timeout(Duration::from_secs(5), ended).await;
    assert!(ended.is_ok(), "in TIME_WAIT (theirs, ours): {:?}", remembered(backend));
}
