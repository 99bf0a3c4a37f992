//! Response heads that are not complete yet.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use lb_common::abi::{ExchangeKind, ExchangeRecord, HEAD_BYTES, record_flags, socket_addr};
use lb_core::io::{BackendId, Generation, L4Failure, Outcome};

use super::{
    reading::Reading,
    status_line::{self, Verdict},
};

/// Unfinished heads at a time. Each lives for one segment of its connection, so this is far more than wait at
/// any moment. Beyond it, the oldest is given up.
const MOST: usize = 4096;

/// Bytes of one unfinished head, over all its segments.
const MOST_BYTES: usize = 1024;

/// An unfinished head is given up after this time. An upload may take long between `100 Continue` and the
/// final response.
const OLDEST_NS: u64 = 300_000_000_000;

/// Reads records into outcomes. It holds the heads that are not complete yet. Records come in the order in
/// which the ring delivers them. A lost record makes it ignore others, and never misread them.
#[derive(Debug, Default)]
pub struct Heads {
    unfinished: HashMap<Connection, Unfinished>,
    /// The oldest is the first. Ages are unique.
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

/// The outcome of an exchange without a head. `None`: a record of this kind holds a head.
const fn without_head(kind: ExchangeKind) -> Option<Outcome> {
    match kind {
        ExchangeKind::Head => None,
        ExchangeKind::ConnectRefused => Some(Outcome::Failure(L4Failure::ConnectRefused)),
        ExchangeKind::ConnectTimeout => Some(Outcome::Failure(L4Failure::ConnectTimeout)),
        ExchangeKind::Reset => Some(Outcome::Failure(L4Failure::Reset)),
        ExchangeKind::NoResponse => Some(Outcome::Failure(L4Failure::NoResponse)),
        ExchangeKind::Answered => Some(Outcome::Answered),
    }
}

impl Heads {
    pub fn new() -> Self {
        Self::default()
    }

    /// The exchange that the record decides. `None`: it decides nothing yet, or nothing at all.
    pub fn read(&mut self, record: &ExchangeRecord) -> Option<Reading> {
        let client = socket_addr(record.client, record.client_port);
        let (backend, generation) = (BackendId(record.backend), Generation(record.generation));
        let connection = (client, backend, generation);
        let has = |flag: u16| record.flags & flag != 0;

        let before =
            self.take(&connection).filter(|before| record.at_ns.saturating_sub(before.since_ns) <= OLDEST_NS);
        if let Some(outcome) = record.kind().and_then(without_head) {
            return Some(Reading::of(record, outcome));
        }
        let mut bytes = match (has(record_flags::CONTINUES), before) {
            (true, Some(before)) => before.bytes,
            (true, None) => return None,
            (false, Some(_) | None) => Vec::new(),
        };
        let seen = &record.data[..usize::from(record.len).min(HEAD_BYTES)];
        bytes.extend_from_slice(seen);

        let more_follows = has(record_flags::UNFINISHED);
        let outcome = match status_line::read(&bytes) {
            Verdict::Decided(outcome) => outcome,
            Verdict::Wanting { rest } => {
                let undecided = &bytes[rest..];
                let cut = seen.len() == HEAD_BYTES;
                if more_follows && !cut && undecided.len() <= MOST_BYTES {
                    let undecided = undecided.to_vec();
                    self.put(connection, undecided, record.at_ns);
                    return None;
                }
                if bytes.is_empty() {
                    return None;
                }
                Outcome::Opaque
            }
        };
        Some(Reading::of(record, outcome))
    }

    /// How many heads wait for their next segment.
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

#[cfg(test)]
mod tests;
