//! Redispatch: a handshake that its backend refuses or ignores continues with another backend.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_loop;
use lb_common::{
    NO_BACKEND, TABLE_SLOTS,
    abi::{FlowKey, backend_flags, flow_state},
    hash::{rehash, slot},
};
use lb_ebpf::verifier::opaque;

use crate::program::{
    backend::counters,
    evidence, flows,
    maps::{BACKENDS, LAST_SYNACK, TABLES, Tables},
};

/// Slots that the program looks at to find another backend. One handshake in 10^8 misses a quarter of a small
/// service.
const OTHER_TRIES: u32 = 64;

/// Set beside the id that [`end_abandoned`] returns: the backend has refused.
pub(crate) const REFUSED: u32 = 1 << 16;

/// Ends a handshake to redispatch and returns its backend. [`NO_BACKEND`]: there is no such handshake.
// A function of its own, like those that follow, because it needs much of the stack.
#[inline(never)]
pub(crate) fn end_abandoned<F: Tables>(key: &FlowKey<F::Addr>) -> u32 {
    let Some(handshake) = flows::by_client::<F>(key) else { return NO_BACKEND as u32 };
    if handshake.state & (flow_state::ANSWERED | flow_state::TIME_WAIT) != 0 {
        return NO_BACKEND as u32;
    }
    evidence::note_silence(handshake);
    let backend = handshake.backend;
    let refused = if handshake.state & flow_state::REFUSED != 0 { REFUSED } else { 0 };
    if let Some(counters) = counters(backend) {
        counters.redispatched += 1;
    }
    flows::release::<F>(handshake);
    backend as u32 | refused
}

/// The search for another backend: its state between two turns.
#[repr(C)]
struct Others {
    table: *const [u16; TABLE_SLOTS],
    hash: u64,
    avoided: u16,
    best: u16,
    /// When `best` answered last.
    answered: u64,
}

/// Another backend for a redispatched handshake. Of the backends in some slots of the table it is the one
/// that answered a SYN last, because the client has waited long enough. [`NO_BACKEND`]: there is no other.
#[inline(never)]
pub(crate) fn other_backend(service: u16, hash: u64, avoided: u16) -> u32 {
    let Some(table) = TABLES.get_value(service as u32, &0) else { return NO_BACKEND as u32 };
    let mut others = Others { table, hash, avoided, best: NO_BACKEND, answered: 0 };
    // SAFETY: the callback has the type that the kernel calls, and what it works on outlives the loop.
    unsafe { bpf_loop(OTHER_TRIES, offer as *mut c_void, (&raw mut others).cast(), 0) };
    // SAFETY: written by the callback, of which the compiler does not know.
    unsafe { (&raw const others.best).read_volatile() as u32 }
}

/// Considers one slot. 1 ends the search.
unsafe extern "C" fn offer(_: u32, others: *mut Others) -> i64 {
    // SAFETY: the kernel hands over what `other_backend` gave it.
    let others = unsafe { &mut *others };
    others.hash = rehash(others.hash);
    // SAFETY: the map's one value, which stays as long as the program runs.
    let Some(&id) = (unsafe { &*others.table }).get(opaque(slot(others.hash)) as usize) else { return 1 };
    let (Some(backend), Some(&at)) = (BACKENDS.get(id as u32), LAST_SYNACK.get(id as u32)) else { return 0 };
    let may = id != others.avoided && backend.flags & backend_flags::ADMIT != 0 && backend.link.is_resolved();
    // The first one wins if none is known to have answered.
    if may && (others.best == NO_BACKEND || at > others.answered) {
        (others.best, others.answered) = (id, at);
    }
    0
}
