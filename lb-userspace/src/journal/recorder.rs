//! The daemon's end of a recording.
//!
//! One thread, owned by the [`Recorder`], owns the file. It ends when the
//! recorder does, after what it was given. Between them is a bounded queue; what
//! finds it full is left out, counted, and said to be missing.

use std::{
    io,
    net::SocketAddr,
    num::NonZeroU16,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use lb_core::{
    config::Config,
    io::{BackendId, Generation, Input, Operation, Outcome, ProbeResult},
    snapshot::Snapshot,
    time::Instant,
};
use tracing::warn;

use super::{
    Options,
    file::{LogFile, OpenError},
    line::Member,
    writer::Writer,
};

/// A third of a second of 200 000 responses a second, which is longer than a busy disk
/// commonly takes for what the page cache holds back; 6 MiB.
const DEPTH: usize = 65_536;

/// What the end of the daemon waits for the disk at most.
const PATIENCE: Duration = Duration::from_secs(2);

/// Something to be written.
#[derive(Debug)]
pub(super) enum Entry {
    Members(Vec<Membership>),
    Outcome {
        backend: BackendId,
        generation: Generation,
        outcome: Outcome,
        ttfb: Option<Duration>,
        client: Option<SocketAddr>,
    },
    Probe {
        backend: BackendId,
        generation: Generation,
        result: ProbeResult,
    },
    Operation(Operation),
    SuccessCounts {
        backend: BackendId,
        count: u64,
    },
    EvidenceLost {
        backend: BackendId,
        lost: u64,
    },
    Gap(u64),
}

/// The backends of one service, by name and by what the engine calls them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Membership {
    pub(super) service: String,
    pub(super) members: Vec<Member>,
    pub(super) ids: Vec<(BackendId, Generation)>,
}

/// A file that is open and that nothing is written to yet.
#[derive(Debug)]
pub struct Recording(LogFile);

impl Recording {
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        LogFile::open(options).map(Self)
    }

    /// Starts the thread. `began_unix_ms` is when the engine's clock stood at 0, `seed` the engine's.
    pub fn start(self, began_unix_ms: u64, seed: u64) -> io::Result<Recorder> {
        let (queue, entries) = sync_channel(DEPTH);
        let (done, ended) = sync_channel(1);
        let writer = Writer::new(self.0, began_unix_ms, seed);
        thread::Builder::new().name("recorder".to_owned()).spawn(move || {
            writer.run(&entries);
            // Nobody may wait for it any more.
            let _ = done.send(());
        })?;
        Ok(Recorder(Some(Active { queue, ended, missing: 0, owed: None })))
    }
}

/// Takes note of the engine's inputs, or of nothing when there is no recording.
#[derive(Debug)]
pub struct Recorder(Option<Active>);

#[derive(Debug)]
struct Active {
    queue: SyncSender<(Instant, Entry)>,
    ended: Receiver<()>,
    /// Entries that found the queue full, since the last that did not.
    missing: u64,
    /// A membership that did: without it nothing that follows can be read.
    owed: Option<(Instant, Entry)>,
}

impl Recorder {
    pub fn off() -> Self {
        Self(None)
    }

    /// Notes an input at the moment that the engine is given it. A configuration is noted afterwards, by
    /// [`Recorder::configured`]; it is returned if that is wanted.
    pub fn input(&mut self, input: &Input, now: Instant) -> Option<Arc<Config>> {
        self.0.as_ref()?;
        let entry = match input {
            Input::Config(config) => return Some(Arc::clone(config)),
            Input::Outcome { backend, generation, outcome, ttfb, client } => Entry::Outcome {
                backend: *backend,
                generation: *generation,
                outcome: *outcome,
                ttfb: *ttfb,
                client: *client,
            },
            Input::Probe { backend, generation, result } => {
                Entry::Probe { backend: *backend, generation: *generation, result: result.clone() }
            }
            Input::Successes { backend, count } => Entry::SuccessCounts { backend: *backend, count: *count },
            Input::EvidenceLost { backend, lost } => Entry::EvidenceLost { backend: *backend, lost: *lost },
            Input::Applied { .. } | Input::Tick => return None,
        };
        self.send(now, entry);
        None
    }

    /// Notes what [`Engine::operate`](lb_core::Engine::operate) is asked for.
    pub fn operation(&mut self, operation: &Operation, now: Instant) {
        if self.0.is_some() {
            self.send(now, Entry::Operation(operation.clone()));
        }
    }

    /// Notes who belongs to which service from now on.
    pub fn configured(&mut self, config: &Config, snapshot: &Snapshot, now: Instant) {
        self.send(now, Entry::Members(memberships(config, snapshot)));
    }

    /// Has everything written. Waits for the disk, but not for ever.
    pub fn finish(self) {
        let Some(Active { queue, ended, missing, .. }) = self.0 else { return };
        drop(queue);
        if missing > 0 {
            warn!(missing, "the end of the recording is missing: the disk was too slow");
        }
        if ended.recv_timeout(PATIENCE).is_err() {
            warn!("the disk takes too long: the end of the recording may be missing");
        }
    }

    #[cfg(test)]
    pub(super) fn with_queue(depth: usize) -> (Self, Receiver<(Instant, Entry)>) {
        let (queue, entries) = sync_channel(depth);
        let (_, ended) = sync_channel(1);
        (Self(Some(Active { queue, ended, missing: 0, owed: None })), entries)
    }

    #[cfg(test)]
    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    fn send(&mut self, now: Instant, entry: Entry) {
        let Some(active) = &mut self.0 else { return };
        if active.send(now, entry).is_err() {
            warn!("recording has ended: its thread is gone");
            self.0 = None;
        }
    }
}

/// The thread is gone.
struct Gone;

impl Active {
    fn send(&mut self, now: Instant, entry: Entry) -> Result<(), Gone> {
        if self.missing > 0 {
            if !self.offer(now, Entry::Gap(self.missing))? {
                self.missed(now, entry);
                return Ok(());
            }
            warn!(missing = self.missing, "lines are missing in the recording: the disk was too slow");
            self.missing = 0;
        }
        if let Some((at, owed)) = self.owed.take()
            && !self.offer(at, owed)?
        {
            self.missed(now, entry);
            return Ok(());
        }
        self.offer(now, entry)?;
        Ok(())
    }

    /// False: there was no room.
    fn offer(&mut self, now: Instant, entry: Entry) -> Result<bool, Gone> {
        match self.queue.try_send((now, entry)) {
            Ok(()) => Ok(true),
            Err(TrySendError::Full((at, entry))) => {
                if self.missing == 0 {
                    warn!("the recording does not keep up; what follows is not in it");
                }
                self.missed(at, entry);
                Ok(false)
            }
            Err(TrySendError::Disconnected(_)) => Err(Gone),
        }
    }

    fn missed(&mut self, now: Instant, entry: Entry) {
        match entry {
            Entry::Members(_) => self.owed = Some((now, entry)),
            // It was counted when its lines went missing.
            Entry::Gap(_) => {}
            Entry::Outcome { .. }
            | Entry::Probe { .. }
            | Entry::Operation(_)
            | Entry::SuccessCounts { .. }
            | Entry::EvidenceLost { .. } => self.missing += 1,
        }
    }
}

fn memberships(config: &Config, snapshot: &Snapshot) -> Vec<Membership> {
    let of_service = |service: &lb_core::config::Service| {
        let known = snapshot.services.iter().find(|known| known.name == service.name)?;
        let with_id = service.everyone().enumerate().filter_map(|(place, backend)| {
            let known = known.backends.iter().find(|known| known.name == backend.name)?;
            let weight = NonZeroU16::new(backend.weight)?;
            let fallback = place >= service.backends.len();
            let member = Member { name: backend.name.clone(), address: backend.address, weight, fallback };
            Some((member, (known.id, known.generation)))
        });
        let (members, ids) = with_id.unzip();
        Some(Membership { service: service.name.clone(), members, ids })
    };
    config.services.iter().filter_map(of_service).collect()
}
