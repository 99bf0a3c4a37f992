//! Good responses that the program counts and does not mirror.

use std::{thread, time::Duration};

use lb_common::abi::QUICK_MS;
use lb_core::{
    config::NoBackend,
    io::{Admit, BackendId, Step},
};
use lb_tests::{
    both_families,
    frame::{ACK, RST},
    kernel::{Action, Kernel},
};
use lb_userspace::dataplane::bpf::SuccessCounts;

use crate::{
    connections::Connection,
    evidence::{BAD, GET, OK, Talk, plain},
};

/// A talk with a backend whose good responses are counted.
fn counting() -> (Talk, SuccessCounts) {
    let mut talk = Talk::new();
    talk.kernel.count_successes(0);
    let successes = talk.kernel.success_counts();
    (talk, successes)
}

impl Talk {
    fn exchange(&mut self, response: &[u8]) {
        self.ask(GET);
        self.respond(response);
    }
}

both_families!(good_responses_are_counted_where_nothing_waits_for_them);
fn good_responses_are_counted_where_nothing_waits_for_them() {
    let (mut talk, mut successes) = counting();
    talk.exchange(OK);
    assert_eq!(talk.heads(), plain(&["200"]), "a run may have begun before this was said");
    for _ in 0..50 {
        talk.exchange(OK);
    }
    assert_eq!((talk.heads(), successes.take(BackendId(0))), (plain(&[]), 50));
    let counters = talk.kernel.counters().backends[0].1;
    assert_eq!(counters.heads, 51);
    // Fifty in a moment are not timed one by one, and none is forgotten.
    assert_eq!(counters.ttfb.iter().sum::<u64>() + u64::from(counters.untimed), 51);
    assert!(counters.untimed < 50, "some were timed");
    // The program mirrors the response that ends a run, and no other.
    for _ in 0..3 {
        for response in [BAD, BAD, OK, OK, OK] {
            talk.exchange(response);
        }
        assert_eq!((talk.heads(), successes.take(BackendId(0))), (plain(&["500", "500", "200"]), 2));
    }
    // If the order to count comes during a run, it holds once the run has ended.
    talk.exchange(BAD);
    talk.kernel.count_successes(0);
    talk.exchange(OK);
    talk.exchange(OK);
    assert_eq!((talk.heads(), successes.take(BackendId(0))), (plain(&["500", "200"]), 1));
    talk.kernel.admit(0, 1, Admit::All);
    talk.exchange(OK);
    assert_eq!((talk.heads(), successes.take(BackendId(0))), (plain(&["200"]), 0));
}

both_families!(only_what_is_plainly_good_is_counted);
fn only_what_is_plainly_good_is_counted() {
    let (mut talk, mut successes) = counting();
    talk.exchange(OK);
    talk.kernel.forget_heads();
    for (response, mirrored) in [
        (&b"HTTP/1.1 204 No Content\r\n\r\n"[..], 0),
        (b"HTTP/1.0 200 OK\r\n\r\n", 0),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", 1),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", 1),
        // It may have ended a run that began with the one before.
        (OK, 1),
        (OK, 0),
        (b"HTTP/1.1 200\r\n\r\n", 1),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", 1),
        (b"ICY 200 OK\r\n\r\n", 1),
    ] {
        talk.exchange(response);
        assert_eq!(talk.heads().len(), mirrored, "{}", String::from_utf8_lossy(response));
        assert_eq!(successes.take(BackendId(0)), 1 - mirrored as u64);
    }
    // In parts, and after an interim response.
    for parts in [[&b"HTTP/1.1 20"[..], b"0 OK\r\n\r\n"], [b"HTTP/1.1 100 Continue\r\n\r\n", OK]] {
        talk.ask(GET);
        parts.iter().for_each(|part| talk.respond(part));
        assert_eq!((talk.heads().len(), successes.take(BackendId(0))), (2, 0));
        talk.exchange(OK);
        talk.kernel.forget_heads();
        successes.take(BackendId(0));
    }
    // A slow one.
    talk.ask(GET);
    thread::sleep(Duration::from_millis(QUICK_MS + 10));
    talk.respond(OK);
    assert_eq!((talk.heads(), successes.take(BackendId(0))), (plain(&["200"]), 0));
}

both_families!(a_trial_is_always_mirrored);
fn a_trial_is_always_mirrored() {
    let mut kernel = Kernel::new(1);
    kernel.admit(0, 1, Admit::Trials);
    kernel.apply(&Step::Budget { id: BackendId(0), tokens: 1 });
    kernel.service(NoBackend::Reset, &[0]);
    let connection = Connection::open(&mut kernel, 1);
    kernel.count_successes(0);
    let mut successes = kernel.success_counts();
    let mut talk = Talk { kernel, connection };
    for _ in 0..3 {
        talk.exchange(OK);
    }
    assert_eq!((talk.heads().len(), successes.take(BackendId(0))), (3, 0));
}

both_families!(a_failure_without_a_response_lets_the_next_good_one_be_mirrored);
fn a_failure_without_a_response_lets_the_next_good_one_be_mirrored() {
    let (mut talk, mut successes) = counting();
    talk.exchange(OK);
    talk.exchange(OK);
    talk.kernel.forget_heads();
    let mut other = Talk { connection: Connection::open(&mut talk.kernel, 2), kernel: talk.kernel };
    other.ask(GET);
    assert_eq!(other.connection.reply(&mut other.kernel, RST | ACK, b""), Action::Redirect);
    let mut talk = Talk { connection: talk.connection, kernel: other.kernel };
    assert_eq!(talk.heads().len(), 1, "the reset");
    talk.exchange(OK);
    talk.exchange(OK);
    assert_eq!((talk.heads(), successes.take(BackendId(0))), (plain(&["200"]), 2));
}
