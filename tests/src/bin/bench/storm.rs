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
             worst lag of the loop  {} ms (promised: below {PROMISED} on a machine that does nothing else)\n\
             ejections              {}\n\
             requests               {}\n",
            self.backends,
            self.seconds,
            spread(&self.worst_lag_ms),
            spread(&self.ejections),
            spread(&self.requests)
        )
    }

    pub(crate) fn implausible(&self) -> Vec<String> {
        let without = self.ejections.median < 1.0;
        without.then(|| "storm: nobody was ejected".to_owned()).into_iter().collect()
    }
}
