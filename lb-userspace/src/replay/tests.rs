mod founding;
mod lines;
mod members;
mod orders;
mod recording;
mod unserved;

use lb_core::{config::Config, event::EventKind, time::Instant};

use super::{summary::Summary, *};
use crate::{config, journal::line};

const CONFIG: &str = r#"
interfaces = ["lo"]
[service.web]
vip = "203.0.113.10:80"
[service.web.backends]
web-1 = "10.0.0.11:80"
web-2 = "10.0.0.12:80"
[service.web.breaker]
consecutive_5xx = 3
interval = "5s"
base_ejection_time = "30s"
max_ejection_percent = 100
"#;

fn configuration(text: &str) -> Config {
    config::parse("test", text).unwrap_or_else(|wrong| panic!("{}", wrong.render(false))).core
}

fn replay(text: &str) -> Replay {
    Replay::new(configuration(text), Options::default()).expect("it fits")
}

fn take(replay: &mut Replay, text: &str) -> Result<(), Unfit> {
    replay.take(&line::parse(text.as_bytes()).expect("right").expect("not blank"))
}

fn all(replay: &mut Replay, lines: &[&str]) {
    for text in lines {
        take(replay, text).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

fn statuses(replay: &mut Replay, at: u64, backend: &str, statuses: &[u16]) {
    for status in statuses {
        all(replay, &[&format!(r#"{{"t_ms":{at},"backend":"{backend}","status":{status}}}"#)]);
    }
}

fn events(replay: &mut Replay) -> Vec<String> {
    let mut shown = Vec::new();
    while let Some(record) = replay.next_record() {
        match record {
            Record::Event(event) if event.kind == EventKind::Membership => {}
            Record::Event(event) => {
                let backend = event.backend.as_deref().unwrap_or("-");
                shown.push(format!("{} {} {backend} {}", event.t_ms.0, event.kind, event.reason));
            }
            Record::Snapshot(snapshot) => {
                shown.push(format!("{} snapshot {}", snapshot.t_ms.0, snapshot.service))
            }
        }
    }
    shown
}

fn of<'a>(summary: &'a Summary, name: &str) -> &'a summary::Totals {
    &summary.backends.iter().find(|of| of.backend == name).expect("it is there").totals
}

#[test]
fn a_round_of_the_breaker_and_its_account() {
    let mut replay = replay(CONFIG);
    statuses(&mut replay, 1000, "web-1", &[200, 500, 500, 500]);
    // Out until 31 s, tried from the sweep at 35 s on.
    statuses(&mut replay, 2000, "web-1", &[500, 200]);
    statuses(&mut replay, 3000, "web-2", &[200]);
    statuses(&mut replay, 36_000, "web-1", &[200, 200]);
    statuses(&mut replay, 37_000, "web-1", &[200]);
    statuses(&mut replay, 40_000, "web-1", &[500, 500, 500]);
    all(&mut replay, &[r#"{"t_ms":47000}"#]);
    assert_eq!(
        events(&mut replay),
        [
            "1000 eject web-1 consecutive_5xx",
            "35000 trial web-1 ejection_time_over",
            "37000 readmit web-1 half_open_successes",
            "40000 eject web-1 consecutive_5xx",
        ]
    );
    let summary = replay.summary();
    assert_eq!((summary.began_ms, summary.ended_ms), (Instant(0), Instant(47_000)));
    let one = of(&summary, "web-1");
    assert_eq!((one.responses, one.errors, one.client_errors), (12, 7, 6));
    assert_eq!((one.diverted, one.unserved, one.trials), (2, 0, 3));
    assert_eq!(one.out_ms, 36_000 + 7_000);
    assert_eq!((one.ejections, one.readmissions, one.false_readmissions), (2, 1, 1));
    let two = of(&summary, "web-2");
    assert_eq!((two.responses, two.client_errors, two.out_ms), (1, 0, 0));
    assert_eq!(summary.total.responses, 13);
}

#[test]
fn trials_take_their_budget_and_no_more() {
    let mut replay = replay(&CONFIG.replace("interval", "half_open_successes = 5\ninterval"));
    statuses(&mut replay, 1000, "web-1", &[500, 500, 500]);
    statuses(&mut replay, 36_000, "web-1", &[200, 200, 200, 200]);
    let summary = replay.summary();
    assert_eq!((of(&summary, "web-1").trials, of(&summary, "web-1").diverted), (3, 1));
    // The next sweep gives a fresh budget, because the last one brought an outcome.
    statuses(&mut replay, 41_000, "web-1", &[500]);
    let summary = replay.summary();
    assert_eq!((of(&summary, "web-1").trials, of(&summary, "web-1").failed_trials), (4, 1));
}

#[test]
fn a_request_that_no_backend_would_serve_is_an_error_that_a_client_saw() {
    let alone = CONFIG.replace("web-2 = \"10.0.0.12:80\"\n", "");
    let mut without_floor = replay(&alone.replace("interval", "min_serving = 0\ninterval"));
    let mut with_floor = replay(&alone);
    for replay in [&mut without_floor, &mut with_floor] {
        statuses(replay, 1000, "web-1", &[500, 500, 500, 200, 200, 200, 200]);
    }
    let of_both = [without_floor.summary().total, with_floor.summary().total];
    assert_eq!(of_both.map(|total| (total.client_errors, total.unserved)), [(7, 4), (3, 0)]);
    assert_eq!(of_both[1].refused, 1);
}

#[test]
fn a_fallback_has_lines_of_its_own() {
    let with = CONFIG.replace(
        "[service.web.backends]",
        "[service.web.fallback]\nsorry = \"10.0.0.19:80\"\n[service.web.backends]",
    );
    let mut replay = replay(&with.replace("interval", "min_serving = 0\ninterval"));
    statuses(&mut replay, 1000, "sorry", &[200]);
    assert_eq!(of(&replay.summary(), "sorry").diverted, 1);
    statuses(&mut replay, 1000, "web-1", &[500, 500, 500]);
    statuses(&mut replay, 1000, "web-2", &[500, 500, 500]);
    statuses(&mut replay, 2000, "sorry", &[200]);
    assert_eq!(of(&replay.summary(), "sorry").diverted, 1, "it is used now");
    all(
        &mut replay,
        &[
            r#"{"t_ms":3000,"backend":"sorry","op":"remove"}"#,
            r#"{"t_ms":4000,"backend":"sorry","op":"add"}"#,
            r#"{"t_ms":4000,"backend":"sorry","status":200}"#,
        ],
    );
    let shown = events(&mut replay);
    assert!(shown.iter().filter(|line| line.contains("fallback")).count() >= 3, "{shown:?}");
    assert_eq!(of(&replay.summary(), "sorry").responses, 3);
    assert_eq!(of(&replay.summary(), "sorry").diverted, 1);
}

#[test]
fn members_come_and_go() {
    let mut replay = replay(CONFIG);
    statuses(&mut replay, 1000, "web-1", &[500, 500]);
    let unknown = take(&mut replay, r#"{"t_ms":1000,"backend":"web-3","status":500}"#).expect_err("unknown");
    assert_eq!(unknown.message, "service `web` has no backend `web-3`; it has `web-1`, `web-2`");
    assert!(unknown.help.contains("did you mean `web-1`?") || unknown.help.contains("did you mean `web-2`?"));
    assert!(unknown.help.contains(r#""op":"add""#));
    all(
        &mut replay,
        &[
            r#"{"t_ms":1000,"backend":"web-3","op":"add"}"#,
            r#"{"t_ms":1000,"backend":"web-3","status":500}"#,
            r#"{"t_ms":1500,"backend":"web-1","op":"remove"}"#,
        ],
    );
    take(&mut replay, r#"{"t_ms":1600,"backend":"web-1","status":500}"#).expect_err("it left");
    // It is there already, and nothing happens; removed and added it starts clean.
    all(
        &mut replay,
        &[
            r#"{"t_ms":1700,"backend":"web-2","op":"add"}"#,
            r#"{"t_ms":2500,"backend":"web-1","op":"add"}"#,
            r#"{"t_ms":2500,"backend":"web-1","status":500}"#,
        ],
    );
    assert_eq!(events(&mut replay), Vec::<String>::new());
    let summary = replay.summary();
    assert_eq!(of(&summary, "web-1").out_ms, 0, "a backend that is not there is not out of service");
    assert_eq!(of(&summary, "web-1").responses, 3);
    let clash = r#"{"t_ms":2600,"backend":"web-4","op":"add","address":"10.0.0.12:80"}"#;
    let clash = take(&mut replay, clash).expect_err("web-2 has it");
    assert_eq!(clash.message, "the address of `web-4` is that of `web-2`");
    // All of them, down to the last.
    for name in ["web-1", "web-2", "web-3"] {
        all(&mut replay, &[&format!(r#"{{"t_ms":3000,"backend":"{name}","op":"remove"}}"#)]);
    }
    all(
        &mut replay,
        &[
            r#"{"t_ms":9000,"service":"web","members":[{"name":"x","address":"10.0.0.9:80","weight":1}]}"#,
            r#"{"t_ms":9000,"backend":"x","status":200}"#,
        ],
    );
    assert_eq!(replay.summary().backends.len(), 4);
}

#[test]
fn operators_and_their_refusals() {
    let mut replay = replay(CONFIG);
    all(
        &mut replay,
        &[
            r#"{"t_ms":10,"backend":"web-1","op":"drain","for_ms":500}"#,
            r#"{"t_ms":20,"backend":"web-2","op":"disable"}"#,
            r#"{"t_ms":600,"backend":"web-2","op":"eject"}"#,
            r#"{"t_ms":700,"backend":"web-2","op":"admit"}"#,
            r#"{"t_ms":800,"ask":"snapshot"}"#,
        ],
    );
    let mut shown = events(&mut replay);
    assert_eq!(shown.pop().as_deref(), Some("800 snapshot web"));
    assert_eq!(
        shown,
        [
            "10 operator web-1 operator",
            "20 refused web-2 floor",
            "510 operator web-1 operator",
            "600 eject web-2 operator",
            "700 readmit web-2 operator",
        ]
    );
    let summary = replay.summary();
    assert_eq!((of(&summary, "web-1").out_ms, of(&summary, "web-2").out_ms), (500, 100));
    assert_eq!((summary.total.ejections, summary.total.refused), (0, 0), "these are not the breaker's");
}

#[test]
fn a_snapshot_says_how_each_backend_is() {
    let mut replay = replay(CONFIG);
    statuses(&mut replay, 1000, "web-1", &[500, 500, 500]);
    all(&mut replay, &[r#"{"t_ms":2000,"ask":"snapshot"}"#]);
    let mut last = None;
    while let Some(record) = replay.next_record() {
        last = Some(record);
    }
    let json = serde_json::to_value(last.expect("the snapshot")).expect("plain data");
    assert_eq!(
        (&json["t_ms"], &json["type"], &json["service"]),
        (&2000.into(), &"snapshot".into(), &"web".into())
    );
    assert_eq!(json["panic"], serde_json::Value::Null);
    let one = &json["backends"]["web-1"];
    assert_eq!((&one["effective"], &one["breaker"]), (&"ejected".into(), &"open".into()));
    assert_eq!(
        (&one["ejection"], &one["until_ms"], &one["weight_percent"]),
        (&1.into(), &31_000.into(), &0.into())
    );
    let two = &json["backends"]["web-2"];
    let states = ["effective", "operator", "probe", "breaker"].map(|axis| two[axis].clone());
    assert_eq!(states, ["serving", "enabled", "none", "closed"]);
    assert_eq!(
        (&two["reason"], &two["until_ms"], &two["weight_percent"]),
        (&().into(), &().into(), &100.into())
    );
}

#[test]
fn time_does_not_run_back_and_does_not_leap() {
    let mut replay = replay(CONFIG);
    all(&mut replay, &[r#"{"t_ms":1000}"#, r#"{"t_ms":1000}"#]);
    let back = take(&mut replay, r#"{"t_ms":999}"#).expect_err("back");
    assert_eq!(back.message, "time runs back, from 1000 to 999 ms");
    let leap = take(&mut replay, r#"{"t_ms":1763906200000}"#).expect_err("a Unix time");
    assert!(leap.help.contains("not from 1970"), "{leap:?}");
    all(&mut replay, &[r#"{"t_ms":86400000}"#]);
}

#[test]
fn one_of_several_services_has_to_be_named() {
    let two = CONFIG.to_owned()
        + "[service.api]\nvip = \"203.0.113.11:80\"\n[service.api.backends]\na = \"10.0.1.1:80\"\n";
    let mut both = replay(&two);
    let which = take(&mut both, r#"{"t_ms":1,"backend":"web-1","status":500}"#).expect_err("which service?");
    assert!(which.message.contains("`web`, `api`") || which.message.contains("`api`, `web`"), "{which}");
    let wrong =
        take(&mut both, r#"{"t_ms":1,"service":"wbe","backend":"web-1","status":500}"#).expect_err("wrong");
    assert_eq!(wrong.help, "did you mean `web`?");
    all(
        &mut both,
        &[r#"{"t_ms":1,"service":"api","backend":"a","status":500}"#, r#"{"t_ms":2,"ask":"snapshot"}"#],
    );
    assert_eq!(events(&mut both).len(), 2, "a snapshot each");

    let only = Options { service: Some("web".to_owned()), ..Options::default() };
    let mut web = Replay::new(configuration(&two), only).expect("it is there");
    all(
        &mut web,
        &[
            r#"{"t_ms":1,"backend":"web-1","status":500}"#,
            r#"{"t_ms":1,"service":"web","backend":"web-1","status":500}"#,
            r#"{"t_ms":1,"service":"api","backend":"a","status":500}"#,
        ],
    );
    let summary = web.summary();
    assert_eq!((summary.total.responses, summary.skipped), (2, 1));
    let none = Options { service: Some("wep".to_owned()), ..Options::default() };
    let Err(unfit) = Replay::new(configuration(&two), none) else { panic!("there is none") };
    assert_eq!(unfit.help, "did you mean `web`?");
}

#[test]
fn a_seed_draws_the_same_jitter_again() {
    let text = CONFIG.replace("interval", "max_ejection_time_jitter = \"20s\"\ninterval");
    let until = |seed, head: &[&str]| {
        let options = Options { seed, ..Options::default() };
        let mut replay = Replay::new(configuration(&text), options).expect("it fits");
        all(&mut replay, head);
        statuses(&mut replay, 1000, "web-1", &[500, 500, 500]);
        let mut last = None;
        while let Some(record) = replay.next_record() {
            match record {
                Record::Event(event) => last = event.until_ms,
                Record::Snapshot(_) => {}
            }
        }
        last.expect("an ejection")
    };
    assert_eq!(until(Some(0), &[]), until(None, &[]));
    assert_ne!(until(Some(1), &[]), until(None, &[]));
    let head = [r#"{"t_ms":0,"began_unix_ms":5,"seed":1}"#];
    assert_eq!(until(Some(1), &[]), until(None, &head), "a recording brings its own");
    assert_eq!(until(Some(0), &head), until(None, &[]), "which an option overrules");
}

#[test]
fn what_makes_the_numbers_less_is_counted() {
    let probed = CONFIG.replace("[service.web.breaker]", "[service.web.probe.tcp]\n[service.web.breaker]");
    let mut without = replay(&probed);
    statuses(&mut without, 1, "web-1", &[200]);
    assert_eq!(without.summary().unprobed, ["web"]);
    all(&mut without, &[r#"{"t_ms":2,"backend":"web-1","probe":"pass"}"#, r#"{"t_ms":3,"lost":12}"#]);
    let summary = without.summary();
    assert!(summary.unprobed.is_empty() && summary.missing == 12);
    let mut none = replay(CONFIG);
    all(&mut none, &[r#"{"t_ms":2,"backend":"web-1","probe":"pass"}"#]);
    assert_eq!(none.summary().unused_probes, 1);
}

#[test]
fn counted_good_responses_are_those_that_they_count() {
    let mut replay = replay(CONFIG);
    all(&mut replay, &[r#"{"t_ms":1,"backend":"web-1","good":400}"#]);
    statuses(&mut replay, 2, "web-1", &[500, 500]);
    // They may have come before the failures, so they end no run.
    all(&mut replay, &[r#"{"t_ms":3,"backend":"web-1","good":100}"#]);
    statuses(&mut replay, 4, "web-1", &[500]);
    assert_eq!(events(&mut replay), ["4 eject web-1 consecutive_5xx"]);
    // While it is out, no client would have got them.
    all(&mut replay, &[r#"{"t_ms":5,"backend":"web-1","good":50}"#]);
    let summary = replay.summary();
    let one = of(&summary, "web-1");
    assert_eq!((one.responses, one.errors, one.diverted), (553, 3, 50));
}

#[test]
fn lost_evidence_is_distrusted_as_by_the_daemon() {
    let mut replay = replay(CONFIG);
    all(&mut replay, &[r#"{"t_ms":1,"backend":"web-1","lost":5}"#]);
    statuses(&mut replay, 2, "web-1", &[500, 500, 500]);
    assert_eq!(events(&mut replay), ["2 refused web-1 evidence_lost"]);
}

#[test]
fn two_configurations_are_measured_by_the_same_yardsticks() {
    let a = configuration(CONFIG);
    let b = configuration(&CONFIG.replace("interval", "errors = [\"500\"]\ninterval").replace("30s", "5s"));
    let yardsticks = Yardsticks::of([&a, &b]);
    let mut summaries = [a, b].map(|config| {
        let options = Options { yardsticks: yardsticks.clone(), ..Options::default() };
        let mut replay = Replay::new(config, options).expect("it fits");
        statuses(&mut replay, 1000, "web-1", &[503; 4]);
        statuses(&mut replay, 2000, "web-1", &[500; 3]);
        replay.summary()
    });
    assert_eq!(summaries.each_ref().map(|summary| summary.total.errors), [7, 7]);
    assert_eq!(summaries.each_ref().map(|summary| summary.total.client_errors), [3, 7]);
    let side = |config: &str, summary: &mut Summary| compare::Side {
        config: config.to_owned(),
        summary: std::mem::take(summary),
    };
    let [a, b] = &mut summaries;
    let comparison = compare::Comparison::new(side("a", a), side("b", b));
    assert_eq!(comparison.difference.client_errors, 4);
    assert_eq!(comparison.difference.out_ms, -1000);
    assert_eq!(comparison.backends.len(), 2);
}
