//! The input, line by line.

use std::io::BufReader;

use lb_core::time::Instant;

use super::{CONFIG, all, of, replay, statuses};
use crate::{
    config,
    replay::{InputError, Options, Replay, Then, read},
};

/// Four MiB.
const LONGEST: usize = 4 << 20;

fn given(text: &[u8]) -> Result<u64, InputError> {
    let mut replays = [(None, replay(CONFIG))];
    read::<_, InputError>("x.jsonl", &mut BufReader::new(text), &mut replays, |_, _| Ok(Then::GoOn))?;
    Ok(replays[0].1.summary().total.responses)
}

const GOOD: &str = r#"{"t_ms":1,"backend":"web-1","status":200}"#;

#[test]
fn an_error_names_its_line() {
    let error = given(format!("{GOOD}\n\n{{\"t_ms\":1,\"colour\":1}}\n").as_bytes()).expect_err("wrong");
    assert!(error.to_string().starts_with("x.jsonl:3:"), "{error}");
    assert!(error.help().expect("one").starts_with("known are `t_ms`"), "{error:?}");
    let unfit = given(format!("{GOOD}\n{}\n", GOOD.replace("web-1", "web-9")).as_bytes()).expect_err("unfit");
    assert!(unfit.to_string().starts_with("x.jsonl:2: service `web` has no backend"), "{unfit}");
    assert!(unfit.help().expect("one").contains("did you mean"), "{unfit:?}");
    let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
    assert_eq!(InputError::Io { name: "x".to_owned(), source: gone }.help(), None);
}

#[test]
fn a_byte_order_mark_may_stand_first_and_nowhere_else() {
    assert_eq!(given(format!("\u{feff}{GOOD}\n{GOOD}").as_bytes()).expect("right"), 2);
    let error = given(format!("{GOOD}\n\u{feff}{GOOD}\n").as_bytes()).expect_err("wrong");
    assert!(error.to_string().starts_with("x.jsonl:2:1"), "{error}");
}

#[test]
fn a_line_may_have_four_mebibytes() {
    let padded = |length: usize| format!("{GOOD}{}", " ".repeat(length - GOOD.len()));
    assert_eq!(given(format!("{}\n{GOOD}", padded(LONGEST - 1)).as_bytes()).expect("fits"), 2);
    let error = given(padded(LONGEST).as_bytes()).expect_err("too long");
    assert!(error.to_string().contains("the line is longer than 4 MiB"), "{error}");
    assert_eq!(given(padded(LONGEST - 1).as_bytes()).expect("the last line needs no end"), 1);
}

#[test]
fn a_clock_behind_other_lines_begins_a_run_at_their_time() {
    let mut late = replay(CONFIG);
    all(&mut late, &[r#"{"t_ms":1000}"#, r#"{"t_ms":5,"began_unix_ms":9}"#, r#"{"t_ms":500}"#]);
    assert_eq!(late.summary().ended_ms, Instant(1500));
    // The same run goes on in another file.
    let mut same = replay(CONFIG);
    let clock = |at| format!(r#"{{"t_ms":{at},"began_unix_ms":9}}"#);
    all(&mut same, &[&clock(0), r#"{"t_ms":1000}"#, &clock(1000), r#"{"t_ms":2000}"#]);
    assert_eq!(same.summary().ended_ms, Instant(2000));
}

#[test]
fn a_restart_draws_with_the_seed_of_its_own_clock() {
    let jitter = CONFIG.replace("interval", "max_ejection_time_jitter = \"20s\"\ninterval");
    let until = |seed: u64| {
        let core = config::parse("test", &jitter).expect("right").core;
        let mut replay = Replay::new(core, Options::default()).expect("it fits");
        let again = format!(r#"{{"t_ms":0,"began_unix_ms":1009,"seed":{seed}}}"#);
        all(&mut replay, &[r#"{"t_ms":0,"began_unix_ms":9,"seed":1}"#, &again]);
        statuses(&mut replay, 500, "web-1", &[500; 3]);
        let mut ends = Vec::new();
        while let Some(record) = replay.next_record() {
            if let crate::replay::Record::Event(event) = record {
                ends.extend(event.until_ms);
            }
        }
        ends.pop().expect("an ejection")
    };
    assert_eq!(until(1), until(1));
    assert_ne!(until(1), until(2));
}

#[test]
fn counted_good_responses_of_one_on_trial_are_trials_first() {
    let mut replay = replay(CONFIG);
    statuses(&mut replay, 1000, "web-1", &[500; 3]);
    all(&mut replay, &[r#"{"t_ms":36000,"backend":"web-1","good":10}"#]);
    let summary = replay.summary();
    let one = of(&summary, "web-1");
    assert_eq!((one.responses, one.trials, one.readmissions), (13, 3, 1));
}

#[test]
fn one_service_is_asked_for_by_its_name() {
    let two = CONFIG.to_owned()
        + "[service.api]\nvip = \"203.0.113.11:80\"\n[service.api.backends]\na = \"10.0.1.1:80\"\n";
    let mut both = replay(&two);
    all(&mut both, &[r#"{"t_ms":2,"service":"api","ask":"snapshot"}"#]);
    assert_eq!(super::events(&mut both), ["2 snapshot api"]);
}

#[test]
fn what_is_only_reported_and_what_fails_on_trial_is_counted() {
    let mut quiet = replay(&CONFIG.replace("interval", "enforce = false\ninterval"));
    statuses(&mut quiet, 1000, "web-1", &[500; 6]);
    let totals = quiet.summary().total;
    assert_eq!((totals.unenforced, totals.ejections), (2, 0));
    let mut tried = replay(CONFIG);
    statuses(&mut tried, 1000, "web-1", &[500; 3]);
    assert_eq!(tried.summary().total.failed_trials, 0);
    statuses(&mut tried, 36_000, "web-1", &[500]);
    let totals = tried.summary().total;
    assert_eq!((totals.ejections, totals.failed_trials), (2, 1));
}
