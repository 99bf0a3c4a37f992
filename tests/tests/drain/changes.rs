//! The configuration changes while connections live: by a reload, and by a restart.

use std::{fs, io::ErrorKind, net::TcpStream, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lb_core::event::EventKind;
use lb_lab::Style;
use lb_tests::{
    http,
    lab::{Need, skipped},
    site::NAMES,
};
use nix::sys::signal::Signal;

use crate::stage::{Family, PATIENCE, Plan, Stage, of};

const FAMILIES: [(Family, &str); 2] = [(Family::V4, "4"), (Family::V6, "6")];

fn stage(prefix: &str, family: Family) -> Result<Stage> {
    Stage::new(&Plan {
        prefix,
        family,
        backends: 2,
        fallback: 0,
        delay: Duration::ZERO,
        policy: "drain_timeout = \"4s\"\n",
    })
}

/// Puts this file in the place of the configuration.
fn rewrite(stage: &Stage, change: impl FnOnce(String) -> String) -> Result<()> {
    let text = fs::read_to_string(stage.shunt.config())?;
    let changed = change(text.clone());
    ensure!(changed != text, "nothing was replaced");
    fs::write(stage.shunt.config(), changed)?;
    Ok(())
}

/// That each of these still has an answer of its backend.
fn go_on(kept: &mut [(TcpStream, usize)], what: &str) -> Result<()> {
    for (stream, backend) in kept.iter_mut() {
        let answer = http::ask(stream, "GET /still").with_context(|| what.to_owned())?;
        assert_eq!(of(&answer)?, *backend, "{what}");
    }
    Ok(())
}

/// The other service keeps the file valid when `web` is gone.
fn without_web(text: &str, family: Family) -> String {
    let head = text.split("[service.web]").next().unwrap_or_default();
    let other = match family {
        Family::V4 => "vip = \"10.99.0.99:99\"\nbackends.web-0 = \"10.20.0.2:8080\"\n",
        Family::V6 => "vip = \"[fd99::99]:99\"\nbackends.web-0 = \"[fd20::2]:8080\"\n",
    };
    format!("{head}[service.other]\n{other}")
}

fn other_address(text: &str) -> String {
    text.replace("10.99.0.10:", "10.99.0.11:").replace("fd99::10]:", "fd99::11]:")
}

fn other_port(text: &str) -> String {
    text.replace("10.99.0.10:80\"", "10.99.0.10:81\"").replace("fd99::10]:80\"", "fd99::10]:81\"")
}

#[test]
fn a_reload_may_change_all_of_a_service_while_its_connections_go_on() -> Result<()> {
    if skipped("a_reload_may_change_all_of_a_service_while_its_connections_go_on", &[]) {
        return Ok(());
    }
    for (family, suffix) in FAMILIES {
        let mut stage = stage(&format!("may{suffix}"), family)?;
        let mut kept = stage.kept(6)?;
        let service = |keys: &'static str| {
            move |text: String| text.replace("[service.web]\n", &format!("[service.web]\n{keys}\n"))
        };
        let changes: [(&str, &dyn Fn(String) -> String); 6] = [
            ("evidence is off", &service("evidence = false")),
            ("evidence is on again", &|text| text.replace("evidence = false\n", "")),
            ("mode is dnat", &service("mode = \"dnat\"")),
            ("mode is nat again", &|text| text.replace("mode = \"dnat\"", "mode = \"nat\"")),
            ("the VIP has another port", &|text| other_port(&text)),
            ("the VIP has another address", &|text| other_address(&text)),
        ];
        for (what, change) in changes {
            rewrite(&stage, change)?;
            if what.starts_with("the VIP has another port") {
                stage.vip.set_port(81);
            } else if what.starts_with("the VIP has another address") {
                let address = if stage.vip.is_ipv4() { "10.99.0.11" } else { "fd99::11" };
                stage.vip.set_ip(address.parse()?);
            }
            stage.ask(&["reload"])?.succeeds();
            // The maps hold the reload when the VIP takes connections.
            let mut new = Vec::new();
            lb_lab::until("new connections come", PATIENCE, || match stage.kept(4) {
                Ok(some) => {
                    new = some;
                    true
                }
                Err(_) => false,
            })
            .with_context(|| what.to_owned())?;
            go_on(&mut kept, what)?;
            kept.extend(new);
        }
        let drops = stage.shunt.status()?.drops;
        assert!(drops.iter().all(|of| !of.reasons.contains_key("no_flow")), "{drops:?}");
    }
    Ok(())
}

#[test]
fn the_connections_of_a_removed_service_go_on_until_its_drain_is_over() -> Result<()> {
    if skipped("the_connections_of_a_removed_service_go_on_until_its_drain_is_over", &[Need::Tool("ss")]) {
        return Ok(());
    }
    for (family, suffix) in FAMILIES {
        let stage = stage(&format!("gone{suffix}"), family)?;
        let events = stage.shunt.events()?;
        let mut kept = stage.kept(6)?;
        rewrite(&stage, |text| without_web(&text, family))?;
        stage.ask(&["reload"])?.succeeds();
        let fresh = || http::connect(&stage.topology.client, stage.vip, Duration::from_millis(300));
        lb_lab::until("nobody takes new ones", PATIENCE, || fresh().is_err())?;
        go_on(&mut kept, "after the reload")?;
        for name in &NAMES[..2] {
            events.wait("its time is over", 0, PATIENCE, |event| {
                event.kind == EventKind::Drained
                    && event.service == "web"
                    && event.backend.as_deref() == Some(*name)
            })?;
        }
        for (stream, _) in &mut kept {
            let answer = http::ask(stream, "GET /late").map_err(|error| error.kind());
            assert_eq!(answer.err(), Some(ErrorKind::ConnectionReset));
        }
        for number in 0..2 {
            lb_lab::until("the backend keeps nothing", PATIENCE, || {
                stage.at_backend(number).is_ok_and(|left| left.is_empty())
            })?;
        }
    }
    Ok(())
}

#[test]
fn a_restart_may_change_what_a_reload_may_not_while_connections_go_on() -> Result<()> {
    if skipped("a_restart_may_change_what_a_reload_may_not_while_connections_go_on", &[]) {
        return Ok(());
    }
    for (family, suffix) in FAMILIES {
        let mut stage = stage(&format!("other{suffix}"), family)?;
        let mut kept = stage.kept(6)?;
        let top = |line: &'static str| move |text: String| format!("{line}\n{text}");
        let mode = if Style::get().tc { "native" } else { "tc" };
        let changes: [(&str, &dyn Fn(String) -> String); 8] = [
            ("nothing", &|text| format!("{text}# the same\n")),
            ("nat_ports is another range", &top("nat_ports = \"20000-20999\"")),
            ("nat_addresses are others", &top("nat_addresses = [\"10.10.0.1\", \"fd10::1\"]")),
            ("max_flows is another number", &top("max_flows = 65536")),
            ("timeouts.established is shorter", &|text| format!("{text}[timeouts]\nestablished = \"60s\"\n")),
            ("xdp_mode is another", &move |text| {
                let lines = text.lines().filter(|line| !line.starts_with("xdp_mode"));
                let kept: String = lines.map(|line| format!("{line}\n")).collect();
                format!("xdp_mode = \"{mode}\"\n{kept}")
            }),
            ("the VIP has another port", &|text| other_port(&text)),
            ("the service is removed", &move |text| without_web(&text, family)),
        ];
        for (what, change) in changes {
            stage.shunt.process().signal(Signal::SIGKILL)?;
            stage.shunt.process().wait(PATIENCE)?;
            rewrite(&stage, change)?;
            stage.shunt.start_again().with_context(|| what.to_owned())?;
            go_on(&mut kept, what).with_context(|| stage.shunt.log())?;
        }
    }
    Ok(())
}
