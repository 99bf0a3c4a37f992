//! How long an ejection takes, from the response that decided it to the maps.

use std::collections::BTreeMap;

use tracing::info;

use crate::{control::model::Reactions, dataplane::actor::Report};

#[derive(Debug, Default)]
pub(super) struct ReactionTimes {
    /// Plans under way that a response caused: when the XDP program saw it, `CLOCK_MONOTONIC` nanoseconds.
    caused: BTreeMap<u64, u64>,
    total: Option<Reactions>,
}

impl ReactionTimes {
    pub(super) fn caused(&mut self, plan: u64, seen_ns: u64) {
        self.caused.insert(plan, seen_ns);
    }

    /// Measures the plan if it ejects a backend and a response caused it.
    pub(super) fn applied(&mut self, report: &Report) {
        let seen_ns = self.caused.remove(&report.plan);
        let (Some(seen_ns), true, Ok(())) = (seen_ns, report.ejects, &report.result) else { return };
        let first_us = (report.first_ns - seen_ns) / 1000;
        let swap_us = (report.last_ns - seen_ns) / 1000;
        info!(
            to_first_write_us = first_us,
            to_swap_us = swap_us,
            "ejection in force: time since the deciding response was seen"
        );
        let before = self.total.unwrap_or_default();
        self.total = Some(Reactions {
            count: before.count + 1,
            last_first_write_us: first_us,
            last_swap_us: swap_us,
            worst_first_write_us: before.worst_first_write_us.max(first_us),
            worst_swap_us: before.worst_swap_us.max(swap_us),
        });
    }

    pub(super) fn total(&self) -> Option<Reactions> {
        self.total
    }
}
