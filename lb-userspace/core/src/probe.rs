//! The probe state of one backend, and the time of its next probe.
//!
//! ```text
//!              first result passes
//!   ┌─────────┐ ──────────────────▶ ┌────┐
//!   │ unknown │                     │ up │ ──┐ `fall` failures in a row
//!   └─────────┘ ──────────────────▶ └────┘   ▼
//!              first result fails ▶ ┌──────┐ │
//!                `rise` passes ▲─── │ down │ ◀┘ or one of `fail_fast`
//!                                   └──────┘
//! ```
//!
//! `none` is the state without a probe: nothing is due and results are ignored.

use crate::{
    codes::EventReason,
    config::{Probe as Policy, ProbeKind},
    outcome::ProbeResult,
    random,
    states::ProbeState,
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
    /// When the last probe was begun.
    started: Instant,
    in_flight: bool,
    /// Probes begun. The jitter of each is drawn by this number.
    begun: u64,
    key: u64,
    last: Option<ProbeResult>,
}

/// A transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub from: ProbeState,
    pub to: ProbeState,
    pub reason: EventReason,
}

impl Health {
    /// The random numbers of this backend's probes are made from `key`.
    pub fn new(policy: Option<&Policy>, key: u64, now: Instant) -> Self {
        let mut health = Self {
            state: ProbeState::None,
            against: 0,
            due: now,
            started: now,
            in_flight: false,
            begun: 0,
            key,
            last: None,
        };
        health.reconfigure(None, policy, now);
        health
    }

    /// The probe was added, removed or changed. A changed probe keeps the state.
    pub fn reconfigure(
        &mut self,
        old: Option<&Policy>,
        new: Option<&Policy>,
        now: Instant,
    ) -> Option<Change> {
        match (old, new) {
            (None, None) => None,
            (None, Some(policy)) => {
                // The probe under way belongs to the old policy.
                self.in_flight = false;
                let spread = policy.interval.min(FIRST_SPREAD).0;
                self.due = now + Millis(random::up_to(random::draw(self.key, 0), spread));
                Some(self.turn(ProbeState::Unknown, EventReason::Config))
            }
            (Some(_), None) => {
                self.last = None;
                Some(self.turn(ProbeState::None, EventReason::Config))
            }
            (Some(_), Some(policy)) => {
                self.due = self.due.min(now + self.pace(policy));
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

    /// A probe is being sent. The next one follows an interval after this start, give or take `jitter`.
    pub fn begin(&mut self, now: Instant) {
        self.in_flight = true;
        self.begun += 1;
        self.started = now;
    }

    pub fn result(&mut self, policy: &Policy, result: ProbeResult) -> Option<Change> {
        self.in_flight = false;
        let verdict = judge(policy, &result);
        let change = match (self.state, verdict) {
            (ProbeState::None, Verdict::Pass | Verdict::Fail | Verdict::FailFast) => return None,
            (ProbeState::Unknown, Verdict::Pass) => Some(self.turn(ProbeState::Up, EventReason::FirstResult)),
            (ProbeState::Unknown, Verdict::Fail | Verdict::FailFast) => {
                Some(self.turn(ProbeState::Down, EventReason::FirstResult))
            }
            (ProbeState::Up, Verdict::Pass) | (ProbeState::Down, Verdict::Fail | Verdict::FailFast) => {
                self.against = 0;
                None
            }
            (ProbeState::Up, Verdict::FailFast) => Some(self.turn(ProbeState::Down, EventReason::FailFast)),
            (ProbeState::Up, Verdict::Fail) => {
                self.against += 1;
                (self.against >= policy.fall).then(|| self.turn(ProbeState::Down, EventReason::Fall))
            }
            (ProbeState::Down, Verdict::Pass) => {
                self.against += 1;
                (self.against >= policy.rise).then(|| self.turn(ProbeState::Up, EventReason::Rise))
            }
        };
        self.last = Some(result);
        self.due = self.next(policy);
        change
    }

    /// Results in a row that speak against the state.
    pub fn against(&self) -> u32 {
        self.against
    }

    fn next(&self, policy: &Policy) -> Instant {
        let (pace, percent) = (self.pace(policy).0, u64::from(policy.jitter.min(100)));
        // Both ends of the variation, the lower one first.
        let (less, all) = (pace * percent / 100, pace * (2 * percent) / 100);
        self.started + Millis(pace - less + random::up_to(random::draw(self.key, self.begun), all))
    }

    fn pace(&self, policy: &Policy) -> Millis {
        match self.state {
            ProbeState::Up | ProbeState::Down if self.against > 0 => policy.fast_interval,
            ProbeState::Down => policy.down_interval,
            ProbeState::None | ProbeState::Unknown | ProbeState::Up => policy.interval,
        }
    }

    fn turn(&mut self, to: ProbeState, reason: EventReason) -> Change {
        let from = self.state;
        self.state = to;
        self.against = 0;
        Change { from, to, reason }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    Fail,
    /// One such result takes the backend down.
    FailFast,
}

fn judge(policy: &Policy, result: &ProbeResult) -> Verdict {
    let status = match result {
        ProbeResult::Pass => return Verdict::Pass,
        ProbeResult::Fail(_) => return Verdict::Fail,
        ProbeResult::Status(status) => *status,
    };
    match &policy.kind {
        ProbeKind::Http(http) if http.expects(status) => Verdict::Pass,
        ProbeKind::Http(http) if http.fails_fast(status) => Verdict::FailFast,
        ProbeKind::Http(_) => Verdict::Fail,
        // A TCP probe only needs an answer.
        ProbeKind::Tcp => Verdict::Pass,
        // An HTTP status says nothing about gRPC health.
        ProbeKind::Grpc(_) => Verdict::Fail,
    }
}

/// Whether a result counts as a pass.
pub fn passes(policy: &Policy, result: &ProbeResult) -> bool {
    judge(policy, result) == Verdict::Pass
}

#[cfg(test)]
mod tests;
