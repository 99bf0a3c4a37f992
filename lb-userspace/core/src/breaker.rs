//! The breaker of one backend.
//!
//! ```text
//!                  Detected
//!   ┌────────┐ ────────────────────────────────────▶ ┌──────┐ ◀┐ Sweep: time not over,
//!   │ closed │                                       │ open │ ─┘ or the probe is not up
//!   └────────┘ ◀── Sweep: time over, no trials ───── └──────┘
//!       ▲                                              │  ▲
//!       │                            Sweep: time over  │  │ Bad
//!       │                                              ▼  │ (next ejection number)
//!       │  Good: enough in a row                  ┌───────────┐ ◀┐ Good: not yet enough
//!       └─ Sweep: three without an outcome ────── │ half-open │ ─┘ BadRefused
//!                                                 └───────────┘    Sweep
//! ```
//!
//! From any state an operator's `Eject` leads to open, and `Admit` and `DetectorsOff` to closed.
//!
//! The detectors ([`detector`]) find a bad backend, and the service asks its [`limits`] whether the detection
//! may act. A [`Signal::Detected`] has passed both. Nothing here can fail.

pub mod detector;
pub mod limits;
pub mod ring;
pub mod sources;
pub mod suspicion;
pub mod sweep;

use self::sources::Sources;
use crate::{
    codes::EventReason,
    config::{BackoffDecay, Breaker as Policy, Detector, HalfOpenExit},
    event::{EventKind, Totals},
    random,
    states::BreakerState,
    time::{Instant, Millis},
};

/// Sweeps without an outcome after which a half-open backend is closed.
const EMPTY_SWEEPS: u32 = 3;

/// The inputs of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A detector fired, and evidence, ceiling and floor let it act.
    Detected(Detector),
    /// A response that is no failure. `readmits`: the probe does not object to a return.
    Good { readmits: bool },
    /// A failure.
    Bad,
    /// A failure that may not eject: too much evidence was lost, or the breaker is not enforced.
    BadRefused,
    /// A probe passed, and `probe_uneject` is on.
    Unejected,
    /// An operator ejects it, for this time or for the time of a detection.
    Eject { time: Option<Millis> },
    /// An operator readmits it.
    Admit,
    /// A new configuration has no detector that could have ejected it.
    DetectorsOff,
    /// The end of an interval. `offered`: the maps let it have new connections in the interval.
    Sweep { readmits: bool, offered: bool },
}

/// A transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub kind: EventKind,
    pub from: BreakerState,
    pub to: BreakerState,
    pub reason: EventReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen(Trial),
}

/// The progress of a half-open backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trial {
    /// Good outcomes in a row.
    pub good: u32,
    /// Sweeps in a row without an outcome although the maps let it have connections.
    empty: u32,
    /// When the present budget was given. `None`: not yet.
    granted: Option<Instant>,
    /// An outcome came since then.
    learnt: bool,
}

/// The counts since the last sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Outcomes of any kind.
    pub heads: u64,
    /// Response heads that were lost on the way.
    pub lost: u64,
    /// Responses in the present state, and outcomes that count as one.
    pub responses: u64,
    /// Of these, failures.
    pub failures: u64,
    /// The sources of these.
    pub sources: Sources,
    /// Answers that cannot be read, where L4 failures are split off.
    pub answers: u64,
    /// L4 failures in the present state that are split off.
    pub l4_failures: u64,
    /// Enforced detections in the present state, whether or not a limit refused them.
    pub detections: u64,
}

impl Window {
    /// More than 1 % of the heads are missing, so the others may mislead.
    pub const fn distrusted(&self) -> bool {
        100 * self.lost > self.heads + self.lost
    }

    /// Outcomes in the present state, opaque ones not counted.
    pub const fn outcomes(&self) -> u64 {
        self.responses + self.answers + self.l4_failures
    }

    pub const fn totals(&self) -> Totals {
        let Self { responses, failures, l4_failures, lost, .. } = *self;
        Totals { responses, failures, l4_failures, lost }
    }
}

#[derive(Clone, Debug)]
pub struct Breaker {
    state: State,
    since: Instant,
    ejection: u32,
    /// All ejections ever. The jitter of each is drawn by this number.
    ejections: u64,
    key: u64,
    pub window: Window,
}

impl Breaker {
    /// The random numbers of this breaker are made from `key`.
    pub fn new(key: u64, now: Instant) -> Self {
        let window = Window::default();
        Self { state: State::Closed, since: now, ejection: 0, ejections: 0, key, window }
    }

    pub fn state(&self) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen(_) => BreakerState::HalfOpen,
        }
    }

    /// When the present state began.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// The ejection number.
    pub fn ejection(&self) -> u32 {
        self.ejection
    }

    /// All ejections ever.
    pub fn ejections(&self) -> u64 {
        self.ejections
    }

    /// Continues from an earlier run.
    pub fn restore(
        &mut self,
        ejection: u32,
        ejections: u64,
        until: Option<Instant>,
        now: Instant,
    ) -> Option<Change> {
        (self.ejection, self.ejections) = (ejection, ejections);
        until.map(|until| self.turn(EventKind::Eject, State::Open { until }, EventReason::Restored, now))
    }

    /// The end of the present ejection.
    pub fn until(&self) -> Option<Instant> {
        match self.state {
            State::Open { until } => Some(until),
            State::Closed | State::HalfOpen(_) => None,
        }
    }

    /// Sweeps without an outcome that a half-open backend still has before it closes.
    pub fn patience(&self, policy: &Policy) -> Option<u32> {
        match policy.half_open_exit {
            HalfOpenExit::Close => self.trial().map(|trial| EMPTY_SWEEPS.saturating_sub(trial.empty)),
            HalfOpenExit::Wait => None,
        }
    }

    pub fn trial(&self) -> Option<&Trial> {
        match &self.state {
            State::HalfOpen(trial) => Some(trial),
            State::Closed | State::Open { .. } => None,
        }
    }

    /// The machine. Every pair of state and signal is here.
    pub fn on(&mut self, signal: Signal, policy: &Policy, now: Instant) -> Option<Change> {
        match (self.state, signal) {
            (State::Closed | State::Open { .. } | State::HalfOpen(_), Signal::Eject { time }) => {
                let change = self.open(EventReason::Operator, policy, now);
                if let (State::Open { until }, Some(time)) = (&mut self.state, time) {
                    *until = now + time;
                }
                Some(change)
            }
            (State::Open { .. } | State::HalfOpen(_), Signal::Admit) => {
                Some(self.close(EventReason::Operator, now))
            }
            (State::Open { .. } | State::HalfOpen(_), Signal::DetectorsOff) => {
                Some(self.close(EventReason::DetectorsOff, now))
            }
            (State::Closed, Signal::Admit | Signal::DetectorsOff) => None,

            (State::Closed | State::HalfOpen(_), Signal::Unejected) => None,
            (State::Open { .. }, Signal::Unejected) => {
                Some(self.come_back(EventReason::ProbeUneject, policy, now))
            }

            (State::Closed, Signal::Detected(detector)) => Some(self.open(detector.into(), policy, now)),
            // The detectors watch a closed backend.
            (State::Closed, Signal::Good { .. } | Signal::Bad | Signal::BadRefused) => None,
            (State::Closed, Signal::Sweep { .. }) => {
                self.decay(policy, now);
                None
            }

            // Outcomes of an ejected backend do not extend its ejection.
            (
                State::Open { .. },
                Signal::Detected(_) | Signal::Good { .. } | Signal::Bad | Signal::BadRefused,
            ) => None,
            (State::Open { until }, Signal::Sweep { readmits, offered: _ }) => {
                (now >= until && readmits).then(|| self.come_back(EventReason::EjectionTimeOver, policy, now))
            }

            // Detectors do not watch a half-open backend: any outcome decides.
            (State::HalfOpen(_), Signal::Detected(_)) => None,
            (State::HalfOpen(mut trial), Signal::Good { readmits }) => {
                trial.good = trial.good.saturating_add(1);
                trial.learnt = true;
                self.state = State::HalfOpen(trial);
                let enough = readmits && trial.good >= policy.half_open_successes;
                enough.then(|| self.close(EventReason::HalfOpenSuccesses, now))
            }
            (State::HalfOpen(_), Signal::Bad) => Some(self.open(EventReason::HalfOpenFailure, policy, now)),
            (State::HalfOpen(trial), Signal::BadRefused) => {
                self.state = State::HalfOpen(Trial { good: 0, learnt: true, ..trial });
                None
            }
            (State::HalfOpen(trial), Signal::Sweep { readmits, offered }) => {
                let trial = Trial { empty: self.empty_sweeps(&trial, offered), ..trial };
                self.state = State::HalfOpen(trial);
                let closes = match policy.half_open_exit {
                    HalfOpenExit::Close => trial.empty >= EMPTY_SWEEPS,
                    HalfOpenExit::Wait => false,
                };
                if !readmits {
                    None
                } else if trials(policy) == 0 {
                    // A reload turned trials off.
                    Some(self.close(EventReason::EjectionTimeOver, now))
                } else if trial.good >= policy.half_open_successes {
                    // The probe was not up when the last good outcome came.
                    Some(self.close(EventReason::HalfOpenSuccesses, now))
                } else {
                    closes.then(|| self.close(EventReason::NoTraffic, now))
                }
            }
        }
    }

    /// Whether a half-open backend gets a new budget at this sweep. It does if it has had none, if the last one
    /// has led to an outcome, or if none came for `half_open_timeout` while the probe allows a return.
    pub fn wants_budget(&self, readmits: bool, policy: &Policy, now: Instant) -> bool {
        let Some(trial) = self.trial() else { return false };
        match trial.granted {
            None => true,
            Some(at) => trial.learnt || (readmits && now - at >= policy.half_open_timeout),
        }
    }

    pub fn budget_granted(&mut self, now: Instant) {
        match &mut self.state {
            State::HalfOpen(trial) => {
                trial.granted = Some(now);
                trial.learnt = false;
            }
            State::Closed | State::Open { .. } => {}
        }
    }

    fn open(&mut self, reason: EventReason, policy: &Policy, now: Instant) -> Change {
        let (base, max) = (policy.base_ejection_time.0, policy.max_ejection_time.0);
        // From here on the time is at its maximum. A larger number would only take longer to decay.
        if u64::from(self.ejection).saturating_mul(base) < max.saturating_add(base) {
            self.ejection = self.ejection.saturating_add(1);
        }
        let time = u64::from(self.ejection).saturating_mul(base).min(max);
        let drawn = random::draw(self.key, self.ejections);
        let jitter = random::up_to(drawn, policy.max_ejection_time_jitter.0);
        self.ejections = self.ejections.saturating_add(1);
        let until = now + Millis(time.saturating_add(jitter));
        self.turn(EventKind::Eject, State::Open { until }, reason, now)
    }

    fn come_back(&mut self, reason: EventReason, policy: &Policy, now: Instant) -> Change {
        if trials(policy) == 0 {
            return self.close(reason, now);
        }
        self.turn(EventKind::Trial, State::HalfOpen(Trial::default()), reason, now)
    }

    fn close(&mut self, reason: EventReason, now: Instant) -> Change {
        self.turn(EventKind::Readmit, State::Closed, reason, now)
    }

    fn turn(&mut self, kind: EventKind, state: State, reason: EventReason, now: Instant) -> Change {
        let from = self.state();
        self.state = state;
        self.since = now;
        self.window = Window { heads: self.window.heads, lost: self.window.lost, ..Window::default() };
        Change { kind, from, to: self.state(), reason }
    }

    fn decay(&mut self, policy: &Policy, now: Instant) {
        // A return is not aligned with the sweeps. Half an interval in service counts as an interval.
        let interval = policy.interval.0;
        let in_service = now - self.since >= Millis(interval - interval / 2);
        let earned = match policy.backoff_decay {
            BackoffDecay::Evidence => {
                self.window.responses + self.window.answers > 0 && self.window.detections == 0
            }
            BackoffDecay::Time => true,
        };
        if in_service && earned {
            self.ejection = self.ejection.saturating_sub(1);
        }
    }

    fn empty_sweeps(&self, trial: &Trial, offered: bool) -> u32 {
        match (self.window.outcomes(), offered) {
            (0, true) => trial.empty + 1,
            // The maps let it have no connection, so silence shows nothing about the backend.
            (0, false) => trial.empty,
            (_, true | false) => 0,
        }
    }
}

/// Without enforcement there are no trials. A backend that a reload finds ejected returns when its time is
/// over.
const fn trials(policy: &Policy) -> u32 {
    if policy.enforce { policy.half_open_trials } else { 0 }
}

#[cfg(test)]
mod tests;
