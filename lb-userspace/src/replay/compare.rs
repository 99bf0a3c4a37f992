//! Two configurations, one input.

use lb_core::time::Instant;
use serde::Serialize;

use super::summary::{BackendSummary, Summary, Totals};

/// The results of both, and the second less the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Comparison {
    pub ended_ms: Instant,
    pub a: Side,
    pub b: Side,
    pub difference: Difference,
    /// All backends: those of the first run in their order, then those that only the second had.
    pub backends: Vec<BackendDifference>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    pub config: String,
    #[serde(flatten)]
    pub summary: Summary,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendDifference {
    pub service: String,
    pub backend: String,
    #[serde(flatten)]
    pub difference: Difference,
}

/// The second less the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub client_errors: i64,
    pub out_ms: i64,
    pub ejections: i64,
    pub false_readmissions: i64,
}

impl Difference {
    pub fn of(a: &Totals, b: &Totals) -> Self {
        let less = |of: fn(&Totals) -> u64| of(b).cast_signed() - of(a).cast_signed();
        Self {
            client_errors: less(|totals| totals.client_errors),
            out_ms: less(|totals| totals.out_ms),
            ejections: less(|totals| totals.ejections),
            false_readmissions: less(|totals| totals.false_readmissions),
        }
    }
}

impl Comparison {
    pub fn new(a: Side, b: Side) -> Self {
        let names = |side: &Side| -> Vec<(String, String)> {
            side.summary.backends.iter().map(|of| (of.service.clone(), of.backend.clone())).collect()
        };
        let mut all = names(&a);
        all.extend(names(&b).into_iter().filter(|name| a.totals(name).is_none()));
        let backends = all.into_iter().map(|name| {
            let totals = |side: &Side| side.totals(&name).unwrap_or_default();
            let difference = Difference::of(&totals(&a), &totals(&b));
            let (service, backend) = name;
            BackendDifference { service, backend, difference }
        });
        Self {
            ended_ms: a.summary.ended_ms,
            difference: Difference::of(&a.summary.total, &b.summary.total),
            backends: backends.collect(),
            a,
            b,
        }
    }
}

impl Side {
    /// The totals of one backend. `None`: it was never there.
    pub fn totals(&self, (service, backend): &(String, String)) -> Option<Totals> {
        let its = |of: &&BackendSummary| (&of.service, &of.backend) == (service, backend);
        self.summary.backends.iter().find(its).map(|of| of.totals)
    }
}
