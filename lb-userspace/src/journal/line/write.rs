//! A line as JSON.

use std::{io, net::SocketAddr, num::NonZeroU16, time::Duration};

use lb_core::{
    codes::ProbeCode,
    io::{L4Failure, Outcome, ProbeResult, Verb},
    snapshot::PathState,
};
use serde::Serialize;

use super::content::{Line, Member, Order, What};

/// The keys in the order in which people like to read them.
#[derive(Default, Serialize)]
struct Keys<'a> {
    t_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    began_unix_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<L4Failure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    opaque: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttfb_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefixes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    addresses: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    late: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmation: Option<Probe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    syn_answered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trials_taken: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probe: Option<Probe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<ProbeCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    op: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<SocketAddr>,
    /// The inner `None` is a weight that is taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<Option<u16>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    for_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    force: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<&'a [Member]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    good: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ask: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Probe {
    Word(&'static str),
    Status(u16),
}

impl Line<'_> {
    /// Appends the line, with its end.
    pub fn write(&self, to: &mut Vec<u8>) {
        serde_json::to_writer(&mut *to, &self.keys())
            .map_err(io::Error::from)
            .expect("memory takes everything, and all keys are text");
        to.push(b'\n');
    }

    fn keys(&self) -> Keys<'_> {
        let mut keys = Keys { t_ms: self.at.0, service: self.service.as_deref(), ..Keys::default() };
        match &self.what {
            What::Outcome { backend, outcome, ttfb, client, context } => {
                keys.backend = Some(backend);
                match outcome {
                    Outcome::Status(status) => keys.status = Some(*status),
                    Outcome::Failure(failure) => keys.failure = Some(*failure),
                    Outcome::Answered => keys.answered = Some(true),
                    Outcome::Opaque => keys.opaque = Some(true),
                }
                keys.ttfb_ms = ttfb.map(millis);
                keys.client = *client;
                keys.prefixes = context.client_counts.map(|client_counts| client_counts.prefixes);
                keys.addresses = context.client_counts.map(|client_counts| client_counts.addresses);
                keys.late = context.late.then_some(true);
            }
            What::Confirmation { backend, result, syn_answered } => {
                keys.backend = Some(backend);
                (keys.confirmation, keys.detail, keys.code) = probe(result);
                keys.syn_answered = syn_answered.then_some(true);
            }
            What::TrialsTaken { backend } => {
                keys.backend = Some(backend);
                keys.trials_taken = Some(true);
            }
            What::Probe { backend, result } => {
                keys.backend = Some(backend);
                (keys.probe, keys.detail, keys.code) = probe(result);
            }
            What::Path { backend, path } => {
                keys.backend = Some(backend);
                keys.path = Some(*path);
            }
            What::Operator { backend, order } => {
                keys.backend = Some(backend);
                operator(&mut keys, order);
            }
            What::Add { backend, address, weight } => {
                keys.backend = Some(backend);
                keys.op = Some("add");
                keys.address = *address;
                keys.weight = weight.map(|weight| Some(weight.get()));
            }
            What::Remove { backend } => {
                keys.backend = Some(backend);
                keys.op = Some("remove");
            }
            What::Members(members) => keys.members = Some(members),
            What::SuccessCounts { backend, good } => {
                keys.backend = Some(backend);
                keys.good = Some(*good);
            }
            What::EvidenceLost { backend, lost } => {
                keys.backend = Some(backend);
                keys.lost = Some(*lost);
            }
            What::Gap { lost } => keys.lost = Some(*lost),
            What::Ask => keys.ask = Some("snapshot"),
            What::Clock { began_unix_ms, seed } => {
                keys.began_unix_ms = Some(*began_unix_ms);
                keys.seed = *seed;
            }
            What::Pass => {}
        }
        keys
    }
}

/// A result, and the detail and code of a failure.
fn probe(result: &ProbeResult) -> (Option<Probe>, Option<&str>, Option<ProbeCode>) {
    match result {
        ProbeResult::Pass => (Some(Probe::Word("pass")), None, None),
        ProbeResult::Status(status) => (Some(Probe::Status(*status)), None, None),
        ProbeResult::Fail(of) => (Some(Probe::Word("fail")), Some(&of.says), Some(of.code)),
    }
}

fn operator<'a>(keys: &mut Keys<'a>, order: &'a Order) {
    keys.op = Some(match order.verb {
        Verb::Enable => "enable",
        Verb::Disable => "disable",
        Verb::Drain => "drain",
        Verb::Eject => "eject",
        Verb::Admit => "admit",
        Verb::Weight(weight) => {
            keys.weight = Some(weight.map(NonZeroU16::get));
            "weight"
        }
    });
    keys.for_ms = order.duration.map(|time| time.0);
    keys.force = order.force.then_some(true);
    keys.actor = order.actor.as_deref();
    keys.reason = order.reason.as_deref();
}

/// Exact to the nanosecond, up to a few months.
fn millis(span: Duration) -> f64 {
    span.as_nanos() as f64 / 1e6
}
