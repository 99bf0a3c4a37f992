//! Suspicion: L4 failures that wait for confirmation.
//!
//! A client can provoke a refused, silent or broken connection. So an L4 failure only makes its backend a
//! suspect, and counts once something confirms it that no client controls:
//!
//! - The daemon connects to the backend itself, and that fails, and nobody had an answer meanwhile.
//! - Or different clients saw complete requests break, and nobody had an answer meanwhile.
//!
//! A good answer to anybody acquits: everything that waits is dropped.

use std::{collections::VecDeque, net::SocketAddr};

use super::sources::Sources;
use crate::{
    outcome::{ClientCounts, L4Failure},
    time::{Instant, Millis},
};

/// Failures that wait. Beyond this the oldest is dropped.
const MOST: usize = 64;

/// Between a confirmation that failed to confirm and the next one.
const REST: Millis = Millis(100);

/// How long a confirmation holds: L4 failures within it count at once.
const HOLDS: Millis = Millis(1000);

/// An L4 failure that waits for confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    pub failure: L4Failure,
    pub client: Option<SocketAddr>,
    /// It came long after the request was complete.
    pub late: bool,
}

/// The result of a connection of Shunt's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// It failed, and the backend answered no client's SYN meanwhile.
    Failed,
    /// It failed, but the backend answered a client's SYN meanwhile.
    Contradicted,
    /// The backend accepts connections.
    Accepts,
    /// The backend answers requests.
    Answers,
}

/// The suspicion against one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suspicion {
    waiting: VecDeque<Suspect>,
    /// One came after the last confirmation had begun.
    fresh: bool,
    /// A confirmation is under way.
    asking: bool,
    /// Somebody had an answer since the confirmation began.
    acquitted: bool,
    rests_until: Instant,
    confirmed_until: Option<Instant>,
    /// Enough different clients have agreed, and nobody had a good answer since.
    agreed: bool,
    /// L4 failures in a row that were not confirmed.
    run: u32,
}

impl Suspicion {
    /// Whether L4 failures count at once, because one was confirmed a moment ago.
    pub fn is_confirmed(&self, now: Instant) -> bool {
        self.confirmed_until.is_some_and(|until| now < until)
    }

    /// How many failures wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub fn add(&mut self, suspect: Suspect) {
        if self.waiting.len() == MOST {
            self.waiting.pop_front();
        }
        self.waiting.push_back(suspect);
        self.fresh = true;
        self.run = self.run.saturating_add(1);
    }

    /// When the next confirmation is to begin. `None`: one is under way, or nothing new waits.
    pub fn due(&self) -> Option<Instant> {
        (!self.asking && self.fresh).then_some(self.rests_until)
    }

    /// A confirmation begins.
    pub fn ask(&mut self) {
        self.asking = true;
        self.fresh = false;
        self.acquitted = false;
    }

    /// A confirmation ends. Returns what it confirms.
    pub fn ended(&mut self, confirmation: Confirmation, now: Instant) -> Vec<Suspect> {
        self.asking = false;
        self.rests_until = now + REST;
        match confirmation {
            Confirmation::Failed if !self.acquitted => {
                self.confirmed_until = Some(now + HOLDS);
                self.run = 0;
                self.fresh = false;
                self.waiting.drain(..).collect()
            }
            Confirmation::Failed | Confirmation::Contradicted | Confirmation::Accepts => {
                self.waiting.retain(|suspect| !is_of_connect(suspect.failure));
                Vec::new()
            }
            Confirmation::Answers => {
                self.waiting.retain(is_prompt);
                Vec::new()
            }
        }
    }

    /// The failures that enough different clients saw. Once they agree, one more client will do, until somebody
    /// has a good answer. `answers`: the service's probe asks for an answer, so
    /// an answer to it speaks against failures that a client could have caused by waiting.
    pub fn agreed(&mut self, least: u32, client_counts: ClientCounts, answers: bool) -> Vec<Suspect> {
        // A lone client proves nothing while a probe can.
        if answers && client_counts.is_lone() {
            return Vec::new();
        }
        let counts = |suspect: &Suspect| {
            if answers { is_prompt(suspect) } else { !is_of_connect(suspect.failure) }
        };
        let mut sources = Sources::default();
        let mut any = false;
        for suspect in self.waiting.iter().filter(|suspect| counts(suspect)) {
            sources.add(suspect.client.map(|client| client.ip()));
            any = true;
        }
        if !any || !(self.agreed || sources.suffice(least, Some(client_counts))) {
            return Vec::new();
        }
        self.agreed = true;
        let (agreed, rest): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(counts);
        self.waiting = rest.into();
        self.run = 0;
        agreed
    }

    /// The breaker has changed: what was suspected before it says nothing about what follows.
    pub fn after_change(&self) -> Self {
        Self { asking: self.asking, acquitted: true, rests_until: self.rests_until, ..Self::default() }
    }

    /// Somebody had an answer.
    pub fn acquit(&mut self) {
        self.waiting.clear();
        self.fresh = false;
        self.acquitted = true;
        self.agreed = false;
        self.confirmed_until = None;
        self.run = 0;
    }

    /// The failures in a row that were not confirmed, once there are so many. Then the row begins again.
    pub fn reached(&mut self, threshold: u32) -> Option<u32> {
        let reached = self.run >= threshold.max(1);
        reached.then(|| std::mem::take(&mut self.run))
    }
}

/// The backend took no connection. A handshake of Shunt's own shows the same.
const fn is_of_connect(failure: L4Failure) -> bool {
    matches!(failure, L4Failure::ConnectRefused | L4Failure::ConnectTimeout)
}

/// The backend broke a complete request off at once. A client cannot have caused that by waiting.
fn is_prompt(suspect: &Suspect) -> bool {
    matches!(suspect.failure, L4Failure::Reset | L4Failure::NoResponse) && !suspect.late
}

#[cfg(test)]
mod tests;
