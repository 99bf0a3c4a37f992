//! Tests that need no root; the rest is proven by the lab suite of lb-tests.

use std::{cell::Cell, time::Duration};

use super::{Error, stale, until, until_ok};

#[test]
fn names_hold_their_maker() {
    for (name, expected) in [
        ("shunt-demo-4711-0-app-v200", Some(4711)),
        ("shunt-demo-4711-0", Some(4711)),
        ("shunt-demo", None),
        ("shunt-demo-x-0-client", None),
        ("other-demo-4711-0-client", None),
        ("shunt", None),
        ("demo-4711-0", None),
    ] {
        assert_eq!(stale::maker(name), expected, "{name}");
    }
}

#[test]
fn waits_end_with_the_condition() {
    let tries = Cell::new(0);
    until("third try", Duration::from_secs(5), || {
        tries.set(tries.get() + 1);
        tries.get() == 3
    })
    .expect("the condition holds at the third try");
    assert_eq!(tries.get(), 3);
}

#[test]
fn a_missed_deadline_says_what_was_seen() {
    let missed = until_ok::<(), _>("answer", Duration::from_millis(20), || Err("status 503"));
    let error = missed.expect_err("it never succeeds");
    assert!(matches!(error, Error::Deadline { .. }));
    assert_eq!(error.to_string(), "answer: not within 20ms: status 503");
}
