//! Backends to be probed: one process that answers on every address of its loopback.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    net::Ipv4Addr,
    process::Stdio,
    sync::Arc,
};

use anyhow::{Context, Result};
use lb_lab::{Host, Process};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};
use tonic::transport::{Server, server::TcpIncoming};

use super::NAME;

/// The argument that makes this program the server.
pub(crate) const ARGUMENT: &str = "serve-probes";

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n";

/// Where it listens, and who signed its certificate, in DER.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ports {
    pub(super) tcp: u16,
    pub(super) http: u16,
    pub(super) https: u16,
    pub(super) grpc: u16,
    pub(super) authority: Vec<u8>,
}

/// Ends with the process that is answered.
pub(super) fn start(host: &Host) -> Result<(Process, Ports)> {
    let own = env::current_exe().context("finding this program")?;
    let mut server = host.spawn(host.command(own).arg(ARGUMENT).stdout(Stdio::piped()))?;
    let output = server.child().stdout.take().context("its output is a pipe")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).context("reading where the server listens")?;
    Ok((server, serde_json::from_str(&line).context("the server did not start")?))
}

/// Serves until it is killed.
pub(crate) fn run() -> Result<()> {
    runtime::Builder::new_multi_thread().enable_all().build().context("starting tokio")?.block_on(serve())
}

async fn serve() -> Result<()> {
    let (acceptor, authority) = identity()?;
    let listen = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0));
    let (tcp, http, https, grpc) = (listen().await?, listen().await?, listen().await?, listen().await?);
    let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
    let ports =
        Ports { tcp: port(&tcp)?, http: port(&http)?, https: port(&https)?, grpc: port(&grpc)?, authority };
    // How a connection ends is the prober's matter, and seen there.
    tokio::spawn(each(tcp, |mut stream| async move {
        let _ = stream.read(&mut [0; 64]).await;
    }));
    tokio::spawn(each(http, |stream| async move {
        let _ = answer(stream).await;
    }));
    tokio::spawn(each(https, move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                let _ = answer(stream).await;
            }
        }
    }));
    let mut output = std::io::stdout();
    writeln!(output, "{}", serde_json::to_string(&ports)?).and_then(|()| output.flush())?;
    let (_reporter, health) = tonic_health::server::health_reporter();
    Server::builder().add_service(health).serve_with_incoming(TcpIncoming::from(grpc)).await?;
    Ok(())
}

async fn each<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    }
}

/// One request, and then the end that the client makes.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut head = Vec::with_capacity(1024);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(ANSWER).await?;
    stream.flush().await?;
    while stream.read_buf(&mut head).await? > 0 {}
    stream.shutdown().await
}

/// A server's certificate, and its authority's in DER.
fn identity() -> Result<(TlsAcceptor, Vec<u8>)> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![NAME.to_owned()])?.signed_by(&key, &authority)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    Ok((TlsAcceptor::from(Arc::new(config)), authority.der().to_vec()))
}
