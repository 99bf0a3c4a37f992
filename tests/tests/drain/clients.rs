//! Clients that are used everywhere, in front of a backend that goes out.

use std::{fs, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use lb_lab::{Process, until};
use lb_tests::{
    lab::{Need, nginx, skipped},
    site::NAMES,
};

use crate::{
    boundary::{each_once, no_request_failed, plan},
    pool::Pool,
    stage::{Family, PATIENCE, Stage},
};

/// The backend with the most connections, and how many.
fn busiest(stage: &Stage) -> Result<(usize, usize)> {
    let counts: Vec<usize> =
        (0..stage.ledgers.len()).map(|number| Ok(stage.at_backend(number)?.len())).collect::<Result<_>>()?;
    counts.into_iter().enumerate().max_by_key(|(_, count)| *count).context("there are backends")
}

/// Waits until so many requests more have come.
fn flows(stage: &Stage, more: usize) -> Result<()> {
    let seen = || stage.ledgers.iter().map(|ledger| ledger.seen().len()).sum::<usize>();
    let before = seen();
    Ok(until("traffic flows", PATIENCE, || seen() > before + more)?)
}

/// The output of a program that was started, until it ends.
fn said(process: &mut Process) -> Result<String> {
    let mut output = process.child().stdout.take().context("standard output is piped")?;
    process.wait(Duration::from_secs(20))?;
    Ok(std::io::read_to_string(&mut output)?)
}

/// The number behind a word of wrk's.
fn number(text: &str, word: &str) -> usize {
    let behind = text.split(word).nth(1).unwrap_or_default();
    let digits: String = behind.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

#[test]
fn wrk_loses_nothing_by_a_drain_and_one_request_a_connection_by_a_reset() -> Result<()> {
    if skipped(
        "wrk_loses_nothing_by_a_drain_and_one_request_a_connection_by_a_reset",
        &[Need::Tool("wrk"), Need::Tool("ss")],
    ) {
        return Ok(());
    }
    let stage = Stage::new(&plan("wrk", Family::V4))?;
    let script = stage.topology.lab.folder().join("wrk.lua");
    let run = |name: &str| -> Result<Process> {
        let lua = format!(
            "local threads = 0\n\
             function setup(thread) thread:set('number', threads); threads = threads + 1 end\n\
             local count = 0\n\
             function request() count = count + 1; return wrk.format('GET', '/{name}/' .. number .. '/' .. count) end\n"
        );
        fs::write(&script, lua)?;
        let mut command = stage.topology.client.command("wrk");
        command.args(["--threads", "2", "--connections", "64", "--duration", "3s", "--script"]).arg(&script);
        command.arg(format!("http://{}/", stage.vip)).stdout(std::process::Stdio::piped());
        Ok(stage.topology.client.spawn(&mut command)?)
    };
    let config = fs::read_to_string(stage.shunt.config())?;
    fs::write(stage.shunt.config(), config.replace("on_eject = \"reset\"", "on_eject = \"drain\""))?;
    stage.ask(&["reload"])?.succeeds();
    let mut wrk = run("drain")?;
    flows(&stage, 300)?;
    let (drained, _) = busiest(&stage)?;
    stage.order("eject", drained, &["--wait"])?;
    let text = said(&mut wrk)?;
    assert!(text.contains("requests in") && !text.contains("Socket errors"), "{text}");
    assert!(!text.contains("Non-2xx"), "{text}");

    fs::write(stage.shunt.config(), config)?;
    stage.ask(&["reload"])?.succeeds();
    let mut wrk = run("reset")?;
    flows(&stage, 300)?;
    let (victim, count) = busiest(&stage)?;
    stage.order("eject", victim, &["--wait"])?;
    let text = said(&mut wrk)?;
    assert!(!text.contains("Non-2xx"), "{text}");
    let errors = text.split("Socket errors:").nth(1).unwrap_or_default();
    let errors = ["connect", "read", "write", "timeout"].map(|word| number(errors, word));
    assert_eq!(errors, [0, count, 0, 0], "{text}");
    assert_eq!(stage.traffic(victim)?.resets.at_request, count as u64);
    each_once(&stage);
    Ok(())
}

#[test]
fn curl_asks_again_by_itself() -> Result<()> {
    const CURLS: usize = 8;
    const EACH: usize = 30;
    if skipped("curl_asks_again_by_itself", &[Need::Tool("curl"), Need::Tool("ss")]) {
        return Ok(());
    }
    let stage = Stage::new(&plan("curl", Family::V4))?;
    let one = format!(
        "curl --silent --rate 20/s --output /dev/null --write-out '%{{http_code}} %{{num_connects}}\\n' \
         \"http://{}/curl/$number/[1-{EACH}]\" &",
        stage.vip
    );
    let script = format!("for number in $(seq {CURLS}); do {one} done; wait");
    let mut command = stage.topology.client.command("sh");
    command.arg("-c").arg(script).stdout(std::process::Stdio::piped());
    let mut curls = stage.topology.client.spawn(&mut command)?;
    until("all have asked", PATIENCE, || {
        (0..stage.ledgers.len())
            .map(|number| stage.at_backend(number).map_or(0, |open| open.len()))
            .sum::<usize>()
            == CURLS
    })?;
    flows(&stage, 2 * CURLS)?;
    let (victim, count) = busiest(&stage)?;
    stage.order("eject", victim, &["--wait"])?;
    let text = said(&mut curls)?;
    let answers: Vec<(&str, usize)> = text
        .lines()
        .map(|line| {
            let (code, connects) = line.split_once(' ').with_context(|| text.clone())?;
            Ok((code, connects.trim().parse()?))
        })
        .collect::<Result<_>>()?;
    assert_eq!(answers.iter().filter(|(code, _)| *code == "200").count(), CURLS * EACH, "{text}");
    let connects: usize = answers.iter().map(|(_, connects)| connects).sum();
    assert_eq!(connects, CURLS + count, "each that was with {} connected once more", NAMES[victim]);
    assert_eq!(each_once(&stage).len(), CURLS * EACH);
    Ok(())
}

#[test]
fn nginx_before_a_vip_asks_again_by_itself() -> Result<()> {
    if skipped("nginx_before_a_vip_asks_again_by_itself", &[Need::Tool("nginx"), Need::Tool("ss")]) {
        return Ok(());
    }
    let stage = Stage::new(&plan("upstream", Family::V4))?;
    let listen: SocketAddr = "127.0.0.1:8081".parse()?;
    let servers = format!(
        "upstream vip {{ server {}; keepalive 64; }}\n\
         server {{ listen {listen}; location / {{\n\
         proxy_pass http://vip; proxy_http_version 1.1; proxy_set_header Connection '';\n\
         proxy_next_upstream error; }} }}",
        stage.vip
    );
    let _nginx = nginx(&stage.topology.lab, &stage.topology.client, listen, &servers)?;
    // The clients of nginx wait only as long as nginx does.
    let pool = Pool::start(&stage.topology.client, listen, 500, false);
    flows(&stage, 300)?;
    let (victim, count) = busiest(&stage)?;
    stage.order("eject", victim, &["--wait"])?;
    until("the backend gets all resets", PATIENCE, || {
        stage.at_backend(victim).is_ok_and(|left| left.is_empty())
    })?;
    flows(&stage, 300)?;
    let asked = pool.stop()?;
    no_request_failed(&asked);
    assert_eq!(asked.iter().find(|one| one.answer != Ok(200)).map(|one| &one.path), None);
    let seen = each_once(&stage);
    assert_eq!(seen.len(), asked.len());
    let cut = stage.traffic(victim)?.resets.at_request;
    assert!(cut > 0, "{cut} of {count} connections ended at a request");
    Ok(())
}
