//! Active probes: one exchange with one backend, and what came of it.
//!
//! [`Prober`] runs many at a time and hands their results to the daemon's loop.
//! What a result means is not decided here: a status goes to the engine as it came.
//!
//! Each probe has a connection of its own, in TLS with a whole handshake: a connection or a
//! session that is used again would show that the backend was well when it began.
//! How a connection ends is [`ending`]'s matter.
//!
//! Tasks: one for each probe under way, owned by the [`Prober`]. Dropping it
//! aborts them, which closes their connections; a probe has no other state, so
//! that is safe at any point. Nothing here fails otherwise than by a
//! [`ProbeResult::Fail`].

use std::time::Duration;

use lb_core::{
    config::ProbeKind,
    io::{ProbeRequest, ProbeResult},
    time::Millis,
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

mod ending;
mod failure;
mod grpc;
mod http;
mod prober;
#[cfg(test)]
mod tests;
mod tls;

use ending::Ending;
use failure::Failure;
pub use prober::Prober;
use tls::Trusted;

/// Bytes that are read of what a backend sends before the rest is given up.
const MOST_READ: usize = 64 * 1024;

const USER_AGENT: &str = concat!("shunt/", env!("CARGO_PKG_VERSION"));

/// Sends one probe and waits for its result.
///
/// The timeout covers the whole exchange, from the SYN to the last byte of the
/// response. Closing may take [`ending::LINGER`] longer.
async fn run(request: &ProbeRequest, trusted: &Trusted) -> ProbeResult {
    exchange(request, trusted).await.unwrap_or_else(|failure| ProbeResult::Fail(failure.to_string()))
}

#[expect(clippy::disallowed_methods, reason = "a probe's deadline runs on the clock of its sockets")]
async fn exchange(request: &ProbeRequest, trusted: &Trusted) -> Result<ProbeResult, Failure> {
    let tls = match &*request.kind {
        ProbeKind::Tcp => None,
        ProbeKind::Http(probe) => probe.tls.as_ref(),
        ProbeKind::Grpc(probe) => probe.tls.as_ref(),
    };
    // Reading the host's certificates is our time, not the backend's.
    let tls = tls.map(|tls| trusted.session(tls, &request.kind, request.address)).transpose()?;
    let deadline =
        Deadline { at: Instant::now() + Duration::from_millis(request.timeout.0), after: request.timeout };
    let stream = deadline.hold(TcpStream::connect(request.address)).await?.map_err(Failure::io)?;
    let mut stream = Ending::new(stream);
    match &*request.kind {
        ProbeKind::Tcp => {
            stream.end().await;
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

/// When a probe must be over.
#[derive(Clone, Copy)]
struct Deadline {
    at: Instant,
    after: Millis,
}

impl Deadline {
    async fn hold<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        timeout_at(self.at, work).await.map_err(|_| Failure::Timeout(self.after))
    }
}
