//! Waiting for a condition, with a deadline.

use std::{fmt::Display, thread, time::Duration};

use super::{Error, Result, clock, signals};

const STEP: Duration = Duration::from_millis(10);

/// Waits until `condition` holds. `what` names it in the error.
pub fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    wait(what, limit, signals::interrupted, || if condition() { Ok(()) } else { Err(String::new()) })
}

/// Like [`until`], for taking down: an interruption does not cut it short.
pub(super) fn settled(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    wait(what, limit, || false, || if condition() { Ok(()) } else { Err(String::new()) })
}

/// Waits until `attempt` succeeds; the error holds its last failure.
pub fn until_ok<T, E: Display>(
    what: &str,
    limit: Duration,
    mut attempt: impl FnMut() -> std::result::Result<T, E>,
) -> Result<T> {
    wait(what, limit, signals::interrupted, || attempt().map_err(|error| format!(": {error}")))
}

fn wait<T>(
    what: &str,
    limit: Duration,
    interrupted: impl Fn() -> bool,
    mut attempt: impl FnMut() -> std::result::Result<T, String>,
) -> Result<T> {
    let deadline = clock::now() + limit;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(last) if clock::now() >= deadline => {
                return Err(Error::Deadline { what: what.to_owned(), limit, last });
            }
            Err(_) if interrupted() => return Err(Error::Interrupted),
            Err(_) => thread::sleep(STEP),
        }
    }
}
