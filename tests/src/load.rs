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

use lb_lab::{Host, clock};

/// One request, in the order of their ends.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When it was to begin. `begun` is later while all workers wait for answers: what a request waits then
    /// is latency too, or a peer that stalls would hold up its own measurement.
    pub due: Duration,
    pub begun: Duration,
    pub ended: Duration,
    /// The status, or how the connection failed.
    pub answer: Result<u16, io::ErrorKind>,
    /// Our side of the connection, once there was one.
    pub client: Option<SocketAddr>,
    /// When the head of the response had been read.
    pub head_at: Option<Duration>,
    /// The value of `x-backend` in the response.
    pub backend: Option<String>,
}

/// How requests use connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// A new one for each request.
    Each,
    /// As many as there are workers, kept open; one that fails is opened again.
    Kept,
}

/// A load under way. Ends when it is stopped or dropped.
pub struct Load {
    stop: Arc<AtomicBool>,
    samples: Arc<Mutex<Vec<Sample>>>,
    workers: Vec<JoinHandle<lb_lab::Result<()>>>,
}

const PATIENCE: Duration = Duration::from_secs(3);
const MOST: u64 = 200_000;

impl Load {
    /// `rate` requests a second from this host, by `workers` threads that share them. A worker that is held
    /// up by a slow answer makes up for it.
    pub fn start(host: &Host, to: SocketAddr, rate: u64, workers: usize, connections: Connections) -> Self {
        Self::patient(host, to, rate, workers, connections, PATIENCE)
    }

    /// The same, and a request has failed only when it has waited this long, for its connection and again for its answer.
    pub fn patient(
        host: &Host,
        to: SocketAddr,
        rate: u64,
        workers: usize,
        connections: Connections,
        patience: Duration,
    ) -> Self {
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
                        let sample = exchange((to, patience), due, connections, &mut kept);
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

fn exchange(
    to: (SocketAddr, Duration),
    due: Duration,
    connections: Connections,
    kept: &mut Option<TcpStream>,
) -> Sample {
    let begun = clock::now();
    let mut client = None;
    let response = kept.take().map_or_else(|| connect(to), Ok).and_then(|mut stream| {
        client = stream.local_addr().ok();
        let response = ask(&mut stream, connections)?;
        if connections == Connections::Kept {
            *kept = Some(stream);
        }
        Ok(response)
    });
    let ended = clock::now();
    match response {
        Ok(Response { status, head_at, backend }) => {
            Sample { due, begun, ended, answer: Ok(status), client, head_at: Some(head_at), backend }
        }
        Err(error) => {
            Sample { due, begun, ended, answer: Err(error.kind()), client, head_at: None, backend: None }
        }
    }
}

fn connect((to, patience): (SocketAddr, Duration)) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

struct Response {
    status: u16,
    head_at: Duration,
    backend: Option<String>,
}

fn ask(stream: &mut TcpStream, connections: Connections) -> io::Result<Response> {
    // In one piece, as clients send it: `write!` would make several segments.
    let request: &[u8] = match connections {
        Connections::Each => b"GET /work HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n",
        Connections::Kept => b"GET /kept HTTP/1.1\r\nHost: lab\r\n\r\n",
    };
    stream.write_all(request)?;
    read_response(stream)
}

/// A response with a `Content-Length`, as the lab's backends and nginx give it.
fn read_response(stream: &mut TcpStream) -> io::Result<Response> {
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
        if seen.len() > 64 << 10 {
            return Err(invalid("a head that does not end"));
        }
    };
    let head_at = clock::now();
    let text = String::from_utf8_lossy(&seen[..head]).to_ascii_lowercase();
    let status = text.get(9..12).and_then(|code| code.parse().ok()).ok_or_else(|| invalid("no status"))?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let length: usize = field("content-length:")
        .and_then(|length| length.parse().ok())
        .ok_or_else(|| invalid("no length"))?;
    while seen.len() < head + length {
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => seen.extend(&chunk[..read]),
        }
    }
    let backend = field("x-backend:").map(str::to_owned);
    Ok(Response { status, head_at, backend })
}
