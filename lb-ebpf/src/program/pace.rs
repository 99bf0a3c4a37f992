//! The limit of new connections on one CPU (`max_new_flows_per_second`).
//!
//! A flood of SYNs evicts only half-open handshakes. But the faster the SYNs come, the sooner a handshake is
//! evicted, and a handshake that is evicted before its client answers is lost. Each SYN also costs several
//! times as much as a packet of a living connection. The limit protects both: the time for each handshake,
//! and the CPU time for everything else.
//!
//! It is a token bucket, stored as the time at which the next SYN is due (the virtual scheduling algorithm of
//! ITU-T I.371, annex A).

use super::{
    clock::coarse_ns,
    maps::{CONFIG, PACE},
};

/// SYNs that are due in this time may come at once. The clock moves in steps of up to 10 ms, and within a
/// step all SYNs have the same time.
const BURST_NS: u64 = 1 << 25;

/// Whether a new connection may begin now. If so, it is counted.
#[inline(always)]
pub(crate) fn admits() -> bool {
    let now = coarse_ns();
    let Some(config) = CONFIG.get(0) else { return true };
    if config.syn_interval_ns == 0 {
        return true;
    }
    let Some(due) = PACE.get_ptr_mut(0) else { return true };
    let earliest = now.saturating_sub(BURST_NS);
    // SAFETY: this CPU's own value; XDP programs on one CPU do not interrupt each other.
    unsafe {
        if *due >= now {
            return false;
        }
        *due = (*due).max(earliest) + config.syn_interval_ns as u64;
    }
    true
}
