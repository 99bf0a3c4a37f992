//! The JSON of `/v1`, as types. `shunt … -o json` prints exactly this.
//!
//! Every document begins with `schema`, see [`SCHEMA`]. Lines of events and of a replay do not: the response to
//! `GET /v1/events` says it in the header [`SCHEMA_HEADER`].

use std::{collections::BTreeMap, fmt};

use lb_common::{
    abi::{BackendCounters, TTFB_BUCKETS, TTFB_FIRST_US},
    reason::Reason,
};
use lb_core::{config, event::Event, io::BackendId, snapshot::Snapshot};
use serde::{Deserialize, Serialize};

mod change;
mod view;

pub use crate::attach_mode::AttachMode;
pub use change::{Order, Problem, ProblemKind, Reloaded};
pub use view::{BackendView, By, Choice, Explanation, KnownConnection, Stage, TrialSlot};

/// Version of the names and meanings in every JSON document that Shunt prints or answers with. It moves when a field
/// is renamed, is removed or changes its meaning. A new field does not move it.
///
/// - 1: without the field `schema`.
/// - 2: the words of `docs/glossary.md`.
pub const SCHEMA: u32 = 2;

/// Carries [`SCHEMA`] in the response to `GET /v1/events`, whose lines are single events.
pub const SCHEMA_HEADER: &str = "shunt-schema";

/// A JSON document: [`SCHEMA`] first, then the fields of `body`.
#[derive(Clone, Debug, Serialize)]
pub struct Document<T> {
    schema: u32,
    #[serde(flatten)]
    body: T,
}

impl<T> Document<T> {
    pub fn new(body: T) -> Self {
        Self { schema: SCHEMA, body }
    }
}

/// The schema of a document whose other fields are not read. `None`: the document does not say it.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct DocumentSchema {
    pub schema: Option<u32>,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of the daemon's binary.
    pub version: String,
    /// Of the map layout, `lb_common::ABI_VERSION`.
    pub abi: u32,
    pub instance: String,
    pub pid: u32,
    /// Unix time at which the engine's clock, the `t_ms` of snapshot and events, stood at 0.
    pub started_unix_ms: u64,
    pub uptime_ms: u64,
    pub config_path: String,
    pub config_generation: u64,
    pub interfaces: Vec<Interface>,
    pub program: Program,
    /// How fast ejections came into force; absent before the first.
    pub reactions: Option<Reactions>,
    /// How the daemon itself is.
    pub daemon: Daemon,
    /// One entry a service, in the order of `snapshot.services`.
    pub forwarding: Vec<Forwarding>,
    /// Sequence number of the last event; 0 before the first.
    pub events_seq: u64,
    pub snapshot: Snapshot,
    /// One entry a backend; none while the maps cannot be read, see [`Daemon::counters_error`].
    pub traffic: Vec<BackendTraffic>,
    /// Connections that backends without new connections still have, until these are over. The daemon counts them
    /// for at most eight backends.
    #[serde(default)]
    pub remaining_connections: Vec<RemainingConnections>,
    /// Services that dropped something.
    pub drops: Vec<ServiceDrops>,
    /// Response heads of all backends for which the ring had no space.
    pub mirror_lost: u64,
    #[serde(default)]
    pub expired_flows: ExpiredFlows,
}

/// Flows that were silent for their timeout and that the daemon removed, since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiredFlows {
    /// Half-open handshakes.
    pub handshakes: u64,
    pub established: u64,
    /// Flows that one side had not closed completely.
    pub closing: u64,
    /// Flows that were over before. Their NAT ports have rested.
    pub time_wait: u64,
}

impl Status {
    pub fn knows(&self, service: &str) -> bool {
        self.snapshot.services.iter().any(|known| known.name == service)
    }

    /// Removes everything that belongs to other services.
    pub fn only(&mut self, service: &str) {
        self.snapshot.services.retain(|known| known.name == service);
        self.forwarding.retain(|forwarding| forwarding.service == service);
        self.snapshot.leaving.retain(|leaving| leaving.service == service);
        self.traffic.retain(|traffic| traffic.service == service);
        self.drops.retain(|drops| drops.service == service);
    }
}

/// An interface that the program is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    pub name: String,
    pub mode: AttachMode,
}

/// The program that the daemon loaded into the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Instructions that the verifier processed. Absent where the kernel does not report it.
    pub verified_instructions: Option<u32>,
    pub maps: Vec<ProgramMap>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramMap {
    pub name: String,
    pub entries: u32,
    /// Memory that the kernel accounts for the map.
    pub bytes: u64,
}

/// Reaction times of ejections that a response decided, in microseconds. They begin when the XDP program saw that
/// response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reactions {
    pub count: u64,
    /// Until the first map write. From then on no new connection reaches the backend.
    pub last_first_write_us: u64,
    /// Until the Maglev table was swapped. From then on other backends have its share.
    pub last_swap_us: u64,
    pub worst_first_write_us: u64,
    pub worst_swap_us: u64,
}

/// The daemon itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    pub loop_lag_ms: LoopLag,
    pub state_file: String,
    /// Why the daemon cannot write the state file. Absent while it can.
    pub state_error: Option<String>,
    /// Why the daemon cannot read the counters in the maps. Then traffic and drops are empty.
    #[serde(default)]
    pub counters_error: Option<String>,
}

/// How long something that was due had to wait for the daemon's loop, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoopLag {
    /// The longest of the last ten to twenty seconds.
    pub recent: u64,
    /// The longest of all.
    pub worst: u64,
}

/// How the program forwards a service's frames, and what Shunt can see of its responses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarding {
    pub service: String,
    pub mode: Mode,
    pub evidence: Evidence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Nat,
    Dnat,
}

/// What the breaker can know about a service's responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// The program mirrors response heads and Shunt can read them, or there was no response yet.
    Inline,
    /// Shunt cannot read the responses: TLS, HTTP/2, another protocol.
    Opaque,
    /// The program mirrors nothing: only probes decide.
    None,
}

/// The traffic of one backend, summed over the CPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendTraffic {
    pub service: String,
    pub backend: String,
    /// Its next hop answers. If it does not, other backends get its new connections.
    pub reachable: bool,
    /// A cause that can keep its connections from working although its next hop answers, and the remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_warning: Option<String>,
    #[serde(flatten)]
    pub counters: Counters,
    pub resets: ResetCounts,
}

/// Connections that Shunt reset because their backend gets no new ones. Each connection is in one of the counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetCounts {
    /// The program reset the connection when its client sent something (`on_eject = "reset"`, or a drain was over).
    pub at_request: u64,
    /// The daemon reset an idle connection at both ends (`on_eject = "reset"`), since it started.
    pub idle: u64,
    /// The daemon reset the connection at both ends when `drain_timeout` was over, since it started.
    pub drain: u64,
}

/// The fields of [`BackendCounters`] that describe traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub packets_to: u64,
    pub bytes_to: u64,
    pub packets_from: u64,
    pub bytes_from: u64,
    pub connections: u64,
    pub trials: u64,
    pub established: u64,
    pub heads: u64,
    pub heads_lost: u64,
    pub opaque: u64,
    pub pipelined: u64,
    /// Responses by their time to first byte. The first bucket ends at 64 µs, each further one at twice the bound
    /// before it, and the last one has no bound.
    pub ttfb: [u64; TTFB_BUCKETS],
    /// Handshakes that continued with another backend.
    pub redispatched: u64,
}

impl Counters {
    /// The upper bound of the time to first byte of this share of the responses, in microseconds.
    /// `None`: the bucket has no bound, or there were no responses.
    pub fn ttfb_us(&self, share: f64) -> Option<u64> {
        let total: u64 = self.ttfb.iter().sum();
        let rank = ((total as f64 * share).ceil() as u64).max(1);
        let mut below = 0;
        let bucket = self.ttfb.iter().position(|count| {
            below += count;
            below >= rank
        })?;
        (bucket + 1 < TTFB_BUCKETS).then(|| u64::from(TTFB_FIRST_US) << bucket)
    }
}

/// Connections of a backend that gets no new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemainingConnections {
    pub backend: BackendId,
    pub connections: u64,
}

/// Frames of one service that the program dropped, by [`Reason::name`]. Reasons that never occurred are absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceDrops {
    pub service: String,
    pub reasons: BTreeMap<String, u64>,
}

impl ServiceDrops {
    /// `counts` is indexed by [`Reason`].
    pub fn new(service: impl Into<String>, counts: &[u64; Reason::COUNT]) -> Self {
        let reasons = Reason::ALL
            .into_iter()
            .map(|reason| (reason.name().to_owned(), counts[reason as usize]))
            .filter(|(_, count)| *count > 0)
            .collect();
        Self { service: service.into(), reasons }
    }
}

/// One line of `GET /v1/events`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EventLine {
    Event(Box<Event>),
    Missed(Missed),
}

/// Stands where events are missing. It is the first line if the log no longer has the events that were asked for,
/// and the last line if the reader was too slow and the daemon ends the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    #[serde(rename = "type")]
    pub kind: MissedKind,
    /// How many events are missing, of all services.
    pub missed: u64,
    /// The last sequence number before the gap. A reader can ask for the events after it again.
    pub since: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissedKind {
    Lagged,
}

/// `GET /v1/version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    pub version: String,
    pub abi: u32,
    pub pid: u32,
}

impl Version {
    /// The version of this process.
    pub fn own() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            abi: lb_common::ABI_VERSION,
            pid: std::process::id(),
        }
    }
}

impl From<BackendCounters> for Counters {
    fn from(counters: BackendCounters) -> Self {
        // Destructured completely, so that the compiler reports a counter that is missing here.
        let BackendCounters {
            packets_to,
            bytes_to,
            packets_from,
            bytes_from,
            connections,
            trials,
            established,
            heads,
            heads_lost,
            opaque,
            pipelined,
            ttfb,
            // In `ResetCounts::at_request`.
            resets: _,
            redispatched,
            // Only the program uses them.
            untimed: _,
            timed_at: _,
        } = counters;
        Self {
            packets_to,
            bytes_to,
            packets_from,
            bytes_from,
            connections,
            trials,
            established,
            heads,
            heads_lost,
            opaque,
            pipelined,
            ttfb,
            redispatched,
        }
    }
}

impl From<config::Mode> for Mode {
    fn from(mode: config::Mode) -> Self {
        match mode {
            config::Mode::Nat => Self::Nat,
            config::Mode::Dnat => Self::Dnat,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nat => "nat",
            Self::Dnat => "dnat",
        })
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inline => "inline",
            Self::Opaque => "opaque",
            Self::None => "none",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fixture;

    #[test]
    fn status_survives_json() {
        let status = fixture::status();
        let json = serde_json::to_string(&Document::new(&status)).expect("status is plain data");
        assert_eq!(serde_json::from_str::<Status>(&json).expect("own JSON"), status);
    }

    #[test]
    fn a_document_begins_with_its_schema() {
        let json = serde_json::to_string(&Document::new(Version::own())).expect("plain data");
        assert!(json.starts_with(r#"{"schema":2,"version":"#), "{json}");
        assert_eq!(serde_json::from_str::<DocumentSchema>(&json).expect("own JSON").schema, Some(SCHEMA));
        assert_eq!(serde_json::from_str::<DocumentSchema>("{}").expect("an object").schema, None);
    }

    #[test]
    fn counters_stand_beside_the_names() {
        let traffic = BackendTraffic {
            service: "web".to_owned(),
            backend: "web-1".to_owned(),
            reachable: true,
            path_warning: None,
            counters: BackendCounters { connections: 7, ..BackendCounters::default() }.into(),
            resets: ResetCounts { drain: 2, ..ResetCounts::default() },
        };
        let json = serde_json::to_value(&traffic).expect("plain data");
        assert_eq!(json["backend"], "web-1");
        assert_eq!(json["connections"], 7);
        assert_eq!(json["resets"]["drain"], 2);
    }

    #[test]
    fn drops_leave_out_reasons_that_never_occurred() {
        let mut counts = [0; Reason::COUNT];
        counts[Reason::NoBackend as usize] = 3;
        let drops = ServiceDrops::new("web", &counts);
        assert_eq!(drops.reasons, BTreeMap::from([("no_backend".to_owned(), 3)]));
    }

    #[test]
    fn event_lines_are_distinguished() {
        let event = fixture::event(4, "web");
        let line = serde_json::to_string(&event).expect("plain data");
        assert_eq!(
            serde_json::from_str::<EventLine>(&line).expect("event"),
            EventLine::Event(Box::new(event))
        );
        let line = r#"{"type":"lagged","missed":3,"since":9}"#;
        let missed = Missed { kind: MissedKind::Lagged, missed: 3, since: 9 };
        assert_eq!(serde_json::from_str::<EventLine>(line).expect("gap"), EventLine::Missed(missed));
        assert_eq!(serde_json::to_string(&missed).expect("plain data"), line);
    }

    #[test]
    fn only_keeps_one_service() {
        let mut status = fixture::status();
        assert!(status.knows("api") && status.knows("web"));
        status.only("api");
        assert!(status.knows("api") && !status.knows("web"));
        assert!(status.traffic.iter().all(|traffic| traffic.service == "api"));
        assert_eq!(status.forwarding.len(), 1);
        assert!(status.drops.iter().all(|drops| drops.service == "api"));
    }
}
