//! `GET /v1/status`.

use std::fmt;

use lb_core::{
    codes::{DaemonCode, DiscoveryCode},
    config,
    io::BackendId,
    snapshot::Snapshot,
};
use serde::{Deserialize, Serialize};

use super::traffic::{BackendTraffic, LimitUse, ServiceDrops};
use crate::attach_mode::{AttachMode, Condition};

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
    /// Properties of the host that keep traffic from working, as the daemon found them at its start.
    #[serde(default)]
    pub warnings: Vec<Warning>,
    pub program: Program,
    /// How fast ejections came into force; absent before the first.
    pub reactions: Option<Reactions>,
    /// One entry a service whose backends are discovered.
    #[serde(default)]
    pub discovery: Vec<Discovery>,
    /// How the daemon itself is.
    pub daemon: Daemon,
    /// One entry a service, in the order of `snapshot.services`.
    pub forwarding: Vec<Forwarding>,
    /// Sequence number of the last event; 0 before the first.
    pub events_seq: u64,
    pub snapshot: Snapshot,
    /// One entry a backend; none while the maps cannot be read, see [`Daemon::counters_error`].
    pub traffic: Vec<BackendTraffic>,
    /// Connections that backends without new connections still have, until these are over.
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
        self.discovery.retain(|discovery| discovery.service == service);
    }
}

/// The file that the backends of a service come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovery {
    pub service: String,
    pub file: String,
    /// `current`: the set in the file is in force.
    pub code: DiscoveryCode,
    /// Why it is not.
    pub error: Option<String>,
    /// The backends of the last good set.
    pub backends: usize,
    /// When the file last had that set. Absent: it never had one.
    pub good_unix_ms: Option<u64>,
    /// How long ago that is.
    pub age_ms: Option<u64>,
    /// The program that wrote the set, and when, in its own words.
    pub source: Option<String>,
    pub generated_at: Option<String>,
}

/// A finding of `shunt doctor` that keeps traffic from working.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    pub check: String,
    /// The finding, for programs.
    #[serde(default)]
    pub code: String,
    /// `None`: about the host as a whole.
    pub interface: Option<String>,
    pub says: String,
    pub remedy: Option<String>,
}

/// An interface of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    pub name: String,
    /// The last attach mode.
    pub mode: AttachMode,
    /// `attached`, or the code of what is wrong.
    #[serde(default)]
    pub condition: Condition,
    /// The cause and the remedy, unless it is `attached`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Programs of others on it, by XDP or at tc ingress.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
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
    #[serde(default)]
    pub state_error_code: Option<DaemonCode>,
    /// Why the daemon cannot read the counters in the maps. Then traffic and drops are empty.
    #[serde(default)]
    pub counters_error: Option<String>,
    #[serde(default)]
    pub counters_error_code: Option<DaemonCode>,
    /// Why probes wait: the daemon lacks descriptors, memory or ports. Absent while none waits.
    #[serde(default)]
    pub probe_error: Option<String>,
    #[serde(default)]
    pub probe_error_code: Option<DaemonCode>,
    /// Lines that the reader of the log took too late or not at all.
    #[serde(default)]
    pub lost_log_lines: u64,
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
    /// The connections of the service. Absent: it has no limit, nor has a backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitUse>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Nat,
    Dnat,
}

/// How much the breaker can know about a service's responses.
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

/// Connections of a backend that gets no new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemainingConnections {
    pub backend: BackendId,
    pub connections: u64,
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
