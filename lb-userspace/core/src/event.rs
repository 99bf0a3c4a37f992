//! Events: one per change, with the evidence for it. Logs, `shunt events` and status are views of these.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{
    codes::{EventReason, ProbeCode},
    outcome::L4Failure,
    states::ProbeState,
    time::{Instant, Millis},
};

/// A change, or the refusal of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Counts from 1 in the order in which events become known.
    pub seq: u64,
    /// When the decision was made.
    pub t_ms: Instant,
    #[serde(rename = "type")]
    pub kind: EventKind,
    pub service: String,
    pub backend: Option<String>,
    /// State names: of the breaker for `eject`, `trial`, `readmit` and a detection that was `refused`; of the
    /// operator's axis for `operator` and an order that was `refused`; of the probe for `probe`; of the path for
    /// `path`; of discovery for `discovery`.
    pub from: String,
    pub to: String,
    /// The detector or rule.
    pub reason: EventReason,
    /// False: reported only (`enforce = false`).
    pub enforced: bool,
    /// The backend's ejection number after this event.
    pub ejection: u32,
    pub until_ms: Option<Instant>,
    /// The cause: `breaker`, `probe`, `config`, `discovery`, an operator's name.
    pub actor: String,
    /// Of the configuration in force; grows with each reload.
    pub config_generation: u64,
    pub evidence: Evidence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    Eject,
    Trial,
    Readmit,
    /// Lost evidence, the ceiling or the floor refused a detection, or the floor refused an operator's order.
    Refused,
    /// A detection that was not confirmed, or that too few different clients saw.
    Suspected,
    Probe,
    /// The packet path cannot reach the backend, or can again.
    Path,
    Operator,
    Weight,
    /// A backend or service appeared or left.
    Membership,
    /// The fallback of a service came into use, or its use is over.
    Fallback,
    /// The service uses more backends than serve, or no longer.
    Panic,
    /// `drain_timeout` is over: the connections that a backend still has are reset.
    Drained,
    /// A map write failed, or holds again.
    Dataplane,
    /// An interface of the node has changed. The event names no service.
    Interface,
    /// SYNs find a service full, or no longer.
    Limit,
    /// Discovery has another opinion about a backend. Without a backend: its source fails, or works again.
    Discovery,
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Eject => "eject",
            Self::Trial => "trial",
            Self::Readmit => "readmit",
            Self::Refused => "refused",
            Self::Suspected => "suspected",
            Self::Probe => "probe",
            Self::Path => "path",
            Self::Operator => "operator",
            Self::Weight => "weight",
            Self::Membership => "membership",
            Self::Fallback => "fallback",
            Self::Panic => "panic",
            Self::Drained => "drained",
            Self::Dataplane => "dataplane",
            Self::Interface => "interface",
            Self::Limit => "limit",
            Self::Discovery => "discovery",
        })
    }
}

/// The numbers that a decision was made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Failures in a row at the decision, and the threshold.
    pub consecutive_5xx: Option<Run>,
    /// 502, 503 and 504 in a row.
    pub consecutive_gateway_failure: Option<Run>,
    /// L4 failures in a row, where they are split off.
    pub consecutive_l4_failure: Option<Run>,
    /// The rate that detected.
    pub rate: Option<Rate>,
    /// The backend since the last sweep, in its present state.
    pub window: Option<Totals>,
    /// The last outcomes of the backend, oldest first, at most 16.
    pub last: Vec<Seen>,
    /// Backends out of the service before the decision.
    pub out: u32,
    pub backends: u32,
    pub serving: u32,
    pub max_ejection_percent: u8,
    pub min_serving: u32,
    pub probe: Option<ProbeState>,
    /// Of an event of the probe: its last result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_code: Option<ProbeCode>,
    /// The probe's last failure, the remedy for a path, the error of a map write, an operator's reason, or the
    /// limit that refused. For programs `reason` says the same, and of a probe's failure `probe_code`.
    pub detail: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub count: u32,
    pub threshold: u32,
}

/// A share of the outcomes in a window, in hundredths of a percent, and its threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Good ones for `success_rate`, slow ones for `slow_rate`, failures for the others.
    pub count: u64,
    pub total: u64,
    /// `count` of `total`, rounded down.
    pub rate: u32,
    /// `success_rate` detects below it, the other detectors at it and above.
    pub threshold: u32,
    pub window_ms: Millis,
}

impl Rate {
    pub fn of(count: u64, total: u64, threshold: u32, window: Millis) -> Self {
        let rate = (u128::from(count) * 10_000).checked_div(u128::from(total)).unwrap_or(0) as u32;
        Self { count, total, rate, threshold, window_ms: window }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, total, rate, threshold, window_ms } = self;
        let percent = |hundredths: u32| format!("{}.{:02} %", hundredths / 100, hundredths % 100);
        let (rate, threshold) = (percent(*rate), percent(*threshold));
        write!(f, "{count} of {total} in {} ms, {rate} where the threshold is {threshold}", window_ms.0)
    }
}

/// The counts of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub responses: u64,
    pub failures: u64,
    /// Split off L4 failures; they are not among the responses.
    pub l4_failures: u64,
    /// Response heads that were lost.
    pub lost: u64,
}

/// One outcome as it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub t_ms: Instant,
    /// Of an L4 failure: what it counts as without `split_l4_failures`.
    pub status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<L4Failure>,
    pub client: Option<SocketAddr>,
}

impl Event {
    /// An event of no service, for its maker to complete.
    pub(crate) fn of_the_node(t_ms: Instant) -> Self {
        Self {
            seq: 0,
            t_ms,
            kind: EventKind::Interface,
            service: String::new(),
            backend: None,
            from: String::new(),
            to: String::new(),
            reason: EventReason::Config,
            enforced: true,
            ejection: 0,
            until_ms: None,
            actor: String::new(),
            config_generation: 0,
            evidence: Evidence::default(),
        }
    }

    /// The event in one line: the change and its cause.
    pub fn sentence(&self) -> String {
        let subject = match &self.backend {
            Some(backend) => format!("{}/{backend}", self.service),
            None if self.service.is_empty() => "this node".to_owned(),
            None => self.service.clone(),
        };
        let mut line = format!("{subject}: {} -> {} ({})", self.from, self.to, self.reason);
        let runs = [
            (self.evidence.consecutive_gateway_failure, "gateway failures"),
            (self.evidence.consecutive_5xx, "failures"),
            (self.evidence.consecutive_l4_failure, "L4 failures"),
        ];
        for (run, what) in runs {
            let Some(run) = run.filter(|run| run.count > 0) else { continue };
            line += &format!(", {} of {} {what} in a row", run.count, run.threshold);
        }
        if let Some(rate) = self.evidence.rate {
            line += &format!(", {rate}");
        }
        if !self.evidence.last.is_empty() {
            let said = |seen: &Seen| {
                seen.failure.map_or_else(|| seen.status.to_string(), |failure| failure.to_string())
            };
            let statuses: Vec<_> = self.evidence.last.iter().map(said).collect();
            line += &format!(", last {}", statuses.join(" "));
        }
        if let Some(probe) = self.evidence.probe {
            line += &format!(", probe {probe}");
        }
        if let Some(until) = self.until_ms {
            line += &format!(", for {} ms", (until - self.t_ms).0);
        }
        if let Some(detail) = &self.evidence.detail {
            line += &format!(": {detail}");
        }
        if !self.enforced {
            line += " [not enforced]";
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ejection() -> Event {
        Event {
            kind: EventKind::Eject,
            service: "web".to_owned(),
            backend: Some("web-2".to_owned()),
            from: "closed".to_owned(),
            to: "open".to_owned(),
            reason: EventReason::Consecutive5xx,
            ..Event::of_the_node(Instant(1000))
        }
    }

    #[test]
    fn a_sentence_names_its_subject() {
        let mut event = ejection();
        assert_eq!(event.sentence(), "web/web-2: closed -> open (consecutive_5xx)");
        event.backend = None;
        assert_eq!(event.sentence(), "web: closed -> open (consecutive_5xx)");
        event.service.clear();
        assert_eq!(event.sentence(), "this node: closed -> open (consecutive_5xx)");
    }

    #[test]
    fn a_sentence_has_the_evidence_that_there_is() {
        let mut event = ejection();
        event.until_ms = Some(Instant(31_000));
        event.enforced = false;
        let seen = |status, failure| Seen { t_ms: Instant(0), status, failure, client: None };
        event.evidence = Evidence {
            consecutive_gateway_failure: Some(Run { count: 1, threshold: 5 }),
            consecutive_5xx: Some(Run { count: 3, threshold: 3 }),
            consecutive_l4_failure: Some(Run { count: 0, threshold: 4 }),
            rate: Some(Rate::of(1, 3, 5000, Millis(10_000))),
            last: vec![seen(200, None), seen(503, Some(L4Failure::ConnectTimeout))],
            probe: Some(ProbeState::Up),
            detail: Some("why".to_owned()),
            ..Evidence::default()
        };
        let sentence = "web/web-2: closed -> open (consecutive_5xx), 1 of 5 gateway failures in a row, \
                        3 of 3 failures in a row, 1 of 3 in 10000 ms, 33.33 % where the threshold is 50.00 %, \
                        last 200 connect_timeout, probe up, for 30000 ms: why [not enforced]";
        assert_eq!(event.sentence(), sentence);
    }

    #[test]
    fn kinds_are_called_as_in_json() {
        for kind in [EventKind::Eject, EventKind::Refused, EventKind::Interface] {
            assert_eq!(serde_json::to_value(kind).expect("plain data"), kind.to_string());
        }
    }
}
