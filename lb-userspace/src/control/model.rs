//! The JSON of `/v1`, as types. `shunt … -o json` prints exactly this.

use std::{collections::BTreeMap, fmt};

use lb_common::{
    abi::{BackendCounters, TTFB_BUCKETS, TTFB_FIRST_US},
    reason::Reason,
};
use lb_core::{config, event::Event, io::BackendId, snapshot::Snapshot};
use serde::{Deserialize, Serialize};

mod change;
mod view;

pub use change::{Order, Problem, ProblemKind, Reloaded};
pub use view::{BackendView, By, Choice, Explanation, Pin, Stage, TrialSeat};

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
    /// How many connections backends have that get no new ones, while those come to their end; at most eight are
    /// counted.
    #[serde(default)]
    pub left: Vec<Left>,
    /// Services that dropped something.
    pub drops: Vec<ServiceDrops>,
    /// Response heads of all backends that found the ring full.
    pub mirror_lost: u64,
    #[serde(default)]
    pub forgotten: ExpiredFlows,
}

/// Connections that were forgotten for their silence, since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiredFlows {
    /// That were not completed.
    pub handshakes: u64,
    pub established: u64,
    /// That one side had not closed to its end.
    pub closing: u64,
    /// Over before; their NAT ports have rested.
    pub rested: u64,
}

impl Status {
    pub fn knows(&self, service: &str) -> bool {
        self.snapshot.services.iter().any(|known| known.name == service)
    }

    /// Leaves nothing but what belongs to one service.
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
    pub mode: XdpMode,
}

/// How the program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the stack, after the buffer was made: slower.
    Generic,
    /// At tc ingress.
    Tc,
}

/// What was loaded into the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Instructions that the verifier went through; absent where the kernel does not say.
    pub verified_instructions: Option<u32>,
    pub maps: Vec<ProgramMap>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramMap {
    pub name: String,
    pub entries: u32,
    /// Memory that the kernel accounts for it.
    pub bytes: u64,
}

/// Ejections that a response decided: microseconds from the moment the XDP program saw that response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reactions {
    pub count: u64,
    /// To the first map write: from then on no new connection reaches the backend.
    pub last_first_write_us: u64,
    /// To the return of the table swap: from then on its share belongs to the others.
    pub last_swap_us: u64,
    pub worst_first_write_us: u64,
    pub worst_swap_us: u64,
}

/// The daemon itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    pub loop_lag_ms: LoopLag,
    pub state_file: String,
    /// Why it could not be written, while that is so.
    pub state_error: Option<String>,
    /// Why the maps' counters could not be read. Then nothing is told of traffic and drops.
    #[serde(default)]
    pub counters_error: Option<String>,
}

/// How long something that was due had to wait for the daemon's loop, in milliseconds: a deadline that was met late,
/// or what was done before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoopLag {
    /// The longest of the last ten to twenty seconds.
    pub recent: u64,
    /// The longest of all.
    pub worst: u64,
}

/// How a service's frames travel, and what can be seen of its responses.
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

/// What the breaker can know of a service's responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// Heads are mirrored and readable, or none was seen yet.
    Inline,
    /// Heads are mirrored, and what comes cannot be read: TLS, HTTP/2, not HTTP at all.
    Opaque,
    /// Nothing is mirrored: only probes tell.
    None,
}

/// What went through one backend, summed over the CPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendTraffic {
    pub service: String,
    pub backend: String,
    /// Its next hop answers. Otherwise its new connections go to the others.
    pub reachable: bool,
    /// Why its connections may not work all the same, and what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_warning: Option<String>,
    #[serde(flatten)]
    pub counters: Counters,
    #[serde(default)]
    pub ended: ResetCounts,
}

/// Connections that were reset at both ends because their backend is out, since the daemon started. Those whose client
/// had to be told are in [`Counters::cut`], and not here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetCounts {
    /// Nothing was under way on them (`on_eject = "reset"`).
    pub idle: u64,
    /// `drain_timeout` was over.
    pub drained: u64,
}

/// The fields of [`BackendCounters`].
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
    /// Responses by their time to first byte: the first below 64 µs, each further one up to twice as much,
    /// the last without a bound.
    pub ttfb: [u64; TTFB_BUCKETS],
    /// Connections whose client was told by a reset, when it spoke, that they are over.
    pub cut: u64,
    /// Handshakes that went on with another backend.
    pub redispatched: u64,
}

impl Counters {
    /// The upper bound of the time to first byte of this share of the responses, in microseconds.
    /// `None`: without one, or there were no responses.
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

/// Connections that a backend has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    pub backend: BackendId,
    pub connections: u64,
}

/// Frames of one service that were not forwarded, by [`Reason::name`]. Reasons that never occurred are absent.
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

/// Stands where events are missing: first, when those asked for are no longer
/// kept; last, when the reader was too slow and is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    #[serde(rename = "type")]
    pub kind: MissedKind,
    /// How many, of all services.
    pub missed: u64,
    /// The last sequence number before the gap: what to ask for again.
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
    /// Of this process.
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
        // Taken apart whole, so that a new counter cannot be forgotten here.
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
            resets: cut,
            redispatched,
            // Of the kernel's own path_warning.
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
            cut,
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

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Tc => "tc",
        })
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
        let json = serde_json::to_string(&status).expect("status is plain data");
        assert_eq!(serde_json::from_str::<Status>(&json).expect("own JSON"), status);
    }

    #[test]
    fn counters_lie_beside_the_names() {
        let traffic = BackendTraffic {
            service: "web".to_owned(),
            backend: "web-1".to_owned(),
            reachable: true,
            path_warning: None,
            counters: BackendCounters { connections: 7, ..BackendCounters::default() }.into(),
            ended: ResetCounts { idle: 0, drained: 2 },
        };
        let json = serde_json::to_value(&traffic).expect("plain data");
        assert_eq!(json["backend"], "web-1");
        assert_eq!(json["connections"], 7);
        assert_eq!(json["ended"]["drained"], 2);
    }

    #[test]
    fn drops_leave_out_what_never_occurred() {
        let mut counts = [0; Reason::COUNT];
        counts[Reason::NoBackend as usize] = 3;
        let drops = ServiceDrops::new("web", &counts);
        assert_eq!(drops.reasons, BTreeMap::from([("no_backend".to_owned(), 3)]));
    }

    #[test]
    fn event_lines_are_told_apart() {
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
