//! What the repetitions come to.

use serde::Serialize;

use super::{
    Facts, Plan, Sample, Samples, goals,
    pattern::{PATTERNS, Pattern},
};
use crate::{
    peers::{Peer, Watches},
    statistics::Spread,
};

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

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) pattern: &'static str,
    pub(crate) peer: &'static str,
    pub(crate) what: &'static str,
    /// By what it takes a backend out.
    pub(crate) watches: Watches,
    /// Requests a second; the best is `most`.
    pub(crate) rate: Spread,
    pub(crate) gbits: Spread,
    pub(crate) p50_ms: Spread,
    pub(crate) p99_ms: Spread,
    pub(crate) to_direct: Ratio,
    pub(crate) to_routing: Ratio,
    pub(crate) p99_to_routing: Spread,
    /// At a fixed rate only.
    pub(crate) cost: Option<Cost>,
    /// The part of the CPUs' time that was left, 0 to 1, at its least.
    pub(crate) idle: f64,
    pub(crate) errors: u64,
}

/// Of rates.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ratio {
    /// Inside each repetition.
    pub(crate) each: Spread,
    /// Of the best repetitions of both.
    pub(crate) best: f64,
}

/// CPU time of the whole machine for a request, client and server included, in microseconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cost {
    pub(crate) cpu_us: Spread,
    /// Without what the direct path takes in the same repetition.
    pub(crate) over_direct_us: Spread,
    /// The part of the CPUs' time that others took just before, 0 to 1, at its most.
    pub(crate) background: f64,
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

fn row(pattern: &Pattern, peer: Peer, own: &[Sample], direct: &[Sample], routing: &[Sample]) -> Option<Row> {
    let of = |value: fn(&Sample) -> f64| Spread::of(own.iter().map(value));
    let ratios = |value: fn(&Sample) -> f64, base: &[Sample]| {
        Spread::of(own.iter().zip(base).map(|(own, base)| value(own) / value(base)))
    };
    let best = |samples: &[Sample]| samples.iter().map(|sample| sample.rate).fold(f64::NAN, f64::max);
    let to = |base: &[Sample]| {
        Some(Ratio { each: ratios(|sample| sample.rate, base)?, best: best(own) / best(base) })
    };
    let costs: Option<Vec<_>> =
        own.iter().zip(direct).map(|(own, direct)| Some((own.cpu_us?, direct.cpu_us?))).collect();
    let cost = costs.and_then(|costs| {
        Some(Cost {
            cpu_us: Spread::of(costs.iter().map(|(own, _)| *own))?,
            over_direct_us: Spread::of(costs.iter().map(|(own, direct)| own - direct))?,
            background: of(|sample| sample.background)?.most,
        })
    });
    Some(Row {
        pattern: pattern.name,
        peer: peer.name(),
        what: peer.what(),
        watches: peer.watches(),
        rate: of(|sample| sample.rate)?,
        gbits: of(|sample| sample.gbits)?,
        p50_ms: of(|sample| sample.p50_ms)?,
        p99_ms: of(|sample| sample.p99_ms)?,
        to_direct: to(direct)?,
        to_routing: to(routing)?,
        p99_to_routing: ratios(|sample| sample.p99_ms, routing)?,
        cost,
        idle: of(|sample| sample.idle)?.least,
        errors: own.iter().map(|sample| sample.errors).sum(),
    })
}

impl Report {
    /// What cannot be true.
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
    use crate::http::pattern::{KEPT_32, KEPT_RATE};

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
