//! One probe: one exchange with one backend.

use std::time::Duration;

use lb_core::{
    config::ProbeKind,
    io::{ProbeRequest, ProbeResult},
};
use tokio::{net::TcpStream, time::Instant};

use super::{close::Closing, deadline::Deadline, failure::Failure, grpc, http, lack::Lack, tls::Trusted};

/// Sends one probe and waits for its result.
///
/// The timeout covers the whole exchange, from the SYN to the last byte of the
/// response. Closing may take [`LINGER`](super::close::LINGER) longer. An error is the daemon's own lack,
/// which is no result.
pub(super) async fn run(request: &ProbeRequest, trusted: &Trusted) -> Result<ProbeResult, Lack> {
    match exchange(request, trusted).await {
        Ok(result) => Ok(result),
        Err(Failure::Own(lack)) => Err(lack),
        Err(failure) => Ok(ProbeResult::fail(failure.code(), failure.to_string())),
    }
}

#[expect(clippy::disallowed_methods, reason = "a probe's deadline runs on the clock of its sockets")]
async fn exchange(request: &ProbeRequest, trusted: &Trusted) -> Result<ProbeResult, Failure> {
    let tls = match &*request.kind {
        ProbeKind::Tcp => None,
        ProbeKind::Http(probe) => probe.tls.as_ref(),
        ProbeKind::Grpc(probe) => probe.tls.as_ref(),
    };
    // The time to read the host's certificates is not the backend's.
    let tls = tls.map(|tls| trusted.session(tls, &request.kind, request.address)).transpose()?;
    let deadline =
        Deadline { at: Instant::now() + Duration::from_millis(request.timeout.0), after: request.timeout };
    let stream = deadline.limit(TcpStream::connect(request.address)).await?.map_err(Failure::io)?;
    let mut stream = Closing::new(stream);
    match &*request.kind {
        ProbeKind::Tcp => {
            stream.close().await;
            Ok(ProbeResult::Pass)
        }
        ProbeKind::Http(probe) => match tls {
            None => http::exchange(stream, request.address, probe, deadline).await,
            Some(session) => {
                let stream = session.begin(stream, deadline).await?;
                http::exchange(stream, request.address, probe, deadline).await
            }
        },
        ProbeKind::Grpc(probe) => {
            match tls {
                None => grpc::check(stream.unbuffered()?, request.address, probe, deadline).await?,
                Some(session) => {
                    let stream = session.begin(stream, deadline).await?;
                    grpc::check(stream, request.address, probe, deadline).await?;
                }
            }
            Ok(ProbeResult::Pass)
        }
    }
}
