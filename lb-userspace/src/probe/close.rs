//! How the connection of a probe is closed.
//!
//! The prober closes first, as soon as it has what it asked for, and reads until the backend has closed too.
//! The side that closes first has the connection in TIME_WAIT for a minute. So this host has a small entry
//! for each probe of the last minute (30 for each backend at the default interval), and each entry takes one
//! of its ports towards that one backend. If the requests said `Connection: close`, the backend would close
//! first. The entries would then pile up where all load balancers of a site probe the same server.
//!
//! A reset (SO_LINGER of 0) would leave no entry anywhere. But a backend that reads, or is about to write,
//! sees it as an error: sshd, mail servers and many applications would log it every two seconds. So a reset
//! happens only when a backend sends more than the prober reads, or sends after the prober has stopped to
//! wait.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::timeout,
};

use super::failure::Failure;

/// Bytes that the prober reads of what a backend sends.
pub(super) const MOST_READ: usize = 64 * 1024;

/// How long the prober waits for the backend's close once it knows the result.
pub(super) const LINGER: Duration = Duration::from_millis(100);

/// A connection whose shutdown is over only when the backend has closed, too.
///
/// Until then it reads what the backend still sends, up to a bound: TLS and HTTP/2 end with a message of
/// their own, and the kernel would answer a segment after the close with a reset.
#[derive(Debug)]
pub(super) struct Closing {
    stream: TcpStream,
    closed: bool,
    left: usize,
}

impl Closing {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, closed: false, left: MOST_READ }
    }

    /// Sends every write at once, also while an earlier segment is not acknowledged. For protocols that write
    /// more than once before they get an answer.
    pub(super) fn unbuffered(self) -> Result<Self, Failure> {
        self.stream.set_nodelay(true).map_err(Failure::io)?;
        Ok(self)
    }

    /// Closes a connection that had no request.
    pub(super) async fn close(&mut self) {
        // The result is known. An error of the close does not change it.
        let _ = timeout(LINGER, self.shutdown()).await;
    }
}

impl AsyncRead for Closing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Closing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closed {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            self.closed = true;
        }
        let mut unwanted = [0; 2048];
        while self.left > 0 {
            let mut buffer = ReadBuf::new(&mut unwanted);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            match buffer.filled().len() {
                0 => break,
                more => self.left = self.left.saturating_sub(more),
            }
        }
        Poll::Ready(Ok(()))
    }
}
