//! A TCP server that sends exactly what a test asks for, segment by segment.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use lb_lab::{Error, Host, Result, until};
use nix::sys::socket::{Shutdown, shutdown};

use crate::socket;

/// A connection that says nothing is given up after this.
const SILENCE: Duration = Duration::from_secs(10);

/// Ends when it is dropped.
#[derive(Debug)]
pub struct Scripted {
    listener: Arc<TcpListener>,
    thread: Option<JoinHandle<()>>,
}

/// A connection, from the server's side.
#[derive(Debug)]
pub struct Line {
    stream: TcpStream,
    /// Read already, and not yet asked for.
    ahead: Vec<u8>,
}

impl Scripted {
    /// `script` is played on every connection. Its errors are the client's affair.
    pub fn start(
        host: &Host,
        address: SocketAddr,
        script: impl Fn(&mut Line) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = host
            .enter(|| TcpListener::bind(address))?
            .map_err(|source| Error::Io { what: format!("listening on {address}"), source })?;
        let listener = Arc::new(listener);
        let accepting = Arc::clone(&listener);
        let thread = thread::spawn(move || {
            thread::scope(|scope| {
                // A listener that is shut down accepts no more: that ends the loop.
                while let Ok((stream, _)) = accepting.accept() {
                    let script = &script;
                    scope.spawn(move || Line::new(stream).and_then(|mut line| script(&mut line)));
                }
            });
        });
        Ok(Self { listener, thread: Some(thread) })
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        // Nothing can be done about a failure, except to wait for ever.
        if shutdown(self.listener.as_raw_fd(), Shutdown::Both).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

impl Line {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        Ok(Self { stream, ahead: Vec::new() })
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The next request's head; `None` once the client has closed.
    pub fn request(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.ahead.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = self.ahead.drain(..end + 4).collect();
                return String::from_utf8(head).map(Some).map_err(io::Error::other);
            }
            if self.more()? == 0 {
                return Ok(None);
            }
        }
    }

    /// That many bytes of a request's body.
    pub fn body(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.ahead.len() < length {
            if self.more()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.ahead.drain(..length).collect())
    }

    fn more(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 4096];
        let read = self.stream.read(&mut buffer)?;
        self.ahead.extend(&buffer[..read]);
        Ok(read)
    }

    /// In one segment, if it fits into one, and returns when the client has acknowledged it: what is said
    /// next is in another.
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        until("the client acknowledges", SILENCE, || {
            socket::unacknowledged(&self.stream).is_ok_and(|n| n == 0)
        })
        .map_err(io::Error::other)
    }

    /// The same, with a cut after so many bytes.
    pub fn say_in_two(&mut self, bytes: &[u8], cut: usize) -> io::Result<()> {
        self.say(&bytes[..cut])?;
        self.say(&bytes[cut..])
    }
}
