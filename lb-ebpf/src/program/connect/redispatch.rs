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
    clock::{NEVER, answer_ticks},
    evidence, flows,
    maps::{BACKENDS, LAST_SYNACK, TABLES, Tables},
};

/// Slots that are looked at for another backend than the one that a handshake failed with. A quarter of a small
/// service is missed by one handshake in 10^8.
const OTHER_TRIES: u32 = 64;

/// Beside the id that [`abandoned`] gives: the backend has refused.
pub(crate) const REFUSED: u32 = 1 << 16;

/// The backend of a handshake that has come to nothing, which ends here. [`NO_BACKEND`]: there is none.
// A function of its own, like those that follow, because it needs much of the stack.
#[inline(never)]
pub(crate) fn abandoned<F: Tables>(key: &FlowKey<F::Addr>) -> u32 {
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

/// A look for another backend: what goes from one turn to the next.
#[repr(C)]
struct Others {
    table: *const [u16; TABLE_SLOTS],
    hash: u64,
    avoided: u16,
    best: u16,
    /// Since when `best` has not answered.
    silence: u32,
    now: u32,
}

/// Another backend for a handshake that has to go elsewhere: of those that a table offers the one that has answered
/// a SYN last, because this client has waited long enough. [`NO_BACKEND`]: there is no other.
#[inline(never)]
pub(crate) fn other_backend(service: u16, hash: u64, avoided: u16) -> u32 {
    let Some(table) = TABLES.get_value(service as u32, &0) else { return NO_BACKEND as u32 };
    let now = answer_ticks();
    let mut others = Others { table, hash, avoided, best: NO_BACKEND, silence: 0, now };
    // SAFETY: the callback has the type that the kernel calls, and what it works on outlives the loop.
    unsafe { bpf_loop(OTHER_TRIES, offer as *mut c_void, (&raw mut others).cast(), 0) };
    // SAFETY: written by the callback, of which the compiler does not know.
    unsafe { (&raw const others.best).read_volatile() as u32 }
}

/// One slot is looked at.
unsafe extern "C" fn offer(_: u32, others: *mut Others) -> i64 {
    // SAFETY: the kernel hands over what `elsewhere` gave it.
    let others = unsafe { &mut *others };
    others.hash = rehash(others.hash);
    // SAFETY: the map's one value, which stays as long as the program runs.
    let Some(&id) = (unsafe { &*others.table }).get(opaque(slot(others.hash)) as usize) else { return 1 };
    let (Some(backend), Some(&at)) = (BACKENDS.get(id as u32), LAST_SYNACK.get(id as u32)) else { return 0 };
    let may = id != others.avoided && backend.flags & backend_flags::ADMIT != 0 && backend.link.is_resolved();
    let silence = if at == NEVER { u32::MAX } else { others.now.wrapping_sub(at) };
    // The first of them wins where none is known to have answered.
    if may && (others.best == NO_BACKEND || silence < others.silence) {
        (others.best, others.silence) = (id, silence);
    }
    0
}
