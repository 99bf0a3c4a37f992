//! The policy of a service's breaker.

use std::{collections::BTreeSet, ops::RangeInclusive};

use super::detector::Detector;
use crate::time::Millis;

/// `[service.NAME.breaker]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// `false`: the breaker decides and reports, but changes no map. Default true.
    pub enforce: bool,
    /// Detectors that report only. Default none.
    pub shadow: BTreeSet<Detector>,
    /// Failures in a row that eject. 0: off. Default 5.
    pub consecutive_5xx: u32,
    /// Responses 502, 503, 504 in a row that eject. 0: off. Default 0.
    pub consecutive_gateway_failure: u32,
    /// L4 failures count apart from responses. Default false.
    pub split_l4_failures: bool,
    /// L4 failures in a row that eject, when they are split off. 0: off. Default 5.
    pub consecutive_l4_failure: u32,
    /// An L4 failure counts only once something confirms it that no client controls. Default true.
    pub confirm_l4_failures: bool,
    /// How many different clients must have seen the failures that eject, where the service has several. At
    /// most [`MOST`](crate::breaker::sources::MOST). 1: one will do. Default 2.
    pub min_clients: u32,
    /// A SYN without an answer within this time is an L4 failure. 0: off. Default 3 s, within which a client
    /// has sent its SYN twice (RFC 6298 section 2).
    pub connect_timeout: Millis,
    /// A request without a response head within this time is an L4 failure. 0: off. Default 0.
    pub response_timeout: Millis,
    /// Responses in an interval that make a backend comparable. Default 100.
    pub success_rate_min_responses: u32,
    /// Comparable backends that make a comparison. Default 5.
    pub success_rate_min_backends: u32,
    /// How many standard deviations below the mean ejects, in thousandths. 0: off. Default 0.
    pub success_rate_stdev_factor: u32,
    /// Percent of failures in an interval that eject. 0: off. Default 0.
    pub failure_percentage_threshold: u8,
    /// Default 50.
    pub failure_percentage_min_responses: u32,
    /// Default 5.
    pub failure_percentage_min_backends: u32,
    /// Percent of failures within `error_rate_window` that eject at once. 0: off. Default 0.
    pub error_rate_threshold: u8,
    /// Default 10 s.
    pub error_rate_window: Millis,
    /// Default 20.
    pub error_rate_min_responses: u32,
    /// A response whose first byte takes longer is slow. 0: off. Default 0.
    pub slow_threshold: Millis,
    /// Percent of slow responses within `slow_rate_window` that eject at once. 0: off. Default 50.
    pub slow_rate_threshold: u8,
    /// Default 10 s.
    pub slow_rate_window: Millis,
    /// Default 20.
    pub slow_rate_min_responses: u32,
    /// Statuses that are failures. Default: 500 to 599 without 501 and 505, with which a server answers
    /// requests that it does not understand (RFC 9110 sections 15.6.2 and 15.6.6).
    pub errors: Vec<RangeInclusive<u16>>,
    /// Between sweeps. Default 10 s.
    pub interval: Millis,
    /// Default 30 s.
    pub base_ejection_time: Millis,
    /// Default: the larger of 300 s and the base.
    pub max_ejection_time: Millis,
    /// The largest random time that is added to an ejection. Default 0.
    pub max_ejection_time_jitter: Millis,
    /// Default 50.
    pub max_ejection_percent: u8,
    /// One backend may be ejected even if the ceiling does not allow it. Default false.
    pub always_eject_one: bool,
    /// Backends that must still serve after an ejection. Default 1.
    pub min_serving: u32,
    /// New connections offered to a half-open backend per sweep. 0: no half-open. Default 3.
    pub half_open_trials: u32,
    /// Good outcomes in a row that readmit. Default: `half_open_trials`.
    pub half_open_successes: u32,
    /// A budget without an outcome is renewed after this time. Default: `interval`.
    pub half_open_timeout: Millis,
    /// How a half-open backend ends that no traffic reaches.
    pub half_open_exit: HalfOpenExit,
    /// With a probe: only a backend that is `up` comes back. Default true.
    pub probe_readmits: bool,
    /// A passing probe ends an ejection at once, as in Envoy. Default false.
    pub probe_uneject: bool,
    /// The share of a readmitted backend rises for this long, in five steps. 0: at once in full. Default 0.
    pub slow_start: Millis,
    /// While less than this percent of the backends serve, the service uses all that are not disabled and not
    /// probe-`down`. 0: off. Default 0.
    pub panic_threshold: u8,
    pub backoff_decay: BackoffDecay,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HalfOpenExit {
    /// Close after three sweeps without any outcome.
    #[default]
    Close,
    Wait,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackoffDecay {
    /// The ejection number falls only in sweeps that finished with responses and without a detection.
    #[default]
    Evidence,
    /// It falls in every sweep at least one interval after the return, as in Envoy.
    Time,
}

impl Breaker {
    /// Whether a detector may eject.
    pub fn enforces(&self, detector: Detector) -> bool {
        self.enforce && !self.shadow.contains(&detector)
    }

    /// Whether a detector can detect anything.
    pub fn is_on(&self, detector: Detector) -> bool {
        match detector {
            Detector::ConsecutiveGatewayFailure => self.consecutive_gateway_failure > 0,
            Detector::Consecutive5xx => self.consecutive_5xx > 0,
            Detector::ConsecutiveL4Failure => self.split_l4_failures && self.consecutive_l4_failure > 0,
            Detector::ErrorRate => self.error_rate_threshold > 0,
            Detector::SlowRate => self.slow_threshold > Millis(0) && self.slow_rate_threshold > 0,
            Detector::SuccessRate => self.success_rate_stdev_factor > 0,
            Detector::FailurePercentage => self.failure_percentage_threshold > 0,
            Detector::SuccessRateL4 => self.split_l4_failures && self.is_on(Detector::SuccessRate),
            Detector::FailurePercentageL4 => {
                self.split_l4_failures && self.is_on(Detector::FailurePercentage)
            }
        }
    }

    /// Whether an ejection by `cause` could have happened under this policy: a detector of failures may eject, or
    /// `slow_rate` for slow responses.
    pub fn could_have_ejected(&self, cause: Detector) -> bool {
        let is_slow = |detector| detector == Detector::SlowRate;
        Detector::ALL.into_iter().any(|detector| {
            is_slow(detector) == is_slow(cause) && self.is_on(detector) && self.enforces(detector)
        })
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            enforce: true,
            shadow: BTreeSet::new(),
            consecutive_5xx: 5,
            consecutive_gateway_failure: 0,
            split_l4_failures: false,
            consecutive_l4_failure: 5,
            confirm_l4_failures: true,
            min_clients: 2,
            connect_timeout: Millis::secs(3),
            response_timeout: Millis(0),
            success_rate_min_responses: 100,
            success_rate_min_backends: 5,
            success_rate_stdev_factor: 0,
            failure_percentage_threshold: 0,
            failure_percentage_min_responses: 50,
            failure_percentage_min_backends: 5,
            error_rate_threshold: 0,
            error_rate_window: Millis::secs(10),
            error_rate_min_responses: 20,
            slow_threshold: Millis(0),
            slow_rate_threshold: 50,
            slow_rate_window: Millis::secs(10),
            slow_rate_min_responses: 20,
            errors: vec![500..=500, 502..=504, 506..=599],
            interval: Millis::secs(10),
            base_ejection_time: Millis::secs(30),
            max_ejection_time: Millis::secs(300),
            max_ejection_time_jitter: Millis(0),
            max_ejection_percent: 50,
            always_eject_one: false,
            min_serving: 1,
            half_open_trials: 3,
            half_open_successes: 3,
            half_open_timeout: Millis::secs(10),
            half_open_exit: HalfOpenExit::default(),
            probe_readmits: true,
            probe_uneject: false,
            slow_start: Millis(0),
            panic_threshold: 0,
            backoff_decay: BackoffDecay::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(change: impl FnOnce(&mut Breaker)) -> Vec<Detector> {
        let mut policy = Breaker { consecutive_5xx: 0, consecutive_gateway_failure: 0, ..Breaker::default() };
        (policy.consecutive_l4_failure, policy.error_rate_threshold) = (0, 0);
        (policy.slow_threshold, policy.slow_rate_threshold) = (Millis(0), 0);
        (policy.success_rate_stdev_factor, policy.failure_percentage_threshold) = (0, 0);
        change(&mut policy);
        Detector::ALL.into_iter().filter(|detector| policy.is_on(*detector)).collect()
    }

    #[test]
    fn each_detector_is_turned_on_by_its_own_keys() {
        use Detector::*;
        assert_eq!(on(|_| {}), []);
        assert_eq!(on(|policy| policy.split_l4_failures = true), []);
        assert_eq!(on(|policy| policy.consecutive_gateway_failure = 1), [ConsecutiveGatewayFailure]);
        assert_eq!(on(|policy| policy.consecutive_5xx = 1), [Consecutive5xx]);
        assert_eq!(on(|policy| policy.consecutive_l4_failure = 1), []);
        let split = |policy: &mut Breaker| policy.split_l4_failures = true;
        let both = |more: fn(&mut Breaker)| {
            on(|policy| {
                split(policy);
                more(policy);
            })
        };
        assert_eq!(both(|policy| policy.consecutive_l4_failure = 1), [ConsecutiveL4Failure]);
        assert_eq!(on(|policy| policy.error_rate_threshold = 1), [ErrorRate]);
        assert_eq!(on(|policy| policy.slow_threshold = Millis(1)), []);
        assert_eq!(on(|policy| policy.slow_rate_threshold = 1), []);
        let slow = |policy: &mut Breaker| {
            (policy.slow_threshold, policy.slow_rate_threshold) = (Millis(1), 1);
        };
        assert_eq!(on(slow), [SlowRate]);
        assert_eq!(on(|policy| policy.success_rate_stdev_factor = 1), [SuccessRate]);
        assert_eq!(both(|policy| policy.success_rate_stdev_factor = 1), [SuccessRate, SuccessRateL4]);
        assert_eq!(on(|policy| policy.failure_percentage_threshold = 1), [FailurePercentage]);
        let percentages = [FailurePercentage, FailurePercentageL4];
        assert_eq!(both(|policy| policy.failure_percentage_threshold = 1), percentages);
    }

    #[test]
    fn slow_responses_and_failures_eject_by_their_own_detectors() {
        let only = |change: fn(&mut Breaker)| {
            let mut policy =
                Breaker { consecutive_5xx: 0, consecutive_gateway_failure: 0, ..Breaker::default() };
            (policy.success_rate_stdev_factor, policy.failure_percentage_threshold) = (0, 0);
            (policy.error_rate_threshold, policy.slow_rate_threshold) = (0, 0);
            change(&mut policy);
            (
                policy.could_have_ejected(Detector::Consecutive5xx),
                policy.could_have_ejected(Detector::SlowRate),
            )
        };
        assert_eq!(only(|policy| policy.error_rate_threshold = 1), (true, false));
        let slow = |policy: &mut Breaker| {
            (policy.slow_threshold, policy.slow_rate_threshold) = (Millis(1), 1);
        };
        assert_eq!(only(slow), (false, true));
        assert_eq!(only(|_| {}), (false, false));
    }

    #[test]
    fn detectors_are_known_by_their_names() {
        for detector in Detector::ALL {
            assert_eq!(Detector::named(detector.name()), Some(detector));
        }
        assert_eq!(Detector::named("consecutive"), None);
    }
}
