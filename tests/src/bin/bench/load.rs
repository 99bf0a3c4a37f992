//! Requests at a fixed rate from a host of a lab: an open loop, so that a slow answer does not slow what follows.

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

use anyhow::{Context, Result, anyhow};
use lb_userspace::lab::{self, Host, clock};

const PATIENCE: Duration = Duration::from_secs(3);
/// No answer here is longer.
const LONGEST: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connections {
    /// One that every worker keeps.
    Kept,
    /// One for each request.
    Each,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) target: SocketAddr,
    /// Requests a second, of all workers together.
    pub(crate) rate: u32,
    /// A worker has one request under way at a time.
    pub(crate) workers: u32,
    pub(crate) connections: Connections,
}

/// One request. Times are those of [`clock`].
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    /// Before the connection, when it got one of its own.
    pub(crate) begun: Duration,
    pub(crate) done: Duration,
    /// Our side of the connection, once there was one.
    pub(crate) client: Option<SocketAddr>,
    pub(crate) answer: Result<Answer, io::ErrorKind>,
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// When its head was read.
    pub(crate) at: Duration,
    /// What it says in `x-backend`.
    pub(crate) backend: Option<String>,
}

/// Requests that go on until they are stopped.
pub(crate) struct Running {
    stop: Arc<AtomicBool>,
    exchanges: Arc<Mutex<Vec<Exchange>>>,
    workers: Vec<JoinHandle<lab::Result<()>>>,
}

impl Running {
    pub(crate) fn start(host: &Host, offer: Offer) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let exchanges = Arc::new(Mutex::new(Vec::new()));
        let begin = clock::now();
        let workers = (0..offer.workers)
            .map(|number| {
                let (stop, exchanges) = (Arc::clone(&stop), Arc::clone(&exchanges));
                host.thread(move || work(offer, number, begin, &stop, &exchanges))
            })
            .collect();
        Self { stop, exchanges, workers }
    }

    /// Those done by now that ended at this moment or later.
    pub(crate) fn since(&self, moment: Duration) -> Vec<Exchange> {
        lock(&self.exchanges).iter().filter(|exchange| exchange.done >= moment).cloned().collect()
    }

    /// All of them, once the last one has ended.
    pub(crate) fn finish(mut self) -> Result<Vec<Exchange>> {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            worker.join().map_err(|_| anyhow!("a client panicked"))?.context("a client")?;
        }
        Ok(std::mem::take(&mut *lock(&self.exchanges)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The workers hold their host; its namespace goes after they have ended.
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

/// A worker pushes whole exchanges only.
fn lock(exchanges: &Mutex<Vec<Exchange>>) -> MutexGuard<'_, Vec<Exchange>> {
    exchanges.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(offer: Offer, number: u32, begin: Duration, stop: &AtomicBool, exchanges: &Mutex<Vec<Exchange>>) {
    let mut kept = None;
    for turn in 0.. {
        let due = f64::from(offer.workers * turn + number) / f64::from(offer.rate);
        let wait = (begin + Duration::from_secs_f64(due)).saturating_sub(clock::now());
        thread::sleep(wait);
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let exchange = exchange(offer, &mut kept);
        lock(exchanges).push(exchange);
    }
}

fn exchange(offer: Offer, kept: &mut Option<TcpStream>) -> Exchange {
    let begun = clock::now();
    let mut client = None;
    let answer = connection(offer, kept).and_then(|mut stream| {
        client = stream.local_addr().ok();
        let answer = ask(&mut stream, offer.connections)?;
        if offer.connections == Connections::Kept {
            *kept = Some(stream);
        }
        Ok(answer)
    });
    Exchange { begun, done: clock::now(), client, answer: answer.map_err(|error| error.kind()) }
}

fn connection(offer: Offer, kept: &mut Option<TcpStream>) -> io::Result<TcpStream> {
    if let Some(stream) = kept.take() {
        return Ok(stream);
    }
    let stream = TcpStream::connect_timeout(&offer.target, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// One request and its whole answer.
fn ask(stream: &mut TcpStream, connections: Connections) -> io::Result<Answer> {
    let request: &[u8] = match connections {
        Connections::Kept => b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n",
        Connections::Each => b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n",
    };
    stream.write_all(request)?;
    let mut bytes = Vec::new();
    let head = loop {
        read_more(stream, &mut bytes)?;
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let at = clock::now();
    let (status, backend, length) = read_head(&bytes[..head]).ok_or(io::ErrorKind::InvalidData)?;
    while bytes.len() < head + length {
        read_more(stream, &mut bytes)?;
    }
    Ok(Answer { status, at, backend })
}

fn read_more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    match stream.read(&mut buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ if bytes.len() > LONGEST => Err(io::ErrorKind::InvalidData.into()),
        count => {
            bytes.extend_from_slice(&buffer[..count]);
            Ok(())
        }
    }
}

/// Status, backend and length of the body.
fn read_head(head: &[u8]) -> Option<(u16, Option<String>, usize)> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let (mut backend, mut length) = (None, 0);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        match name.to_ascii_lowercase().as_str() {
            "x-backend" => backend = Some(value.trim().to_owned()),
            "content-length" => length = value.trim().parse().ok()?,
            _ => {}
        }
    }
    Some((status, backend, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let head = b"HTTP/1.1 500 Internal Server Error\r\nX-Backend: b2\r\nContent-Length: 7\r\n\r\n";
        assert_eq!(read_head(head), Some((500, Some("b2".to_owned()), 7)));
        assert_eq!(read_head(b"HTTP/1.1 204 No Content\r\n\r\n"), Some((204, None, 0)));
        assert_eq!(read_head(b"SSH-2.0-x\r\n\r\n"), None);
    }
}
