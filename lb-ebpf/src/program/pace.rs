//! How fast one CPU begins connections, at most (`max_new_flows_per_second`).
//!
//! A flood of SYNs evicts embryos only. But the faster they come, the shorter an embryo lives, and a handshake
//! that is evicted before its client has answered is lost; and each SYN costs several times what a packet of a
//! living connection does. The limit keeps both: so much time for each handshake, so much of the CPU for the rest.
//!
//! It is a token bucket, kept as the one time at which the next SYN is due (the virtual scheduling algorithm of
//! ITU-T I.371, annex A).

use super::{
    clock::coarse_ns,
    maps::{CONFIG, PACE},
};

/// What may come at once: what is due in so much time. The clock moves in steps of up to 10 ms, and within a
/// step everything comes at once.
const BURST_NS: u64 = 1 << 25;

/// Whether a new connection may begin now, and if so, counts it.
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
