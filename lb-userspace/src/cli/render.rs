//! Turns the API's responses into text for people. One renderer serves `shunt status`, its live view and the demo, so
//! that they never disagree.

use lb_common::ABI_VERSION;
use lb_core::{
    codes::{DiscoveryCode, OverrideCode},
    io::{BackendId, FlowReset},
    snapshot::{
        BackendSnapshot, Drain, Effective, LeavingSnapshot, Override, Panic, PathState, PendingWrite,
        ServiceSnapshot,
    },
    time::Instant,
};

use super::palette::{Paint, Palette};
use crate::{
    attach_mode::Condition,
    control::model::{
        AttachMode, BackendTraffic, Discovery, Evidence, ExpiredFlows, LimitUse, Status, Warning,
    },
};

mod columns;
mod events;
mod explain;
mod import;
mod replay;
mod table;
mod text;
mod why;

pub use events::EventLines;
pub use explain::explanation;
pub use import::import;
pub use replay::{comparison, summary};
use text::{printable, span, wrap};
pub use why::{changed, why as backend};

/// Tables stay within this width while names and addresses have a usual length.
const WIDTH: usize = 100;

/// Everything, with exact numbers, however wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wide(pub bool);

/// Services, backends, and why each backend is in its state.
pub fn status(status: &Status, wide: Wide, palette: &Palette) -> String {
    let palette = *palette;
    let mut lines = vec![daemon(status, palette), interfaces(status, palette)];
    for Warning { interface, says, remedy, .. } in &status.warnings {
        let remedy = remedy.as_ref().map(|remedy| format!(" (help: {remedy})")).unwrap_or_default();
        let why = format!("{}: {says}{remedy}", interface.as_deref().unwrap_or("host"));
        lines.extend(wrap(&printable(&why), "  why ", WIDTH));
    }
    for interface in &status.interfaces {
        let why =
            interface.problem.as_ref().map(|problem| format!("interface {}: {problem}", interface.name));
        let also = (!interface.also.is_empty()).then(|| {
            format!("interface {}: others are attached there: {}", interface.name, interface.also.join(", "))
        });
        let both = why.into_iter().chain(also);
        lines.extend(both.flat_map(|why| wrap(&printable(&why), "  why ", WIDTH)));
    }
    if let Some(error) = &status.daemon.counters_error {
        let why = format!("shunt: the daemon cannot read the counters in its maps: {error}");
        lines.extend(wrap(&printable(&why), "  why ", WIDTH));
    }
    if let Some(error) = &status.daemon.probe_error {
        let why = format!("shunt: probes wait, and no backend is judged for it: {error}");
        lines.extend(wrap(&printable(&why), "  why ", WIDTH));
    }
    if status.daemon.lost_log_lines > 0 {
        let why =
            format!("shunt: {} lines of its log are lost: their reader stalls", status.daemon.lost_log_lines);
        lines.extend(wrap(&why, "  why ", WIDTH));
    }
    if status.snapshot.services.is_empty() {
        lines.extend([String::new(), "no service is configured".to_owned()]);
    }
    if wide.0 {
        let ExpiredFlows { handshakes, established, closing, time_wait } = status.expired_flows;
        lines.push(format!(
            "expired flows  handshakes {handshakes}  established {established}  closing {closing}  time-wait {time_wait}"
        ));
    }
    for service in &status.snapshot.services {
        lines.push(String::new());
        lines.push(heading(status, service, wide, palette));
        lines.extend(columns::table(status, service, wide, WIDTH, palette));
        if wide.0 {
            lines.extend(drops(status, &service.name));
        }
        for why in whys(status, service) {
            lines.extend(wrap(&printable(&why), "  why ", WIDTH));
        }
    }
    let leaving = &status.snapshot.leaving;
    if !leaving.is_empty() {
        lines.extend([String::new(), palette.paint(Paint::Heading, "removed")]);
        for of in leaving {
            lines.extend(wrap(&printable(&removed(status, of)), "  why ", WIDTH));
        }
    }
    lines.join("\n") + "\n"
}

/// A removed backend.
fn removed(status: &Status, of: &LeavingSnapshot) -> String {
    let name = of.name.as_deref().unwrap_or("(of an earlier run)");
    let drain = drain(&of.drain, remaining(status, of.id), status.snapshot.t_ms);
    let drain = drain.unwrap_or_else(|| "the daemon removes it from the maps".to_owned());
    format!("{}/{name} at {}: removed; {drain}", of.service, of.address)
}

fn remaining(status: &Status, backend: BackendId) -> Option<u64> {
    status.remaining_connections.iter().find(|of| of.backend == backend).map(|of| of.connections)
}

/// Describes the drain of a backend. `None`: it was over long ago.
fn drain(drain: &Drain, remaining: Option<u64>, now: Instant) -> Option<String> {
    /// How long the text mentions a drain that is over.
    const NEWS_MS: u64 = 10_000;
    let count = match remaining {
        Some(remaining) => format!(" ({remaining} left)"),
        None => String::new(),
    };
    let in_time = span((drain.until_ms - now).0);
    match (drain.flow_reset, remaining) {
        (FlowReset::Never, _) => {
            Some(format!("its connections continue{count}, and in {in_time} Shunt resets those still open"))
        }
        (FlowReset::AtRequest, _) => Some(format!(
            "Shunt resets its connections at their next request or when idle{count}, in {in_time} at the latest"
        )),
        (FlowReset::Now, None | Some(0)) if (now - drain.until_ms).0 > NEWS_MS => None,
        (FlowReset::Now, _) => Some(format!("Shunt resets its remaining connections{count}")),
    }
}

fn daemon(status: &Status, palette: Palette) -> String {
    let Status { version, abi, instance, pid, config_path, config_generation, .. } = status;
    let mut rest = format!("  instance {instance}  pid {pid}  up {}", span(status.uptime_ms));
    rest += &format!("  {config_path} (generation {config_generation})");
    if *abi != ABI_VERSION {
        rest += &format!("  map layout {abi}, this program's is {ABI_VERSION}");
    }
    palette.paint(Paint::Heading, &printable(&format!("shunt {version}"))) + &printable(&rest)
}

fn interfaces(status: &Status, palette: Palette) -> String {
    let names: Vec<String> = status
        .interfaces
        .iter()
        .map(|interface| {
            let (paint, how) = match (interface.condition, interface.mode) {
                (Condition::Attached, AttachMode::Native | AttachMode::Tc) => {
                    (Paint::Plain, interface.mode.to_string())
                }
                (Condition::Attached, AttachMode::Generic) => (Paint::Warning, interface.mode.to_string()),
                (condition, _) => (Paint::Bad, condition.to_string()),
            };
            palette.paint(paint, &printable(&format!("{} ({how})", interface.name)))
        })
        .collect();
    let names = if names.is_empty() { "no interface".to_owned() } else { names.join(", ") };
    let mut line = format!("on {names}  events {}", status.events_seq);
    if status.mirror_lost > 0 {
        let lost = format!("response heads lost {}", status.mirror_lost);
        line = format!("{line}  {}", palette.paint(Paint::Warning, &lost));
    }
    line
}

fn heading(status: &Status, service: &ServiceSnapshot, wide: Wide, palette: Palette) -> String {
    let mut line = palette.paint(Paint::Heading, &printable(&service.name));
    line += &format!("  {}", service.vip);
    if wide.0 {
        line += &format!("  id {}", service.id);
    }
    if let Some(forwarding) = status.forwarding.iter().find(|forwarding| forwarding.service == service.name) {
        line += &format!("  {}  evidence {}", forwarding.mode, forwarding.evidence);
        if let Some(limit) = &forwarding.limit {
            let paint = if limit.is_full() { Paint::Bad } else { Paint::Plain };
            line += "  ";
            line += &palette.paint(paint, &limit_words(limit));
        }
    }
    let all = service.regular().count();
    let serving = service.regular().filter(|backend| backend.effective == Effective::Serving).count();
    let paint = match serving {
        0 => Paint::Bad,
        _ if serving < all => Paint::Warning,
        _ => Paint::Good,
    };
    line += "  ";
    line += &palette.paint(paint, &format!("{serving} of {all} serving"));
    match status.discovery.iter().find(|of| of.service == service.name).map(|of| of.code) {
        Some(DiscoveryCode::Current) => line += "  discovered",
        Some(code) => {
            line += "  ";
            line += &palette.paint(Paint::Bad, &format!("DISCOVERY {code}"));
        }
        None => {}
    }
    if service.panic.is_some() {
        line += "  ";
        line += &palette.paint(Paint::Bad, "PANIC");
    }
    if service.fallback {
        line += "  ";
        line += &palette.paint(Paint::Bad, "FALLBACK");
    }
    line
}

/// `80 of 100 connections`.
fn limit_words(of: &LimitUse) -> String {
    match of.limit {
        0 => format!("{} connections", of.used),
        limit => format!("{} of {limit} connections", of.used),
    }
}

fn drops(status: &Status, service: &str) -> Option<String> {
    let drops = status.drops.iter().find(|drops| drops.service == service)?;
    let reasons: Vec<String> =
        drops.reasons.iter().map(|(reason, count)| printable(&format!("{reason} {count}"))).collect();
    (!reasons.is_empty()).then(|| format!("  dropped  {}", reasons.join("  ")))
}

const fn panicking(panic: Panic) -> &'static str {
    match panic {
        Panic::NobodyServes | Panic::FewServe => {
            "too few backends serve, so the service uses all that are neither disabled nor down"
        }
        Panic::ProbesFail => {
            "the probes fail everywhere at once, so the service uses all that the breaker has not ejected"
        }
    }
}

/// Explanations below the table: first of the service, then of each backend.
fn whys(status: &Status, service: &ServiceSnapshot) -> Vec<String> {
    let now = status.snapshot.t_ms;
    let mut about = Vec::new();
    if let Some(panic) = service.panic {
        about.push(panicking(panic).to_owned());
    }
    if service.fallback {
        about.push("no backend serves, so new connections go to its fallback".to_owned());
    }
    let failing = |of: &&Discovery| of.service == service.name && of.code != DiscoveryCode::Current;
    about.extend(status.discovery.iter().find(failing).map(undiscovered));
    if let Some(pending) = &service.pending {
        about.push(unwritten(pending, now));
    }
    let forwarding = status.forwarding.iter().find(|forwarding| forwarding.service == service.name);
    match forwarding.map(|forwarding| forwarding.evidence) {
        Some(Evidence::Opaque) => about.push(
            "Shunt cannot read its responses (TLS, HTTP/2 or no HTTP), so it does not see errors in them"
                .to_owned(),
        ),
        Some(Evidence::None) => {
            about.push("evidence is off, so only probes decide".to_owned());
        }
        Some(Evidence::Inline) | None => {}
    }
    let of_service = about.into_iter().map(|what| format!("{}: {what}", service.name));
    let of_backends = service.backends.iter().filter_map(|backend| {
        let traffic = status
            .traffic
            .iter()
            .find(|traffic| traffic.service == service.name && traffic.backend == backend.name);
        let remaining = remaining(status, backend.id);
        why(backend, traffic, remaining, now)
    });
    of_service.chain(of_backends).collect()
}

/// A source of discovery that fails.
fn undiscovered(of: &Discovery) -> String {
    let error = of.error.as_deref().unwrap_or_default();
    let s = if of.backends == 1 { "" } else { "s" };
    match of.age_ms {
        Some(age) => {
            let (backends, age) = (of.backends, span(age));
            format!(
                "discovery fails ({}), so the last good set stays ({backends} backend{s}, {age} old): {error}",
                of.code
            )
        }
        None => format!("discovery fails ({}), and there has been no good set yet: {error}", of.code),
    }
}

fn unwritten(pending: &PendingWrite, now: Instant) -> String {
    let times = if pending.attempts == 1 { "once".to_owned() } else { format!("{} times", pending.attempts) };
    format!(
        "the daemon failed {times} to write its maps, so the last change is not in force; next try in {}: {}",
        span((pending.next_try_ms - now).0),
        pending.error
    )
}

fn why(
    backend: &BackendSnapshot,
    traffic: Option<&BackendTraffic>,
    remaining: Option<u64>,
    now: Instant,
) -> Option<String> {
    let mut parts: Vec<String> = backend.reason.iter().cloned().collect();
    parts.extend(backend.drain.and_then(|of| drain(&of, remaining, now)));
    parts.extend(overrides(backend, now));
    if backend.path == PathState::Ok && traffic.is_some_and(|traffic| !traffic.reachable) {
        parts.push("its next hop does not answer, so new connections go to other backends".to_owned());
    }
    parts.extend(traffic.and_then(|traffic| traffic.path_warning.clone()));
    parts.extend(traffic.and_then(full));
    if backend.responses.lost > 0 {
        parts.push(format!("{} of its response heads were lost and are not counted", backend.responses.lost));
    }
    (!parts.is_empty()).then(|| format!("{}: {}", backend.name, parts.join("; ")))
}

/// A backend that has as many connections as it may have.
fn full(traffic: &BackendTraffic) -> Option<String> {
    let limit = traffic.limit.filter(LimitUse::is_full)?;
    Some(format!("it is full with {}, and other backends get new ones", limit_words(&limit)))
}

/// Each override with its author and its end, except the one that is the backend's reason already.
fn overrides(backend: &BackendSnapshot, now: Instant) -> impl Iterator<Item = String> {
    let others = backend.overrides.iter().filter(|of| of.code == OverrideCode::Weight);
    others.map(move |of| override_words(of, now))
}

/// `weight 50 by alice (canary), 4 m 10 s left`.
fn override_words(of: &Override, now: Instant) -> String {
    let mut words = format!("{} by {}", of.what, of.actor);
    if let Some(reason) = &of.reason {
        words += &format!(" ({reason})");
    }
    match of.until_ms {
        Some(until) => words += &format!(", {} left", span((until - now).0)),
        None => words += ", until an operator takes it back",
    }
    words
}

#[cfg(test)]
mod tests;
