//! The detectors that look at each outcome when it comes.
//!
//! Runs count in a row, without a window. [`Ring`]s count over a window. The detectors of a whole interval are in
//! [`sweep`](super::sweep). Each detector has a name: [`Detector`].

use std::{net::IpAddr, time::Duration};

use super::{ring::Ring, sources::Sources};
use crate::{
    config::{Breaker as Policy, Detector},
    event::{Evidence, Rate, Run},
    outcome::ClientCounts,
    time::{Instant, Millis},
};

/// One outcome as detectors see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// A response, or an outcome that counts as one. `failure`: `errors` contains its status.
    Response { status: u16, failure: bool, ttfb: Option<Duration> },
    /// The first answer on a connection whose responses cannot be read, under `split_l4_failures`.
    Answer { ttfb: Option<Duration> },
    /// An L4 failure under `split_l4_failures`.
    L4Failure,
}

impl Sample {
    pub const fn failure(&self) -> bool {
        match self {
            Self::Response { failure, .. } => *failure,
            Self::Answer { .. } => false,
            Self::L4Failure => true,
        }
    }
}

/// The client that saw an outcome, and its service's other clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    /// `None`: any number of sources may convict.
    pub client: Option<IpAddr>,
    /// The clients of the service. `None`: not known.
    pub client_counts: Option<ClientCounts>,
}

/// The counts of one backend's detectors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub run_gateway: u32,
    /// The clients that saw the failures of this run.
    pub sources_gateway: Sources,
    pub run_5xx: u32,
    pub sources_5xx: Sources,
    pub run_l4: u32,
    pub errors: Ring,
    pub slow: Ring,
}

/// A detector fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detection {
    pub detector: Detector,
    pub shown: Shown,
}

/// The findings of the detectors about one outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// First detector first.
    pub detections: Vec<Detection>,
    /// Detections that too few different clients saw.
    pub held: Vec<Detection>,
}

/// The numbers that made it fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    Run(Run),
    Rate(Rate),
}

impl Tally {
    /// All detections of one outcome.
    pub fn observe(&mut self, policy: &Policy, sample: Sample, witness: Witness, now: Instant) -> Found {
        let mut found = Found::default();
        let mut run = |detector, run: &mut u32, sources: &mut Sources, threshold: u32| {
            *run = run.saturating_add(1);
            sources.add(witness.client);
            // The run may be longer than the threshold, because a reload may have lowered it.
            if threshold == 0 || *run < threshold {
                return;
            }
            let detection = Detection { detector, shown: Shown::Run(Run { count: *run, threshold }) };
            if !sources.suffice(policy.min_clients, witness.client_counts) {
                // The run goes on: the next failure of another client detects.
                found.held.push(detection);
                return;
            }
            // The run starts again, whether or not the detection acts.
            found.detections.push(detection);
            (*run, *sources) = (0, Sources::default());
        };
        let (status, failure, ttfb) = match sample {
            Sample::Response { status, failure, ttfb } => (status, failure, ttfb),
            Sample::Answer { ttfb } => {
                // It shows nothing about statuses.
                self.run_l4 = 0;
                self.time(policy, ttfb, witness, now, &mut found);
                return found;
            }
            Sample::L4Failure => {
                // The failure was confirmed, so its source does not matter.
                let mut certain = Sources::default();
                certain.add(None);
                let threshold = policy.consecutive_l4_failure;
                run(Detector::ConsecutiveL4Failure, &mut self.run_l4, &mut certain, threshold);
                return found;
            }
        };
        if gateway(status) {
            let threshold = policy.consecutive_gateway_failure;
            run(
                Detector::ConsecutiveGatewayFailure,
                &mut self.run_gateway,
                &mut self.sources_gateway,
                threshold,
            );
        } else {
            (self.run_gateway, self.sources_gateway) = (0, Sources::default());
        }
        if failure {
            let threshold = policy.consecutive_5xx;
            run(Detector::Consecutive5xx, &mut self.run_5xx, &mut self.sources_5xx, threshold);
        } else {
            (self.run_gateway, self.sources_gateway) = (0, Sources::default());
            (self.run_5xx, self.sources_5xx) = (0, Sources::default());
        }
        self.run_l4 = 0;

        if policy.error_rate_threshold > 0 {
            match failure {
                true => self.errors.add_bad(witness.client, policy.error_rate_window, now),
                false => self.errors.add_good(1, policy.error_rate_window, now),
            }
            over(&mut self.errors, &error_rate(policy), policy, witness.client_counts, &mut found);
        }
        self.time(policy, ttfb, witness, now, &mut found);
        found
    }

    /// Good responses that the program counted. They end no run. With them the error rate may have enough
    /// responses to detect.
    pub fn successes(
        &mut self,
        policy: &Policy,
        count: u64,
        client_counts: Option<ClientCounts>,
        now: Instant,
    ) -> Found {
        let mut found = Found::default();
        if policy.error_rate_threshold > 0 {
            self.errors.add_good(count, policy.error_rate_window, now);
            over(&mut self.errors, &error_rate(policy), policy, client_counts, &mut found);
        }
        found
    }

    fn time(
        &mut self,
        policy: &Policy,
        ttfb: Option<Duration>,
        witness: Witness,
        now: Instant,
        found: &mut Found,
    ) {
        let Some(ttfb) = ttfb.filter(|_| slow_rate(policy).percent > 0) else { return };
        match ttfb > Duration::from_millis(policy.slow_threshold.0) {
            true => self.slow.add_bad(witness.client, policy.slow_rate_window, now),
            false => self.slow.add_good(1, policy.slow_rate_window, now),
        }
        over(&mut self.slow, &slow_rate(policy), policy, witness.client_counts, found);
    }

    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

const fn gateway(status: u16) -> bool {
    matches!(status, 502..=504)
}

/// The limit of a ring.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub detector: Detector,
    pub window: Millis,
    pub least: u32,
    /// 0: off.
    pub percent: u8,
}

pub const fn error_rate(policy: &Policy) -> Window {
    Window {
        detector: Detector::ErrorRate,
        window: policy.error_rate_window,
        least: policy.error_rate_min_responses,
        percent: policy.error_rate_threshold,
    }
}

pub const fn slow_rate(policy: &Policy) -> Window {
    Window {
        detector: Detector::SlowRate,
        window: policy.slow_rate_window,
        least: policy.slow_rate_min_responses,
        percent: if policy.slow_threshold.0 == 0 { 0 } else { policy.slow_rate_threshold },
    }
}

/// After a detection the window starts again, like a run. Otherwise every further response would detect again.
fn over(
    ring: &mut Ring,
    limit: &Window,
    policy: &Policy,
    client_counts: Option<ClientCounts>,
    found: &mut Found,
) {
    let (total, bad) = ring.counted();
    if total < u64::from(limit.least) || 100 * bad < u64::from(limit.percent) * total {
        return;
    }
    let rate = Rate::of(bad, total, u32::from(limit.percent) * 100, limit.window);
    let detection = Detection { detector: limit.detector, shown: Shown::Rate(rate) };
    if ring.sources().suffice(policy.min_clients, client_counts) {
        found.detections.push(detection);
        *ring = Ring::default();
    } else {
        found.held.push(detection);
    }
}

impl Detection {
    pub fn record(&self, evidence: &mut Evidence) {
        match (self.shown, self.detector) {
            (Shown::Run(run), Detector::ConsecutiveGatewayFailure) => {
                evidence.consecutive_gateway_failure = Some(run);
            }
            (Shown::Run(run), Detector::ConsecutiveL4Failure) => evidence.consecutive_l4_failure = Some(run),
            (
                Shown::Run(run),
                Detector::Consecutive5xx
                | Detector::ErrorRate
                | Detector::SlowRate
                | Detector::SuccessRate
                | Detector::FailurePercentage
                | Detector::SuccessRateL4
                | Detector::FailurePercentageL4,
            ) => evidence.consecutive_5xx = Some(run),
            (Shown::Rate(rate), _) => evidence.rate = Some(rate),
        }
    }

    /// The detection in words.
    pub fn sentence(&self) -> String {
        let what = match self.detector {
            Detector::ConsecutiveGatewayFailure => "gateway failure",
            Detector::ConsecutiveL4Failure => "L4 failure",
            Detector::Consecutive5xx
            | Detector::ErrorRate
            | Detector::SlowRate
            | Detector::SuccessRate
            | Detector::FailurePercentage
            | Detector::SuccessRateL4
            | Detector::FailurePercentageL4 => "failure",
        };
        match self.shown {
            Shown::Run(Run { count: 1, .. }) => format!("one {what}"),
            Shown::Run(run) => format!("{} {what}s in a row", run.count),
            Shown::Rate(rate) => format!("{}: {rate}", self.detector),
        }
    }
}
