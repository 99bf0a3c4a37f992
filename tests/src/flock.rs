//! Many web servers in one thread: as many addresses as a test wants, each with a status of its own.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use lb_lab::{Error, Host, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

/// Ends when it is dropped.
#[derive(Debug)]
pub struct Flock {
    birds: Arc<[Bird]>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<io::Result<()>>>>,
}

/// One of the servers.
#[derive(Debug)]
struct Bird {
    address: SocketAddr,
    /// Its answer; to its probe path as well.
    status: AtomicU16,
    /// Connections that it accepted.
    accepted: AtomicU64,
}

impl Flock {
    /// Listens on all of them once this returns.
    pub fn start(host: &Host, addresses: impl IntoIterator<Item = SocketAddr>) -> Result<Self> {
        let bird = |address| Bird { address, status: AtomicU16::new(200), accepted: AtomicU64::new(0) };
        let birds: Arc<[Bird]> = addresses.into_iter().map(bird).collect();
        let (end, ended) = oneshot::channel();
        let (ready, listening) = std::sync::mpsc::channel();
        let thread = host.thread({
            let birds = Arc::clone(&birds);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(serve(birds, ready, ended))
            }
        });
        // Without a word the thread has ended, and says why when it is joined.
        let heard = listening.recv().is_ok();
        let mut flock = Self { birds, end: Some(end), thread: Some(thread) };
        if heard { Ok(flock) } else { Err(flock.ended()) }
    }

    fn ended(&mut self) -> Error {
        let thread = self.thread.take().expect("it is joined once");
        let source = match thread.join().expect("a flock does not panic") {
            Ok(Ok(())) => io::ErrorKind::UnexpectedEof.into(),
            Ok(Err(error)) => error,
            Err(error) => return error,
        };
        Error::Io { what: "a flock of servers".to_owned(), source }
    }

    pub fn answer(&self, number: usize, status: u16) {
        self.birds[number].status.store(status, Ordering::Relaxed);
    }

    /// Connections that this one has accepted so far.
    pub fn accepted(&self, number: usize) -> u64 {
        self.birds[number].accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Flock {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take() {
            // Its result no longer matters.
            let _ = thread.join();
        }
    }
}

async fn serve(
    birds: Arc<[Bird]>,
    ready: std::sync::mpsc::Sender<()>,
    ended: oneshot::Receiver<()>,
) -> io::Result<()> {
    for number in 0..birds.len() {
        let listener = TcpListener::bind(birds[number].address).await?;
        let birds = Arc::clone(&birds);
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    // It lacks descriptors. Those that wait are accepted later.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                birds[number].accepted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(converse(stream, Arc::clone(&birds), number));
            }
        });
    }
    // The waiting thread is there until it gets this.
    let _ = ready.send(());
    // An error is the end too.
    let _ = ended.await;
    Ok(())
}

/// One request a connection; what breaks it is the client's affair.
async fn converse(mut stream: TcpStream, birds: Arc<[Bird]>, number: usize) -> io::Result<()> {
    let mut seen = Vec::new();
    while !seen.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        if stream.read_buf(&mut seen).await? == 0 {
            return Ok(());
        }
    }
    let status = birds[number].status.load(Ordering::Relaxed);
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}
