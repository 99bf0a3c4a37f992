//! One exchange as a record shows it.

use std::net::SocketAddr;

use lb_common::abi::{ExchangeRecord, record_flags, socket_addr};
use lb_core::io::{BackendId, Generation, Outcome};

/// The outcome of one exchange, with its backend, client and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub backend: BackendId,
    pub generation: Generation,
    pub client: SocketAddr,
    pub outcome: Outcome,
    /// When the program saw the segment that decided, `CLOCK_MONOTONIC` nanoseconds.
    pub at_ns: u64,
    /// Since the program saw the request, or the SYN. 0: not known.
    pub since_request_ns: u64,
    /// The connection was admitted out of a trial budget.
    pub trial: bool,
    /// The client pipelines: responses are missing.
    pub pipelined: bool,
    /// The exchange ended without a response, long after the request was complete.
    pub late: bool,
}

impl Reading {
    pub(super) fn of(record: &ExchangeRecord, outcome: Outcome) -> Self {
        let has = |flag: u16| record.flags & flag != 0;
        Self {
            backend: BackendId(record.backend),
            generation: Generation(record.generation),
            client: socket_addr(record.client, record.client_port),
            outcome,
            at_ns: record.at_ns,
            since_request_ns: record.since_request_ns,
            trial: has(record_flags::TRIAL),
            pipelined: has(record_flags::PIPELINED),
            late: has(record_flags::LATE),
        }
    }

    /// When the program saw the request, as [`Flow::asked_us`](lb_common::abi::Flow::asked_us).
    pub const fn began_us(&self) -> u32 {
        ((self.at_ns / 1000) as u32).wrapping_sub((self.since_request_ns / 1000) as u32)
    }
}
