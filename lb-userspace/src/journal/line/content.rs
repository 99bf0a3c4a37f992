//! The content of a line.

use std::{borrow::Cow, net::SocketAddr, num::NonZeroU16, time::Duration};

use lb_core::{
    io::{Context, Outcome, ProbeResult, Verb},
    snapshot::{PathState, Standing},
    time::{Instant, Millis},
};
use serde::{Deserialize, Serialize};

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
        context: Context,
    },
    /// A connection of Shunt's own to a suspect.
    Confirmation {
        backend: Cow<'a, str>,
        result: ProbeResult,
        syn_answered: bool,
    },
    /// A half-open backend has used trials.
    TrialsTaken {
        backend: Cow<'a, str>,
    },
    Probe {
        backend: Cow<'a, str>,
        result: ProbeResult,
    },
    /// Whether the packet path can reach a backend.
    Path {
        backend: Cow<'a, str>,
        path: PathState,
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
    /// Good responses that the program counted and did not mirror.
    SuccessCounts {
        backend: Cow<'a, str>,
        good: u64,
    },
    /// Records that the daemon itself did not get.
    EvidenceLost {
        backend: Cow<'a, str>,
        lost: u64,
    },
    /// Lines that the recording lacks.
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
    /// It is a fallback.
    #[serde(default, skip_serializing_if = "is_no")]
    pub fallback: bool,
    /// The opinion of discovery, if it names the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<Standing>,
    /// The identity that discovery gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

// By reference, as serde wants it.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_no(fallback: &bool) -> bool {
    !fallback
}
