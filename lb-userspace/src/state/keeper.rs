//! The task that writes the file.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tracing::{info, warn};

use super::file::{Record, write};

/// After this long a write that failed is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// How long a stop waits for the disk.
const PATIENCE: Duration = Duration::from_secs(5);

/// Writes the latest state that it is given. While the disk is slow, a newer state replaces one that waits.
#[derive(Debug)]
pub struct Keeper {
    path: PathBuf,
    latest: watch::Sender<Option<Arc<Record>>>,
    failing: Arc<Mutex<Option<String>>>,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Needs a tokio runtime.
    pub fn start(path: PathBuf) -> Self {
        let (latest, wanted) = watch::channel(None);
        let failing = Arc::new(Mutex::new(None));
        let task = tokio::spawn(run(path.clone(), wanted, Arc::clone(&failing)));
        Self { path, latest, failing, task }
    }

    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Why the last write failed, while none has succeeded since.
    pub fn failing(&self) -> Option<String> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Orders this to be written soon. Never waits.
    pub fn keep(&self, record: Record) {
        self.latest.send_replace(Some(Arc::new(record)));
    }

    /// Returns when the last record is written, or cannot be.
    pub async fn stop(self) {
        drop(self.latest);
        if timeout(PATIENCE, self.task).await.is_err() {
            warn!(path = %self.path.display(), "the state file takes too long to write");
        }
    }
}

async fn run(
    path: PathBuf,
    mut wanted: watch::Receiver<Option<Arc<Record>>>,
    failing: Arc<Mutex<Option<String>>>,
) {
    let mut failed = false;
    // `changed` reports a last state even after the sender is gone.
    loop {
        let more = if failed {
            // An error means that the time is over: try again.
            timeout(RETRY, wanted.changed()).await.unwrap_or(Ok(()))
        } else {
            wanted.changed().await
        };
        if more.is_err() {
            return;
        }
        let Some(record) = wanted.borrow_and_update().clone() else { continue };
        let to = path.clone();
        let written = tokio::task::spawn_blocking(move || write(&to, &record)).await;
        let Ok(written) = written else { return };
        match &written {
            Ok(()) if failed => info!(path = %path.display(), "the state file is written again"),
            Err(error) if !failed => warn!(
                path = %path.display(), %error,
                "the state file cannot be written: a restart would forget ejections and overrides"
            ),
            Ok(()) | Err(_) => {}
        }
        failed = written.is_err();
        *failing.lock().unwrap_or_else(PoisonError::into_inner) =
            written.err().map(|error| error.to_string());
    }
}
