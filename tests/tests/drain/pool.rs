//! An application with a pool of kept connections: hyper's own client, which asks again, once, on a fresh
//! one.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use lb_lab::{Host, clock};

/// Longer than a few lost segments take.
const PATIENCE: Duration = Duration::from_secs(20);

const WORKERS: u64 = 64;

/// A request and what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) begun: Duration,
    /// Why it was asked a second time.
    pub(crate) again: Option<String>,
    /// The status, or the error of the last try.
    pub(crate) answer: Result<u16, String>,
}

/// Requests of unique paths at a fixed rate, by 64 workers that share a pool. Ends when it is stopped or
/// dropped.
pub(crate) struct Pool {
    stop: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<Asked>>>,
    thread: Option<JoinHandle<lb_lab::Result<()>>>,
}

type Hyper = Client<HttpConnector, Empty<Bytes>>;

impl Pool {
    /// `patient`: asks again once.
    pub(crate) fn start(host: &Host, to: SocketAddr, rate: u64, patient: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (shared, ends) = (Arc::clone(&asked), Arc::clone(&stop));
        let thread = host.thread(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime needs little").block_on(async {
                let pooled = client(usize::MAX);
                let fresh = patient.then(|| client(0));
                let next = AtomicU64::new(0);
                let start = clock::now();
                let worker = || async {
                    while !ends.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let due = start + Duration::from_nanos(1_000_000_000 * number / rate);
                        tokio::time::sleep(due.saturating_sub(clock::now())).await;
                        let one = ask(&pooled, fresh.as_ref(), to, number).await;
                        shared.lock().unwrap_or_else(PoisonError::into_inner).push(one);
                    }
                };
                futures(worker).await;
            });
        });
        Self { stop, asked, thread: Some(thread) }
    }

    /// Those that have ended so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it, after the requests under way.
    pub(crate) fn stop(mut self) -> Result<Vec<Asked>> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it is stopped once")?;
        thread.join().map_err(|_| anyhow::anyhow!("the pool panicked"))??;
        Ok(self.asked())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Whatever happened to it was the test's to look at.
            let _ = thread.join();
        }
    }
}

/// All workers to their end, on this thread.
async fn futures<F: Future<Output = ()>>(worker: impl Fn() -> F) {
    let mut workers: Vec<_> = (0..WORKERS).map(|_| Box::pin(worker())).collect();
    std::future::poll_fn(|context| {
        workers.retain_mut(|worker| worker.as_mut().poll(context).is_pending());
        if workers.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// It never asks again by itself: that is to be seen here.
fn client(idle: usize) -> Hyper {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(PATIENCE));
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(idle)
        .retry_canceled_requests(false)
        .build(connector)
}

async fn ask(pooled: &Hyper, fresh: Option<&Hyper>, to: SocketAddr, number: u64) -> Asked {
    let path = format!("/pool/{number}");
    let begun = clock::now();
    let mut answer = get(pooled, to, &path).await;
    let mut again = None;
    if let (Err(error), Some(fresh)) = (&answer, fresh) {
        again = Some(error.clone());
        answer = get(fresh, to, &path).await;
    }
    Asked { path, begun, again, answer }
}

async fn get(client: &Hyper, to: SocketAddr, path: &str) -> Result<u16, String> {
    let uri = format!("http://{to}{path}").parse().map_err(|error| format!("{error}"))?;
    let whole = async {
        let response = client.get(uri).await.map_err(|error| format!("{error:?}"))?;
        let status = response.status().as_u16();
        response.into_body().collect().await.map_err(|error| format!("in the body: {error:?}"))?;
        Ok(status)
    };
    tokio::time::timeout(PATIENCE, whole).await.unwrap_or_else(|_| Err("no answer".to_owned()))
}
