//! A campaign against the breaker: attacks of clients, and of others on the clients' side, on real servers behind the real
//! program. None may get a healthy backend ejected, and none may free a bad one.
//!
//! Each attack has a service of its own for each of two policies, so a run of many plays at a time still says which attack did
//! what. In its short form every attack comes from one client, under one policy with good traffic beside and under the other
//! without. `SHUNT_CAMPAIGN=long` plays all of them from one client, from 100 forged sources that hear no answer, and from
//! 10 000 that complete handshakes; each with and without good traffic. `SHUNT_CAMPAIGN=NAME` plays one attack in the same
//! ways, `SHUNT_CAMPAIGN=100` all from those sources.

#[path = "campaign/attack.rs"]
mod attack;
#[path = "campaign/connections.rs"]
mod connections;
#[path = "campaign/forged.rs"]
mod forged;
#[path = "campaign/half_open.rs"]
mod half_open;
#[path = "campaign/handshakes.rs"]
mod handshakes;
#[path = "campaign/requests.rs"]
mod requests;
#[path = "campaign/row.rs"]
mod row;
#[path = "campaign/stage.rs"]
mod stage;

use std::{env, thread};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    lab::{Need, skipped},
    socket::many_files,
};

use attack::{Attack, Beside, Play, Policy, Sources};
use row::Row;
use stage::Stage;

/// Plays at a time in the short form.
const AT_A_TIME: usize = 24;

/// With 10 000 sources each: the servers take so many connections.
const LARGE_AT_A_TIME: usize = 4;

/// The longest ones first.
fn attacks() -> Vec<Attack> {
    [half_open::ATTACKS, handshakes::ATTACKS, connections::ATTACKS, requests::ATTACKS, forged::ATTACKS]
        .concat()
}

#[test]
fn no_attack_ejects_a_healthy_backend_or_frees_a_bad_one() -> Result<()> {
    if skipped(
        "no_attack_ejects_a_healthy_backend_or_frees_a_bad_one",
        &[Need::Tool("nginx"), Need::Tool("nft")],
    ) {
        return Ok(());
    }
    many_files(8192)?;
    let wanted = env::var("SHUNT_CAMPAIGN").unwrap_or_default();
    let mut attacks = attacks();
    let mut sources = Sources::ALL.to_vec();
    if sources.iter().any(|of| of.to_string() == wanted) {
        sources.retain(|of| of.to_string() == wanted);
    } else if !matches!(wanted.as_str(), "" | "long") {
        attacks.retain(|attack| wanted == attack.name);
        ensure!(!attacks.is_empty(), "neither an attack nor a number of sources: {wanted}");
    }
    let stage = Stage::new(&attacks)?;
    let rows = if wanted.is_empty() { short(&stage, &attacks)? } else { long(&stage, &attacks, &sources)? };
    let failed: Vec<&Row> = rows.iter().filter(|row| !row.holds()).collect();
    ensure!(
        failed.is_empty(),
        "{} of {} rows:\n{}\n{}",
        failed.len(),
        rows.len(),
        Row::HEAD,
        failed.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    );
    Ok(())
}

/// All attacks from one client each.
fn short(stage: &Stage, attacks: &[Attack]) -> Result<Vec<Row>> {
    println!("{}", Row::HEAD);
    round(stage, attacks, Sources::One, Beside::ALL, 0)
}

/// Each attack from all kinds of sources, with and without good traffic.
fn long(stage: &Stage, attacks: &[Attack], sources: &[Sources]) -> Result<Vec<Row>> {
    println!("{}", Row::HEAD);
    let mut rows = Vec::new();
    for (run, sources) in (1..).step_by(2).zip(sources.iter().copied()) {
        for (run, beside) in (run..).zip(Beside::ALL) {
            rows.extend(round(stage, attacks, sources, [beside; 2], run)?);
        }
    }
    Ok(rows)
}

/// All attacks under both policies. `beside`: of each policy.
fn round(
    stage: &Stage,
    attacks: &[Attack],
    sources: Sources,
    beside: [Beside; 2],
    run: u16,
) -> Result<Vec<Row>> {
    let plays: Vec<Play<'_>> = (0..)
        .zip(attacks)
        .flat_map(|(number, attack)| {
            let play = move |(policy, beside)| Play { stage, attack, number, policy, sources, beside, run };
            Policy::ALL.into_iter().zip(beside).map(play)
        })
        .collect();
    let together = if sources == Sources::Many { LARGE_AT_A_TIME } else { AT_A_TIME };
    let mut rows = Vec::new();
    for together in plays.chunks(together) {
        rows.extend(at_once(together)?);
        stage.heard_all()?;
    }
    Ok(rows)
}

fn at_once(plays: &[Play<'_>]) -> Result<Vec<Row>> {
    thread::scope(|scope| {
        let running: Vec<_> = plays.iter().map(|play| scope.spawn(|| play.row())).collect();
        let mut rows = Vec::new();
        for (play, running) in plays.iter().zip(running) {
            let row = running.join().expect("a play does not panic");
            let row = row.with_context(|| format!("{} {}", play.attack.name, play.policy))?;
            println!("{row}");
            rows.push(row);
        }
        Ok(rows)
    })
}
