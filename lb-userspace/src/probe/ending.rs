//! How the connection of a probe ends.
//!
//! We close first, as soon as we have what we asked for, and read until the backend has closed
//! too. Whoever closes first keeps the connection in TIME_WAIT for a minute: that is this host,
//! with a small entry for each probe of the last minute (30 for each backend at the default
//! interval), each of which takes one of our ports towards that one backend. Therefore the
//! requests do not say `Connection: close`, which would have the backend close first, and the
//! entries pile up where all load balancers of a site probe the same server.
//!
//! The other way out is a reset (SO_LINGER of 0), which leaves no entry anywhere. But a
//! backend that reads, or is about to write, meets it as an error: it stands in the logs of sshd, of
//! mail servers and of many an application, every two seconds. So a reset happens only where a
//! backend sends more than we read, or what nobody waits for any more.

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

use super::{Failure, MOST_READ};

/// How long the backend's end is waited for once the result is known.
pub(super) const LINGER: Duration = Duration::from_millis(100);

/// A connection whose shutdown is over only when the backend has closed, too.
///
/// What the backend still says is read, up to a bound: TLS and HTTP/2 end with a message of
/// their own, and the kernel answers with a reset what comes after a close.
#[derive(Debug)]
pub(super) struct Ending {
    stream: TcpStream,
    closed: bool,
    left: usize,
}

impl Ending {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, closed: false, left: MOST_READ }
    }

    /// Sends at once what is written, also while an earlier segment is not acknowledged. For
    /// protocols that write more than once without an answer between.
    pub(super) fn unbuffered(self) -> Result<Self, Failure> {
        self.stream.set_nodelay(true).map_err(Failure::io)?;
        Ok(self)
    }

    /// Ends a connection on which nothing was asked.
    pub(super) async fn end(&mut self) {
        // The result is known: how the connection ends does not change it.
        let _ = timeout(LINGER, self.shutdown()).await;
    }
}

impl AsyncRead for Ending {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Ending {
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
