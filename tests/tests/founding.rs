//! The case that Shunt was made for, in real time on real traffic, recorded and replayed.
//!
//! One backend answers 500 to half of its requests; `consecutive_5xx = 3`, `interval = "5s"`,
//! `base_ejection_time = "30s"`, `max_ejection_percent = 100`. Beside a healthy backend, and alone.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lb_core::event::{Event, EventKind};
use lb_lab::{clock, until};
use lb_tests::{
    lab::skipped,
    load::Connections,
    site::{Site, failed},
};

/// Until the first ejection is over, its trials are made, and some are refused.
const LENGTH: Duration = Duration::from_secs(42);
const RATE: u64 = 50;
const PATIENCE: Duration = Duration::from_secs(60);

/// A decision of the breaker, in a form that both sides give.
fn decision(event: &Event) -> Option<String> {
    match event.kind {
        EventKind::Eject | EventKind::Trial | EventKind::Readmit | EventKind::Refused => Some(format!(
            "{} {}: {} -> {} ({}), number {}",
            event.kind,
            event.backend.as_deref().unwrap_or("-"),
            event.from,
            event.to,
            event.reason,
            event.ejection
        )),
        EventKind::Suspected
        | EventKind::Probe
        | EventKind::Path
        | EventKind::Operator
        | EventKind::Weight
        | EventKind::Membership
        | EventKind::Fallback
        | EventKind::Panic
        | EventKind::Drained
        | EventKind::Dataplane
        | EventKind::Interface
        | EventKind::Discovery
        | EventKind::Limit => None,
    }
}

/// Events, and the summary of the last line, of a replay.
fn replayed(site: &Site, recording: &str) -> Result<(Vec<String>, serde_json::Value)> {
    let config = site.shunt.config().display().to_string();
    let lines = site.shunt.ask(&["replay", "-c", &config, "-o", "jsonl", recording])?;
    let mut decisions = Vec::new();
    for line in lines.lines() {
        let event: Event = serde_json::from_str(line).with_context(|| line.to_owned())?;
        decisions.extend(decision(&event));
    }
    let summary = site.shunt.ask(&["replay", "-c", &config, "-o", "json", recording])?;
    Ok((decisions, serde_json::from_str(&summary)?))
}

/// `backends` of them, the last one half bad, for [`LENGTH`].
fn run(prefix: &str, backends: usize) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let recording = folder.path().join("recording.jsonl").display().to_string();
    let policy = format!(
        "[service.web.probe.http]\npath = \"/healthz\"\n\
         [service.web.breaker]\nconsecutive_5xx = 3\ninterval = \"5s\"\nbase_ejection_time = \"30s\"\n\
         max_ejection_percent = 100\n[record]\npath = {recording:?}\n"
    );
    let mut site = Site::start(prefix, backends, &policy)?;
    site.all_serve()?;
    let events = site.shunt.events()?;
    let sick = backends - 1;
    let name = format!("web-{sick}");
    site.backends[sick].fraction(0.5)?;
    let begun = clock::now();
    let load = site.load(RATE, 1, Connections::Each);
    until("the time is over", PATIENCE, || clock::now().saturating_sub(begun) > LENGTH)?;
    let samples = load.stop();
    ensure!(failed(&samples).is_empty(), "{:?}", failed(&samples));
    // The daemon reads the last success counts in its next look.
    let all = samples.len() as u64;
    let counted = |site: &Site| {
        site.shunt.status().map(|status| {
            let backends = &status.snapshot.services[0].backends;
            backends.iter().map(|one| one.responses.s2xx + one.responses.s5xx).sum::<u64>()
        })
    };
    until("all answers are counted", PATIENCE, || counted(&site).is_ok_and(|seen| seen == all))?;

    let heard = events.since(0);
    let bad: Vec<_> = samples.iter().filter(|sample| sample.answer == Ok(500)).collect();
    let good = samples.len() - bad.len();
    println!("{prefix}: {good} of {} good", samples.len());
    if backends > 1 {
        let ejections: Vec<_> = heard.iter().filter(|one| one.event.kind == EventKind::Eject).collect();
        let first = ejections.first().context("it is ejected")?;
        ensure!(first.event.reason == "consecutive_5xx", "{:?}", first.event);
        let before: Vec<_> = samples
            .iter()
            .filter(|sample| sample.ended <= first.at && sample.backend.as_deref() == Some(&*name))
            .collect();
        let in_a_row = before.iter().rev().take_while(|sample| sample.answer == Ok(500)).count();
        ensure!(in_a_row == 3, "{in_a_row} bad answers in a row before the ejection");
        let trial = heard.iter().find(|one| one.event.kind == EventKind::Trial).context("it is tried")?;
        // Its trials may be over before the daemon reports that it is half-open: the report waits for the
        // maps.
        let until = trial.at.saturating_sub(Duration::from_millis(500));
        let between = bad.iter().filter(|sample| sample.begun > first.at && sample.ended < until).count();
        ensure!(between == 0, "{between} bad answers while it is out");
        let tried = site.traffic(&name)?.counters.trials;
        // One budget a sweep, and the time holds three sweeps at most after it is half-open.
        ensure!((1..=9).contains(&tried), "{tried} trials");
        ensure!(good * 1000 >= samples.len() * 985, "{good} of {}", samples.len());
    } else {
        ensure!(good * 100 >= samples.len() * 45, "{good} of {}: Envoy gave 0.8 %", samples.len());
        ensure!(heard.iter().all(|one| one.event.kind != EventKind::Eject), "the last one is kept");
    }

    site.shunt.process().stop(PATIENCE)?;
    let (decisions, summary) = replayed(&site, &recording)?;
    let recorded: Vec<String> = heard.iter().filter_map(|one| decision(&one.event)).collect();
    ensure!(decisions == recorded, "the replay decided otherwise:\n{decisions:#?}\n{recorded:#?}");
    let total = &summary["total"];
    ensure!(total["responses"] == all, "{total}");
    ensure!(total["client_errors"] == bad.len(), "{} bad answers: {total}", bad.len());
    Ok(())
}

#[test]
fn beside_a_healthy_backend() -> Result<()> {
    if skipped("beside_a_healthy_backend", &[]) {
        return Ok(());
    }
    run("well", 2)
}

#[test]
fn alone() -> Result<()> {
    if skipped("alone", &[]) {
        return Ok(());
    }
    run("alone", 1)
}
