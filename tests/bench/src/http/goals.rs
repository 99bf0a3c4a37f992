//! Goals for the rows, as ratios inside one run. They are shown, not enforced: a busy machine misses them.

use serde::Serialize;

use super::{
    pattern::{BULK, EACH, EACH_RATE, KEPT_32, KEPT_256, KEPT_RATE},
    row::Row,
};
use crate::peers::Peer;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) measure: String,
    /// `None`: one of the peers was not measured, or the difference between them is lost in the noise.
    pub(crate) value: Option<f64>,
    pub(crate) at_least: Option<f64>,
    pub(crate) at_most: Option<f64>,
}

impl Outcome {
    pub(crate) fn met(&self) -> Option<bool> {
        let value = self.value?;
        Some(
            self.at_least.is_none_or(|least| value >= least) && self.at_most.is_none_or(|most| value <= most),
        )
    }
}

struct Goal {
    pattern: &'static str,
    of: Of,
    own: Peer,
    other: Peer,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// The numbers of two rows that are divided.
#[derive(Clone, Copy)]
enum Of {
    /// Of the best repetitions each.
    BestRate,
    /// The medians.
    Cpu,
    /// The medians of what the direct path does not take.
    CpuOverDirect,
    /// The median of the ratios.
    P99,
}

const fn goal(pattern: &'static str, of: Of, own: Peer, other: Peer, bound: Bound) -> Goal {
    Goal { pattern, of, own, other, bound }
}

const GOALS: &[Goal] = &[
    goal(KEPT_32, Of::BestRate, Peer::Nat, Peer::Direct, Bound::AtLeast(0.9)),
    goal(KEPT_32, Of::BestRate, Peer::Nat, Peer::Routing, Bound::AtLeast(1.05)),
    goal(KEPT_32, Of::BestRate, Peer::Nat, Peer::HaproxyTcp, Bound::AtLeast(2.0)),
    goal(KEPT_32, Of::BestRate, Peer::Nat, Peer::EnvoyHttp, Bound::AtLeast(4.0)),
    goal(KEPT_256, Of::BestRate, Peer::Nat, Peer::Direct, Bound::AtLeast(0.9)),
    goal(KEPT_256, Of::BestRate, Peer::Nat, Peer::Routing, Bound::AtLeast(1.05)),
    goal(KEPT_256, Of::BestRate, Peer::Nat, Peer::HaproxyTcp, Bound::AtLeast(2.0)),
    goal(KEPT_256, Of::BestRate, Peer::Nat, Peer::EnvoyHttp, Bound::AtLeast(4.0)),
    goal(KEPT_256, Of::BestRate, Peer::Nat, Peer::NatNoEvidence, Bound::AtLeast(0.95)),
    goal(EACH, Of::BestRate, Peer::Nat, Peer::Nftables, Bound::AtLeast(1.0)),
    goal(EACH, Of::BestRate, Peer::Nat, Peer::HaproxyTcp, Bound::AtLeast(1.4)),
    goal(EACH, Of::BestRate, Peer::Nat, Peer::NatNoEvidence, Bound::AtLeast(0.95)),
    goal(BULK, Of::BestRate, Peer::Nat, Peer::Routing, Bound::AtLeast(1.0)),
    goal(KEPT_RATE, Of::CpuOverDirect, Peer::Nat, Peer::HaproxyTcp, Bound::AtMost(0.15)),
    goal(KEPT_RATE, Of::CpuOverDirect, Peer::Nat, Peer::EnvoyHttp, Bound::AtMost(0.05)),
    goal(KEPT_RATE, Of::Cpu, Peer::Nat, Peer::NatNoEvidence, Bound::AtMost(1.05)),
    goal(KEPT_RATE, Of::P99, Peer::Nat, Peer::Routing, Bound::AtMost(1.2)),
    goal(EACH_RATE, Of::CpuOverDirect, Peer::Nat, Peer::HaproxyTcp, Bound::AtMost(0.15)),
    goal(EACH_RATE, Of::CpuOverDirect, Peer::Nat, Peer::Nftables, Bound::AtMost(0.6)),
    goal(EACH_RATE, Of::Cpu, Peer::Nat, Peer::NatNoEvidence, Bound::AtMost(1.05)),
    goal(EACH_RATE, Of::P99, Peer::Nat, Peer::Routing, Bound::AtMost(1.2)),
];

pub(super) fn outcomes(rows: &[Row]) -> Vec<Outcome> {
    GOALS.iter().map(|goal| goal.outcome(rows)).collect()
}

impl Goal {
    fn outcome(&self, rows: &[Row]) -> Outcome {
        let (at_least, at_most) = match self.bound {
            Bound::AtLeast(least) => (Some(least), None),
            Bound::AtMost(most) => (None, Some(most)),
        };
        let what = match self.of {
            Of::BestRate => "best rate",
            Of::Cpu => "CPU",
            Of::CpuOverDirect => "CPU over direct",
            Of::P99 => "p99",
        };
        let measure = format!("{}: {what}, {} ÷ {}", self.pattern, self.own.name(), self.other.name());
        Outcome { measure, value: self.value(rows), at_least, at_most }
    }

    fn value(&self, rows: &[Row]) -> Option<f64> {
        let row = |peer: Peer| rows.iter().find(|row| row.pattern == self.pattern && row.peer == peer.name());
        let (own, other) = (row(self.own)?, row(self.other)?);
        let cost = |row: &Row| row.cost.as_ref().map(|cost| (cost.cpu_us.median, cost.over_direct_us.median));
        match self.of {
            Of::BestRate => Some(own.rate.most / other.rate.most),
            Of::Cpu => Some(cost(own)?.0 / cost(other)?.0),
            Of::CpuOverDirect => {
                let (own, other) = (cost(own)?.1, cost(other)?.1);
                (other > 0.0).then(|| own.max(0.0) / other)
            }
            // The rows of the base itself are all 1.
            Of::P99 => Some(own.p99_to_routing.median),
        }
    }
}
