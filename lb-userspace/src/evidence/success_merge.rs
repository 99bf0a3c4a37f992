//! Success merge: good responses that the program counted, as inputs of the engine.
//!
//! Most responses are good and change no decision, so the program only counts them. After each failure that
//! it sees, it mirrors the next good response, because that one ends a run of failures. The program sees no
//! failure in an exchange that is never answered, nor in a response that comes after its timeout. After one
//! of those, the first counted success stands for the good response that the program did not mirror, and ends
//! the run.

use std::{collections::BTreeMap, time::Duration};

use lb_common::abi::QUICK_MS;
use lb_core::io::{BackendId, Generation, Input, Outcome};

#[derive(Debug, Default)]
pub(super) struct SuccessMerge {
    /// Backends with a slow exchange since their last counted success.
    slow: BTreeMap<BackendId, Generation>,
}

/// Whether a response took so long that a service may count it as a failure without the program's knowledge.
pub(super) const fn is_slow(since_request_ns: u64) -> bool {
    since_request_ns >= Duration::from_millis(QUICK_MS).as_nanos() as u64
}

impl SuccessMerge {
    /// An exchange was slow and may count as a failure.
    pub(super) fn after_slow(&mut self, backend: BackendId, generation: Generation) {
        self.slow.insert(backend, generation);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slow.len()
    }

    /// The engine inputs for so many counted successes.
    pub(super) fn inputs(&mut self, backend: BackendId, count: u64) -> [Option<Input>; 2] {
        let slow = if count > 0 { self.slow.remove(&backend) } else { None };
        let ends_run = slow.map(|generation| {
            let outcome = Outcome::Status(200);
            Input::outcome(backend, generation, outcome)
        });
        let rest = count - u64::from(ends_run.is_some());
        [ends_run, (rest > 0).then_some(Input::Successes { backend, count: rest })]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKEND: BackendId = BackendId(3);

    #[test]
    fn the_first_success_after_a_slow_exchange_ends_the_run() {
        let successes = |count| Input::Successes { backend: BACKEND, count };
        let good = Input::outcome(BACKEND, Generation(9), Outcome::Status(200));
        let mut merge = SuccessMerge::default();
        assert_eq!(merge.inputs(BACKEND, 0), [None, None]);
        assert_eq!(merge.inputs(BACKEND, 5), [None, Some(successes(5))]);
        merge.after_slow(BACKEND, Generation(9));
        assert_eq!(merge.inputs(BACKEND, 0), [None, None]);
        assert_eq!(merge.inputs(BackendId(4), 1)[0], None, "another's");
        assert_eq!(merge.inputs(BACKEND, 5), [Some(good.clone()), Some(successes(4))]);
        assert_eq!(merge.inputs(BACKEND, 5), [None, Some(successes(5))], "once");
        merge.after_slow(BACKEND, Generation(9));
        assert_eq!(merge.inputs(BACKEND, 1), [Some(good), None]);
    }

    #[test]
    fn every_response_that_the_program_always_mirrors_for_its_time_is_slow() {
        assert!(!is_slow(QUICK_MS * 1_000_000 - 1));
        assert!(is_slow(QUICK_MS * 1_000_000));
    }
}
