//! What active probes say about one backend, and when the next one is due.
//!
//! ```text
//!              first result passes
//!   ┌─────────┐ ──────────────────▶ ┌────┐
//!   │ unknown │                     │ up │ ──┐ `fall` failures in a row
//!   └─────────┘ ──────────────────▶ └────┘   ▼
//!              first result fails ▶ ┌──────┐ │
//!                `rise` passes ▲─── │ down │ ◀┘
//!                                   └──────┘
//! ```
//!
//! `none` is the state without a probe: nothing is due and results are ignored.

use crate::{
    config::Probe as Policy,
    io::ProbeResult,
    random,
    snapshot::ProbeState,
    time::{Instant, Millis},
};

/// The first probes of a service are spread over at most this.
const FIRST_SPREAD: Millis = Millis(200);

#[derive(Clone, Debug)]
pub struct Health {
    state: ProbeState,
    /// Results in a row that speak against the state.
    against: u32,
    due: Instant,
    in_flight: bool,
    /// Probes begun: what jitter is drawn for.
    begun: u64,
    key: u64,
    last: Option<ProbeResult>,
}

/// A transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub from: ProbeState,
    pub to: ProbeState,
    pub reason: &'static str,
}

impl Health {
    /// `key` is what its random numbers are made from.
    pub fn new(policy: Option<&Policy>, key: u64, now: Instant) -> Self {
        let mut health = Self {
            state: ProbeState::None,
            against: 0,
            due: now,
            in_flight: false,
            begun: 0,
            key,
            last: None,
        };
        health.reconfigure(None, policy, now);
        health
    }

    /// A policy came, went or changed. What is known of the backend stays known.
    pub fn reconfigure(
        &mut self,
        old: Option<&Policy>,
        new: Option<&Policy>,
        now: Instant,
    ) -> Option<Change> {
        match (old, new) {
            (None, None) => None,
            (None, Some(policy)) => {
                // What is still under way was asked for by a policy that is gone.
                self.in_flight = false;
                let spread = policy.interval.min(FIRST_SPREAD).0;
                self.due = now + Millis(random::up_to(random::draw(self.key, 0), spread));
                Some(self.turn(ProbeState::Unknown, "config"))
            }
            (Some(_), None) => {
                self.last = None;
                Some(self.turn(ProbeState::None, "config"))
            }
            (Some(_), Some(policy)) => {
                self.due = self.due.min(now + policy.interval);
                None
            }
        }
    }

    pub fn state(&self) -> ProbeState {
        self.state
    }

    pub fn last(&self) -> Option<&ProbeResult> {
        self.last.as_ref()
    }

    /// When to send the next one. `None` while one is under way.
    pub fn due(&self) -> Option<Instant> {
        match self.state {
            ProbeState::None => None,
            ProbeState::Unknown | ProbeState::Up | ProbeState::Down => (!self.in_flight).then_some(self.due),
        }
    }

    /// A probe is being sent. The next one follows an interval after this start, give or take a tenth.
    pub fn begin(&mut self, policy: &Policy, now: Instant) {
        self.in_flight = true;
        self.begun += 1;
        let interval = policy.interval.0;
        let jitter = random::up_to(random::draw(self.key, self.begun), interval / 5);
        self.due = now + Millis(interval - interval / 10 + jitter);
    }

    pub fn result(&mut self, policy: &Policy, result: ProbeResult) -> Option<Change> {
        self.in_flight = false;
        let change = match (self.state, &result) {
            (ProbeState::None, ProbeResult::Pass | ProbeResult::Fail(_)) => return None,
            (ProbeState::Unknown, ProbeResult::Pass) => Some(self.turn(ProbeState::Up, "first_result")),
            (ProbeState::Unknown, ProbeResult::Fail(_)) => Some(self.turn(ProbeState::Down, "first_result")),
            (ProbeState::Up, ProbeResult::Pass) | (ProbeState::Down, ProbeResult::Fail(_)) => {
                self.against = 0;
                None
            }
            (ProbeState::Up, ProbeResult::Fail(_)) => {
                self.against += 1;
                (self.against >= policy.fall).then(|| self.turn(ProbeState::Down, "fall"))
            }
            (ProbeState::Down, ProbeResult::Pass) => {
                self.against += 1;
                (self.against >= policy.rise).then(|| self.turn(ProbeState::Up, "rise"))
            }
        };
        self.last = Some(result);
        change
    }

    fn turn(&mut self, to: ProbeState, reason: &'static str) -> Change {
        let from = self.state;
        self.state = to;
        self.against = 0;
        Change { from, to, reason }
    }
}

#[cfg(test)]
mod tests;
