//! Shares of new connections change; connections stay where they are.

use std::{ops::Range, time::Duration};

use anyhow::Result;
use lb_core::event::EventKind;
use lb_lab::{clock, until};
use lb_tests::{
    http,
    lab::skipped,
    load::{Connections, Load, Sample},
    site::NAMES,
};

use crate::stage::{Family, PATIENCE, Plan, Stage, of};

const STEP: Duration = Duration::from_secs(1);

/// As far from a step's edges nobody is sure which one holds.
const EDGE: Duration = Duration::from_millis(150);

/// The part of the connections that began then which `web-1` got.
fn share(samples: &[Sample], when: &Range<Duration>) -> f64 {
    let all: Vec<_> = samples.iter().filter(|sample| when.contains(&sample.begun)).collect();
    let its = all.iter().filter(|sample| sample.backend.as_deref() == Some(NAMES[1])).count();
    assert!(all.len() > 100, "{} connections in {when:?}", all.len());
    its as f64 / all.len() as f64
}

#[test]
fn a_slow_start_and_weights_move_new_connections_only() -> Result<()> {
    if skipped("a_slow_start_and_weights_move_new_connections_only", &[]) {
        return Ok(());
    }
    let policy = "on_eject = \"drain\"\n[service.web.breaker]\ninterval = \"1s\"\nbase_ejection_time = \"1s\"\n\
                  half_open_trials = 0\nslow_start = \"5s\"\n";
    let stage = Stage::new(&Plan {
        prefix: "shares",
        family: Family::V4,
        backends: 2,
        fallback: 0,
        delay: Duration::ZERO,
        policy,
    })?;
    let events = stage.shunt.events()?;
    let mut kept = stage.kept(12)?;
    let mut stay = || -> Result<()> {
        for (stream, backend) in &mut kept {
            assert_eq!(of(&http::ask(stream, "GET /stays")?)?, *backend);
        }
        Ok(())
    };
    let load = Load::start(&stage.topology.client, stage.vip, 500, 16, Connections::Each);
    stage.order("eject", 1, &["--wait"])?;
    stay()?;
    let (back, _) = events.wait("it is back", 0, PATIENCE, |event| event.kind == EventKind::Readmit)?;
    for percent in [20, 40, 60, 80, 100] {
        until("the next step is reported", PATIENCE, || {
            stage.backend(1).is_ok_and(|backend| backend.weight_percent == percent)
        })?;
        stay()?;
    }
    until("the last step is over", PATIENCE, || clock::now() > back.at + 5 * STEP)?;
    let samples = load.samples();
    let mut last = 0.0;
    for step in 0..5_u32 {
        let when = back.at + step * STEP + EDGE..back.at + (step + 1) * STEP - EDGE;
        let (share, weight) = (share(&samples, &when), 0.2 * f64::from(step + 1));
        let expected = weight / (1.0 + weight);
        // On a busy machine a table is in force a while after its step has begun.
        assert!((share - expected).abs() < 0.15, "step {step}: {share:.3} instead of {expected:.3}");
        assert!(share > last - 0.05, "step {step}: {share:.3} after {last:.3}");
        last = share;
    }

    stage.order("weight", 1, &["300", "--reason", "canary", "--wait"])?;
    let begun = clock::now();
    until("some are steered by it", PATIENCE, || {
        load.samples().iter().filter(|sample| sample.begun > begun).count() > 400
    })?;
    stay()?;
    let samples = load.stop();
    let share = share(&samples, &(begun..clock::now()));
    assert!((share - 0.75).abs() < 0.08, "{share:.3} instead of 0.75");
    assert!(samples.iter().all(|sample| sample.answer == Ok(200)), "and nobody notices");
    Ok(())
}
