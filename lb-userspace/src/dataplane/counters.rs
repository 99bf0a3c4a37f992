//! Counters of the dataplane.

use lb_common::{abi::BackendCounters, reason::Reason};
use lb_core::io::{BackendId, ServiceId};

use super::path_warning::PathWarning;

/// Counted since the maps were made, where a field says nothing else. Lists of backends are in the order of their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub backends: Vec<(BackendId, BackendCounters)>,
    /// Connections that the reset sender has reset since the daemon started.
    pub resets: Vec<(BackendId, ResetCounts)>,
    /// Backends whose next hop does not answer. They get no new connections.
    pub unreachable: Vec<BackendId>,
    pub path_warnings: Vec<(BackendId, PathWarning)>,
    /// Only those that are not zero.
    pub drops: Vec<(ServiceId, Reason, u64)>,
    pub expired_flows: ExpiredFlows,
    /// Of the services whose connections count, and of their backends.
    pub service_limits: Vec<(ServiceId, LimitCounts)>,
    pub backend_limits: Vec<(BackendId, LimitCounts)>,
}

/// Connections that count in a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitCounts {
    pub used: u32,
    /// Of these, half-open handshakes.
    pub handshakes: u32,
    /// 0: there is none.
    pub limit: u32,
}

/// Connections of one backend that the reset sender has reset at both ends, by cause. If the program resets a client
/// first, it counts that connection itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResetCounts {
    /// Connections without a pending request.
    pub idle: u64,
    /// Connections whose drain time was over.
    pub drained: u64,
}

/// Flows that the daemon has removed since it started because they were silent for their timeout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpiredFlows {
    pub handshakes: u64,
    pub established: u64,
    pub closing: u64,
    /// Flows in time-wait. Their NAT ports have rested.
    pub rested: u64,
}
