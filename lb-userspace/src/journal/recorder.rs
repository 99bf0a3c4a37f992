//! The daemon's side of a recording.
//!
//! One thread, owned by the [`Recorder`], owns the file. It ends when the recorder ends, after it has written
//! what it was given. Between them is a bounded queue. An entry that finds the queue full is left out and
//! counted, and a line in the recording says how many are missing.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use lb_core::{
    config::Config,
    io::{Input, Operation},
    snapshot::Snapshot,
    time::Instant,
};
use tracing::warn;

use super::{
    entry::{Entry, memberships},
    file::{LogFile, OpenError, Options},
    writer::Writer,
};

/// Entries for a third of a second at 200 000 responses a second. A busy disk rarely stops for longer. 6 MiB.
const DEPTH: usize = 65_536;

/// The daemon's end waits for the disk no longer than this.
const PATIENCE: Duration = Duration::from_secs(2);

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
            // The daemon may have stopped waiting.
            let _ = done.send(());
        })?;
        Ok(Recorder(Some(Active { queue, ended, missing: 0, owed: None })))
    }
}

/// Records the engine's inputs, or nothing when there is no recording.
#[derive(Debug)]
pub struct Recorder(Option<Active>);

#[derive(Debug)]
struct Active {
    queue: SyncSender<(Instant, Entry)>,
    ended: Receiver<()>,
    /// Entries that found the queue full, since the last that did not.
    missing: u64,
    /// A membership that found the queue full. Without it, nothing that follows can be read.
    owed: Option<(Instant, Entry)>,
}

impl Recorder {
    pub fn off() -> Self {
        Self(None)
    }

    /// Records an input at the moment at which the engine gets it. A configuration is returned instead: it is
    /// recorded after the engine took it, by [`Recorder::configured`].
    pub fn input(&mut self, input: &Input, now: Instant) -> Option<Arc<Config>> {
        self.0.as_ref()?;
        let entry = match input {
            Input::Config(config) => return Some(Arc::clone(config)),
            Input::Outcome { backend, generation, outcome, ttfb, client, context } => Entry::Outcome {
                backend: *backend,
                generation: *generation,
                outcome: *outcome,
                ttfb: *ttfb,
                client: *client,
                context: *context,
            },
            Input::Confirmation { backend, generation, result, answered } => Entry::Confirmation {
                backend: *backend,
                generation: *generation,
                result: result.clone(),
                syn_answered: *answered,
            },
            Input::TrialsTaken { backend } => Entry::TrialsTaken { backend: *backend },
            Input::Probe { backend, generation, result } => {
                Entry::Probe { backend: *backend, generation: *generation, result: result.clone() }
            }
            Input::Path { backend, generation, path } => {
                Entry::Path { backend: *backend, generation: *generation, path: *path }
            }
            Input::Successes { backend, count } => Entry::SuccessCounts { backend: *backend, count: *count },
            Input::EvidenceLost { backend, lost } => Entry::EvidenceLost { backend: *backend, lost: *lost },
            Input::Applied { .. }
            | Input::Remaining { .. }
            | Input::Interface { .. }
            | Input::Discovery { .. }
            | Input::Full { .. }
            | Input::Tick => {
                return None;
            }
        };
        self.send(now, entry);
        None
    }

    /// Records an order to [`Engine::operate`](lb_core::Engine::operate).
    pub fn operation(&mut self, operation: &Operation, now: Instant) {
        if self.0.is_some() {
            self.send(now, Entry::Operation(operation.clone()));
        }
    }

    /// Records the backends of each service from now on.
    pub fn configured(&mut self, config: &Config, snapshot: &Snapshot, now: Instant) {
        self.send(now, Entry::Members(memberships(config, snapshot)));
    }

    /// Waits until everything is written, or until the disk takes too long.
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

    /// False: the queue was full.
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
            | Entry::Confirmation { .. }
            | Entry::TrialsTaken { .. }
            | Entry::Probe { .. }
            | Entry::Path { .. }
            | Entry::Operation(_)
            | Entry::SuccessCounts { .. }
            | Entry::EvidenceLost { .. } => self.missing += 1,
        }
    }
}
