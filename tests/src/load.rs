//! A load of HTTP requests at a fixed rate, and what came of each.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use lb_userspace::lab::{Host, clock};

/// One request, in the order of their ends.
#[derive(Clone, Debug)]
pub struct Sample {
    pub begun: Duration,
    pub ended: Duration,
    /// The status, or how the connection failed.
    pub answer: Result<u16, io::ErrorKind>,
}

/// How requests use connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// A new one for each request.
    Each,
    /// As many as there are workers, kept open; one that fails is opened anew.
    Kept,
}

/// A load under way. Ends when it is stopped or dropped.
pub struct Load {
    stop: Arc<AtomicBool>,
    samples: Arc<Mutex<Vec<Sample>>>,
    workers: Vec<JoinHandle<lb_userspace::lab::Result<()>>>,
}

const PATIENCE: Duration = Duration::from_secs(3);
const MOST: u64 = 200_000;

impl Load {
    /// `rate` requests a second from this host, by `workers` threads that share them. A worker that is held
    /// up by a slow answer makes up for it.
    pub fn start(host: &Host, to: SocketAddr, rate: u64, workers: usize, connections: Connections) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let samples = Arc::new(Mutex::new(Vec::new()));
        let next = Arc::new(AtomicU64::new(0));
        let start = clock::now();
        let workers = (0..workers)
            .map(|_| {
                let (stop, samples, next) = (Arc::clone(&stop), Arc::clone(&samples), Arc::clone(&next));
                host.thread(move || {
                    let mut kept = None;
                    while !stop.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= MOST {
                            break;
                        }
                        let due = start + Duration::from_nanos(1_000_000_000 * number / rate);
                        thread::sleep(due.saturating_sub(clock::now()));
                        let begun = clock::now();
                        let answer = exchange(to, connections, &mut kept).map_err(|error| error.kind());
                        let sample = Sample { begun, ended: clock::now(), answer };
                        samples.lock().expect("no worker panics while it holds this").push(sample);
                    }
                })
            })
            .collect();
        Self { stop, samples, workers }
    }

    /// Those that have ended so far.
    pub fn samples(&self) -> Vec<Sample> {
        self.samples.lock().expect("no worker panics while it holds this").clone()
    }

    /// Ends it, after the requests under way.
    pub fn stop(mut self) -> Vec<Sample> {
        self.end();
        self.samples()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            worker.join().expect("a worker does not panic").expect("the namespace can be entered");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            // Whatever happened to it was the test's to look at.
            let _ = worker.join();
        }
    }
}

fn exchange(to: SocketAddr, connections: Connections, kept: &mut Option<TcpStream>) -> io::Result<u16> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => connect(to)?,
    };
    let last = match connections {
        Connections::Each => "Connection: close\r\n",
        Connections::Kept => "",
    };
    write!(stream, "GET /work HTTP/1.1\r\nHost: lab\r\n{last}\r\n")?;
    let status = read_response(&mut stream)?;
    if connections == Connections::Kept {
        *kept = Some(stream);
    }
    Ok(status)
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A response with a `Content-Length`, as the lab's backends and nginx give it.
fn read_response(stream: &mut TcpStream) -> io::Result<u16> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut seen = Vec::new();
    let mut chunk = [0; 4096];
    let head = loop {
        if let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => seen.extend(&chunk[..read]),
        }
    };
    let text = String::from_utf8_lossy(&seen[..head]).to_ascii_lowercase();
    let status = text.get(9..12).and_then(|code| code.parse().ok()).ok_or_else(|| invalid("no status"))?;
    let length: usize = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
        .ok_or_else(|| invalid("no length"))?;
    while seen.len() < head + length {
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => seen.extend(&chunk[..read]),
        }
    }
    Ok(status)
}
