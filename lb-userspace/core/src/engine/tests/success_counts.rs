//! Good responses that the program counts and does not mirror. The engine decides as if each were mirrored.

use super::lab::{Lab, said, web};
use crate::{
    config::Breaker,
    engine::Settings,
    event::EventKind,
    io::{Input, Step},
    random,
    time::Millis,
};

/// The XDP program: it mirrors everything after a failure up to the next good response, and counts the good
/// responses that follow.
#[derive(Default)]
struct Program {
    last_was_good: bool,
    counted: u64,
}

impl Program {
    /// Whether the program mirrors a response, given whether the maps allow it to count.
    fn mirrors(&mut self, status: u16, may_count: bool) -> bool {
        if status == 200 && self.last_was_good && may_count {
            self.counted += 1;
            return false;
        }
        self.last_was_good = status == 200;
        true
    }
}

/// Whether the last write of a backend's entry allows the program to count.
fn may_count(lab: &Lab, name: &str) -> bool {
    let of = lab.backend(name).id;
    let written = lab.written.iter().rev().find_map(|(_, step)| match step {
        Step::Backend { id, count_successes, .. } if *id == of => Some(*count_successes),
        _ => None,
    });
    written.unwrap_or(false)
}

fn count(lab: &mut Lab, name: &str, program: &mut Program) {
    let (backend, count) = (lab.backend(name).id, std::mem::take(&mut program.counted));
    if count > 0 {
        lab.send(Input::Successes { backend, count });
    }
}

fn policies() -> Vec<fn(&mut Breaker)> {
    vec![
        |_| {},
        |breaker| {
            breaker.consecutive_5xx = 0;
            breaker.error_rate_threshold = 20;
            breaker.error_rate_min_responses = 10;
        },
        |breaker| {
            breaker.consecutive_5xx = 0;
            breaker.failure_percentage_threshold = 20;
            breaker.failure_percentage_min_responses = 10;
            breaker.failure_percentage_min_backends = 1;
        },
        |breaker| {
            breaker.consecutive_5xx = 2;
            breaker.consecutive_gateway_failure = 2;
            breaker.half_open_trials = 3;
            breaker.base_ejection_time = Millis(2000);
        },
    ]
}

#[test]
fn counting_decides_as_mirroring_does() {
    let mut ejections = 0;
    for (number, policy) in policies().into_iter().enumerate() {
        for seed in 0..40 {
            let lab = || {
                let mut service = web(&["a", "b"]);
                policy(&mut service.breaker);
                Lab::new(vec![service])
            };
            let (mut all, mut some) = (lab(), lab());
            let mut program = Program::default();
            for step in 0..400 {
                let drawn = random::draw(seed * 7 + number as u64, step);
                // Failures come in waves.
                let bad = drawn % 100 < if step / 50 % 2 == 0 { 3 } else { 30 };
                let status = if bad { [500, 503][(drawn >> 32) as usize % 2] } else { 200 };
                all.status("a", status);
                if program.mirrors(status, may_count(&some, "a")) {
                    count(&mut some, "a", &mut program);
                    some.status("a", status);
                }
                // The daemon reads the counts after each response here, and before time passes.
                count(&mut some, "a", &mut program);
                if drawn >> 40 & 1 == 0 {
                    all.wait(50);
                    some.wait(50);
                }
                let news = all.news();
                ejections += news.iter().filter(|(kind, ..)| *kind == EventKind::Eject).count();
                assert_eq!(some.news(), news, "policy {number}, seed {seed}, step {step}");
                assert_eq!(some.backend("a").responses, all.backend("a").responses);
                assert_eq!(some.backend("a").breaker, all.backend("a").breaker);
            }
        }
    }
    assert!(ejections > 100, "{ejections}");
}

#[test]
fn success_counts_end_no_run() {
    let mut lab = Lab::new(vec![web(&["a", "b"])]);
    lab.news();
    let backend = lab.backend("a").id;
    lab.statuses("a", &[500; 2]);
    // They came before the failures, and the daemon reads them after the failures.
    lab.send(Input::Successes { backend, count: 100 });
    lab.status("a", 500);
    assert_eq!(lab.news(), [said(EventKind::Eject, "a", "consecutive_5xx")]);
}

#[test]
fn successes_are_counted_only_of_a_closed_backend_whose_detectors_need_counts_alone() {
    let counts = |change: fn(&mut Breaker)| {
        let mut service = web(&["a", "b"]);
        change(&mut service.breaker);
        let lab = Lab::new(vec![service]);
        may_count(&lab, "a")
    };
    assert!(counts(|_| {}));
    assert!(counts(|breaker| breaker.response_timeout = Millis(501)));
    assert!(!counts(|breaker| breaker.response_timeout = Millis(500)), "a late one is a failure");
    assert!(!counts(|breaker| breaker.slow_threshold = Millis(100)), "each is fast or slow");
    assert!(counts(|breaker| (breaker.slow_threshold, breaker.slow_rate_threshold) = (Millis(100), 0)));
    assert!(!counts(|breaker| breaker.errors = vec![204..=204]));

    let mut lab = Lab::empty(Settings { mirror_all: true, ..Settings::default() });
    lab.reload(vec![web(&["a"])]);
    assert!(!may_count(&lab, "a"), "a recording needs all responses");

    let mut lab = Lab::new(vec![web(&["a", "b"])]);
    lab.statuses("a", &[500; 3]);
    assert!(!may_count(&lab, "a"), "the program mirrors its trials");
    lab.until(36_000);
    assert!(!may_count(&lab, "a"));
    lab.statuses("a", &[200; 3]);
    lab.until(42_000);
    assert!(may_count(&lab, "a"));
}
