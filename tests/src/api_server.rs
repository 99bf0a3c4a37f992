//! A small API server of Kubernetes: Services and EndpointSlices, with lists, watches and errors as a real one has them.
//!
//! It pages lists (`limit`, `continue`), watches from a `resourceVersion` with bookmarks, forgets old versions (`410`),
//! checks tokens (`401`), refuses (`403`), asks for patience (`429`, `503` with `Retry-After`), cuts streams, and goes away.
//! `kubectl` works with it for reading.

mod answers;
mod groups;
mod http;
mod objects;
mod tls;
mod watch;

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;
use tokio::sync::{oneshot, watch as channel};
use tokio_rustls::TlsAcceptor;

pub use self::objects::Kind;
use self::objects::Store;

/// Ends when it is dropped.
pub struct ApiServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Of the certificate, with TLS.
    authority: Option<PathBuf>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    store: Mutex<Store>,
    faults: Mutex<Faults>,
    /// The last version, for watches that wait.
    version: channel::Sender<u64>,
    /// Grows when all streams are to break.
    cuts: channel::Sender<u64>,
    /// Nobody is answered.
    away: AtomicBool,
    /// Versions of EndpointSlices that it serves.
    versions: Vec<&'static str>,
    /// Between two bookmarks.
    bookmarks: Duration,
    /// Every connection begins with TLS.
    tls: Option<TlsAcceptor>,
}

#[derive(Debug, Default)]
struct Faults {
    /// Only this one is accepted. `None`: no token is needed.
    token: Option<String>,
    /// Answers of the next requests, with the seconds of their `Retry-After`.
    refusals: Vec<(u16, Option<u32>)>,
    forbidden: bool,
    /// Every request so far: its path and query.
    requests: Vec<String>,
}

impl ApiServer {
    /// `versions`: of EndpointSlices, such as `v1`.
    pub fn start(listener: TcpListener, versions: &[&'static str]) -> io::Result<Self> {
        Self::serve(listener, versions, None, None)
    }

    /// On the loopback with TLS. The certificate of its authority is written to this file.
    pub fn local_tls(versions: &[&'static str], authority: &Path) -> io::Result<Self> {
        let (acceptor, pem) = tls::acceptor();
        fs::write(authority, pem)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        Self::serve(listener, versions, Some(acceptor), Some(authority.to_owned()))
    }

    fn serve(
        listener: TcpListener,
        versions: &[&'static str],
        tls: Option<TlsAcceptor>,
        authority: Option<PathBuf>,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            store: Mutex::new(Store::default()),
            faults: Mutex::new(Faults::default()),
            version: channel::Sender::new(0),
            cuts: channel::Sender::new(0),
            away: AtomicBool::new(false),
            versions: versions.to_vec(),
            bookmarks: Duration::from_millis(200),
            tls,
        });
        let (end, ended) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime needs little").block_on(async {
                tokio::select! {
                    _ = ended => {}
                    () = http::accept(listener, serving) => {}
                }
            });
        });
        Ok(Self { shared, address, authority, end: Some(end), thread: Some(thread) })
    }

    /// On the loopback of this host.
    pub fn local(versions: &[&'static str]) -> io::Result<Self> {
        Self::start(TcpListener::bind("127.0.0.1:0")?, versions)
    }

    pub fn url(&self) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The text of a kubeconfig for it. `user`: the YAML of the user's entry, such as `token: abc`.
    pub fn kubeconfig(&self, user: &str) -> String {
        let url = self.url();
        let authority = self.authority.as_ref();
        let authority = authority.map(|path| format!("\n    certificate-authority: {}", path.display()));
        let authority = authority.unwrap_or_default();
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: lab\n\
             clusters:\n- name: lab\n  cluster:\n    server: {url}{authority}\n\
             contexts:\n- name: lab\n  context:\n    cluster: lab\n    user: lab\n    namespace: shop\n\
             users:\n- name: lab\n  user:\n    {user}\n"
        )
    }

    /// Adds an object, or replaces the one of this name. It has `metadata` with `name` and `namespace`.
    pub fn put(&self, kind: Kind, object: Value) {
        let version = lock(&self.shared.store).put(kind, object);
        self.shared.version.send_replace(version);
    }

    pub fn delete(&self, kind: Kind, namespace: &str, name: &str) {
        let version = lock(&self.shared.store).delete(kind, namespace, name);
        self.shared.version.send_replace(version);
    }

    /// All versions so far are too old from now on: watches and pages of lists from there are `410 Gone`.
    pub fn forget(&self) {
        let version = lock(&self.shared.store).forget();
        self.shared.version.send_replace(version);
    }

    /// Breaks all streams off.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Goes away: breaks all connections off, and each new one. Or comes back.
    pub fn away(&self, away: bool) {
        self.shared.away.store(away, Ordering::SeqCst);
        self.cut();
    }

    /// Only this token is accepted from now on.
    pub fn token(&self, token: &str) {
        lock(&self.shared.faults).token = Some(token.to_owned());
    }

    /// The account may do nothing.
    pub fn forbid(&self, forbidden: bool) {
        lock(&self.shared.faults).forbidden = forbidden;
    }

    /// The next request gets this status, and so on for each further call.
    pub fn refuse(&self, status: u16, retry_after: Option<u32>) {
        lock(&self.shared.faults).refusals.push((status, retry_after));
    }

    /// Every request so far: its path and query.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.shared.faults).requests.clone()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // Whatever happened to it shows in the answers that it did not give.
            let _ = thread.join();
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // No method leaves half of a change.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
