//! The numbers that a replay ends with.

use lb_core::time::Instant;
use serde::Serialize;

/// The result of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The first moment; 0 unless a recording begins later.
    pub began_ms: Instant,
    pub ended_ms: Instant,
    pub total: Totals,
    /// In the order in which they appeared.
    pub backends: Vec<BackendSummary>,
    /// Lines of services that were left out.
    pub skipped: u64,
    /// Orders about services or backends that are not there.
    pub misplaced: u64,
    /// Lines that the recording lacks.
    pub missing: u64,
    /// Results of probes in services that have none.
    pub unused_probes: u64,
    /// Services that have a probe, and not one result of it in the input. A backend that is ejected there
    /// stays out.
    pub unprobed: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BackendSummary {
    pub service: String,
    pub backend: String,
    #[serde(flatten)]
    pub totals: Totals,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Outcomes in the input, L4 failures included.
    pub responses: u64,
    /// Of these, errors.
    pub errors: u64,
    /// Errors that reached clients, and exchanges that were unserved.
    pub client_errors: u64,
    /// Outcomes that another backend would have answered.
    pub diverted: u64,
    /// Outcomes that no backend would have answered.
    pub unserved: u64,
    /// Outcomes that were admitted out of a trial budget.
    pub trials: u64,
    /// Time out of the table, half-open included.
    pub out_ms: u64,
    /// By the breaker, and in force.
    pub ejections: u64,
    /// Of these, from half-open.
    pub failed_trials: u64,
    pub readmissions: u64,
    /// Of these, followed by an ejection within one `base_ejection_time`.
    pub false_readmissions: u64,
    /// Detections that the ceiling, the floor or lost evidence refused.
    pub refused: u64,
    /// Detections that were not enforced.
    pub unenforced: u64,
}

impl Totals {
    pub(super) fn add(&mut self, other: &Self) {
        let Self {
            responses,
            errors,
            client_errors,
            diverted,
            unserved,
            trials,
            out_ms,
            ejections,
            failed_trials,
            readmissions,
            false_readmissions,
            refused,
            unenforced,
        } = other;
        self.responses += responses;
        self.errors += errors;
        self.client_errors += client_errors;
        self.diverted += diverted;
        self.unserved += unserved;
        self.trials += trials;
        self.out_ms += out_ms;
        self.ejections += ejections;
        self.failed_trials += failed_trials;
        self.readmissions += readmissions;
        self.false_readmissions += false_readmissions;
        self.refused += refused;
        self.unenforced += unenforced;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_is_a_sum() {
        let one = Totals {
            responses: 1,
            errors: 2,
            client_errors: 3,
            diverted: 4,
            unserved: 5,
            trials: 6,
            out_ms: 7,
            ejections: 8,
            failed_trials: 9,
            readmissions: 10,
            false_readmissions: 11,
            refused: 12,
            unenforced: 13,
        };
        let mut sum = Totals::default();
        sum.add(&one);
        assert_eq!(sum, one);
        sum.add(&one);
        assert_eq!((sum.responses, sum.out_ms, sum.unenforced), (2, 14, 26));
        assert_eq!((sum.errors, sum.client_errors, sum.diverted, sum.unserved), (4, 6, 8, 10));
        assert_eq!((sum.trials, sum.ejections, sum.failed_trials), (12, 16, 18));
        assert_eq!((sum.readmissions, sum.false_readmissions, sum.refused), (20, 22, 24));
    }
}
