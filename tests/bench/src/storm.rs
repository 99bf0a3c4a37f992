//! How late the daemon's loop is at most while two hundred backends flap.

use std::{path::Path, time::Duration};

use anyhow::Result;
use lb_tests::storm::{self, BACKENDS};
use serde::Serialize;

use crate::statistics::Spread;

/// In milliseconds: what the specification allows.
const PROMISED: u64 = 50;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) repetitions: u32,
    pub(crate) length: Duration,
}

impl Plan {
    pub(crate) const FULL: Self = Self { repetitions: 3, length: Duration::from_secs(60) };
    pub(crate) const SMOKE: Self = Self { repetitions: 1, length: Duration::from_secs(3) };
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) backends: usize,
    pub(crate) seconds: u64,
    pub(crate) worst_lag_ms: Spread,
    pub(crate) ejections: Spread,
    pub(crate) requests: Spread,
}

pub(crate) fn run(plan: Plan, shunt: &Path) -> Result<Report> {
    let mut storms = Vec::new();
    for number in 1..=plan.repetitions {
        eprintln!("storm: {number} of {}", plan.repetitions);
        storms.push(storm::run("bstorm", shunt, plan.length)?);
    }
    let of = |value: fn(&storm::Storm) -> usize| Spread::of(storms.iter().map(|storm| value(storm) as f64));
    Ok(Report {
        backends: BACKENDS,
        seconds: plan.length.as_secs(),
        worst_lag_ms: of(|storm| storm.worst_lag_ms as usize).expect("at least one"),
        ejections: of(|storm| storm.events.get("eject").copied().unwrap_or(0)).expect("at least one"),
        requests: of(|storm| storm.requests).expect("at least one"),
    })
}

impl Report {
    pub(crate) fn table(&self) -> String {
        let spread = |of: &Spread| format!("{:.0} ({:.0}..{:.0})", of.median, of.least, of.most);
        format!(
            "storm: {} backends flap every second for {} s, 1 000 new connections a second\n\
             worst lag of the loop  {} ms (promised: a median below {PROMISED})\n\
             ejections              {}\n\
             requests               {}\n",
            self.backends,
            self.seconds,
            spread(&self.worst_lag_ms),
            spread(&self.ejections),
            spread(&self.requests)
        )
    }

    /// Why the promise does not hold: the loop is never so late, in the median of the runs.
    pub(crate) fn broken_promise(&self) -> Option<String> {
        let worst = self.worst_lag_ms.median;
        (worst >= PROMISED as f64)
            .then(|| format!("storm: the loop was {worst:.0} ms late, promised is below {PROMISED} ms"))
    }

    pub(crate) fn implausible(&self) -> Vec<String> {
        let without = self.ejections.median < 1.0;
        without.then(|| "storm: nobody was ejected".to_owned()).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_is_late_in_most_runs_breaks_the_promise() {
        for (worst, broken) in [([10, 20, 400], false), ([10, 50, 60], true), ([10, 49, 50], false)] {
            let spread = || Spread::of(worst.map(f64::from)).expect("three");
            let (worst_lag_ms, ejections, requests) = (spread(), spread(), spread());
            let report = Report { backends: BACKENDS, seconds: 60, worst_lag_ms, ejections, requests };
            assert_eq!(report.broken_promise().is_some(), broken, "{worst:?}");
        }
    }
}
