//! What turns outcomes into detections.
//!
//! Each detector is one entry of [`DETECTORS`] with its counts in [`Tally`] and
//! its evidence in [`Detection`]. They are asked in order, inside the outcome.

use crate::{
    config::Breaker as Policy,
    event::{Evidence, Run},
};

/// What the detectors remember of one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub run_5xx: u32,
}

/// A detector fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detection {
    Consecutive5xx(Run),
}

/// Takes one response into account; `failure` says on which side of `errors` it is.
type Detector = fn(&mut Tally, policy: &Policy, failure: bool) -> Option<Detection>;

const DETECTORS: &[Detector] = &[consecutive_5xx];

impl Tally {
    /// All detections of one response, first detector first.
    pub fn observe(&mut self, policy: &Policy, failure: bool) -> Vec<Detection> {
        DETECTORS.iter().filter_map(|detector| detector(self, policy, failure)).collect()
    }

    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

impl Detection {
    /// Its name in configuration and events.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Consecutive5xx(_) => "consecutive_5xx",
        }
    }

    pub fn record(&self, evidence: &mut Evidence) {
        match self {
            Self::Consecutive5xx(run) => evidence.consecutive_5xx = Some(*run),
        }
    }

    /// For people: what was seen.
    pub fn sentence(&self) -> String {
        match self {
            Self::Consecutive5xx(Run { count: 1, .. }) => "a failure".to_owned(),
            Self::Consecutive5xx(run) => format!("{} failures in a row", run.count),
        }
    }
}

/// A run that reaches its threshold detects and starts again, whatever becomes of the detection. At
/// least, because a reload may have lowered the threshold below the run.
fn consecutive_5xx(tally: &mut Tally, policy: &Policy, failure: bool) -> Option<Detection> {
    if !failure {
        tally.run_5xx = 0;
        return None;
    }
    tally.run_5xx = tally.run_5xx.saturating_add(1);
    let (count, threshold) = (tally.run_5xx, policy.consecutive_5xx);
    if threshold == 0 || count < threshold {
        return None;
    }
    tally.run_5xx = 0;
    Some(Detection::Consecutive5xx(Run { count, threshold }))
}
