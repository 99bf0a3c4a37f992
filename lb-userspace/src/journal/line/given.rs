//! The keys of a line, read from JSON in one pass and mostly without copies.

use std::{borrow::Cow, cell::RefCell, fmt, net::SocketAddr, num::NonZeroU16, time::Duration};

use lb_core::{
    codes::ProbeCode,
    io::{L4Failure, ProbeResult},
    snapshot::PathState,
};
use serde::{
    Deserializer,
    de::{DeserializeSeed, Error as _, MapAccess, Visitor},
};

use super::{
    content::Member,
    trouble::{Trouble, nearest},
    value::{self, Text, Value, quoted},
};

const KEYS: [&str; 32] = [
    "t_ms",
    "service",
    "backend",
    "status",
    "failure",
    "answered",
    "opaque",
    "ttfb_ms",
    "client",
    "prefixes",
    "addresses",
    "late",
    "confirmation",
    "syn_answered",
    "trials_taken",
    "probe",
    "detail",
    "code",
    "path",
    "op",
    "address",
    "weight",
    "for_ms",
    "force",
    "actor",
    "reason",
    "members",
    "good",
    "lost",
    "ask",
    "began_unix_ms",
    "seed",
];

const FAILURES: [(&str, L4Failure); 5] = [
    ("connect_refused", L4Failure::ConnectRefused),
    ("connect_timeout", L4Failure::ConnectTimeout),
    ("reset", L4Failure::Reset),
    ("no_response", L4Failure::NoResponse),
    ("response_timeout", L4Failure::ResponseTimeout),
];

fn probe_codes() -> Vec<(&'static str, ProbeCode)> {
    ProbeCode::ALL.iter().map(|code| (code.as_str(), *code)).collect()
}

/// The keys of one line, and their values.
#[derive(Default)]
pub(super) struct Given<'a> {
    pub(super) seen: u32,
    pub(super) t_ms: Option<u64>,
    pub(super) service: Option<Cow<'a, str>>,
    pub(super) backend: Option<Cow<'a, str>>,
    pub(super) status: Option<u16>,
    pub(super) failure: Option<L4Failure>,
    pub(super) answered: Option<bool>,
    pub(super) opaque: Option<bool>,
    pub(super) ttfb: Option<Duration>,
    pub(super) client: Option<SocketAddr>,
    pub(super) prefixes: Option<u32>,
    pub(super) addresses: Option<u32>,
    pub(super) late: Option<bool>,
    pub(super) confirmation: Option<ProbeResult>,
    pub(super) syn_answered: Option<bool>,
    pub(super) trials_taken: Option<bool>,
    pub(super) probe: Option<ProbeResult>,
    pub(super) detail: Option<Cow<'a, str>>,
    pub(super) code: Option<ProbeCode>,
    pub(super) path: Option<PathState>,
    pub(super) op: Option<Op>,
    pub(super) address: Option<SocketAddr>,
    pub(super) weight: Option<Option<NonZeroU16>>,
    pub(super) for_ms: Option<u64>,
    pub(super) force: Option<bool>,
    pub(super) actor: Option<Cow<'a, str>>,
    pub(super) reason: Option<Cow<'a, str>>,
    pub(super) members: Option<Vec<Member>>,
    pub(super) good: Option<u64>,
    pub(super) lost: Option<u64>,
    pub(super) ask: Option<()>,
    pub(super) began_unix_ms: Option<u64>,
    pub(super) seed: Option<u64>,
}

/// The names that [`PathState`] has in JSON.
const PATHS: [(&str, PathState); PathState::ALL.len()] = [
    ("ok", PathState::Ok),
    ("local", PathState::Local),
    ("no_route", PathState::NoRoute),
    ("not_unicast", PathState::NotUnicast),
    ("no_neighbour", PathState::NoNeighbour),
    ("no_link", PathState::NoLink),
    ("not_attached", PathState::NotAttached),
    ("vlan_not_listed", PathState::VlanNotListed),
    ("no_nat_address", PathState::NoNatAddress),
];

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Add,
    Remove,
    Enable,
    Disable,
    Drain,
    Eject,
    Admit,
    Weight,
}

const OPS: [(&str, Op); 8] = [
    ("add", Op::Add),
    ("remove", Op::Remove),
    ("enable", Op::Enable),
    ("disable", Op::Disable),
    ("drain", Op::Drain),
    ("eject", Op::Eject),
    ("admit", Op::Admit),
    ("weight", Op::Weight),
];

/// Reads an object. An error is left in the cell.
pub(super) struct Reader<'t>(pub(super) &'t RefCell<Option<Trouble>>);

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Given<'de>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Given<'de>, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Given<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Given<'de>, A::Error> {
        let mut given = Given::default();
        let refuse = |trouble: Trouble| {
            *self.0.borrow_mut() = Some(trouble);
            A::Error::custom("refused")
        };
        while let Some(Text(key)) = map.next_key()? {
            let Some(index) = KEYS.iter().position(|known| *known == key) else {
                return Err(refuse(unknown_key(&key)));
            };
            let bit = 1 << index;
            if given.seen & bit != 0 {
                let message = format!("`{key}` is there twice");
                return Err(refuse(Trouble::new(message, "remove one of them")));
            }
            given.seen |= bit;
            if key == "members" {
                given.members = Some(map.next_value().inspect_err(|error| {
                    let said = error.to_string();
                    let said = said.split(" at line ").next().unwrap_or(&said);
                    let example = r#"write [{"name":"web-1","address":"10.0.0.11:8080","weight":100}]"#;
                    *self.0.borrow_mut() = Some(Trouble::new(format!("`members`: {said}"), example));
                })?);
                continue;
            }
            let value = map.next_value()?;
            given.take(KEYS[index], value).map_err(refuse)?;
        }
        Ok(given)
    }
}

fn unknown_key(key: &str) -> Trouble {
    let message = format!("unknown key {}", quoted(key));
    match nearest(key, KEYS) {
        Some(meant) => Trouble::new(message, format!("did you mean `{meant}`?")),
        None => Trouble::new(message, format!("known are `{}`", KEYS.join("`, `"))),
    }
}

impl<'a> Given<'a> {
    fn take(&mut self, key: &'static str, value: Value<'a>) -> Result<(), Trouble> {
        match key {
            "t_ms" => self.t_ms = Some(value::whole(key, &value, u64::MAX)?),
            "service" => self.service = Some(value::text(key, value)?),
            "backend" => self.backend = Some(value::text(key, value)?),
            "status" => self.status = Some(value::status(key, &value)?),
            "failure" => self.failure = Some(value::word(key, &value, &FAILURES)?),
            "answered" => self.answered = Some(value::only_true(key, &value)?),
            "opaque" => self.opaque = Some(value::only_true(key, &value)?),
            "ttfb_ms" => self.ttfb = Some(value::millis(key, &value)?),
            "client" => self.client = Some(value::endpoint(key, &value)?),
            "prefixes" => self.prefixes = Some(value::number(key, &value)?),
            "addresses" => self.addresses = Some(value::number(key, &value)?),
            "late" => self.late = Some(value::only_true(key, &value)?),
            "confirmation" => self.confirmation = Some(value::probe(key, &value)?),
            "syn_answered" => self.syn_answered = Some(value::only_true(key, &value)?),
            "trials_taken" => self.trials_taken = Some(value::only_true(key, &value)?),
            "probe" => self.probe = Some(value::probe(key, &value)?),
            "detail" => self.detail = Some(value::text(key, value)?),
            "code" => self.code = Some(value::word(key, &value, &probe_codes())?),
            "path" => self.path = Some(value::word(key, &value, &PATHS)?),
            "op" => self.op = Some(value::word(key, &value, &OPS)?),
            "address" => self.address = Some(value::endpoint(key, &value)?),
            "weight" => self.weight = Some(value::weight(key, &value)?),
            "for_ms" => self.for_ms = Some(value::whole(key, &value, u64::MAX)?),
            "force" => self.force = Some(value::only_true(key, &value)?),
            "actor" => self.actor = Some(value::text(key, value)?),
            "reason" => self.reason = Some(value::text(key, value)?),
            "good" => self.good = Some(value::whole(key, &value, u64::from(u32::MAX))?),
            "lost" => self.lost = Some(value::whole(key, &value, u64::MAX)?),
            "ask" => self.ask = Some(value::word(key, &value, &[("snapshot", ())])?),
            "began_unix_ms" => self.began_unix_ms = Some(value::whole(key, &value, u64::MAX)?),
            "seed" => self.seed = Some(value::whole(key, &value, u64::MAX)?),
            other => unreachable!("`{other}` is not one of the known keys with a scalar"),
        }
        Ok(())
    }

    /// Whether the line has the key.
    pub(super) fn has(&self, key: &str) -> bool {
        let index = KEYS.iter().position(|known| *known == key).expect("only known keys are asked for");
        self.seen & (1 << index) != 0
    }
}
