//! JSON as a line.
//!
//! In one pass and mostly without copies, because a million lines are a usual
//! recording. The first thing that is wrong is said, with its column and a remedy.

use std::{
    borrow::Cow, cell::RefCell, collections::BTreeSet, fmt, net::SocketAddr, num::NonZeroU16, time::Duration,
};

use lb_core::{
    io::{L4Failure, Outcome, ProbeResult, Verb},
    time::{Instant, Millis},
};
use serde::{
    Deserializer,
    de::{DeserializeSeed, Error as _, MapAccess, Visitor},
};

use super::{
    Line, Member, Order, What,
    value::{self, Text, Value, quoted},
};

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LineError {
    /// Where it became clear, in bytes, from 1.
    pub column: usize,
    pub message: String,
    /// What to do about it.
    pub help: String,
}

const EXAMPLE: &str =
    r#"a line is one JSON object, for example {"t_ms":1200,"backend":"web-1","status":503}"#;

const KEYS: [&str; 24] = [
    "t_ms",
    "service",
    "backend",
    "status",
    "failure",
    "answered",
    "opaque",
    "ttfb_ms",
    "client",
    "probe",
    "detail",
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

/// Reads one line. `None`: it is blank.
pub fn parse(line: &[u8]) -> Result<Option<Line<'_>>, LineError> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let trouble = RefCell::new(None);
    let mut json = serde_json::Deserializer::from_slice(line);
    let read = Reader(&trouble).deserialize(&mut json).and_then(|given| json.end().map(|()| given));
    let whole = |Trouble { message, help }| LineError { column: line.len().max(1), message, help };
    match read {
        Ok(given) => given.line().map(Some).map_err(whole),
        Err(error) => {
            let Trouble { message, help } = trouble.into_inner().unwrap_or_else(|| Trouble::json(&error));
            Err(LineError { column: error.column().max(1), message, help })
        }
    }
}

/// The candidate that is a few slips of the finger away from `word`.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let near = candidates.into_iter().map(|known| (strsim::damerau_levenshtein(word, known), known));
    near.filter(|(distance, known)| *distance <= 1 + known.len() / 5).min().map(|(_, known)| known)
}

/// Something wrong, before its place is known.
pub(super) struct Trouble {
    message: String,
    help: String,
}

impl Trouble {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }

    /// Not JSON, or not an object.
    fn json(error: &serde_json::Error) -> Self {
        let said = error.to_string();
        let said = said.split(" at line ").next().unwrap_or(&said);
        Self::new(format!("not a line of events: {said}"), EXAMPLE)
    }
}

/// Everything that a line may say.
#[derive(Default)]
struct Given<'a> {
    seen: u32,
    t_ms: Option<u64>,
    service: Option<Cow<'a, str>>,
    backend: Option<Cow<'a, str>>,
    status: Option<u16>,
    failure: Option<L4Failure>,
    answered: Option<bool>,
    opaque: Option<bool>,
    ttfb: Option<Duration>,
    client: Option<SocketAddr>,
    probe: Option<ProbeResult>,
    detail: Option<Cow<'a, str>>,
    op: Option<Op>,
    address: Option<SocketAddr>,
    weight: Option<Option<NonZeroU16>>,
    for_ms: Option<u64>,
    force: Option<bool>,
    actor: Option<Cow<'a, str>>,
    reason: Option<Cow<'a, str>>,
    members: Option<Vec<Member>>,
    good: Option<u64>,
    lost: Option<u64>,
    ask: Option<()>,
    began_unix_ms: Option<u64>,
    seed: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Op {
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

/// Reads an object; what is wrong with it is left in the cell.
struct Reader<'t>(&'t RefCell<Option<Trouble>>);

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
            "probe" => self.probe = Some(value::probe(key, &value)?),
            "detail" => self.detail = Some(value::text(key, value)?),
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

    /// What the keys say together.
    fn line(self) -> Result<Line<'a>, Trouble> {
        let seen = self.seen;
        let at = self.t_ms.ok_or_else(|| {
            Trouble::new("`t_ms` is missing", "say when it was, in milliseconds from the start of the run")
        })?;
        let kinds = [
            "status",
            "failure",
            "answered",
            "opaque",
            "probe",
            "op",
            "members",
            "good",
            "lost",
            "ask",
            "began_unix_ms",
        ];
        let mut named = kinds.into_iter().filter(|kind| has(seen, kind));
        let kind = named.next();
        if let (Some(first), Some(second)) = (kind, named.next()) {
            let message = format!("`{first}` and `{second}` are two things");
            return Err(Trouble::new(message, "write a line for each"));
        }
        check_company(seen, kind, self.op)?;
        let Some(kind) = kind else {
            if has(seen, "backend") {
                let message = "the line does not say what became of the backend";
                return Err(Trouble::new(message, "add `status`, `failure`, `probe` or `op`"));
            }
            return Ok(Line { at: Instant(at), service: self.service, what: What::Pass });
        };
        let service = self.service.clone();
        let what = match kind {
            "members" => self.members.map(What::Members),
            "ask" => Some(What::Ask),
            "began_unix_ms" => {
                self.began_unix_ms.map(|began_unix_ms| What::Clock { began_unix_ms, seed: self.seed })
            }
            "lost" if self.backend.is_none() => self.lost.map(|lost| What::Gap { lost }),
            about => {
                let message = format!("`{about}` of which backend?");
                let no_backend = || Trouble::new(message, "add `backend`, by its name in the configuration");
                let backend = self.backend.clone().ok_or_else(no_backend)?;
                Some(self.about(backend)?)
            }
        };
        let what = what.expect("a key that was seen has a value");
        if let What::Members(members) = &what {
            check_members(members)?;
        }
        Ok(Line { at: Instant(at), service, what })
    }

    /// What it says about a backend.
    fn about(self, backend: Cow<'a, str>) -> Result<What<'a>, Trouble> {
        let readable = self.status.map(Outcome::Status).or(self.failure.map(Outcome::Failure));
        let answered = self.answered.map(|_| Outcome::Answered);
        let outcome = readable.or(answered).or(self.opaque.map(|_| Outcome::Opaque));
        if let Some(outcome) = outcome {
            return Ok(What::Outcome { backend, outcome, ttfb: self.ttfb, client: self.client });
        }
        if let Some(result) = self.probe {
            let result = match (result, self.detail) {
                (ProbeResult::Fail(_), Some(detail)) => ProbeResult::Fail(detail.into_owned()),
                (result, None) => result,
                (ProbeResult::Pass | ProbeResult::Status(_), Some(_)) => {
                    return Err(Trouble::new("`detail` belongs to a probe that failed", "remove it"));
                }
            };
            return Ok(What::Probe { backend, result });
        }
        if let Some(good) = self.good {
            return Ok(What::SuccessCounts { backend, good });
        }
        if let Some(lost) = self.lost {
            return Ok(What::EvidenceLost { backend, lost });
        }
        let op = self.op.expect("the kinds that are about a backend are these");
        let verb = match op {
            Op::Add => {
                let weight = self.weight.flatten();
                return Ok(What::Add { backend, address: self.address, weight });
            }
            Op::Remove => return Ok(What::Remove { backend }),
            Op::Enable => Verb::Enable,
            Op::Disable => Verb::Disable,
            Op::Drain => Verb::Drain,
            Op::Eject => Verb::Eject,
            Op::Admit => Verb::Admit,
            Op::Weight => match self.weight {
                Some(weight) => Verb::Weight(weight),
                None => return Err(Trouble::new("which weight?", "add `weight`; null takes it back")),
            },
        };
        let order = Order {
            verb,
            duration: self.for_ms.map(Millis),
            force: self.force.is_some(),
            actor: self.actor.map(Cow::into_owned),
            reason: self.reason.map(Cow::into_owned),
        };
        Ok(What::Operator { backend, order })
    }
}

/// No key without the one that it says more about.
fn check_company(seen: u32, kind: Option<&str>, op: Option<Op>) -> Result<(), Trouble> {
    let outcome: &[&str] = &["status", "failure", "answered", "opaque"];
    let op_is = |ops: &[Op]| op.is_some_and(|op| ops.contains(&op));
    let orders = !op_is(&[Op::Add, Op::Remove]);
    let rules: [(&str, &[&str], bool); 11] = [
        ("ttfb_ms", outcome, true),
        ("client", outcome, true),
        ("detail", &["probe"], true),
        ("address", &["op"], op_is(&[Op::Add])),
        ("weight", &["op"], op_is(&[Op::Add, Op::Weight])),
        ("for_ms", &["op"], orders),
        ("force", &["op"], orders),
        ("actor", &["op"], orders),
        ("reason", &["op"], orders),
        ("seed", &["began_unix_ms"], true),
        ("backend", &["status", "failure", "answered", "opaque", "probe", "op", "good", "lost"], true),
    ];
    for (key, with, and) in rules {
        if !has(seen, key) || (key == "backend" && kind.is_none()) {
            continue;
        }
        if !kind.is_some_and(|kind| with.contains(&kind)) || !and {
            let beside = kind.map_or_else(|| "alone".to_owned(), |kind| format!("beside this `{kind}`"));
            let help = format!("it belongs to {}", belongs(key, with));
            return Err(Trouble::new(format!("`{key}` means nothing {beside}"), help));
        }
    }
    Ok(())
}

fn belongs(key: &str, with: &[&str]) -> String {
    match key {
        "address" => "`\"op\":\"add\"`".to_owned(),
        "weight" => "`\"op\":\"add\"` and `\"op\":\"weight\"`".to_owned(),
        _ => format!("`{}`", with.join("`, `")),
    }
}

fn has(seen: u32, key: &str) -> bool {
    let index = KEYS.iter().position(|known| *known == key).expect("only known keys are asked for");
    seen & (1 << index) != 0
}

fn check_members(members: &[Member]) -> Result<(), Trouble> {
    let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for Member { name, address, .. } in members {
        if !names.insert(name) || !addresses.insert(address) {
            let message = format!("{} or its address is among the members twice", quoted(name));
            return Err(Trouble::new(message, "remove one of them"));
        }
    }
    Ok(())
}
