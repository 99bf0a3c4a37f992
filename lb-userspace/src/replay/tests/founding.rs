//! The case that Shunt was made for, and `dist/examples/founding.*`, which show it: half of the answers of
//! one backend are 500. The clients choose as the maps would: first a half-open backend with a budget, else
//! one in the table.

use std::{env, fs};

use super::*;
use crate::replay::Destination;

const BOTH: &str = include_str!("../../../../dist/examples/founding.toml");
const EVENTS: &str = include_str!("../../../../dist/examples/founding.jsonl");

/// The answer to one request.
#[derive(Clone, Debug)]
struct Answer {
    at: u64,
    backend: String,
    destination: Destination,
    good: bool,
}

struct Run {
    replay: Replay,
    answers: Vec<Answer>,
    events: Vec<lb_core::event::Event>,
    lines: String,
}

/// splitmix64.
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut x = *state;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn run(config: &str, per_second: u64, seconds: u64) -> Run {
    let mut run =
        Run { replay: replay(config), answers: Vec::new(), events: Vec::new(), lines: String::new() };
    let mut random = 1;
    for request in 0..per_second * seconds {
        let at = 1000 + request * 1000 / per_second;
        run.replay.pass(Instant(at));
        let choices: Vec<(String, Destination)> = run
            .replay
            .account()
            .choices(0)
            .map(|(name, destination)| (name.to_owned(), destination))
            .collect();
        let chosen = match choices.first() {
            Some(first) if first.1 == Destination::Trial => first.clone(),
            Some(_) => choices[(draw(&mut random) % choices.len() as u64) as usize].clone(),
            None => panic!("somebody always serves here"),
        };
        let good = chosen.0 != "sick" || draw(&mut random).is_multiple_of(2);
        let (status, name) = (if good { 200 } else { 500 }, &chosen.0);
        let line = format!("{{\"t_ms\":{at},\"backend\":\"{name}\",\"status\":{status}}}");
        all(&mut run.replay, &[&line]);
        run.lines += &(line + "\n");
        run.answers.push(Answer { at, backend: chosen.0, destination: chosen.1, good });
        while let Some(record) = run.replay.next_record() {
            match record {
                Record::Event(event) => run.events.push(*event),
                Record::Snapshot(_) => {}
            }
        }
    }
    run
}

#[test]
fn beside_a_healthy_backend_three_bad_answers_an_ejection() {
    let Run { replay, answers, events, .. } = run(BOTH, 50, 600);
    let (mut ejections, mut trials) = (0, 0);
    for event in &events {
        trials += u64::from(event.kind == EventKind::Trial);
        if event.kind != EventKind::Eject {
            continue;
        }
        let sick = answers.iter().filter(|answer| answer.backend == "sick" && answer.at <= event.t_ms.0);
        let last: Vec<_> = sick.rev().take(4).collect();
        match event.reason.as_str() {
            "consecutive_5xx" => {
                assert!(last[..3].iter().all(|answer| !answer.good), "at {}", event.t_ms.0);
                assert!(last.get(3).is_none_or(|fourth| fourth.good), "at {}: a fourth one", event.t_ms.0);
                ejections += 1;
            }
            // One bad trial is enough.
            "half_open_failure" => {
                assert_eq!((last[0].destination, last[0].good), (Destination::Trial, false))
            }
            other => panic!("ejected for {other}"),
        }
    }
    // A sweep's budget is three.
    let in_sweep = |sweep: u64| {
        answers.iter().filter(move |of| of.destination == Destination::Trial && of.at / 5000 == sweep).count()
    };
    assert!((0..121).all(|sweep| in_sweep(sweep) <= 3));
    let out: Vec<_> = events.iter().filter(|event| event.kind == EventKind::Eject).collect();
    for event in &out {
        let back = events.iter().find(|later| later.kind == EventKind::Trial && later.t_ms > event.t_ms);
        let back = back.map_or(u64::MAX, |later| later.t_ms.0);
        let reached =
            answers.iter().filter(|of| of.backend == "sick" && (event.t_ms.0 + 1..back).contains(&of.at));
        assert_eq!(reached.count(), 0, "after the ejection at {}", event.t_ms.0);
    }
    let summary = replay.summary();
    let bad = answers.iter().filter(|answer| !answer.good).count() as u64;
    assert_eq!((summary.total.client_errors, summary.total.diverted), (bad, 0), "the replay saw the same");
    assert!(ejections >= 2 && trials >= 3, "{ejections} ejections, {trials} trials");
    let good = answers.len() as u64 - bad;
    assert!(good * 1000 >= answers.len() as u64 * 995);
    println!(
        "with a healthy backend: {good} of {} good, {} ejections ({ejections} by three in a row), {trials} rounds of trials",
        answers.len(),
        out.len()
    );
}

#[test]
fn alone_it_is_kept_and_half_of_the_answers_are_good() {
    let alone = BOTH.lines().filter(|line| !line.starts_with("well")).collect::<Vec<_>>().join("\n");
    let Run { replay, answers, .. } = run(&alone, 50, 600);
    let good = answers.iter().filter(|answer| answer.good).count();
    assert!(100 * good >= 45 * answers.len(), "{good} of {}", answers.len());
    let total = replay.summary().total;
    assert_eq!((total.ejections, total.out_ms, total.unserved), (0, 0, 0));
    assert!(total.refused > 100);
    println!("alone: {good} of {} good, {} detections refused by the floor", answers.len(), total.refused);
}

#[test]
fn the_example_is_this_case() {
    let run = run(BOTH, 10, 120);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../dist/examples/founding.jsonl");
    if env::var_os("BLESS").is_some() {
        fs::write(path, &run.lines).expect("written");
    } else {
        assert_eq!(run.lines, EVENTS, "{path} is not what the engine makes of it; BLESS=1 writes it again");
    }
    let total = run.replay.summary().total;
    assert!(total.ejections >= 2 && total.client_errors >= 4, "{total:?}");
}
