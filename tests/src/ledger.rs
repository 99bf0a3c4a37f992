//! A web server that keeps a ledger: which requests it has seen, and how each of its connections ended.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use lb_lab::{Error, Host, Result, clock};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::sleep,
};

/// How long the body of `/slow/…` takes.
pub const SLOW: Duration = Duration::from_secs(2);

/// How much of it comes: half at once, half at the end.
pub const SLOW_LENGTH: usize = 2000;

/// Ends when it is dropped, and closes whatever is open.
#[derive(Debug)]
pub struct Ledger {
    pages: Arc<Mutex<Pages>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Pages {
    name: String,
    fails: bool,
    delay: Duration,
    accepted: Vec<Duration>,
    seen: Vec<Seen>,
    ends: Vec<End>,
}

/// A request, once its head is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub at: Duration,
    pub path: String,
    pub client: SocketAddr,
}

/// A connection that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub at: Duration,
    pub client: SocketAddr,
    pub requests: usize,
    /// `None`: its client closed it.
    pub error: Option<io::ErrorKind>,
}

impl Ledger {
    /// Every answer takes `delay`, and says `name` in `x-backend`.
    pub fn start(host: &Host, listen: SocketAddr, name: &str, delay: Duration) -> Result<Self> {
        let io = |source| Error::Io { what: format!("listening on {listen}"), source };
        let listener = host.enter(|| std::net::TcpListener::bind(listen))?.map_err(io)?;
        listener.set_nonblocking(true).map_err(io)?;
        let pages = Arc::new(Mutex::new(Pages { name: name.to_owned(), delay, ..Pages::default() }));
        let shared = Arc::clone(&pages);
        let (end, ended) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime needs little").block_on(async {
                tokio::select! {
                    _ = ended => {}
                    () = accept(listener, &shared) => {}
                }
            });
        });
        Ok(Self { pages, end: Some(end), thread: Some(thread) })
    }

    /// From now on it answers 500, or 200 again.
    pub fn fail(&self, fails: bool) {
        lock(&self.pages).fails = fails;
    }

    /// When connections were accepted.
    pub fn accepted(&self) -> Vec<Duration> {
        lock(&self.pages).accepted.clone()
    }

    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.pages).seen.clone()
    }

    pub fn ends(&self) -> Vec<End> {
        lock(&self.pages).ends.clone()
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // Whatever happened to it shows in what it did not write.
            let _ = thread.join();
        }
    }
}

fn lock(pages: &Mutex<Pages>) -> MutexGuard<'_, Pages> {
    // Every line is whole.
    pages.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: std::net::TcpListener, pages: &Arc<Mutex<Pages>>) {
    let listener = TcpListener::from_std(listener).expect("inside a runtime");
    loop {
        // It fails only for want of descriptors; who waits is accepted later.
        let Ok((stream, client)) = listener.accept().await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        lock(pages).accepted.push(clock::now());
        let pages = Arc::clone(pages);
        tokio::spawn(async move {
            let mut requests = 0;
            let error = converse(stream, client, &pages, &mut requests).await.err().map(|error| error.kind());
            lock(&pages).ends.push(End { at: clock::now(), client, requests, error });
        });
    }
}

/// Requests without a body, one after the other.
async fn converse(
    mut stream: TcpStream,
    client: SocketAddr,
    pages: &Mutex<Pages>,
    requests: &mut usize,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut heard = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = heard.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut heard).await? == 0 {
                return Ok(());
            }
        };
        let head: Vec<u8> = heard.drain(..end).collect();
        let head = String::from_utf8_lossy(&head);
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        *requests += 1;
        let slow = path.starts_with("/slow/");
        let (name, fails, delay) = {
            let mut pages = lock(pages);
            pages.seen.push(Seen { at: clock::now(), path, client });
            (pages.name.clone(), pages.fails, pages.delay)
        };
        if !delay.is_zero() {
            sleep(delay).await;
        }
        let status = if fails { "500 No" } else { "200 OK" };
        let length = if slow { SLOW_LENGTH } else { 2 };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nX-Backend: {name}\r\n\r\n");
        if !slow {
            stream.write_all(format!("{head}ok").as_bytes()).await?;
            continue;
        }
        let half = "x".repeat(SLOW_LENGTH / 2);
        stream.write_all(format!("{head}{half}").as_bytes()).await?;
        // A reset shows here, and not only when somebody speaks.
        tokio::select! {
            () = sleep(SLOW) => stream.write_all(half.as_bytes()).await?,
            error = broken(&stream) => return Err(error),
        }
    }
}

/// Waits for an error of the socket.
async fn broken(stream: &TcpStream) -> io::Error {
    loop {
        if stream.ready(tokio::io::Interest::ERROR).await.is_ok()
            && let Ok(Some(error)) = stream.take_error()
        {
            return error;
        }
        sleep(Duration::from_millis(10)).await;
    }
}
