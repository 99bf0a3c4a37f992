use std::{borrow::Cow, net::SocketAddr, num::NonZeroU16, time::Duration};

use lb_core::{
    codes::ProbeCode,
    io::{ClientCounts, Context, L4Failure, Outcome, ProbeResult, Verb},
    snapshot::{PathState, Standing},
    time::{Instant, Millis},
};
use proptest::prelude::*;

use super::*;

fn read(line: &str) -> Line<'_> {
    parse(line.as_bytes()).expect("right").expect("not blank")
}

fn wrong(line: &str) -> (usize, String) {
    let error = parse(line.as_bytes()).expect_err(line);
    (error.column, format!("{} | {}", error.message, error.help))
}

#[test]
fn outcomes() {
    let outcome = |line: &str| match read(line).what {
        What::Outcome { backend, outcome, ttfb, client, context } => {
            assert_eq!(context, Context::default());
            (backend.into_owned(), outcome, ttfb, client)
        }
        other => panic!("{other:?}"),
    };
    let named = "web-1".to_owned();
    assert_eq!(
        outcome(r#"{"t_ms":1200,"backend":"web-1","status":503}"#),
        (named.clone(), Outcome::Status(503), None, None)
    );
    assert_eq!(
        outcome(r#" {"status":200, "ttfb_ms":0.25,"backend":"web-1","client":"192.0.2.7:4000","t_ms":1}  "#),
        (
            named.clone(),
            Outcome::Status(200),
            Some(Duration::from_micros(250)),
            Some("192.0.2.7:4000".parse().expect("literal"))
        )
    );
    for (word, failure) in [
        ("connect_refused", L4Failure::ConnectRefused),
        ("connect_timeout", L4Failure::ConnectTimeout),
        ("reset", L4Failure::Reset),
        ("no_response", L4Failure::NoResponse),
        ("response_timeout", L4Failure::ResponseTimeout),
    ] {
        let line = format!(r#"{{"t_ms":1,"backend":"web-1","failure":"{word}"}}"#);
        assert_eq!(outcome(&line).1, Outcome::Failure(failure));
    }
    assert_eq!(outcome(r#"{"t_ms":1,"backend":"web-1","answered":true}"#).1, Outcome::Answered);
    assert_eq!(outcome(r#"{"t_ms":1,"backend":"web-1","opaque":true}"#).1, Outcome::Opaque);
}

#[test]
fn what_is_known_about_the_clients() {
    let line = r#"{"t_ms":1,"backend":"a","failure":"reset","prefixes":3,"addresses":9,"late":true}"#;
    let What::Outcome { context, .. } = read(line).what else { panic!("an outcome") };
    assert_eq!(
        context,
        Context { client_counts: Some(ClientCounts { prefixes: 3, addresses: 9 }), late: true }
    );
    let (_, text) = wrong(r#"{"t_ms":1,"backend":"a","status":500,"prefixes":3}"#);
    assert!(text.starts_with("`prefixes` and `addresses` belong together"), "{text}");
    let (_, text) = wrong(r#"{"t_ms":1,"backend":"a","status":500,"late":true}"#);
    assert!(text.starts_with("`late` means nothing beside this `status`"), "{text}");
    let line = r#"{"t_ms":1,"backend":"a","confirmation":"fail","detail":"refused","syn_answered":true}"#;
    let result = ProbeResult::fail(ProbeCode::Unknown, "refused");
    let confirmation = What::Confirmation { backend: "a".into(), result, syn_answered: true };
    assert_eq!(read(line).what, confirmation);
    for path in PathState::ALL {
        let line = format!(r#"{{"t_ms":1,"backend":"a","path":"{path}"}}"#);
        assert_eq!(read(&line).what, What::Path { backend: "a".into(), path });
    }
    let line = r#"{"t_ms":1,"backend":"a","trials_taken":true}"#;
    assert_eq!(read(line).what, What::TrialsTaken { backend: "a".into() });
}

#[test]
fn everything_else() {
    let probe = |text: &str| match read(&format!(r#"{{"t_ms":1,"backend":"a","probe":{text}}}"#)).what {
        What::Probe { result, .. } => result,
        other => panic!("{other:?}"),
    };
    assert_eq!(probe(r#""pass""#), ProbeResult::Pass);
    assert_eq!(probe("404"), ProbeResult::Status(404));
    assert_eq!(probe(r#""timeout""#), ProbeResult::fail(ProbeCode::Timeout, "timeout"));
    let failed = ProbeResult::fail(ProbeCode::Unknown, "no route");
    assert_eq!(probe(r#""fail","detail":"no route""#), failed);
    let failed = ProbeResult::fail(ProbeCode::HostUnreachable, "no route");
    assert_eq!(probe(r#""fail","detail":"no route","code":"host_unreachable""#), failed);

    let line = read(r#"{"t_ms":7,"service":"web","backend":"a","op":"drain","for_ms":5,"actor":"me"}"#);
    let order = Order {
        verb: Verb::Drain,
        duration: Some(Millis(5)),
        force: false,
        actor: Some("me".to_owned()),
        reason: None,
    };
    assert_eq!((line.at, line.service.as_deref()), (Instant(7), Some("web")));
    assert_eq!(line.what, What::Operator { backend: "a".into(), order });

    let forced = read(r#"{"t_ms":7,"service":"web","backend":"a","op":"drain","force":true}"#).what;
    assert!(matches!(forced, What::Operator { order: Order { force: true, .. }, .. }), "{forced:?}");

    let add = read(r#"{"t_ms":1,"backend":"a","op":"add","address":"10.0.0.1:80","weight":5}"#).what;
    let address = Some("10.0.0.1:80".parse().expect("literal"));
    assert_eq!(add, What::Add { backend: "a".into(), address, weight: NonZeroU16::new(5) });
    assert_eq!(read(r#"{"t_ms":1,"backend":"a","op":"remove"}"#).what, What::Remove { backend: "a".into() });
    assert_eq!(
        read(r#"{"t_ms":1,"backend":"a","lost":3}"#).what,
        What::EvidenceLost { backend: "a".into(), lost: 3 }
    );
    assert_eq!(
        read(r#"{"t_ms":1,"backend":"a","good":3}"#).what,
        What::SuccessCounts { backend: "a".into(), good: 3 }
    );
    assert_eq!(read(r#"{"t_ms":1,"lost":3}"#).what, What::Gap { lost: 3 });
    assert_eq!(read(r#"{"t_ms":1,"ask":"snapshot"}"#).what, What::Ask);
    assert_eq!(read(r#"{"t_ms":1}"#).what, What::Pass);
    let clock = What::Clock { began_unix_ms: 9, seed: Some(u64::MAX) };
    assert_eq!(read(r#"{"t_ms":1,"began_unix_ms":9,"seed":18446744073709551615}"#).what, clock);
    for blank in ["", " ", "\r", "\t "] {
        assert_eq!(parse(blank.as_bytes()), Ok(None));
    }
}

#[test]
fn an_error_is_reported_with_its_place_and_a_remedy() {
    for (line, column, said) in [
        (r#"{"t_ms":1,"backend":"a","statsu":500}"#, 32, "unknown key `statsu` | did you mean `status`?"),
        (r#"{"t_ms":1,"colour":"red"}"#, 18, "unknown key `colour` | known are `t_ms`, `service`"),
        (r#"{"backend":"a","status":500}"#, 28, "`t_ms` is missing | say when it was"),
        (r#"{"t_ms":-1}"#, 10, "`t_ms` is -1 | write a whole number from 0 on"),
        (r#"{"t_ms":1.5}"#, 11, "`t_ms` is 1.5 | write a whole number"),
        (r#"{"t_ms":"1"}"#, 11, "`t_ms` is the string `1` | write a whole number"),
        (r#"{"t_ms":1,"t_ms":2}"#, 16, "`t_ms` is there twice | remove one"),
        (r#"{"t_ms":1,"backend":"a","status":99}"#, 35, "`status` is 99 | write an HTTP status"),
        (r#"{"t_ms":1,"backend":"a","status":null}"#, 37, "`status` is null | write an HTTP status"),
        (r#"{"t_ms":1,"backend":["a"]}"#, 25, "`backend` is an array | write a string"),
        (
            r#"{"t_ms":1,"backend":"a","failure":"conect_refused"}"#,
            50,
            "`conect_refused` is not a value of `failure` | did you mean \"connect_refused\"?",
        ),
        (
            r#"{"t_ms":1,"backend":"a","probe":"maybe"}"#,
            39,
            "`maybe` is not a value of `probe` | write one of \"pass\", \"fail\", \"timeout\"",
        ),
        (
            r#"{"t_ms":1,"backend":"a","op":"eyect"}"#,
            36,
            "`eyect` is not a value of `op` | did you mean \"eject\"?",
        ),
        (r#"{"t_ms":1,"status":500}"#, 23, "`status` of which backend? | add `backend`"),
        (
            r#"{"t_ms":1,"backend":"a"}"#,
            24,
            "the line does not say what became of the backend | add `status`",
        ),
        (r#"{"t_ms":1,"backend":"a","status":1,"status":2}"#, 34, "`status` is 1 |"),
        (
            r#"{"t_ms":1,"backend":"a","status":500,"probe":"pass"}"#,
            52,
            "`status` and `probe` are two things | write a line for each",
        ),
        (
            r#"{"t_ms":1,"backend":"a","probe":"pass","ttfb_ms":3}"#,
            51,
            "`ttfb_ms` means nothing beside this `probe` | it belongs to `status`",
        ),
        (
            r#"{"t_ms":1,"backend":"a","op":"drain","address":"10.0.0.1:80"}"#,
            61,
            "`address` means nothing beside this `op` | it belongs to `\"op\":\"add\"`",
        ),
        (
            r#"{"t_ms":1,"backend":"a","status":200,"weight":5}"#,
            49,
            "`weight` means nothing beside this `status` | it belongs to `\"op\":\"add\"` and `\"op\":\"weight\"`",
        ),
        (
            r#"{"t_ms":1,"backend":"a","began_unix_ms":1}"#,
            42,
            "`backend` means nothing beside this `began_unix_ms` | it belongs to `status`",
        ),
        (r#"{"t_ms":1,"weight":5}"#, 21, "`weight` means nothing alone |"),
        (
            r#"{"t_ms":1,"backend":"a","good":4294967296}"#,
            41,
            "`good` is 4294967296 | write a whole number from 0 on",
        ),
        (r#"{"t_ms":1,"backend":"a","answered":false}"#, 40, "`answered` is false | write true;"),
        (
            r#"{"t_ms":1,"service":"w","members":[{"name":"a","address":"10.0.0.1:80","weight":1},{"name":"a","address":"10.0.0.2:80","weight":1}]}"#,
            132,
            "`a` or its address is among the members twice | remove one of them",
        ),
        (
            r#"{"t_ms":1,"service":"w","members":[{"name":"a","address":"10.0.0.1:80","weight":1},{"name":"b","address":"10.0.0.1:80","weight":1}]}"#,
            132,
            "`b` or its address is among the members twice | remove one of them",
        ),
        (r#"{"t_ms":1,"backend":"a","op":"weight"}"#, 38, "which weight? | add `weight`"),
        (r#"{"t_ms":1,"backend":"a","status":200,"ttfb_ms":-1}"#, 49, "`ttfb_ms` is -1 | write milliseconds"),
        (r#"{"t_ms":1,"backend":"a","status":200,"client":"x"}"#, 49, "`x` is not an address with a port |"),
        (r#"{"t_ms":1,"service":"w","members":[{"name":"a"}]}"#, 47, "`members`: missing field `address` |"),
        (r#"{"t_ms":1"#, 9, "not a line of events: EOF while parsing an object | a line is one JSON object"),
        (r#"{"t_ms":1} x"#, 12, "not a line of events: trailing characters |"),
        ("[1]", 1, "not a line of events: invalid type: sequence, expected an object |"),
        ("\u{7f}", 1, "not a line of events: expected value |"),
    ] {
        let (at, text) = wrong(line);
        assert!(text.starts_with(said), "{line}\n{text}");
        assert!((column as i64 - at as i64).abs() <= 1, "{line}: column {at}, not {column}");
    }
}

#[test]
fn a_member_is_a_fallback_only_where_it_says_so() {
    let read = |text| serde_json::from_str::<Member>(text).expect("a member");
    for text in [
        r#"{"name":"a","address":"10.0.0.1:80","weight":1}"#,
        r#"{"name":"a","address":"10.0.0.1:80","weight":1,"fallback":true}"#,
    ] {
        assert_eq!(serde_json::to_string(&read(text)).expect("plain data"), text);
    }
}

#[test]
fn a_message_is_bounded_and_cannot_steer_the_terminal() {
    let (_, text) = wrong(&format!(r#"{{"t_ms":1,"\u001b[31m{}":1}}"#, "x".repeat(10_000)));
    assert!(text.starts_with(r"unknown key `\u{1b}[31mxxx") && text.len() < 1000, "{text}");
}

fn name() -> impl Strategy<Value = Cow<'static, str>> {
    "\\PC{1,12}".prop_map(Cow::Owned)
}

fn what() -> impl Strategy<Value = What<'static>> {
    let outcome = prop_oneof![
        (100..=999u16).prop_map(Outcome::Status),
        Just(Outcome::Failure(L4Failure::NoResponse)),
        Just(Outcome::Answered),
        Just(Outcome::Opaque)
    ];
    let ttfb = proptest::option::of((0..10_000_000_000_000u64).prop_map(Duration::from_nanos));
    let client = proptest::option::of(any::<SocketAddr>().prop_map(|address| match address {
        // Scope and flow have no place in the text.
        SocketAddr::V6(v6) => SocketAddr::from((*v6.ip(), v6.port())),
        v4 @ SocketAddr::V4(_) => v4,
    }));
    let result = prop_oneof![
        Just(ProbeResult::Pass),
        (100..=999u16).prop_map(ProbeResult::Status),
        ("\\PC*", prop::sample::select(ProbeCode::ALL))
            .prop_map(|(says, code)| ProbeResult::fail(code, says))
    ];
    let client_counts = proptest::option::of(
        any::<(u32, u32)>().prop_map(|(prefixes, addresses)| ClientCounts { prefixes, addresses }),
    );
    let weight = proptest::option::of(any::<NonZeroU16>());
    let verb = prop_oneof![
        Just(Verb::Enable),
        Just(Verb::Disable),
        Just(Verb::Drain),
        Just(Verb::Eject),
        Just(Verb::Admit),
        weight.clone().prop_map(Verb::Weight)
    ];
    let text = || proptest::option::of("\\PC{0,8}");
    let order = (verb, proptest::option::of(any::<u64>()), any::<bool>(), text(), text()).prop_map(
        |(verb, duration, force, actor, reason)| Order {
            verb,
            duration: duration.map(Millis),
            force,
            actor,
            reason,
        },
    );
    let members =
        proptest::collection::btree_map("[a-z]{1,5}", any::<NonZeroU16>(), 0..5).prop_map(|members| {
            let member = |(port, (name, weight)): (u16, (String, NonZeroU16))| Member {
                name,
                address: ([10, 0, 0, 1], port).into(),
                weight,
                fallback: port.is_multiple_of(2),
                discovery: port.is_multiple_of(3).then_some(Standing::Draining),
                id: port.is_multiple_of(5).then(|| format!("uid-{port}")),
            };
            (1..).zip(members).map(member).collect::<Vec<_>>()
        });
    prop_oneof![
        (name(), outcome, ttfb, client, client_counts, any::<bool>()).prop_map(
            |(backend, outcome, ttfb, client, client_counts, late)| {
                let context = Context { client_counts, late: late && matches!(outcome, Outcome::Failure(_)) };
                What::Outcome { backend, outcome, ttfb, client, context }
            }
        ),
        (name(), result.clone(), any::<bool>()).prop_map(|(backend, result, syn_answered)| {
            What::Confirmation { backend, result, syn_answered }
        }),
        name().prop_map(|backend| What::TrialsTaken { backend }),
        (name(), result).prop_map(|(backend, result)| What::Probe { backend, result }),
        (name(), proptest::sample::select(PathState::ALL.to_vec()))
            .prop_map(|(backend, path)| What::Path { backend, path }),
        (name(), order).prop_map(|(backend, order)| What::Operator { backend, order }),
        (name(), weight).prop_map(|(backend, weight)| What::Add { backend, address: None, weight }),
        name().prop_map(|backend| What::Remove { backend }),
        members.prop_map(What::Members),
        (name(), any::<u32>()).prop_map(|(backend, good)| What::SuccessCounts { backend, good: good.into() }),
        (name(), any::<u64>()).prop_map(|(backend, lost)| What::EvidenceLost { backend, lost }),
        any::<u64>().prop_map(|lost| What::Gap { lost }),
        Just(What::Ask),
        (any::<u64>(), proptest::option::of(any::<u64>()))
            .prop_map(|(began_unix_ms, seed)| What::Clock { began_unix_ms, seed }),
        Just(What::Pass),
    ]
}

proptest! {
    #[test]
    fn a_written_line_reads_back_the_same(at: u64, service in proptest::option::of(name()), what in what()) {
        let line = Line { at: Instant(at), service, what };
        let mut bytes = Vec::new();
        line.write(&mut bytes);
        prop_assert_eq!(bytes.pop(), Some(b'\n'));
        prop_assert!(!bytes.contains(&b'\n'));
        let read = parse(&bytes);
        prop_assert_eq!(read, Ok(Some(line)));
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes: Vec<u8>, text in r#"\{("(t_ms|backend|status|op|probe)":[0-9a-z"]{1,4},?){0,4}\}"#) {
        let _ = parse(&bytes);
        let _ = parse(text.as_bytes());
    }
}
