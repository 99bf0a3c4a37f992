//! One backend in depth.

use lb_core::{
    codes::OverrideCode,
    event::{Event, Evidence, Seen},
    snapshot::{BreakerState, DetectorSnapshot, Effective, OperatorState, PathState, ProbeState},
    time::Instant,
};

use super::{
    WIDTH, columns, drain, events, limit_words, override_words, overrides,
    table::{
        self, Cell,
        Side::{Left, Right},
    },
    text::{exact_share, printable, share, span, wrap},
};
use crate::{
    cli::palette::{Paint, Palette},
    control::model::{self, BackendView},
};

/// State, evidence, detectors, and what comes next.
pub fn why(view: &BackendView, palette: &Palette) -> String {
    let depth = Depth { view, now: Instant(view.t_ms), palette: *palette };
    let mut lines = depth.headline();
    lines.push(String::new());
    lines.extend(depth.axes());
    lines.extend(depth.section("What comes next", depth.next()));
    lines.extend(depth.section("The last decision", depth.decision()));
    lines.extend(depth.section("The last outcomes", depth.outcomes()));
    lines.extend(depth.section("The detectors", depth.detectors()));
    lines.join("\n") + "\n"
}

/// The state of a backend after an order, in one line.
pub fn changed(view: &BackendView, palette: &Palette) -> String {
    let backend = &view.why.backend;
    let name = format!("{}/{}", view.why.service, backend.name);
    let mut line = columns::painted(backend.effective, &name, *palette);
    line += &match &backend.reason {
        Some(reason) => format!(": {}", printable(reason)),
        None => format!(": {}", state(backend.effective)),
    };
    for words in overrides(backend, Instant(view.t_ms)) {
        line += &format!("; {}", printable(&words));
    }
    let drain = backend.drain.and_then(|of| drain(&of, view.connections, Instant(view.t_ms)));
    if let Some(drain) = drain {
        line += &format!("; {drain}");
    }
    line += match (view.why.in_maps, view.connections) {
        (false, _) => "; not yet written to the maps",
        (true, None) => "; in force",
        (true, Some(0)) => "; in force, it has no connection left",
        (true, Some(_)) => "; in force, it still has connections",
    };
    line
}

struct Depth<'a> {
    view: &'a BackendView,
    now: Instant,
    palette: Palette,
}

impl Depth<'_> {
    /// The state, before any number.
    fn headline(&self) -> Vec<String> {
        let BackendView { why, traffic, evidence, connections, .. } = self.view;
        let backend = &why.backend;
        let name = format!("{}/{}", why.service, backend.name);
        let mut line = columns::painted(backend.effective, &name, self.palette);
        line += &format!("  {}  {}", backend.address, state(backend.effective));
        line += &match (backend.effective, backend.share) {
            (Effective::Serving, part) => format!(", {} of new connections", share(part)),
            (_, 0) => String::new(),
            (_, part) => format!(", but still {} of new connections", share(part)),
        };
        let mut about: Vec<String> = backend.reason.iter().cloned().collect();
        about.extend(overrides(backend, self.now));
        if !traffic.reachable && backend.path == PathState::Ok {
            about.push("its next hop does not answer, so new connections go to other backends".to_owned());
        }
        about.extend(traffic.path_warning.clone());
        match &why.pending {
            Some(pending) => about.push(format!(
                "the daemon cannot write the service's maps ({} failed so far, next try in {}): {}",
                pending.attempts,
                span((pending.next_try_ms - self.now).0),
                pending.error
            )),
            None if !why.in_maps => {
                about.push("the daemon has not written the last change to the maps yet".to_owned());
            }
            None => {}
        }
        match evidence {
            model::Evidence::Opaque => about.push(
                "Shunt cannot read its responses (TLS, HTTP/2 or no HTTP), so it does not see errors in them"
                    .to_owned(),
            ),
            model::Evidence::None => {
                about.push("evidence is off, so only probes decide".to_owned());
            }
            model::Evidence::Inline => {}
        }
        if let Some(limit) = &traffic.limit {
            let spilled = match traffic.counters.spilled {
                0 => "no SYN has found it full".to_owned(),
                1 => "1 SYN has found it full and looked for another backend".to_owned(),
                spilled => format!("{spilled} SYNs have found it full and looked for another backend"),
            };
            let full = if limit.is_full() { ", so it gets no new ones" } else { "" };
            about.push(format!("it has {}{full}; {spilled}", limit_words(limit)));
        }
        match connections {
            Some(1) => about.push("1 connection is open".to_owned()),
            Some(open) => about.push(format!("{open} connections are open")),
            None => {}
        }
        let about = about.iter().flat_map(|what| wrap(&printable(what), "  ", WIDTH));
        std::iter::once(line).chain(about).collect()
    }

    fn axes(&self) -> Vec<String> {
        let why = &self.view.why;
        let backend = &why.backend;
        let operator = backend.overrides.iter().find(|of| of.code != OverrideCode::Weight);
        let operator = operator.map(|of| override_words(of, self.now)).unwrap_or_default();
        let probe = match (&backend.last_probe, backend.probe) {
            (_, ProbeState::None) => "the service has no probe".to_owned(),
            (Some(last), _) => format!("last result: {last}"),
            (None, _) => "not probed yet".to_owned(),
        };
        let mut breaker = format!("ejection number {}", backend.ejection);
        // As in the reason and in what comes next: the end of the ejection alone brings nothing back.
        if let Some(until) = backend.until_ms {
            let left = (backend.returns_ms.unwrap_or(until) - self.now).0;
            breaker += &match left {
                0 => ", its time is over".to_owned(),
                left => format!(", {} left", span(left)),
            };
        }
        let row = |axis: &str, state: String, paint: Paint, since: Instant, about: String| {
            vec![
                Cell::painted(axis, Paint::Faint),
                Cell::painted(state, paint),
                Cell::plain(self.moment(since)),
                Cell::plain(about),
            ]
        };
        let operator_paint = match backend.operator {
            OperatorState::Enabled => Paint::Plain,
            OperatorState::Draining | OperatorState::Disabled => Paint::Warning,
        };
        let probe_paint = match backend.probe {
            ProbeState::None | ProbeState::Up => Paint::Plain,
            ProbeState::Unknown => Paint::Warning,
            ProbeState::Down => Paint::Bad,
        };
        let breaker_paint = match backend.breaker {
            BreakerState::Closed => Paint::Plain,
            BreakerState::HalfOpen => Paint::Warning,
            BreakerState::Open => Paint::Bad,
        };
        let rows = [
            row("operator", backend.operator.to_string(), operator_paint, why.operator_since_ms, operator),
            row("probe", backend.probe.to_string(), probe_paint, why.probe_since_ms, probe),
            row("breaker", backend.breaker.to_string(), breaker_paint, backend.since_ms, breaker),
        ];
        let heads = [("AXIS", Left), ("STATE", Left), ("SINCE (UTC)", Left), ("", Left)];
        table::lines(&heads, &rows, None, self.palette)
    }

    fn next(&self) -> Vec<String> {
        let why = &self.view.why;
        let mut next: Vec<String> = why.sentences().into_iter().map(str::to_owned).collect();
        let idle = why.backend.effective == Effective::Serving;
        if idle && next.is_empty() {
            next.push("nothing, unless a detector trips (see below)".to_owned());
        }
        next.push(format!("this interval ends in {}", span((why.next_sweep_ms - self.now).0)));
        next.iter().flat_map(|what| wrap(&printable(what), "  - ", WIDTH)).collect()
    }

    fn decision(&self) -> Vec<String> {
        let Some(event) = &self.view.why.last_decision else {
            return vec!["  none since it was added, or since the daemon started".to_owned()];
        };
        let Event { kind, from, to, reason, actor, enforced, evidence, .. } = event;
        let mut what = format!("{kind}: {from} -> {to} by {actor}, {}", self.moment(event.t_ms));
        if !enforced {
            what += ", reported only (not enforced)";
        }
        let mut lines = wrap(&printable(&what), "  ", WIDTH);
        lines.extend(wrap(&printable(&format!("because of {reason}{}", numbers(evidence))), "  ", WIDTH));
        let Evidence { out, backends, serving, max_ejection_percent, min_serving, .. } = evidence;
        let limits = format!(
            "at that moment {out} of {backends} backends were ejected and {serving} served; \
             at most {max_ejection_percent} % may be ejected, at least {min_serving} must serve"
        );
        lines.extend(wrap(&limits, "  ", WIDTH));
        if let Some(detail) = &evidence.detail {
            lines.extend(wrap(&printable(detail), "  ", WIDTH));
        }
        if !evidence.last.is_empty() && evidence.last != self.view.why.last_outcomes {
            lines.push("  outcomes that led to it, oldest first:".to_owned());
            lines.extend(self.seen(&evidence.last));
        }
        lines
    }

    fn outcomes(&self) -> Vec<String> {
        let last = &self.view.why.last_outcomes;
        if last.is_empty() {
            return vec!["  there were none".to_owned()];
        }
        let decided = self.view.why.last_decision.as_ref();
        let mut lines = Vec::new();
        if decided.is_some_and(|event| event.evidence.last == *last) {
            lines.push("  these led to the decision, and there were none since".to_owned());
        }
        lines.extend(self.seen(last));
        lines
    }

    fn seen(&self, seen: &[Seen]) -> Vec<String> {
        let row = |seen: &Seen| {
            let what = seen.failure.map_or_else(|| seen.status.to_string(), |failure| failure.to_string());
            let bad = seen.failure.is_some() || seen.status >= 500;
            vec![
                Cell::plain(self.moment(seen.t_ms)),
                Cell::painted(what, if bad { Paint::Bad } else { Paint::Plain }),
                Cell::plain(seen.client.map_or_else(|| "-".to_owned(), |client| client.to_string())),
            ]
        };
        let rows: Vec<_> = seen.iter().map(row).collect();
        table::lines(&[("TIME (UTC)", Left), ("OUTCOME", Left), ("CLIENT", Left)], &rows, None, self.palette)
    }

    fn detectors(&self) -> Vec<String> {
        let why = &self.view.why;
        if why.detectors.is_empty() {
            return vec!["  all are off".to_owned()];
        }
        let row = |detector: &DetectorSnapshot| {
            let (stands, trips) = standing(detector);
            let acts = if detector.enforced { "ejects" } else { "only reports" };
            vec![
                Cell::plain(&detector.name),
                Cell::plain(stands),
                Cell::plain(trips),
                Cell::plain(acts),
                Cell::plain(&detector.next),
            ]
        };
        let rows: Vec<_> = why.detectors.iter().map(row).collect();
        let heads = [("NAME", Left), ("NOW", Right), ("TRIPS", Left), ("THEN", Left), ("NEEDED", Left)];
        let mut lines = table::lines(&heads, &rows, None, self.palette);
        if why.backend.breaker != BreakerState::Closed {
            lines.push("  (its breaker is not closed, so the detectors do nothing)".to_owned());
        }
        lines
    }

    fn section(&self, title: &str, lines: Vec<String>) -> Vec<String> {
        let mut all = vec![String::new(), self.palette.paint(Paint::Heading, title)];
        all.extend(lines);
        all
    }

    /// `11:59:01.500 (12.3 s ago)`, with the date where that is another one.
    fn moment(&self, at: Instant) -> String {
        let unix = |t: Instant| self.view.started_unix_ms.saturating_add(t.0);
        format!("{} ({} ago)", events::moment(unix(at), unix(self.now)), span((self.now - at).0))
    }
}

/// The state, and its meaning for clients.
fn state(effective: Effective) -> &'static str {
    match effective {
        Effective::Serving => "serving",
        Effective::Trial => "on trial: it gets a few new connections",
        Effective::Draining => "draining: no new connections",
        Effective::Ejected => "ejected by its breaker: no new connections",
        Effective::Down => "down, because its probe fails: no new connections",
        Effective::Unreachable => "unreachable for the packet path: no new connections",
        Effective::Disabled => "disabled: no new connections",
    }
}

/// The numbers behind a decision.
fn numbers(evidence: &Evidence) -> String {
    let runs = [
        (evidence.consecutive_5xx, "failures"),
        (evidence.consecutive_gateway_failure, "gateway failures"),
        (evidence.consecutive_l4_failure, "L4 failures"),
    ];
    let mut parts: Vec<String> = runs
        .into_iter()
        .filter_map(|(run, what)| Some((run.filter(|run| run.count > 0)?, what)))
        .map(|(run, what)| format!("{} {what} in a row (threshold {})", run.count, run.threshold))
        .collect();
    parts.extend(evidence.rate.map(|rate| rate.to_string()));
    if let Some(window) = evidence.window.filter(|window| window.responses + window.l4_failures > 0) {
        let mut words =
            format!("{} of {} responses since the sweep failed", window.failures, window.responses);
        if window.l4_failures > 0 {
            words += &format!(", {} L4 failures", window.l4_failures);
        }
        if window.lost > 0 {
            words += &format!(", {} heads lost", window.lost);
        }
        parts.push(words);
    }
    parts.extend(evidence.probe.map(|probe| format!("probe {probe}")));
    if parts.is_empty() { String::new() } else { format!(": {}", parts.join("; ")) }
}

/// The count of a detector, and when it trips.
fn standing(detector: &DetectorSnapshot) -> (String, String) {
    let DetectorSnapshot { count, total, least, threshold, .. } = detector;
    let Some(total) = total else {
        let trips = threshold.map_or_else(|| "-".to_owned(), |threshold| format!("at {threshold} in a row"));
        return (format!("{count} in a row"), trips);
    };
    let rate = (u128::from(*count) * 10_000).checked_div(u128::from(*total)).unwrap_or(0) as u32;
    let stands = match total {
        0 => "nothing seen".to_owned(),
        _ => format!("{count} of {total}, {}", exact_share(rate)),
    };
    let least = least.map(|least| format!(" of {least} or more")).unwrap_or_default();
    // The success rate counts good responses, and trips when they fall below the threshold.
    let side = if detector.name.starts_with("success_rate") { "below" } else { "at" };
    let trips = match threshold {
        Some(threshold) => format!("{side} {}{least}", exact_share(*threshold)),
        None => "cannot be compared yet".to_owned(),
    };
    (stands, trips)
}

#[cfg(test)]
mod tests;
