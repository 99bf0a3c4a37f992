//! One line: something that a run was told, and when.
//!
//! A line is one JSON object. `t_ms` counts from the start of the run; the lines
//! are in its order. The rest says what happened then:
//!
//! | keys | what |
//! |---|---|
//! | `backend`, `status` (or `failure`, `answered: true`, `opaque: true`), perhaps `ttfb_ms`, `client` | one exchange |
//! | `backend`, `probe`: `pass`, `fail`, `timeout` or a status, perhaps `detail` | one result of an active probe |
//! | `backend`, `op`, perhaps `weight`, `for_ms`, `force`, `actor`, `reason` | what an operator wants |
//! | `backend`, `op`: `add` (perhaps `address`, `weight`) or `remove` | a reload that changes the membership |
//! | `members`: `[{"name", "address", "weight"}, …]` | a reload: the service has exactly these |
//! | `backend`, `lost` | response heads that could not be delivered |
//! | `lost` alone | so many lines are missing here |
//! | `ask`: `snapshot` | prints the state |
//! | `began_unix_ms`, perhaps `seed` | the clock of the lines that follow: when it stood at 0 |
//! | nothing | time passes |
//!
//! `service` says whose backend it is. [`parse`] reads a line, [`Line::write`]
//! writes it; what is written reads back the same.

mod parse;
#[cfg(test)]
mod tests;
mod value;
mod write;

use std::{borrow::Cow, net::SocketAddr, num::NonZeroU16, time::Duration};

use lb_core::{
    io::{Outcome, ProbeResult, Verb},
    time::{Instant, Millis},
};
use serde::{Deserialize, Serialize};

pub use parse::{LineError, nearest, parse};

#[derive(Clone, Debug, PartialEq)]
pub struct Line<'a> {
    pub at: Instant,
    pub service: Option<Cow<'a, str>>,
    pub what: What<'a>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What<'a> {
    Outcome {
        backend: Cow<'a, str>,
        outcome: Outcome,
        ttfb: Option<Duration>,
        client: Option<SocketAddr>,
    },
    Probe {
        backend: Cow<'a, str>,
        result: ProbeResult,
    },
    Operator {
        backend: Cow<'a, str>,
        order: Order,
    },
    Add {
        backend: Cow<'a, str>,
        address: Option<SocketAddr>,
        weight: Option<NonZeroU16>,
    },
    Remove {
        backend: Cow<'a, str>,
    },
    Members(Vec<Member>),
    /// Good responses that were counted, not told one by one.
    SuccessCounts {
        backend: Cow<'a, str>,
        good: u64,
    },
    /// Evidence that the daemon itself did not get.
    EvidenceLost {
        backend: Cow<'a, str>,
        lost: u64,
    },
    /// Lines that are not in the recording.
    Gap {
        lost: u64,
    },
    Ask,
    Clock {
        began_unix_ms: u64,
        seed: Option<u64>,
    },
    Pass,
}

/// An operation without its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub verb: Verb,
    pub duration: Option<Millis>,
    pub force: bool,
    pub actor: Option<String>,
    pub reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    pub name: String,
    pub address: SocketAddr,
    pub weight: NonZeroU16,
    /// It is one of the fallback.
    #[serde(default, skip_serializing_if = "is_no")]
    pub fallback: bool,
}

// By reference, as serde wants it.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_no(fallback: &bool) -> bool {
    !fallback
}
