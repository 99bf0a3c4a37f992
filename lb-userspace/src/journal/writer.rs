//! The thread that writes a recording.
//!
//! It knows the names of the backends, makes lines, and gives them to the file in pieces. An error of the
//! disk suspends it: it counts the lines that come in the meantime, and tries again after a while.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

use lb_core::{
    io::{BackendId, Generation, Operation},
    snapshot::PathState,
    time::{Instant, Millis},
};
use tracing::{info, warn};

use super::{
    entry::{Entry, Membership},
    file::LogFile,
    line::{Line, Member, Order, What},
};

/// Lines are written in pieces of about this size.
const PIECE: usize = 64 << 10;

/// A line waits this long at most until it is in the file.
const LATEST: Millis = Millis(500);

/// After an error, between two attempts.
const RETRY: Millis = Millis::secs(10);

#[derive(Debug)]
pub(super) struct Writer {
    file: LogFile,
    began_unix_ms: u64,
    seed: u64,
    services: BTreeMap<String, Vec<Member>>,
    names: BTreeMap<BackendId, Name>,
    piece: Piece,
    /// The time of the disk's error, or of the last attempt to continue after it.
    suspended: Option<Instant>,
}

#[derive(Debug)]
struct Name {
    generation: Generation,
    service: String,
    backend: String,
    path: PathState,
}

/// Whole lines that are not in the file yet.
#[derive(Debug, Default)]
struct Piece {
    bytes: Vec<u8>,
    lines: u64,
    /// The time of the first of them.
    since: Instant,
}

impl Piece {
    fn put(&mut self, line: &Line<'_>) {
        if self.lines == 0 {
            self.since = line.at;
        }
        self.lines += 1;
        line.write(&mut self.bytes);
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.lines = 0;
    }
}

impl Writer {
    pub(super) fn new(file: LogFile, began_unix_ms: u64, seed: u64) -> Self {
        let mut writer = Self {
            file,
            began_unix_ms,
            seed,
            services: BTreeMap::new(),
            names: BTreeMap::new(),
            piece: Piece::default(),
            suspended: None,
        };
        writer.piece.put(&clock(&writer, Instant(0)));
        writer
    }

    #[cfg(test)]
    pub(super) fn file(&mut self) -> &mut LogFile {
        &mut self.file
    }

    /// Writes until the recorder is gone.
    pub(super) fn run(mut self, entries: &Receiver<(Instant, Entry)>) {
        loop {
            match entries.recv_timeout(Duration::from_millis(LATEST.0)) {
                Ok((at, entry)) => self.take(at, entry),
                Err(RecvTimeoutError::Timeout) => self.flush(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.flush();
    }

    pub(super) fn take(&mut self, at: Instant, entry: Entry) {
        if self.suspended.is_some_and(|since| at - since >= RETRY) {
            self.resume(at);
        }
        match entry {
            Entry::Members(memberships) => self.members(at, memberships),
            Entry::Outcome { backend, generation, outcome, ttfb, client, context } => {
                self.about(at, backend, Some(generation), |backend| What::Outcome {
                    backend,
                    outcome,
                    ttfb,
                    client,
                    context,
                });
            }
            Entry::Confirmation { backend, generation, result, syn_answered } => {
                self.about(at, backend, Some(generation), |backend| What::Confirmation {
                    backend,
                    result,
                    syn_answered,
                });
            }
            Entry::TrialsTaken { backend } => {
                self.about(at, backend, None, |backend| What::TrialsTaken { backend });
            }
            Entry::Probe { backend, generation, result } => {
                self.about(at, backend, Some(generation), |backend| What::Probe { backend, result });
            }
            Entry::Path { backend, generation, path } => {
                if let Some(name) = self.names.get_mut(&backend).filter(|name| name.generation == generation)
                {
                    name.path = path;
                }
                self.about(at, backend, Some(generation), |backend| What::Path { backend, path });
            }
            Entry::SuccessCounts { backend, count } => {
                self.about(at, backend, None, |backend| What::SuccessCounts { backend, good: count });
            }
            Entry::EvidenceLost { backend, lost } => {
                self.about(at, backend, None, |backend| What::EvidenceLost { backend, lost });
            }
            Entry::Operation(operation) => self.piece.put(&operator(at, &operation)),
            Entry::Gap(lost) => self.piece.put(&Line { at, service: None, what: What::Gap { lost } }),
        }
        // While it is suspended, it makes pieces only to count their lines.
        if self.piece.bytes.len() >= PIECE || at - self.piece.since >= LATEST {
            self.flush();
        }
    }

    /// Writes the piece.
    pub(super) fn flush(&mut self) {
        if self.suspended.is_some() {
            // Only counted: `lines` goes on.
            self.piece.bytes.clear();
            return;
        }
        if self.piece.lines == 0 {
            return;
        }
        match self.write() {
            Ok(()) => self.piece.clear(),
            Err(error) => {
                warn!(path = %self.file.path().display(), %error, "recording is suspended");
                self.suspended = Some(self.piece.since);
                self.piece.bytes.clear();
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if self.file.is_full(self.piece.bytes.len() as u64) {
            self.file.rotate()?;
            let preamble = self.preamble(self.piece.since);
            self.file.append(&preamble)?;
        }
        self.file.append(&self.piece.bytes)
    }

    /// Tries to continue after an error.
    fn resume(&mut self, at: Instant) {
        let lost = self.piece.lines;
        // First the clock of the lines: the file may be empty, or hold lines of an earlier run.
        let mut bytes = self.preamble(at);
        Line { at, service: None, what: What::Gap { lost } }.write(&mut bytes);
        match self.file.append(&bytes) {
            Ok(()) => {
                info!(path = %self.file.path().display(), missing = lost, "recording goes on");
                self.suspended = None;
                self.piece.clear();
            }
            // The log has a warning already.
            Err(_) => self.suspended = Some(at),
        }
    }

    /// The first lines of a file, so that it can be read alone: the clock of its lines, the members, and which of
    /// them the packet path cannot reach.
    fn preamble(&self, at: Instant) -> Vec<u8> {
        let mut bytes = Vec::new();
        clock(self, at).write(&mut bytes);
        for (service, members) in &self.services {
            membership(at, service, members).write(&mut bytes);
        }
        for name in self.names.values().filter(|name| name.path != PathState::Ok) {
            let what = What::Path { backend: Cow::Borrowed(&name.backend), path: name.path };
            Line { at, service: Some(Cow::Borrowed(&name.service)), what }.write(&mut bytes);
        }
        bytes
    }

    fn members(&mut self, at: Instant, memberships: Vec<Membership>) {
        // When the file is rotated before these lines, the preamble of the new one has these members.
        self.flush();
        let known = std::mem::take(&mut self.names);
        let former = std::mem::take(&mut self.services);
        for Membership { service, members, ids } in memberships {
            let names = members.iter().zip(ids).map(|(member, (id, generation))| {
                let before = known.get(&id).filter(|before| before.generation == generation);
                let path = before.map_or(PathState::Ok, |before| before.path);
                (id, Name { generation, service: service.clone(), backend: member.name.clone(), path })
            });
            self.names.extend(names);
            if former.get(&service) != Some(&members) {
                self.piece.put(&membership(at, &service, &members));
            }
            self.services.insert(service, members);
        }
    }

    /// A line about a backend, if it still is one. The engine ignores former backends, too.
    fn about<'a>(
        &'a mut self,
        at: Instant,
        backend: BackendId,
        generation: Option<Generation>,
        what: impl FnOnce(Cow<'a, str>) -> What<'a>,
    ) {
        let Some(name) = self.names.get(&backend) else { return };
        if generation.is_none_or(|generation| generation == name.generation) {
            let service = Some(Cow::Borrowed(name.service.as_str()));
            self.piece.put(&Line { at, service, what: what(Cow::Borrowed(&name.backend)) });
        }
    }
}

fn clock(writer: &Writer, at: Instant) -> Line<'static> {
    let what = What::Clock { began_unix_ms: writer.began_unix_ms, seed: Some(writer.seed) };
    Line { at, service: None, what }
}

fn membership<'a>(at: Instant, service: &'a str, members: &[Member]) -> Line<'a> {
    Line { at, service: Some(Cow::Borrowed(service)), what: What::Members(members.to_vec()) }
}

fn operator(at: Instant, operation: &Operation) -> Line<'_> {
    let Operation { service, backend, verb, duration, reason, actor, force } = operation;
    let order = Order {
        verb: *verb,
        duration: *duration,
        force: *force,
        actor: Some(actor.clone()),
        reason: reason.clone(),
    };
    let what = What::Operator { backend: Cow::Borrowed(backend), order };
    Line { at, service: Some(Cow::Borrowed(service)), what }
}
