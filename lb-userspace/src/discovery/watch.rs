//! Follows the files: one task each reads its file at each interval.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::{JoinSet, spawn_blocking},
    time::{MissedTickBehavior, interval},
};

use super::{
    document::{Document, parse},
    fault::Fault,
    file::read,
};

/// The file that a service follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub service: String,
    pub path: PathBuf,
    pub interval: Duration,
}

/// The content of a file, or the fault of it.
pub type Found = Arc<Result<Document, Fault>>;

/// One look at a file.
#[derive(Clone, Debug)]
pub struct Reading {
    pub service: String,
    pub path: PathBuf,
    /// The same `Arc` as before, if the content is the same.
    pub found: Found,
}

impl Source {
    /// Looks at the file once.
    pub fn look(&self) -> Reading {
        let found = Arc::new(read(&self.path).and_then(|bytes| parse(&bytes)));
        Reading { service: self.service.clone(), path: self.path.clone(), found }
    }
}

/// Looks at all files, each at once and then at each of its intervals, until nobody takes the readings any more.
///
/// Other sources begin all of them again. Each reading is sent, also an equal one: a set that had no space may have it
/// now.
pub async fn follow(mut sources: watch::Receiver<Vec<Source>>, readings: mpsc::Sender<Reading>) {
    loop {
        // Dropped with the next sources, and the tasks with it.
        let mut tasks = JoinSet::new();
        for source in sources.borrow_and_update().iter().cloned() {
            tasks.spawn(follow_one(source, readings.clone()));
        }
        if sources.changed().await.is_err() {
            return;
        }
    }
}

async fn follow_one(source: Source, readings: mpsc::Sender<Reading>) {
    let mut next = interval(source.interval);
    next.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<(Result<Vec<u8>, Fault>, Found)> = None;
    loop {
        next.tick().await;
        let path = source.path.clone();
        // A file system may hang. It then holds up this source alone.
        let Ok(content) = spawn_blocking(move || read(&path)).await else { return };
        let found = match last.take() {
            Some((before, found)) if before == content => found,
            Some(_) | None => Arc::new(content.as_ref().map_err(Clone::clone).and_then(|bytes| parse(bytes))),
        };
        last = Some((content, Arc::clone(&found)));
        let reading = Reading { service: source.service.clone(), path: source.path.clone(), found };
        if readings.send(reading).await.is_err() {
            return;
        }
    }
}
