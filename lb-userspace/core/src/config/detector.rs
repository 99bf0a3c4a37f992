//! The detectors by name, as `shadow` lists them and events report them.

use std::fmt;

/// A rule that finds a bad backend. The order is the one in which the breaker asks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detector {
    ConsecutiveGatewayFailure,
    Consecutive5xx,
    ConsecutiveL4Failure,
    ErrorRate,
    SlowRate,
    SuccessRate,
    FailurePercentage,
    SuccessRateL4,
    FailurePercentageL4,
}

impl Detector {
    pub const ALL: [Self; 9] = [
        Self::ConsecutiveGatewayFailure,
        Self::Consecutive5xx,
        Self::ConsecutiveL4Failure,
        Self::ErrorRate,
        Self::SlowRate,
        Self::SuccessRate,
        Self::FailurePercentage,
        Self::SuccessRateL4,
        Self::FailurePercentageL4,
    ];

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|detector| detector.name() == name)
    }

    /// Its name in `shadow` and in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConsecutiveGatewayFailure => "consecutive_gateway_failure",
            Self::Consecutive5xx => "consecutive_5xx",
            Self::ConsecutiveL4Failure => "consecutive_l4_failure",
            Self::ErrorRate => "error_rate",
            Self::SlowRate => "slow_rate",
            Self::SuccessRate => "success_rate",
            Self::FailurePercentage => "failure_percentage",
            Self::SuccessRateL4 => "success_rate_l4",
            Self::FailurePercentageL4 => "failure_percentage_l4",
        }
    }
}

impl fmt::Display for Detector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
