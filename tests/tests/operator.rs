//! Operators and state over time, on the real daemon.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_core::{
    event::EventKind,
    snapshot::{BreakerState, Effective, OperatorState},
};
use lb_lab::{Topology, clock, until, until_ok};
use lb_tests::{
    devices::index_and_mac,
    frame::{SYN, Tcp},
    holdings::attached,
    kernel::Action,
    lab::skipped,
    load::Connections,
    site::{NAMES, PATIENCE, Site, VIP},
};
use lb_userspace::control::model::{Change, ChangeCode, Explanation, Reloaded};
use nix::sys::signal::Signal;

/// Three backends without a probe, and the breaker as it is asked for.
fn start(prefix: &str, breaker: &str) -> Result<Site> {
    let site = Site::start(prefix, 3, &format!("[service.web.breaker]\n{breaker}\n"))?;
    site.reachable()?;
    Ok(site)
}

#[test]
fn an_ejection_survives_a_kill_with_what_is_left_of_it() -> Result<()> {
    if skipped("an_ejection_survives_a_kill_with_what_is_left_of_it", &[]) {
        return Ok(());
    }
    let mut site = start("state", "consecutive_5xx = 3\ninterval = \"1s\"\nbase_ejection_time = \"60s\"")?;
    let events = site.shunt.events()?;
    let load = site.load(200, 4, Connections::Each);
    site.backends[1].fail()?;
    let (heard, _) = events.wait("web-1 is ejected", 0, PATIENCE, |event| event.kind == EventKind::Eject)?;
    until("the state is on the disk", PATIENCE, || site.state().contains("\"open_for\":5"))?;
    let ejected = clock::now();
    let before = site.backend("web-1")?;
    site.kill()?;
    // It is well again, but its time is not over. Nobody sweeps, so nobody lets it in.
    site.backends[1].heal()?;
    site.shunt.start_again()?;
    let after = site.backend("web-1")?;
    let status = site.shunt.status()?;
    let passed = (clock::now() - heard.at).as_millis() as u64;
    assert_eq!((after.breaker, after.ejection), (BreakerState::Open, before.ejection));
    let left = after.until_ms.context("it has an end")?.0 - status.snapshot.t_ms.0;
    // Measured by two clocks, one of which began again; a second covers the way between them.
    let expected = 60_000 - passed;
    assert!(left.abs_diff(expected) < 1000, "{left} ms left, {expected} expected");
    let place = load.samples().len();
    until("the load goes on", PATIENCE, || load.samples().len() > place + 400)?;
    let samples = load.stop();
    let report = site.backends[1].report(ejected)?;
    let late = report.clients().filter(|one| Duration::from_nanos(one.at_ns) > heard.at).count();
    assert_eq!(late, 0, "no connection reaches it, before, while and after the daemon starts");
    assert!(samples.iter().all(|sample| sample.answer.is_ok()), "and nobody notices");
    let reason = after.reason.context("there is a reason")?;
    assert!(reason.contains("3 failures in a row"), "{reason}");
    Ok(())
}

#[test]
fn an_override_survives_a_kill_and_ends_by_itself() -> Result<()> {
    if skipped("an_override_survives_a_kill_and_ends_by_itself", &[]) {
        return Ok(());
    }
    let mut site = start("override", "consecutive_5xx = 3")?;
    let begun = clock::now();
    let words = ["backend", "drain", "web/web-0", "--for", "8s", "--reason", "deploy", "--wait"];
    let said = site.ask(&words)?;
    said.succeeds();
    let weight = ["backend", "weight", "web/web-2", "7"];
    site.ask(&weight)?.succeeds();
    until("the state is on the disk", PATIENCE, || {
        let state = site.state();
        state.contains("\"draining\"") && state.contains("\"weight\":[7,")
    })?;
    site.kill()?;
    site.shunt.start_again()?;
    let drained = site.backend("web-0")?;
    if clock::now() - begun < Duration::from_secs(7) {
        assert_eq!(drained.operator, OperatorState::Draining);
        let held = drained.overrides.first().context("there is an override")?;
        let alice = lb_alice();
        assert_eq!((held.actor.as_str(), held.reason.as_deref()), (alice.as_str(), Some("deploy")));
    }
    assert_eq!(site.backend("web-2")?.weight, 7);
    until("its eight seconds are over", PATIENCE, || {
        site.backend("web-0").is_ok_and(|backend| backend.operator == OperatorState::Enabled)
    })?;
    assert!(clock::now() - begun >= Duration::from_millis(7_900), "and not before");
    assert_eq!(site.backend("web-2")?.weight, 7, "that one has no end");
    site.ask(&["backend", "weight", "web/web-2", "--reset", "--wait"])?.succeeds();
    assert_eq!(site.backend("web-2")?.weight, 100);

    // A stop writes the last word, and a file that nobody can read keeps nobody from starting.
    site.ask(&["backend", "disable", "web/web-1"])?.succeeds();
    site.shunt.process().stop(PATIENCE)?;
    assert!(site.state().contains("\"disabled\""), "{}", site.state());
    fs::write(site.shunt.state_file(), "{\"version\":1,\"services\":")?;
    site.shunt.start_again()?;
    assert_eq!(site.backend("web-1")?.operator, OperatorState::Enabled);
    let log = site.shunt.log();
    assert!(log.contains("WARN") && log.contains("was set aside"), "{log}");
    Ok(())
}

/// As the daemon names who asks: tests run as root.
fn lb_alice() -> String {
    "alice (as root)".to_owned()
}

#[test]
fn verbs_answer_when_they_hold_and_refuse_below_the_floor() -> Result<()> {
    if skipped("verbs_answer_when_they_hold_and_refuse_below_the_floor", &[]) {
        return Ok(());
    }
    let mut site = start("verbs", "consecutive_5xx = 3\nmin_serving = 2\nbase_ejection_time = \"60s\"")?;
    let load = site.load(100, 4, Connections::Each);
    until("traffic flows", PATIENCE, || load.samples().len() > 50)?;

    let drained = site.ask(&["backend", "drain", "web/web-0", "--wait"])?;
    drained.succeeds();
    assert!(drained.stdout.contains("in force, it has no connection left"), "{}", drained.stdout);
    let (before, place) = (site.connections("web-0")?, load.samples().len());
    until("the load goes on", PATIENCE, || load.samples().len() > place + 100)?;
    assert_eq!(site.connections("web-0")?, before, "it held when it said so");

    for verb in ["drain", "disable", "eject"] {
        let words = ["backend", verb, "web/web-1"];
        let expected = "error: 2 of 3 backends of `web` serve, min_serving is 2";
        site.ask(&words)?.refuses(5, &[expected, "use `--force`: then 1 of 3"]);
    }
    assert_eq!(site.backend("web-1")?.effective, Effective::Serving, "refused, nothing has changed");
    site.ask(&["backend", "eject", "web/web-1", "--for", "5m", "--force", "--wait"])?.succeeds();
    assert_eq!(site.backend("web-1")?.effective, Effective::Ejected);
    site.ask(&["backend", "admit", "web/web-1", "--wait"])?.succeeds();
    assert_eq!(site.backend("web-1")?.effective, Effective::Serving);
    site.ask(&["backend", "enable", "web/web-0", "--wait"])?.succeeds();
    let before = site.connections("web-0")?;
    until("it gets connections again", PATIENCE, || site.connections("web-0").is_ok_and(|now| now > before))?;

    let unknown = site.ask(&["backend", "drain", "web/wbe-0"])?;
    unknown.refuses(2, &["error: service `web` has no backend `wbe-0`", "help: did you mean `web-0`?"]);
    assert!(load.stop().iter().all(|sample| sample.answer == Ok(200)), "clients notice nothing of all this");
    assert!(!site.shunt.log().contains("panicked"));
    assert_eq!(site.shunt.process().ended(), None);
    Ok(())
}

#[test]
fn a_drain_waits_for_the_last_connection() -> Result<()> {
    if skipped("a_drain_waits_for_the_last_connection", &[]) {
        return Ok(());
    }
    let site = start("drain", "consecutive_5xx = 3")?;
    let kept = site.load(100, 4, Connections::Kept);
    until_ok("somebody is connected to each", PATIENCE, || {
        let open: Vec<u64> = NAMES[..3].iter().filter_map(|name| site.why(name).ok()?.connections).collect();
        if open.iter().sum::<u64>() == 4 { Ok(()) } else { Err(format!("{open:?}")) }
    })?;
    let name = NAMES[..3].iter().find(|name| site.why(name).is_ok_and(|view| view.connections > Some(0)));
    let name = format!("web/{}", name.context("four connections are somewhere")?);
    let words = ["backend", "drain", &name, "--wait", "--timeout", "1500ms"];
    let expected = format!("{name} still has ");
    site.ask(&words)?.refuses(7, &[&expected, "it gets no new ones"]);
    let expected = format!("the order to drain {name} stays in force");
    let undo = format!("`shunt backend enable {name}` takes it back");
    site.interrupted(1, &["backend", "drain", &name, "--wait"])?.refuses(7, &[&expected, &undo]);
    assert!(kept.stop().iter().all(|sample| sample.answer == Ok(200)), "those that it has go on");
    let said = site.ask(&["backend", "drain", &name, "--wait", "--timeout", "30s"])?;
    said.succeeds();
    assert!(said.stdout.contains("no connection left"), "{}", said.stdout);
    Ok(())
}

#[test]
fn questions_are_answered_from_the_maps() -> Result<()> {
    if skipped("questions_are_answered_from_the_maps", &[]) {
        return Ok(());
    }
    let mut site = start("ask", "consecutive_5xx = 3\nbase_ejection_time = \"60s\"")?;
    let client = "10.10.0.2:45678";
    let explain = |site: &Site| -> Result<Explanation> {
        Ok(serde_json::from_str(&site.shunt.ask(&["explain", client, "web", "-o", "json"])?)?)
    };
    let said = explain(&site)?;
    let chosen = said.choice.backend.clone().context("somebody serves")?;
    let instead = said.if_removed.and_then(|choice| choice.backend).context("others serve")?;
    site.ask(&["backend", "disable", &format!("web/{chosen}"), "--wait"])?.succeeds();
    assert_eq!(explain(&site)?.choice.backend, Some(instead), "it said where it would go");
    let text = site.ask(&["explain", client, "web"])?;
    text.succeeds();
    assert!(text.stdout.starts_with(&format!("{client} -> {VIP}: web/")), "{}", text.stdout);

    let text = site.ask(&["why", &format!("web/{chosen}")])?;
    text.succeeds();
    assert!(text.stdout.contains("disabled by alice (as root)"), "{}", text.stdout);

    // The loop has done something by now, and not been slow about it.
    let daemon = site.shunt.status()?.daemon;
    assert!(
        daemon.loop_lag_ms.recent <= daemon.loop_lag_ms.worst && daemon.loop_lag_ms.worst < 2000,
        "{daemon:?}"
    );
    assert_eq!(daemon.state_error, None);

    // A new configuration, asked about first.
    let config = fs::read_to_string(site.shunt.config())?;
    fs::write(site.shunt.config(), config.replace("web-2 = \"10.20.2.2:8080\"\n", ""))?;
    let reload = |site: &Site, words: &[&str]| -> Result<Reloaded> {
        Ok(serde_json::from_str(&site.shunt.ask(words)?)?)
    };
    let said = reload(&site, &["reload", "--dry-run", "-o", "json"])?;
    let removed = Change { code: ChangeCode::BackendRemoved, says: "web/web-2: removed".to_owned() };
    assert_eq!((said.changes, said.dry_run), (vec![removed.clone()], true));
    assert_eq!(site.shunt.status()?.snapshot.services[0].backends.len(), 3);
    let said = reload(&site, &["reload", "-o", "json"])?;
    assert_eq!(said.changes, [removed]);
    assert_eq!(site.shunt.status()?.snapshot.services[0].backends.len(), 2);
    fs::write(site.shunt.config(), config.replace("consecutive_5xx = 3", "consecutive_5xx = \"no\""))?;
    site.ask(&["reload"])?
        .refuses(3, &["is invalid", "consecutive_5xx = \"no\"", "help: nothing has changed"]);
    assert_eq!(site.shunt.process().ended(), None);
    Ok(())
}

/// The daemon logs to a pipe that nobody reads, and then to one without a reader.
#[test]
fn a_log_that_nobody_reads_holds_up_nothing() -> Result<()> {
    if skipped("a_log_that_nobody_reads_holds_up_nothing", &[]) {
        return Ok(());
    }
    let mut site = start("logpipe", "consecutive_5xx = 3")?;
    site.kill()?;
    let (reader, writer) = std::io::pipe()?;
    let mut command = site.topology.node.command(site.shunt.binary());
    command.arg("run").arg("--config").arg(site.shunt.config()).env("SHUNT_LOG", "trace");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
    let mut daemon = site.topology.node.spawn(&mut command)?;
    // The command has a copy of the pipe's end.
    drop(command);
    site.reachable()?;
    let lost = |site: &Site| site.shunt.status().map(|status| status.daemon.lost_log_lines);
    until("lines are lost", PATIENCE, || {
        let reloaded = site.shunt.ask(&["reload"]).is_ok();
        reloaded && lost(&site).is_ok_and(|lost| lost > 0)
    })?;
    anyhow::ensure!(site.shunt.ask(&["status"])?.contains("lines of its log are lost"), "status says so");
    let eject = ["backend", "eject", "web/web-0", "--wait"];
    site.shunt.ask(&eject)?;
    assert_eq!(site.backend("web-0")?.effective, Effective::Ejected);
    drop(reader);
    for _ in 0..3 {
        site.shunt.ask(&["reload"])?;
    }
    site.shunt.ask(&["backend", "admit", "web/web-0", "--wait"])?;
    assert_eq!(daemon.ended(), None);
    daemon.signal(Signal::SIGTERM)?;
    anyhow::ensure!(daemon.wait(PATIENCE)?.success(), "an orderly stop");
    Ok(())
}

#[test]
fn a_client_with_a_backends_or_a_vips_address_is_refused_after_a_restart_too() -> Result<()> {
    if skipped("a_client_with_a_backends_or_a_vips_address_is_refused_after_a_restart_too", &[]) {
        return Ok(());
    }
    let other =
        "[service.other]\nvip = \"10.99.0.11:80\"\n[service.other.backends]\nweb-0 = \"10.20.0.2:8080\"";
    let mut site = Site::start("origins", 3, other)?;
    let reachable = |site: &Site| {
        until("all next hops answer", PATIENCE, || {
            let status = site.shunt.status();
            status.is_ok_and(|status| {
                status.traffic.len() == 4 && status.traffic.iter().all(|one| one.reachable)
            })
        })
    };
    let vip = VIP.parse()?;
    let asks = |site: &Site, source: IpAddr| -> Result<Action> {
        let (device, mac) = index_and_mac(&site.topology.node, &site.topology.devices[0])?;
        let mut syn = Tcp::new(SocketAddr::new(source, 4000), vip, SYN).numbers(1, 0);
        syn.to_mac = mac;
        let (syn, program) = (syn.bytes(), attached(&site.shunt)?);
        // `struct xdp_md`: the frame's end, and the device that it comes by.
        let context: Vec<u8> =
            [0, syn.len() as u32, 0, device, 0, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let run = site.topology.node.enter(|| program.run_in(&syn, &mut [], &context))?;
        Ok(Action::of(run?.0))
    };
    let expected = |site: &Site| -> Result<()> {
        for number in 0..3 {
            assert_eq!(asks(site, Topology::address(number).into())?, Action::Drop, "it is backend {number}");
        }
        assert_eq!(asks(site, [10, 99, 0, 11].into())?, Action::Drop, "it is the other VIP");
        assert_eq!(asks(site, [192, 0, 2, 7].into())?, Action::Redirect, "anybody else");
        Ok(())
    };
    reachable(&site)?;
    expected(&site)?;
    site.kill()?;
    site.shunt.start_again()?;
    reachable(&site)?;
    expected(&site)
}
