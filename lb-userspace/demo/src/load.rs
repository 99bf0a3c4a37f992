//! The clients: 50 new connections a second, and a few that keep theirs.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use lb_lab::{Host, clock};

/// Threads of each kind, and the time between the requests of one thread.
const FRESH: (u32, Duration) = (4, Duration::from_millis(80));
const KEPT: (u32, Duration) = (4, Duration::from_millis(200));
/// After so many requests a client opens another connection.
const KEPT_REQUESTS: u32 = 20;
const PATIENCE: Duration = Duration::from_secs(1);

/// How a client uses connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One request, one connection.
    Fresh,
    /// Up to twenty requests on each.
    Kept,
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) kind: Kind,
    /// When its connection was begun, and when it stood, by [`clock`].
    pub(super) begun: Duration,
    pub(super) established: Duration,
    /// Of the connection: what a packet trace would show it under.
    pub(super) local: Option<SocketAddr>,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Answer {
        status: u16,
        backend: String,
    },
    /// No answer: refused, reset, timed out.
    Error(io::ErrorKind),
}

impl Sample {
    pub(super) fn is_good(&self) -> bool {
        matches!(self.outcome, Outcome::Answer { status: 200..=399, .. })
    }

    pub(super) fn is_from(&self, name: &str) -> bool {
        matches!(&self.outcome, Outcome::Answer { backend, .. } if backend == name)
    }
}

/// Clients at work. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<lb_lab::Result<()>>>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    ended: AtomicBool,
    samples: Mutex<Vec<Sample>>,
}

impl Load {
    pub(super) fn start(host: &Host, target: SocketAddr) -> Self {
        let shared =
            Arc::new(Shared { target, ended: AtomicBool::new(false), samples: Mutex::new(Vec::new()) });
        let mut threads = Vec::new();
        for (kind, (count, pause)) in [(Kind::Fresh, FRESH), (Kind::Kept, KEPT)] {
            for number in 0..count {
                let shared = Arc::clone(&shared);
                let delay = pause / count * number;
                threads.push(host.thread(move || shared.work(kind, delay, pause)));
            }
        }
        Self { shared, threads }
    }

    pub(super) fn samples(&self) -> Vec<Sample> {
        self.shared.samples().clone()
    }

    /// Ends the clients and answers all that they saw.
    pub(super) fn finish(mut self) -> Vec<Sample> {
        self.end();
        std::mem::take(&mut *self.shared.samples())
    }

    fn end(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A client that panicked has printed it already.
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn samples(&self) -> MutexGuard<'_, Vec<Sample>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One client: a request at each beat; beats that were missed are not made up for.
    fn work(&self, kind: Kind, delay: Duration, pause: Duration) {
        let mut next = clock::now() + delay;
        let mut connection = None;
        while !self.ended.load(Ordering::Relaxed) {
            let now = clock::now();
            if now < next {
                thread::sleep((next - now).min(Duration::from_millis(50)));
                continue;
            }
            next = (next + pause).max(now);
            let sample = self.request(kind, &mut connection);
            self.samples().push(sample);
        }
    }

    fn request(&self, kind: Kind, kept: &mut Option<Connection>) -> Sample {
        let begun = clock::now();
        let mut connection = match kept.take().map_or_else(|| Connection::open(self.target), Ok) {
            Ok(connection) => connection,
            Err(error) => {
                let outcome = Outcome::Error(error.kind());
                return Sample { kind, begun, established: clock::now(), local: None, outcome };
            }
        };
        let last = kind == Kind::Fresh || connection.requests + 1 == KEPT_REQUESTS;
        let outcome = match connection.exchange(last) {
            Ok((status, backend)) => Outcome::Answer { status, backend },
            Err(error) => Outcome::Error(error.kind()),
        };
        let Connection { begun, established, local, .. } = connection;
        let sample = Sample { kind, begun, established, local, outcome };
        if !last && matches!(sample.outcome, Outcome::Answer { .. }) {
            *kept = Some(connection);
        }
        sample
    }
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    begun: Duration,
    established: Duration,
    local: Option<SocketAddr>,
    requests: u32,
}

impl Connection {
    fn open(target: SocketAddr) -> io::Result<Self> {
        let begun = clock::now();
        let stream = TcpStream::connect_timeout(&target, PATIENCE)?;
        let established = clock::now();
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let local = stream.local_addr().ok();
        Ok(Self { stream, begun, established, local, requests: 0 })
    }

    /// One request: the status, and who answered.
    fn exchange(&mut self, last: bool) -> io::Result<(u16, String)> {
        self.requests += 1;
        let close = if last { "close" } else { "keep-alive" };
        write!(self.stream, "GET / HTTP/1.1\r\nhost: demo\r\nconnection: {close}\r\n\r\n")?;
        let mut bytes = Vec::new();
        let mut chunk = [0; 2048];
        loop {
            let read = self.stream.read(&mut chunk)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.extend_from_slice(&chunk[..read]);
            if let Some(answer) = answer(&bytes)? {
                return Ok(answer);
            }
        }
    }
}

/// Status and `x-backend` of a response that is there in full.
fn answer(bytes: &[u8]) -> io::Result<Option<(u16, String)>> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    };
    let value = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()
    };
    let body: usize = value("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    if bytes.len() < head + body {
        return Ok(None);
    }
    let status = response.code.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Some((status, value("x-backend").unwrap_or_default().to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_whole() {
        let text = b"HTTP/1.1 500 Internal Server Error\r\nX-Backend: app\r\ncontent-length: 3\r\n\r\nno\n";
        for length in 0..text.len() {
            assert_eq!(answer(&text[..length]).expect("a part of an answer"), None, "{length} bytes");
        }
        assert_eq!(answer(text).expect("an answer"), Some((500, "app".to_owned())));
        assert!(answer(b"SSH-2.0-OpenSSH\r\n").is_err());
    }
}
