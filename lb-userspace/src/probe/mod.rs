//! Active probes: one exchange with one backend, and what came of it.
//!
//! [`run`] makes one probe on a connection of its own. [`Prober`] runs many at a
//! time and hands their results to the daemon's loop.
//!
//! Tasks: one for each probe under way, owned by the [`Prober`]. Dropping it
//! aborts them, which closes their connections; a probe has no other state, so
//! that is safe at any point. Nothing here fails otherwise than by a
//! [`ProbeResult::Fail`].

use std::{io, time::Duration};

use lb_core::{
    config::ProbeKind,
    io::{ProbeRequest, ProbeResult},
    time::Millis,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

mod http;
mod prober;
#[cfg(test)]
mod tests;

pub use prober::Prober;

/// How long the end of a connection is waited for once the result is known, so
/// that it ends without a reset, which would stand in the backend's log.
const LINGER: Duration = Duration::from_millis(100);

/// Bytes that are read of what a backend sends before the rest is given up.
const MOST_READ: usize = 64 * 1024;

/// Why a probe failed, as people read it.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("timeout after {}", shown(*.0))]
    Timeout(Millis),
    /// `connection refused`, `host unreachable`, `connection reset`, …
    #[error("{0}")]
    Io(io::ErrorKind),
    #[error("status {0}")]
    Status(u16),
    #[error("no valid HTTP response")]
    NotHttp,
    #[error("connection closed before the response")]
    ClosedEarly,
    #[error("response ended early")]
    EndedEarly,
    #[error("request not possible: {0}")]
    Request(hyper::http::Error),
}

/// Sends one probe and waits for its result.
///
/// The timeout covers the whole exchange, from the SYN to the last byte of the
/// response. Closing may take [`LINGER`] longer.
pub async fn run(request: &ProbeRequest) -> ProbeResult {
    match exchange(request).await {
        Ok(()) => ProbeResult::Pass,
        Err(failure) => ProbeResult::Fail(failure.to_string()),
    }
}

#[expect(clippy::disallowed_methods, reason = "a probe's deadline runs on the clock of its sockets")]
async fn exchange(request: &ProbeRequest) -> Result<(), Failure> {
    let deadline =
        Deadline { at: Instant::now() + Duration::from_millis(request.timeout.0), after: request.timeout };
    let stream = deadline
        .hold(TcpStream::connect(request.address))
        .await?
        .map_err(|error| Failure::Io(error.kind()))?;
    match &*request.kind {
        ProbeKind::Tcp => {
            close(stream).await;
            Ok(())
        }
        ProbeKind::Http(probe) => http::exchange(stream, request.address, probe, deadline).await,
    }
}

/// Ends a connection on which nothing was asked. What the backend said of its
/// own accord is read, or the kernel would answer it with a reset.
async fn close(mut stream: TcpStream) {
    let end = async {
        stream.shutdown().await?;
        let mut greeting = (&mut stream).take(MOST_READ as u64);
        tokio::io::copy(&mut greeting, &mut tokio::io::sink()).await
    };
    // The result is known: how the connection ends does not change it.
    let _ = timeout(LINGER, end).await;
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

fn shown(span: Millis) -> String {
    match span.0 {
        ms if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}
