//! Response heads as the XDP program mirrors them, read into outcomes.
//!
//! What a record holds is the program's doing (`lb-ebpf`):
//! - `data` begins exactly at a response head, or goes on where the previous
//!   record's segment ended (`CONTINUES`). It has at most
//!   [`HEAD_BYTES`] bytes of one segment; a longer segment is
//!   cut, and its rest is not seen by anybody.
//! - `UNFINISHED` says that the status is not decided by this record: fewer than
//!   13 bytes of the status line so far (`HTTP/1.1 500 `), or an interim status
//!   other than 101 (RFC 9110 section 15.2). The program then mirrors the next
//!   segment too, with `CONTINUES`.
//! - It does not look past an interim head. When the final head is in the same
//!   segment, it is decided here and the continuation, which then holds a part of
//!   the body, is ignored: a continuation counts only while an unfinished head
//!   of that connection waits for it.
//!
//! - A record may have no bytes and say what became of an exchange without a
//!   head: refused, reset, closed without a response, or answered in a language
//!   that is not read.
//!
//! Nothing is guessed: an interim head whose end was cut off may be followed by
//! the final one in the same segment, unseen, so the exchange is `opaque`.
//!
//! [`Heads`] owns the unfinished heads. It is bounded and never fails; records
//! come in the order in which the ring delivers them, and those that were lost
//! make others be ignored, not misread.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::Duration,
};

use lb_common::abi::{ExchangeRecord, HEAD_BYTES, record_flags, socket_addr};
use lb_core::io::{BackendId, Generation, L4Failure, Outcome};

mod head;
mod late;
#[cfg(test)]
mod tests;

use head::Verdict;
pub use late::Late;

/// Unfinished heads at a time. Each lives for one segment of its connection, so
/// this is far more than wait at any moment; beyond it the oldest is given up.
const MOST: usize = 4096;

/// Bytes kept of one unfinished head, over all its segments.
const MOST_BYTES: usize = 1024;

/// An unfinished head is given up after this. An upload may take its time
/// between `100 Continue` and the final response.
const OLDEST_NS: u64 = 300_000_000_000;

/// How long good news may wait in the ring after a look that has read so many records; failures wake the daemon at once. The
/// ring has room for 13 000, and a busy host may hold the daemon up: in a rush it looks while the ring is still almost empty.
pub const fn next_look(read: usize) -> Duration {
    const RUSH: usize = 1024;
    Duration::from_millis(if read < RUSH { 20 } else { 5 })
}

/// What one exchange showed, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub backend: BackendId,
    pub generation: Generation,
    pub client: SocketAddr,
    pub outcome: Outcome,
    /// When the segment that decided was seen, `CLOCK_MONOTONIC` nanoseconds.
    pub at_ns: u64,
    /// Since the request, or the SYN, was seen. 0: not known.
    pub since_request_ns: u64,
    /// The connection was admitted out of a half-open budget.
    pub trial: bool,
    /// The client pipelines: responses are missing.
    pub pipelined: bool,
}

impl Reading {
    /// When the request was seen, as [`Flow::request_us`](lb_common::abi::Flow::request_us).
    pub const fn began_us(&self) -> u32 {
        ((self.at_ns / 1000) as u32).wrapping_sub((self.since_request_ns / 1000) as u32)
    }
}

/// Reads records, and holds the heads that are not complete yet.
#[derive(Debug, Default)]
pub struct Heads {
    unfinished: HashMap<Connection, Unfinished>,
    /// Which is the oldest. Ages are unique.
    by_age: BTreeMap<u64, Connection>,
    next_age: u64,
}

type Connection = (SocketAddr, BackendId, Generation);

#[derive(Debug)]
struct Unfinished {
    bytes: Vec<u8>,
    age: u64,
    since_ns: u64,
}

/// What a record says that has no head.
fn without_head(flags: u32) -> Option<Outcome> {
    [
        (record_flags::REFUSED, Outcome::Failure(L4Failure::ConnectRefused)),
        (record_flags::SILENT, Outcome::Failure(L4Failure::ConnectTimeout)),
        (record_flags::RESET, Outcome::Failure(L4Failure::Reset)),
        (record_flags::NO_RESPONSE, Outcome::Failure(L4Failure::NoResponse)),
        (record_flags::ANSWERED, Outcome::Answered),
    ]
    .into_iter()
    .find(|(flag, _)| flags & flag != 0)
    .map(|(_, outcome)| outcome)
}

impl Heads {
    pub fn new() -> Self {
        Self::default()
    }

    /// What the record decides. `None`: nothing yet, or nothing at all.
    pub fn read(&mut self, record: &ExchangeRecord) -> Option<Reading> {
        let client = socket_addr(record.client, record.client_port);
        let (backend, generation) = (BackendId(record.backend), Generation(record.generation));
        let connection = (client, backend, generation);
        let has = |flag: u32| record.flags & flag != 0;
        let reading = |outcome| Reading {
            backend,
            generation,
            client,
            outcome,
            at_ns: record.at_ns,
            since_request_ns: record.since_request_ns,
            trial: has(record_flags::TRIAL),
            pipelined: has(record_flags::PIPELINED),
        };

        let before =
            self.take(&connection).filter(|before| record.at_ns.saturating_sub(before.since_ns) <= OLDEST_NS);
        if let Some(outcome) = without_head(record.flags) {
            return Some(reading(outcome));
        }
        let mut bytes = match (has(record_flags::CONTINUES), before) {
            (true, Some(before)) => before.bytes,
            (true, None) => return None,
            (false, Some(_) | None) => Vec::new(),
        };
        let seen = &record.data[..usize::from(record.len).min(HEAD_BYTES)];
        bytes.extend_from_slice(seen);

        let more_follows = has(record_flags::UNFINISHED);
        let outcome = match head::read(&bytes) {
            Verdict::Decided(outcome) => outcome,
            Verdict::Wanting { rest } => {
                let kept = &bytes[rest..];
                let cut = seen.len() == HEAD_BYTES;
                if more_follows && !cut && kept.len() <= MOST_BYTES {
                    let kept = kept.to_vec();
                    self.put(connection, kept, record.at_ns);
                    return None;
                }
                if bytes.is_empty() {
                    return None;
                }
                Outcome::Opaque
            }
        };
        Some(reading(outcome))
    }

    /// How many heads are waited for.
    pub fn unfinished(&self) -> usize {
        self.unfinished.len()
    }

    fn take(&mut self, connection: &Connection) -> Option<Unfinished> {
        let entry = self.unfinished.remove(connection)?;
        self.by_age.remove(&entry.age);
        Some(entry)
    }

    fn put(&mut self, connection: Connection, bytes: Vec<u8>, since_ns: u64) {
        if self.unfinished.len() >= MOST
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.unfinished.remove(&oldest);
        }
        let age = self.next_age;
        self.next_age += 1;
        self.by_age.insert(age, connection);
        self.unfinished.insert(connection, Unfinished { bytes, age, since_ns });
    }
}
