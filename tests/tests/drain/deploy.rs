//! A rolling deploy as docs/operating.md says it: drain, replace by a new address, reload.

use std::{fs, io::Write as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lb_lab::until;
use lb_tests::{
    http,
    lab::{Need, skipped},
    ledger::SLOW_LENGTH,
    site::NAMES,
};

use crate::{
    boundary::{each_once, no_request_failed},
    pool::Pool,
    stage::{Family, PATIENCE, Plan, Stage, of},
};

const OLD: usize = 1;
const NEW: usize = 2;

#[test]
fn a_rolling_deploy_costs_no_request_and_no_download() -> Result<()> {
    if skipped("a_rolling_deploy_costs_no_request_and_no_download", &[Need::Tool("ss")]) {
        return Ok(());
    }
    deploy("deploy4", Family::V4)?;
    deploy("deploy6", Family::V6)
}

fn deploy(prefix: &str, family: Family) -> Result<()> {
    let policy = "on_drain = \"reset\"\ndrain_timeout = \"6s\"\n";
    let stage = Stage::new(&Plan {
        prefix,
        family,
        backends: 3,
        fallback: 0,
        delay: Duration::from_millis(20),
        policy,
    })?;
    // The third host is not part of the service yet.
    let line = |number: usize| format!("backends.{} = \"{}\"\n", NAMES[number], family.backend(number));
    let (with_all, path) = (fs::read_to_string(stage.shunt.config())?, stage.shunt.config());
    let before = with_all.replace(&line(NEW), "");
    ensure!(before != with_all, "{with_all}");
    fs::write(path, &before)?;
    stage.ask(&["reload"])?.succeeds();

    let pool = Pool::start(&stage.topology.client, stage.vip, 300, true);
    until("traffic flows", PATIENCE, || pool.asked().len() > 200)?;
    let mut download = None;
    for number in 0..200 {
        let mut stream = stage.connect()?;
        if of(&http::ask(&mut stream, &format!("GET /which/{number}"))?)? == OLD {
            download = Some(stream);
            break;
        }
    }
    let mut download = download.context("no connection went to the old one")?;
    download.write_all(b"GET /slow/deploy HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    until("the download is under way", PATIENCE, || {
        stage.ledgers[OLD].seen().iter().any(|seen| seen.path == "/slow/deploy")
    })?;

    // It ends when nothing is left, which is after the download.
    stage.order("drain", OLD, &["--reason", "deploy", "--wait"])?;
    let response = http::read(&mut download, true)?;
    assert_eq!((response.body.len(), of(&response)?), (SLOW_LENGTH, OLD), "the download is whole");
    assert_eq!(stage.at_backend(OLD)?, Vec::<String>::new());
    let seen = stage.ledgers[OLD].seen().len();

    // The name stays, the address is the new host's.
    let renewed = before.replace(&line(OLD), &line(NEW).replace(NAMES[NEW], NAMES[OLD]));
    ensure!(renewed != before, "{before}");
    fs::write(path, renewed)?;
    let dry = stage.ask(&["reload", "--dry-run"])?;
    assert!(dry.code == Some(0) && dry.stdout.contains("as a new backend"), "{dry}");
    stage.ask(&["reload"])?.succeeds();
    // The pool keeps its connections to the other one.
    let fresh = |number| -> Result<bool> {
        Ok(of(&http::ask(&mut stage.connect()?, &format!("GET /fresh/{number}"))?)? == NEW)
    };
    let (mut count, mut numbers) = (0, 0..);
    until("the new one has its share", PATIENCE, || {
        count += usize::from(numbers.next().is_some_and(|number| fresh(number).unwrap_or(false)));
        count >= 5
    })?;
    let backend = stage.backend(OLD)?;
    assert!(backend.overrides.is_empty() && backend.address == family.backend(NEW), "{backend:?}");

    let asked = pool.stop()?;
    no_request_failed(&asked);
    assert_eq!(asked.iter().find(|one| one.answer != Ok(200)).map(|one| &one.path), None);
    each_once(&stage);
    assert_eq!(stage.ledgers[OLD].seen().len(), seen, "nothing came after the drain");
    Ok(())
}
