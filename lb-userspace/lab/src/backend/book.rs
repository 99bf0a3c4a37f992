//! The requests that a backend has seen, and what it answers next.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Args, Mode};
use crate::clock;

/// Connections and failures that are remembered one by one; older ones are only counted.
const REMEMBERED: usize = 200_000;

/// The longest `delay`.
const MOST_DELAY_MS: u64 = 60_000;

/// The answer to `report`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// When it was made. Times are nanoseconds of CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// Totals since the start.
    pub accepted: u64,
    pub requests: u64,
    pub probes: u64,
    pub statuses: BTreeMap<u16, u64>,
    /// Since the moment that was asked for, oldest first.
    pub connections: Vec<Connection>,
    pub failures: Vec<Failure>,
    /// Connections and failures that are no longer remembered one by one.
    pub forgotten: u64,
}

/// A connection that was accepted, and what came over it so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    pub at_ns: u64,
    pub peer: SocketAddr,
    pub requests: u32,
    pub probes: u32,
}

/// A 500 that was handed to the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub at_ns: u64,
    pub peer: SocketAddr,
}

impl Report {
    /// Connections that carried anything but probes, or nothing yet.
    pub fn clients(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().filter(|connection| connection.probes == 0)
    }
}

/// Which requests fail.
#[derive(Debug)]
pub(super) struct Script {
    fraction: f64,
    broken: f64,
    random: u64,
}

impl Script {
    pub(super) fn new(args: &Args) -> Self {
        let fraction = match args.mode {
            Mode::Ok => 0.0,
            Mode::HalfBad => 0.5,
            Mode::Bad => 1.0,
        };
        Self { fraction, broken: args.broken, random: args.seed }
    }

    /// splitmix64: each request takes the next number, whether or not anything can fail.
    fn fails(&mut self) -> bool {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let uniform = (mixed >> 11) as f64 / (1u64 << 53) as f64;
        uniform < self.fraction
    }
}

#[derive(Debug)]
pub(super) struct Book(Mutex<Pages>);

#[derive(Debug)]
struct Pages {
    script: Script,
    probe_up: bool,
    delay: Duration,
    totals: Report,
    connections: VecDeque<Connection>,
    /// The number of the first connection that is still remembered.
    first: u64,
    failures: VecDeque<Failure>,
}

impl Book {
    pub(super) fn new(script: Script) -> Self {
        Self(Mutex::new(Pages {
            script,
            probe_up: true,
            delay: Duration::ZERO,
            totals: Report::default(),
            connections: VecDeque::new(),
            first: 0,
            failures: VecDeque::new(),
        }))
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().expect("nothing panics while it writes in the book")
    }

    /// Answers the number of the connection.
    pub(super) fn accepted(&self, peer: SocketAddr) -> u64 {
        let mut pages = self.pages();
        let number = pages.totals.accepted;
        pages.totals.accepted += 1;
        pages.connections.push_back(Connection { at_ns: now_ns(), peer, requests: 0, probes: 0 });
        if pages.connections.len() > REMEMBERED {
            pages.connections.pop_front();
            pages.first += 1;
            pages.totals.forgotten += 1;
        }
        number
    }

    /// A request of a client: answers its status.
    pub(super) fn requested(&self, connection: u64) -> u16 {
        let mut pages = self.pages();
        pages.totals.requests += 1;
        let status = if pages.script.fails() { 500 } else { 200 };
        *pages.totals.statuses.entry(status).or_default() += 1;
        let peer = pages.entry(connection).map(|entry| {
            entry.requests += 1;
            entry.peer
        });
        if let (500, Some(peer)) = (status, peer) {
            pages.failures.push_back(Failure { at_ns: now_ns(), peer });
            if pages.failures.len() > REMEMBERED {
                pages.failures.pop_front();
                pages.totals.forgotten += 1;
            }
        }
        status
    }

    /// How long an answer that is no probe's takes.
    pub(super) fn delay(&self) -> Duration {
        self.pages().delay
    }

    /// A request for the probe path.
    pub(super) fn probed(&self, connection: u64) -> u16 {
        let mut pages = self.pages();
        pages.totals.probes += 1;
        if let Some(entry) = pages.entry(connection) {
            entry.probes += 1;
        }
        if pages.probe_up { 200 } else { 503 }
    }

    /// One line in, one line out.
    pub(super) fn obey(&self, order: &str) -> String {
        let mut pages = self.pages();
        let mut words = order.split_whitespace();
        match (words.next(), words.next()) {
            (Some("break"), None) => pages.script.fraction = pages.script.broken,
            (Some("heal"), None) => pages.script.fraction = 0.0,
            (Some("probe"), Some("up")) => pages.probe_up = true,
            (Some("probe"), Some("down")) => pages.probe_up = false,
            (Some("delay"), Some(value)) => match value.parse::<u64>() {
                Ok(ms) if ms <= MOST_DELAY_MS => pages.delay = Duration::from_millis(ms),
                Ok(_) | Err(_) => {
                    return format!("error: a delay is 0 to {MOST_DELAY_MS} milliseconds, not {value}");
                }
            },
            (Some("fraction"), Some(value)) => match value.parse::<f64>() {
                Ok(fraction) if (0.0..=1.0).contains(&fraction) => pages.script.fraction = fraction,
                Ok(_) | Err(_) => return format!("error: a fraction is between 0 and 1, not {value}"),
            },
            (Some("report"), since) => match since.unwrap_or("0").parse() {
                Ok(since) => return pages.report(since),
                Err(_) => return "error: a report begins at a number of nanoseconds".to_owned(),
            },
            _ => return format!("error: `{order}` means nothing here"),
        }
        "ok".to_owned()
    }
}

impl Pages {
    fn entry(&mut self, connection: u64) -> Option<&mut Connection> {
        let place = connection.checked_sub(self.first)?;
        self.connections.get_mut(usize::try_from(place).ok()?)
    }

    fn report(&self, since_ns: u64) -> String {
        let report = Report {
            at_ns: now_ns(),
            connections: self.connections.iter().filter(|seen| seen.at_ns >= since_ns).copied().collect(),
            failures: self.failures.iter().filter(|seen| seen.at_ns >= since_ns).copied().collect(),
            ..self.totals.clone()
        };
        serde_json::to_string(&report).expect("a report is plain data")
    }
}

fn now_ns() -> u64 {
    u64::try_from(clock::now().as_nanos()).expect("a machine runs less than 500 years")
}
