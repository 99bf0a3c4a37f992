//! The reasons of events.

use super::discovery_code::DiscoveryCode;
use crate::{
    config::Detector,
    states::{Panic, PathState},
};

crate::codes! {
    /// The detector or the rule that made an event. In `reason` of an event.
    EventReason {
        /// Detector: 502, 503 and 504 in a row.
        ConsecutiveGatewayFailure = "consecutive_gateway_failure",
        /// Detector: failures in a row.
        Consecutive5xx = "consecutive_5xx",
        /// Detector: L4 failures in a row.
        ConsecutiveL4Failure = "consecutive_l4_failure",
        /// Detector: the share of failures within its window.
        ErrorRate = "error_rate",
        /// Detector: the share of slow responses within its window.
        SlowRate = "slow_rate",
        /// Detector: far fewer good responses than the other backends have.
        SuccessRate = "success_rate",
        /// Detector: the share of failures in an interval.
        FailurePercentage = "failure_percentage",
        /// Detector: `success_rate` of L4 failures.
        SuccessRateL4 = "success_rate_l4",
        /// Detector: `failure_percentage` of L4 failures.
        FailurePercentageL4 = "failure_percentage_l4",
        /// Refused: too many response heads were lost.
        EvidenceLost = "evidence_lost",
        /// Refused: `max_ejection_percent`.
        Ceiling = "ceiling",
        /// Refused: `min_serving`.
        Floor = "floor",
        /// The time of the ejection is over.
        EjectionTimeOver = "ejection_time_over",
        /// Enough good outcomes in a row while half-open.
        HalfOpenSuccesses = "half_open_successes",
        /// A failure while half-open.
        HalfOpenFailure = "half_open_failure",
        /// Three sweeps without an outcome while half-open.
        NoTraffic = "no_traffic",
        /// A probe passed, and `probe_uneject` is on.
        ProbeUneject = "probe_uneject",
        /// A new configuration has switched off every detector that could have ejected it.
        DetectorsOff = "detectors_off",
        /// The share of a readmitted backend rises.
        SlowStart = "slow_start",
        /// An order of an operator, or its end.
        Operator = "operator",
        /// The state file says so.
        Restored = "restored",
        /// The configuration says so.
        Config = "config",
        /// Discovery says so.
        Discovery = "discovery",
        /// Discovery: the set in the file is in force.
        Current = "current",
        /// Discovery: the file does not exist.
        Missing = "missing",
        /// Discovery: the file cannot be read.
        Unreadable = "unreadable",
        /// Discovery: other users may change the file or its folder.
        Untrusted = "untrusted",
        /// Discovery: the file is too large.
        TooLarge = "too_large",
        /// Discovery: the file is no JSON document of the right form.
        Broken = "broken",
        /// Discovery: the document has another schema.
        OtherSchema = "other_schema",
        /// Discovery: the set does not fit the service or the configuration.
        Unfit = "unfit",
        /// Discovery: the maps have no space for the set.
        NoSpace = "no_space",
        /// The first result of the probe.
        FirstResult = "first_result",
        /// `rise` probes passed in a row.
        Rise = "rise",
        /// `fall` probes failed in a row.
        Fall = "fall",
        /// A probe had a status of `fail_fast`.
        FailFast = "fail_fast",
        /// A backend or service was added.
        Added = "added",
        /// A backend or service was removed.
        Removed = "removed",
        /// An earlier run left a service in the maps.
        Adopted = "adopted",
        /// The configuration has more than the maps can hold.
        Exhausted = "exhausted",
        /// None of the backends that are no fallback serves.
        NobodyServes = "nobody_serves",
        /// Others than the fallback serve again.
        OthersServe = "others_serve",
        /// No fallback can serve any more.
        FallbackOut = "fallback_out",
        /// Fewer than `panic_threshold` percent serve.
        FewServe = "few_serve",
        /// So many probes fail at once that nobody believes them.
        ProbesFail = "probes_fail",
        /// A panic is over.
        EnoughServe = "enough_serve",
        /// `drain_timeout` is over.
        DrainTimeout = "drain_timeout",
        /// A map write failed.
        WriteFailed = "write_failed",
        /// A map write holds again.
        WriteHolds = "write_holds",
        /// Nothing is left to write: the change is not wanted any more.
        NothingToWrite = "nothing_to_write",
        /// Limit: the service, or each backend that may serve, has reached `max_connections`.
        Full = "full",
        /// Limit: no SYN has met that limit for a while.
        BelowLimit = "below_limit",
        /// Path: frames reach the backend again.
        Reachable = "reachable",
        /// Path: the address is this node's own.
        Local = "local",
        /// Path: there is no route.
        NoRoute = "no_route",
        /// Path: a broadcast or multicast address.
        NotUnicast = "not_unicast",
        /// Path: the next hop has never answered.
        NoNeighbour = "no_neighbour",
        /// Path or interface: no link.
        NoLink = "no_link",
        /// Path or interface: the program is not attached there.
        NotAttached = "not_attached",
        /// Path: the VLAN of its replies is not in `vlans`.
        VlanNotListed = "vlan_not_listed",
        /// Path: the node has none of the `nat_addresses`.
        NoNatAddress = "no_nat_address",
        /// Interface: it has the program and a link.
        Attached = "attached",
        /// Interface: it has another name now.
        Renamed = "renamed",
        /// Interface: it does not exist.
        Gone = "gone",
    }
}

impl From<Detector> for EventReason {
    fn from(detector: Detector) -> Self {
        match detector {
            Detector::ConsecutiveGatewayFailure => Self::ConsecutiveGatewayFailure,
            Detector::Consecutive5xx => Self::Consecutive5xx,
            Detector::ConsecutiveL4Failure => Self::ConsecutiveL4Failure,
            Detector::ErrorRate => Self::ErrorRate,
            Detector::SlowRate => Self::SlowRate,
            Detector::SuccessRate => Self::SuccessRate,
            Detector::FailurePercentage => Self::FailurePercentage,
            Detector::SuccessRateL4 => Self::SuccessRateL4,
            Detector::FailurePercentageL4 => Self::FailurePercentageL4,
        }
    }
}

impl From<Panic> for EventReason {
    fn from(panic: Panic) -> Self {
        match panic {
            Panic::NobodyServes => Self::NobodyServes,
            Panic::FewServe => Self::FewServe,
            Panic::ProbesFail => Self::ProbesFail,
        }
    }
}

impl From<PathState> for EventReason {
    fn from(path: PathState) -> Self {
        match path {
            PathState::Ok => Self::Reachable,
            PathState::Local => Self::Local,
            PathState::NoRoute => Self::NoRoute,
            PathState::NotUnicast => Self::NotUnicast,
            PathState::NoNeighbour => Self::NoNeighbour,
            PathState::NoLink => Self::NoLink,
            PathState::NotAttached => Self::NotAttached,
            PathState::VlanNotListed => Self::VlanNotListed,
            PathState::NoNatAddress => Self::NoNatAddress,
        }
    }
}

impl From<DiscoveryCode> for EventReason {
    fn from(code: DiscoveryCode) -> Self {
        match code {
            DiscoveryCode::Current => Self::Current,
            DiscoveryCode::Missing => Self::Missing,
            DiscoveryCode::Unreadable => Self::Unreadable,
            DiscoveryCode::Untrusted => Self::Untrusted,
            DiscoveryCode::TooLarge => Self::TooLarge,
            DiscoveryCode::Broken => Self::Broken,
            DiscoveryCode::OtherSchema => Self::OtherSchema,
            DiscoveryCode::Unfit => Self::Unfit,
            DiscoveryCode::NoSpace => Self::NoSpace,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The state and the event of one fact have one code.
    #[test]
    fn names_agree_with_those_of_the_states() {
        for detector in Detector::ALL {
            assert_eq!(EventReason::from(detector).as_str(), detector.name());
        }
        for path in PathState::ALL.into_iter().filter(|path| *path != PathState::Ok) {
            assert_eq!(EventReason::from(path).as_str(), path.to_string());
        }
        for code in DiscoveryCode::ALL {
            assert_eq!(EventReason::from(*code).as_str(), code.as_str());
        }
        for panic in [Panic::NobodyServes, Panic::FewServe, Panic::ProbesFail] {
            assert_eq!(EventReason::from(panic).as_str(), panic.to_string());
        }
    }
}
