//! One backend, and one client, in depth.

use std::net::SocketAddr;

use lb_core::{
    snapshot::{Ending, Why},
    time::Instant,
};
use serde::{Deserialize, Serialize};

use super::{BackendTraffic, Evidence};

/// `GET /v1/backends/SERVICE/BACKEND`, and the answer to each change of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendView {
    /// Unix time at which the `t_ms` of everything below stood at 0.
    pub started_unix_ms: u64,
    /// When this was so.
    pub t_ms: u64,
    /// What can be known of the service's responses.
    pub evidence: Evidence,
    pub traffic: BackendTraffic,
    /// Connections that it has now; absent unless asked for.
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
    /// When this was so, on the clock of `pinned.ending`.
    #[serde(default)]
    pub t_ms: Instant,
    /// None of the other backends serves, and the table is made of the fallback.
    #[serde(default)]
    pub fallback: bool,
    /// Of the client's tuple, in hexadecimal: 64 bits are more than JSON's numbers hold.
    pub hash: String,
    pub slot: u32,
    /// What the table has in that slot.
    pub in_slot: Option<String>,
    pub pinned: Option<Pin>,
    /// Half-open backends, which are offered new connections before the table.
    pub seats: Vec<TrialSeat>,
    /// Who would get a new connection now.
    pub choice: Choice,
    /// Who would, if that one left.
    pub without: Option<Choice>,
}

/// A connection of this client that the maps know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    pub stage: Stage,
    pub backend: String,
    /// False: the entry is a former backend's and counts for nothing.
    pub alive: bool,
    pub trial: bool,
    pub closing: bool,
    pub nat: SocketAddr,
    pub address: SocketAddr,
    pub keeps_syn: bool,
    /// What becomes of it, when its backend gets no new connections.
    #[serde(default)]
    pub ending: Option<Ending>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Established.
    Flow,
    Handshake,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialSeat {
    pub backend: String,
    /// New connections that it may still be given in this interval.
    pub left: i64,
    /// It would take one now.
    pub takes: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    pub by: By,
    pub backend: Option<String>,
    /// By the table: which slot in a row it is; 1 is the client's own.
    pub tries: Option<u32>,
    /// Why nobody: the name that the drop is counted under.
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The client's connection is there already.
    Connection,
    Trial,
    Table,
    Nobody,
}
