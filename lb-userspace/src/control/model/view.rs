//! One backend, and one client, in depth.

use std::net::SocketAddr;

use lb_core::{
    snapshot::{Drain, Why},
    time::Instant,
};
use serde::{Deserialize, Serialize};

use super::{status::Evidence, traffic::BackendTraffic};

/// `GET /v1/backends/SERVICE/BACKEND`, and the answer to each change of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendView {
    /// Unix time at which the `t_ms` of everything below stood at 0.
    pub started_unix_ms: u64,
    /// When the daemon read the state.
    pub t_ms: u64,
    /// How much the breaker can know about the service's responses.
    pub evidence: Evidence,
    pub traffic: BackendTraffic,
    /// Connections that it has now. Absent unless they were asked for.
    pub connections: Option<u64>,
    #[serde(flatten)]
    pub why: Why,
}

/// `GET /v1/explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    pub service: String,
    pub vip: SocketAddr,
    pub client: SocketAddr,
    /// When the daemon read the maps, on the clock of `connection.drain`.
    #[serde(default)]
    pub t_ms: Instant,
    /// No other backend serves, and the Maglev table consists of the fallback.
    #[serde(default)]
    pub fallback: bool,
    /// The hash of the client's tuple, in hexadecimal: JSON numbers cannot hold 64 bits.
    pub hash: String,
    /// The slot of the Maglev table that the hash selects.
    pub slot: u32,
    /// The backend that the Maglev table has in that slot.
    pub slot_backend: Option<String>,
    /// The flow of this client's tuple, if there is one.
    pub connection: Option<KnownConnection>,
    /// The client's address is a backend's: from any other interface or VLAN the program drops its SYN.
    #[serde(default)]
    pub only_by: Option<Way>,
    /// Half-open backends in trial slots. They get new connections before the Maglev table decides.
    pub trial_slots: Vec<TrialSlot>,
    /// The backend that would get a new connection now.
    pub choice: Choice,
    /// The backend that would get it if that one were removed.
    pub if_removed: Option<Choice>,
}

/// An interface, and the VLAN behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    pub interface: String,
    pub vlan: Option<u16>,
}

/// A connection of this client that the flow table has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownConnection {
    pub stage: Stage,
    pub backend: String,
    /// False: the backend of the flow no longer exists, so the program ignores the flow.
    pub valid: bool,
    pub trial: bool,
    pub closing: bool,
    pub nat: SocketAddr,
    pub address: SocketAddr,
    /// The program forwards another SYN with this tuple to the same backend.
    pub takes_syn: bool,
    /// The drain of its backend, if that gets no new connections.
    #[serde(default)]
    pub drain: Option<Drain>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Established,
    Handshake,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialSlot {
    pub backend: String,
    /// Trials that are left of its trial budget in this interval.
    pub trials_left: i64,
    /// It would get the next new connection.
    pub available: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    pub by: By,
    pub backend: Option<String>,
    /// If the Maglev table decides: how many slots the program looks at. 1: the client's own slot decides.
    pub tries: Option<u32>,
    /// The drop reason, if no backend would get the connection.
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The client has a connection to this backend already.
    Connection,
    Trial,
    Table,
    /// No backend would get it.
    None,
}
