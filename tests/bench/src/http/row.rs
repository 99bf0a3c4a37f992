//! One row: a balancer under one pattern of load, over all repetitions.

use serde::Serialize;

use super::{Sample, pattern::Pattern};
use crate::{
    peers::{Peer, Watches},
    statistics::Spread,
};

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

pub(super) fn row(
    pattern: &Pattern,
    peer: Peer,
    own: &[Sample],
    direct: &[Sample],
    routing: &[Sample],
) -> Option<Row> {
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
