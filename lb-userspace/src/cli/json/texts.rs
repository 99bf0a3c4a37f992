//! Each text in a document has its code. A field that is new has to be entered in one of the lists here.

use lb_core::{
    codes::{BackendReason, DaemonCode, DiscoveryCode, EventReason, OverrideCode, ProbeCode},
    event::{Event, EventKind},
    snapshot::{Drain, LeavingSnapshot, Override},
    time::Instant,
};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    attach_mode::Condition,
    config::{self, LoadError},
    control::{
        fixture,
        model::{Change, ChangeCode, Discovery, Hazard, HazardCode, Problem, ProblemKind, Reloaded, Warning},
    },
    doctor::{self, FindingCode},
};

/// A text, and the code that stands beside it. The first of several that is there counts.
const TEXTS: [(&str, &[&str]); 15] = [
    ("reason", &["reason_code"]),
    ("last_probe", &["last_probe_code"]),
    ("says", &["code"]),
    ("remedy", &["code", "kind"]),
    ("error", &["code", "kind"]),
    ("message", &["code"]),
    ("what", &["code"]),
    ("help", &["code"]),
    ("problem", &["condition"]),
    ("path_warning", &["path_warning_code"]),
    ("state_error", &["state_error_code"]),
    ("counters_error", &["counters_error_code"]),
    ("probe_error", &["probe_error_code"]),
    ("next", &["next_code"]),
    // Of an event, in its evidence: `reason` of the event is its code.
    ("detail", &[]),
];

/// Codes and names of states.
const CODES: [&str; 37] = [
    "discovery",
    "reason_code",
    "last_probe_code",
    "probe_code",
    "code",
    "kind",
    "path_warning_code",
    "state_error_code",
    "counters_error_code",
    "probe_error_code",
    "next_code",
    "type",
    "condition",
    "mode",
    "check",
    "level",
    "effective",
    "operator",
    "path",
    "probe",
    "breaker",
    "panic",
    "evidence",
    "flow_reset",
    "failure",
    "from",
    "to",
    "actor",
    "name",
    "service",
    "backend",
    "instance",
    "interface",
    "version",
    "also",
    "needs_restart",
    "subject",
];

/// Addresses, files, and numbers that may be absent.
const OTHERS: [&str; 34] = [
    "identity",
    "file",
    "source",
    "generated_at",
    "good_unix_ms",
    "age_ms",
    "address",
    "vip",
    "client",
    "config_path",
    "state_file",
    "until_ms",
    "returns_ms",
    "total",
    "least",
    "threshold",
    "verified_instructions",
    "connections",
    "drain",
    "pending",
    "reactions",
    "last_decision",
    "consecutive_5xx",
    "consecutive_gateway_failure",
    "consecutive_l4_failure",
    "rate",
    "window",
    "line",
    "column",
    "span",
    "traffic",
    "fallback",
    "abi",
    "pid",
];

/// Whether it is in the words of an operator.
fn is_an_operators(key: &str, of: &Map<String, Value>) -> bool {
    key == "reason" && of.contains_key("what") && of.contains_key("actor")
}

fn is_code(value: Option<&Value>) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    value.and_then(Value::as_str).is_some_and(|code| !code.is_empty() && code.bytes().all(fits))
}

/// The fields that have no code, by their place.
fn without_code(place: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(all) => {
            for one in all {
                match one {
                    Value::String(text) if text.contains(' ') => found.push(format!("{place}: {text:?}")),
                    one => without_code(place, one, found),
                }
            }
        }
        Value::Object(of) => {
            for (key, value) in of {
                let place = format!("{place}.{key}");
                let text = TEXTS.iter().find(|(text, _)| text == key);
                match (value, text) {
                    (Value::String(_), Some((_, codes))) => {
                        let coded = codes.iter().any(|code| is_code(of.get(*code)));
                        // The reason of an event is a code itself. Its detail is about that reason.
                        let is_event = of.contains_key("seq");
                        let of_event = key == "detail" || is_event;
                        let itself = is_event && key == "reason";
                        let fits = match itself {
                            true => is_code(Some(value)),
                            false => coded || of_event || is_an_operators(key, of),
                        };
                        if !fits {
                            found.push(place);
                        }
                    }
                    (Value::String(text), None) => {
                        let known = CODES.contains(&key.as_str()) || OTHERS.contains(&key.as_str());
                        if !known || (text.contains(' ') && CODES.contains(&key.as_str())) {
                            found.push(format!("{place}: {text:?}"));
                        }
                    }
                    (Value::Null, None) => {
                        let known = CODES.contains(&key.as_str()) || OTHERS.contains(&key.as_str());
                        if !known {
                            found.push(place);
                        }
                    }
                    (value, _) => without_code(&place, value, found),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn check(name: &str, document: impl Serialize) {
    let mut found = Vec::new();
    without_code(name, &serde_json::to_value(document).expect("plain data"), &mut found);
    assert!(found.is_empty(), "no code beside {found:#?}");
}

#[test]
fn status_and_why() {
    let mut status = fixture::status();
    let eth0 = &mut status.interfaces[0];
    (eth0.condition, eth0.problem) = (Condition::Gone, Some("it does not exist".to_owned()));
    status.warnings = vec![Warning {
        check: "mtu".to_owned(),
        code: FindingCode::MtusDiffer.to_string(),
        interface: None,
        says: "1500, but eth1 has 1400".to_owned(),
        remedy: Some("give all interfaces one MTU".to_owned()),
    }];
    let daemon = &mut status.daemon;
    daemon.state_error = Some("no space left on device".to_owned());
    daemon.state_error_code = Some(DaemonCode::StateNotWritten);
    daemon.counters_error = Some("map COUNTERS: operation not permitted".to_owned());
    daemon.counters_error_code = Some(DaemonCode::CountersNotRead);
    daemon.probe_error = Some("Too many open files (2 wait)".to_owned());
    daemon.probe_error_code = Some(DaemonCode::LacksDescriptors);
    status.discovery = vec![fixture::discovery(DiscoveryCode::Missing), {
        let current = fixture::discovery(DiscoveryCode::Current);
        Discovery { good_unix_ms: None, age_ms: None, source: None, generated_at: None, ..current }
    }];
    status.traffic[0].path_warning = Some("its router must send replies back".to_owned());
    status.traffic[0].path_warning_code = Some("behind_router".to_owned());
    let drain = Drain { since_ms: Instant(0), until_ms: Instant(1), flow_reset: Default::default() };
    let web = &mut status.snapshot.services[0];
    web.pending = Some(fixture::pending());
    web.backends[0].overrides = vec![Override {
        code: OverrideCode::Weight,
        what: "weight 7".to_owned(),
        actor: "alice".to_owned(),
        reason: Some("a new version".to_owned()),
        since_ms: Instant(0),
        until_ms: None,
    }];
    let web_1 = &web.backends[0];
    status.snapshot.leaving = vec![LeavingSnapshot {
        service: web.name.clone(),
        name: None,
        id: web_1.id,
        generation: web_1.generation,
        address: web_1.address,
        drain,
    }];
    check("status", &status);
    check("why", fixture::view());

    // Without its code a reason is found.
    status.snapshot.services[0].backends[1].reason_code = None;
    let mut found = Vec::new();
    without_code("status", &serde_json::to_value(&status).expect("plain data"), &mut found);
    assert_eq!(found, ["status.snapshot.services.backends.reason"]);
    assert!(is_code(Some(&Value::from(BackendReason::Ejected.as_str()))));
}

#[test]
fn events() {
    let mut event: Event = fixture::event(4, "web");
    check("event", &event);
    (event.kind, event.reason) = (EventKind::Probe, EventReason::Fall);
    event.evidence.detail = Some("connection refused".to_owned());
    event.evidence.probe_code = Some(ProbeCode::ConnectionRefused);
    check("event", &event);
}

#[test]
fn reload_problems_doctor_and_check() {
    let change = Change { code: ChangeCode::BackendAdded, says: "web/web-4: added at …".to_owned() };
    let needs_restart = vec!["log".to_owned()];
    let hazard = Hazard {
        code: HazardCode::InterfaceInUse,
        subject: "eth1".to_owned(),
        path: None,
        message: "3 connections have their clients behind it".to_owned(),
    };
    let (changes, hazards) = (vec![change], vec![hazard]);
    check("reload", Reloaded { config_generation: 3, changes, needs_restart, hazards, dry_run: false });
    let problem = Problem {
        kind: ProblemKind::Floor,
        error: "too few would serve".to_owned(),
        remedy: "bring another backend back first".to_owned(),
    };
    check("problem", problem);
    check("doctor", doctor::absent("eth9"));
    let text = "interfaces = [\"eth0\"]\nmoed = \"nat\"\n[service.web]\nvip = \"203.0.113.10:80\"\n";
    let Err(LoadError::Invalid(wrong)) = config::read("shunt.toml", text.as_bytes()) else {
        panic!("the file is wrong")
    };
    check("check", wrong);
}
