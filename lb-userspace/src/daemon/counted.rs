//! Good responses that the program counted, as the engine is told of them.
//!
//! The program tells the next good response after every failure that it sees. Of what is late it sees none: an exchange
//! that nobody answered, or a response that came when its time was over. After those the first that was counted
//! stands for the one that was not told, and ends the run.

use std::{collections::BTreeMap, time::Duration};

use lb_common::abi::QUICK_MS;
use lb_core::io::{BackendId, Generation, Input, Outcome};

#[derive(Debug, Default)]
pub(super) struct Counted {
    /// Backends with a failure that the program did not see.
    unseen: BTreeMap<BackendId, Generation>,
}

impl Counted {
    /// Something took so long that it may be a failure.
    pub(super) fn late(&mut self, backend: BackendId, generation: Generation) {
        self.unseen.insert(backend, generation);
    }

    /// Whether a response took that long.
    pub(super) const fn is_late(since_request_ns: u64) -> bool {
        since_request_ns >= Duration::from_millis(QUICK_MS).as_nanos() as u64
    }

    /// What the engine is told of so many good responses.
    pub(super) fn inputs(&mut self, backend: BackendId, count: u64) -> [Option<Input>; 2] {
        let told = if count > 0 { self.unseen.remove(&backend) } else { None };
        let ends_run = told.map(|generation| {
            let outcome = Outcome::Status(200);
            Input::Outcome { backend, generation, outcome, ttfb: None, client: None }
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
    fn the_first_after_what_was_late_ends_the_run() {
        let goods = |count| Input::Successes { backend: BACKEND, count };
        let good = Input::Outcome {
            backend: BACKEND,
            generation: Generation(9),
            outcome: Outcome::Status(200),
            ttfb: None,
            client: None,
        };
        let mut counted = Counted::default();
        assert_eq!(counted.inputs(BACKEND, 0), [None, None]);
        assert_eq!(counted.inputs(BACKEND, 5), [None, Some(goods(5))]);
        counted.late(BACKEND, Generation(9));
        assert_eq!(counted.inputs(BACKEND, 0), [None, None]);
        assert_eq!(counted.inputs(BackendId(4), 1)[0], None, "another's");
        assert_eq!(counted.inputs(BACKEND, 5), [Some(good.clone()), Some(goods(4))]);
        assert_eq!(counted.inputs(BACKEND, 5), [None, Some(goods(5))], "once");
        counted.late(BACKEND, Generation(9));
        assert_eq!(counted.inputs(BACKEND, 1), [Some(good), None]);
    }

    #[test]
    fn what_the_program_always_tells_is_late() {
        assert!(!Counted::is_late(QUICK_MS * 1_000_000 - 1));
        assert!(Counted::is_late(QUICK_MS * 1_000_000));
    }
}
