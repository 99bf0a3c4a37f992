//! Counters of one backend, and drops of one service.

use std::collections::BTreeMap;

use lb_common::{
    abi::{BackendCounters, TTFB_BUCKETS, TTFB_FIRST_US},
    reason::Reason,
};
use serde::{Deserialize, Serialize};

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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_warning_code: Option<String>,
    #[serde(flatten)]
    pub counters: Counters,
    pub resets: ResetCounts,
    /// Absent: the connections of its service do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitUse>,
}

/// Connections that count in a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitUse {
    /// Connections now, half-open handshakes included.
    pub used: u32,
    /// Of these, half-open handshakes.
    pub handshakes: u32,
    /// `max_connections`. 0: there is none.
    pub limit: u32,
}

impl LimitUse {
    pub const fn is_full(&self) -> bool {
        self.limit > 0 && self.used >= self.limit
    }
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
    /// SYNs that found it full and looked for another backend.
    #[serde(default)]
    pub spilled: u64,
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
            spilled,
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
            spilled,
        }
    }
}
