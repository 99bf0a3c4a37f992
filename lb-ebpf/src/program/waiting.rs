//! The queue of `overflow = "queue-by-retry"`: clients that find everything full and try again.
//!
//! The program keeps no SYN. A client's stack sends it again after one second, two, and so on (RFC 6298). The program
//! remembers who had to, and lets them go first: while about as many wait as places are free, a new client waits too.

use lb_common::abi::{FlowKey, Limit, RECENT_CLIENTS};

use super::{
    clock::{coarse_ns, ticks},
    flows, limit,
    maps::{Tables, WAITING},
};

/// For so many ticks of 2^30 ns the program remembers a client. Stacks double their pauses, and by then most give up.
const REMEMBERS: u32 = 16;

/// How many clients were refused in this tick and the one before. Each waits one or two seconds for its next try.
#[inline(always)]
fn count(at: *const Limit) -> u32 {
    // SAFETY: aligned words of a map, which other CPUs write.
    unsafe {
        let now = ticks(coarse_ns());
        let [this, last] = (&raw const (*at).waiting).read_volatile();
        match now.wrapping_sub((&raw const (*at).waiting_tick).read_volatile()) {
            0 if this > last => this,
            0 => last,
            1 => this,
            _ => 0,
        }
    }
}

/// Whether a client of this service has to let others go first. 1: it has.
// A function of its own, to spare the stack of its caller. The same holds for `note`.
#[inline(never)]
pub(crate) fn must_wait<F: Tables>(key: &FlowKey<F::Addr>, service: u32) -> u32 {
    let Some(at) = limit::of_service(service as u16) else { return 0 };
    let waiting = count(at);
    if waiting == 0 {
        return 0;
    }
    // SAFETY: as above.
    let (most, open) =
        unsafe { ((&raw const (*at).most).read_volatile(), (&raw const (*at).open).read_volatile()) };
    let free = (most as i32).wrapping_sub(Limit::connections(open));
    (most != 0 && free as i64 <= waiting as i64 && !has_waited::<F>(key)) as u32
}

#[inline(always)]
fn entry(hash: u64) -> Option<*mut u64> {
    WAITING.get_ptr_mut(hash as u32 & (RECENT_CLIENTS - 1))
}

#[inline(always)]
fn has_waited<F: Tables>(key: &FlowKey<F::Addr>) -> bool {
    let hash = flows::hash(key);
    let Some(entry) = entry(hash) else { return false };
    // SAFETY: an aligned word of a map.
    let found = unsafe { entry.read_volatile() };
    (found ^ hash) >> 32 == 0 && ticks(coarse_ns()).wrapping_sub(found as u32) < REMEMBERS
}

/// A client finds everything full. Counts are of about now: of two CPUs at once either may win.
#[inline(never)]
pub(crate) fn note<F: Tables>(key: &FlowKey<F::Addr>, service: u32) -> u32 {
    let Some(at) = limit::of_service(service as u16) else { return 0 };
    let now = ticks(coarse_ns());
    let hash = flows::hash(key);
    // SAFETY: aligned words of maps.
    unsafe {
        if let Some(entry) = entry(hash) {
            entry.write_volatile(hash >> 32 << 32 | now as u64);
        }
        let tick = &raw mut (*at).waiting_tick;
        let age = now.wrapping_sub(tick.read_volatile());
        let waiting = &raw mut (*at).waiting;
        let [this, last] = waiting.read_volatile();
        let now_waiting = if age == 0 {
            [this + 1, last]
        } else if age == 1 {
            [1, this]
        } else {
            [1, 0]
        };
        waiting.write_volatile(now_waiting);
        tick.write_volatile(now);
    }
    0
}
