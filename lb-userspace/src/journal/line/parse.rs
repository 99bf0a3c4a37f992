//! JSON as a line.
//!
//! In one pass and mostly without copies, because recordings of a million lines are usual. The first error is
//! reported, with its column and a remedy.

use std::{borrow::Cow, cell::RefCell, collections::BTreeSet};

use lb_core::{
    codes::ProbeCode,
    io::{ClientCounts, Context, Outcome, ProbeResult, Verb},
    time::{Instant, Millis},
};
use serde::de::DeserializeSeed as _;

use super::{
    content::{Line, Member, Order, What},
    given::{Given, Op, Reader},
    trouble::{LineError, Trouble},
    value::quoted,
};

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
        Ok(given) => content(given).map(Some).map_err(whole),
        Err(error) => {
            let Trouble { message, help } = trouble.into_inner().unwrap_or_else(|| Trouble::json(&error));
            Err(LineError { column: error.column().max(1), message, help })
        }
    }
}

/// The line that the keys make together.
fn content(given: Given<'_>) -> Result<Line<'_>, Trouble> {
    let at = given.t_ms.ok_or_else(|| {
        Trouble::new("`t_ms` is missing", "say when it was, in milliseconds from the start of the run")
    })?;
    let kinds = [
        "status",
        "failure",
        "answered",
        "opaque",
        "confirmation",
        "trials_taken",
        "probe",
        "path",
        "op",
        "members",
        "good",
        "lost",
        "ask",
        "began_unix_ms",
    ];
    let mut named = kinds.into_iter().filter(|kind| given.has(kind));
    let kind = named.next();
    if let (Some(first), Some(second)) = (kind, named.next()) {
        let message = format!("`{first}` and `{second}` are two things");
        return Err(Trouble::new(message, "write a line for each"));
    }
    check_company(&given, kind)?;
    let Some(kind) = kind else {
        if given.has("backend") {
            let message = "the line does not say what became of the backend";
            return Err(Trouble::new(message, "add `status`, `failure`, `probe` or `op`"));
        }
        return Ok(Line { at: Instant(at), service: given.service, what: What::Pass });
    };
    let service = given.service.clone();
    let what = match kind {
        "members" => given.members.map(What::Members),
        "ask" => Some(What::Ask),
        "began_unix_ms" => {
            given.began_unix_ms.map(|began_unix_ms| What::Clock { began_unix_ms, seed: given.seed })
        }
        "lost" if given.backend.is_none() => given.lost.map(|lost| What::Gap { lost }),
        kind => {
            let message = format!("`{kind}` of which backend?");
            let no_backend = || Trouble::new(message, "add `backend`, by its name in the configuration");
            let backend = given.backend.clone().ok_or_else(no_backend)?;
            Some(about(given, backend)?)
        }
    };
    let what = what.expect("a key that was seen has a value");
    if let What::Members(members) = &what {
        check_members(members)?;
    }
    Ok(Line { at: Instant(at), service, what })
}

/// The content of a line about a backend.
fn about<'a>(given: Given<'a>, backend: Cow<'a, str>) -> Result<What<'a>, Trouble> {
    let readable = given.status.map(Outcome::Status).or(given.failure.map(Outcome::Failure));
    let answered = given.answered.map(|_| Outcome::Answered);
    let outcome = readable.or(answered).or(given.opaque.map(|_| Outcome::Opaque));
    if let Some(outcome) = outcome {
        let client_counts = match (given.prefixes, given.addresses) {
            (Some(prefixes), Some(addresses)) => Some(ClientCounts { prefixes, addresses }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                let message = "`prefixes` and `addresses` belong together";
                return Err(Trouble::new(message, "write both: how many clients the service has"));
            }
        };
        let context = Context { client_counts, late: given.late.is_some() };
        return Ok(What::Outcome { backend, outcome, ttfb: given.ttfb, client: given.client, context });
    }
    if given.trials_taken.is_some() {
        return Ok(What::TrialsTaken { backend });
    }
    if let Some(result) = given.confirmation {
        let (result, syn_answered) =
            (with_detail(result, given.detail, given.code)?, given.syn_answered.is_some());
        return Ok(What::Confirmation { backend, result, syn_answered });
    }
    if let Some(result) = given.probe {
        return Ok(What::Probe { backend, result: with_detail(result, given.detail, given.code)? });
    }
    if let Some(path) = given.path {
        return Ok(What::Path { backend, path });
    }
    if let Some(good) = given.good {
        return Ok(What::SuccessCounts { backend, good });
    }
    if let Some(lost) = given.lost {
        return Ok(What::EvidenceLost { backend, lost });
    }
    let op = given.op.expect("the kinds that are about a backend are these");
    let verb = match op {
        Op::Add => {
            let weight = given.weight.flatten();
            return Ok(What::Add { backend, address: given.address, weight });
        }
        Op::Remove => return Ok(What::Remove { backend }),
        Op::Enable => Verb::Enable,
        Op::Disable => Verb::Disable,
        Op::Drain => Verb::Drain,
        Op::Eject => Verb::Eject,
        Op::Admit => Verb::Admit,
        Op::Weight => match given.weight {
            Some(weight) => Verb::Weight(weight),
            None => return Err(Trouble::new("which weight?", "add `weight`; null takes it back")),
        },
    };
    let order = Order {
        verb,
        duration: given.for_ms.map(Millis),
        force: given.force.is_some(),
        actor: given.actor.map(Cow::into_owned),
        reason: given.reason.map(Cow::into_owned),
    };
    Ok(What::Operator { backend, order })
}

fn with_detail(
    result: ProbeResult,
    detail: Option<Cow<'_, str>>,
    code: Option<ProbeCode>,
) -> Result<ProbeResult, Trouble> {
    let without = |key: &str| Trouble::new(format!("`{key}` belongs to a probe that failed"), "remove it");
    match (result, detail, code) {
        (ProbeResult::Fail(failure), detail, code) => {
            let says = detail.map_or(failure.says, Cow::into_owned);
            Ok(ProbeResult::fail(code.unwrap_or(failure.code), says))
        }
        (result @ (ProbeResult::Pass | ProbeResult::Status(_)), None, None) => Ok(result),
        (ProbeResult::Pass | ProbeResult::Status(_), Some(_), _) => Err(without("detail")),
        (ProbeResult::Pass | ProbeResult::Status(_), None, Some(_)) => Err(without("code")),
    }
}

/// Refuses a key without the key that it belongs to.
fn check_company(given: &Given<'_>, kind: Option<&str>) -> Result<(), Trouble> {
    let outcome: &[&str] = &["status", "failure", "answered", "opaque"];
    let op_is = |ops: &[Op]| given.op.is_some_and(|op| ops.contains(&op));
    let orders = !op_is(&[Op::Add, Op::Remove]);
    let rules: [(&str, &[&str], bool); 16] = [
        ("ttfb_ms", outcome, true),
        ("client", outcome, true),
        ("prefixes", outcome, true),
        ("addresses", outcome, true),
        ("late", &["failure"], true),
        ("syn_answered", &["confirmation"], true),
        ("detail", &["probe", "confirmation"], true),
        ("code", &["probe", "confirmation"], true),
        ("address", &["op"], op_is(&[Op::Add])),
        ("weight", &["op"], op_is(&[Op::Add, Op::Weight])),
        ("for_ms", &["op"], orders),
        ("force", &["op"], orders),
        ("actor", &["op"], orders),
        ("reason", &["op"], orders),
        ("seed", &["began_unix_ms"], true),
        (
            "backend",
            &[
                "status",
                "failure",
                "answered",
                "opaque",
                "confirmation",
                "trials_taken",
                "probe",
                "path",
                "op",
                "good",
                "lost",
            ],
            true,
        ),
    ];
    for (key, with, and) in rules {
        if !given.has(key) || (key == "backend" && kind.is_none()) {
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
