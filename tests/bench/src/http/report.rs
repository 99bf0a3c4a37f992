//! The results of all repetitions.

use serde::Serialize;

use super::{
    Facts, Plan, Samples, goals,
    pattern::PATTERNS,
    row::{Row, row},
};
use crate::peers::Peer;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Of each measurement.
    pub(crate) seconds: f64,
    /// Of the client's device, the same on every end of every link.
    pub(crate) offloads: String,
    /// How Shunt's program is attached: native or generic.
    pub(crate) xdp: Option<String>,
    /// Many were measured at the same time, as a smoke test does: the numbers say nothing, and there are no goals.
    pub(crate) at_once: bool,
    pub(crate) rows: Vec<Row>,
    pub(crate) goals: Vec<goals::Outcome>,
}

/// `None` without repetitions, or without the two bases, which come first.
pub(super) fn report(plan: Plan, peers: &[Peer], samples: &Samples, facts: Facts) -> Option<Report> {
    let mut rows = Vec::new();
    for (pattern, samples) in PATTERNS.iter().zip(samples) {
        let [direct, routing, ..] = samples.as_slice() else { return None };
        for (peer, samples) in peers.iter().zip(samples) {
            rows.push(row(pattern, *peer, samples, direct, routing)?);
        }
    }
    let goals = if plan.at_once { Vec::new() } else { goals::outcomes(&rows) };
    Some(Report {
        seconds: plan.span.as_secs_f64(),
        offloads: facts.offloads,
        xdp: facts.xdp,
        at_once: plan.at_once,
        rows,
        goals,
    })
}

impl Report {
    /// Numbers that cannot be true.
    pub(crate) fn implausible(&self) -> Vec<String> {
        let mut found = Vec::new();
        for row in &self.rows {
            let name = format!("http {} {}", row.peer, row.pattern);
            let (rate, p99) = (row.rate.median, row.p99_ms.median);
            // Bodies of 10 MB come slowly, and so does everything on a machine that does more than this.
            if !(1.0..10_000_000.0).contains(&rate) {
                found.push(format!("{name}: {rate} requests/s"));
            }
            if !(0.001..10_000.0).contains(&p99) {
                found.push(format!("{name}: p99 of {p99} ms"));
            }
            if row.cost.as_ref().is_some_and(|cost| !(0.1..1e6).contains(&cost.cpu_us.median)) {
                found.push(format!("{name}: {:?}", row.cost));
            }
            // A few may fail on a machine that is busy; a peer that does not work fails most.
            let share = if self.at_once { 0.5 } else { 0.01 };
            if row.errors as f64 > (rate * self.seconds * row.rate.count as f64 * share).max(10.0) {
                found.push(format!("{name}: {} requests failed", row.errors));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http::{
        Sample,
        pattern::{KEPT_32, KEPT_RATE},
    };

    fn sample(rate: f64, cpu_us: f64) -> Sample {
        let cpu_us = Some(cpu_us);
        Sample { rate, gbits: 0.1, p50_ms: 0.5, p99_ms: 1.0, cpu_us, idle: 0.5, background: 0.0, errors: 0 }
    }

    #[test]
    fn ratios_are_of_the_best_and_goals_follow() {
        let peers = [Peer::Direct, Peer::Routing, Peer::HaproxyTcp, Peer::Nat];
        let two = |a: f64, b: f64, cpu_us: f64| vec![sample(a, cpu_us), sample(b, cpu_us)];
        let of_peers = vec![
            two(10_000.0, 20_000.0, 100.0),
            two(16_000.0, 8_000.0, 102.0),
            two(8_000.0, 8_000.0, 120.0),
            two(19_000.0, 18_000.0, 101.0),
        ];
        let samples = vec![of_peers; PATTERNS.len()];
        let plan = Plan { repetitions: 2, span: Duration::from_secs(1), ..Plan::FULL };
        let report = report(plan, &peers, &samples, Facts::default()).expect("bases and repetitions");
        let row = report.rows.iter().find(|row| row.pattern == KEPT_32 && row.peer == "shunt-nat");
        let row = row.expect("it was measured");
        assert_eq!((row.to_direct.best, row.to_direct.each.median), (0.95, 1.4));
        let goal = |measure: &str| {
            let found = report.goals.iter().find(|goal| goal.measure == measure).expect("a goal");
            (found.value, found.met())
        };
        assert_eq!(goal(&format!("{KEPT_32}: best rate, shunt-nat ÷ direct")), (Some(0.95), Some(true)));
        assert_eq!(goal(&format!("{KEPT_32}: best rate, shunt-nat ÷ envoy-http")), (None, None));
        assert_eq!(
            goal(&format!("{KEPT_RATE}: CPU over direct, shunt-nat ÷ haproxy-tcp")),
            (Some(0.05), Some(true))
        );
        assert!(report.implausible().is_empty(), "{:?}", report.implausible());
        assert!(report.table().contains("not known"), "{}", report.table());
    }
}
