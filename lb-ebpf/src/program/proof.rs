//! Clients that have shown that they receive at their address.
//!
//! A forged SYN counts in `max_connections` until its handshake times out. So while half-open handshakes hold half of
//! the limit, only clients begin a connection that have proven their address: they have completed a handshake, or they
//! answer a challenge. A client that has sent a SYN answers an acknowledgement of something else with a reset that
//! repeats its number (RFC 9293 section 3.10.7.3), and sends the SYN again. Nobody else sees the number.

use lb_common::{
    abi::{FlowKey, RECENT_CLIENTS},
    hash::{cookie, keyed_address_hash},
};
use lb_ebpf::segment::{Segment, flag};

use super::{
    clock::{coarse_ns, ticks},
    flows,
    maps::{PROVEN, Tables},
};

/// For so many ticks of 2^30 ns a proof holds: five minutes.
const HOLDS: u32 = 280;

#[inline(always)]
fn hash<F: Tables>(client: &F::Addr) -> u64 {
    keyed_address_hash(client, flows::key(3))
}

#[inline(always)]
fn entry(hash: u64) -> Option<*mut u64> {
    // Other bits than those that are compared.
    PROVEN.get_ptr_mut(hash as u32 & (RECENT_CLIENTS - 1))
}

/// A client has proven its address. Of two clients with one entry the later one has it.
#[inline(always)]
pub(crate) fn note<F: Tables>(client: &F::Addr) {
    let hash = hash::<F>(client);
    let Some(entry) = entry(hash) else { return };
    // SAFETY: an aligned word of a map.
    unsafe { entry.write_volatile(hash >> 32 << 32 | ticks(coarse_ns()) as u64) };
}

// A function of its own, to spare the stack of its caller.
#[inline(never)]
pub(crate) fn is_proven<F: Tables>(key: &FlowKey<F::Addr>) -> u32 {
    let hash = hash::<F>(&key.src);
    let Some(entry) = entry(hash) else { return 0 };
    // SAFETY: an aligned word of a map.
    let found = unsafe { entry.read_volatile() };
    let age = ticks(coarse_ns()).wrapping_sub(found as u32);
    ((found ^ hash) >> 32 == 0 && age < HOLDS) as u32
}

/// The number that a challenge acknowledges.
#[inline(always)]
pub(crate) fn number<F: Tables>(key: &FlowKey<F::Addr>) -> u32 {
    cookie(flows::hash(key), flows::key(4))
}

/// Takes a reset that may answer a challenge. Returns whether it does.
#[inline(always)]
pub(crate) fn is_given<F: Tables>(key: &FlowKey<F::Addr>, segment: &Segment) -> bool {
    segment.has(flag::RST) && take::<F>(key, segment.seq) != 0
}

// A function of its own, because it is rare.
#[inline(never)]
fn take<F: Tables>(key: &FlowKey<F::Addr>, seq: u32) -> u32 {
    let right = seq == number::<F>(key);
    if right {
        note::<F>(&key.src);
    }
    right as u32
}
