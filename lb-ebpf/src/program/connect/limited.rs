//! The backend of a new connection where backends may be full.
//!
//! It is the client's slot, or the next one whose backend is not full: the same slots in the same order on every node.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_loop;
use lb_common::{
    LIMITED_TRIES, NO_BACKEND, TABLE_SLOTS,
    abi::{FlowKey, Limit, Service, backend_flags, service_flags},
    hash::{rehash, slot},
    reason::Reason,
};
use lb_ebpf::verifier::opaque;

use super::{
    result::{NONE, RETRY, TRIAL, none},
    trial::{take_token, trial},
};
use crate::program::{
    backend::counters,
    clock::interrupt,
    limit::{self, Try},
    maps::{BACKENDS, TABLES, Tables},
    proof, waiting,
};

/// Chooses a backend and counts the connection there and in its service. `moved`: the backend with which a redispatched
/// handshake continues, and [`RETRY`].
#[inline(never)]
pub(super) fn choose<F: Tables>(key: &FlowKey<F::Addr>, service: &Service, hash: u64, moved: u32) -> u32 {
    let Some(all) = limit::of_service(service.id) else { return none(Reason::Full) };
    let proven = proof::is_proven::<F>(key) != 0;
    let queues = service.flags & service_flags::OVERFLOW_QUEUE != 0;
    let refuse = || refuse::<F>(key, service.id, all, queues);
    if is_known_full(all) || queues && waiting::must_wait::<F>(key, service.id as u32) != 0 {
        return refuse();
    }
    // SAFETY: an entry of the map.
    match unsafe { limit::begin(all, proven) } {
        Try::Counted => {}
        Try::Full => return refuse(),
        Try::Unproven => return none(Reason::Unproven),
    }
    // SAFETY: an aligned word of the map.
    let ended = unsafe { (&raw const (*all).ended).read_volatile() };
    let chosen = of_backends(service, hash, moved, proven);
    if chosen < NONE {
        return chosen;
    }
    // SAFETY: as above.
    unsafe { limit::take(all, Limit::ONE + Limit::HANDSHAKE) };
    if chosen == none(Reason::Full) {
        note_full(all, ended);
        return refuse();
    }
    chosen
}

#[inline(always)]
fn refuse<F: Tables>(key: &FlowKey<F::Addr>, service: u16, all: *mut Limit, queues: bool) -> u32 {
    if queues {
        waiting::note::<F>(key, service as u32);
    }
    // SAFETY: a word of the map. Of two CPUs at once one count may be lost: `DROPS` has them all.
    unsafe {
        let refused = &raw mut (*all).refused;
        refused.write_volatile(refused.read_volatile().wrapping_add(1));
    }
    none(Reason::Full)
}

/// Whether a SYN has found every backend full since the last timer interrupt, and no connection has ended since.
#[inline(always)]
fn is_known_full(all: *mut Limit) -> bool {
    // SAFETY: aligned words of a map, which other CPUs write.
    unsafe {
        let at = (&raw const (*all).full_at).read_volatile();
        at != 0
            && at == interrupt()
            && (&raw const (*all).full_ended).read_volatile() == (&raw const (*all).ended).read_volatile()
    }
}

#[inline(always)]
fn note_full(all: *mut Limit, ended: u32) {
    // `ended`: from before the search. A connection that has ended meanwhile makes the note void.
    // SAFETY: as above.
    unsafe {
        (&raw mut (*all).full_ended).write_volatile(ended);
        (&raw mut (*all).full_at).write_volatile(interrupt());
    }
}

/// The search for a backend: its state between two turns.
#[repr(C)]
struct Search {
    table: *const [u16; TABLE_SLOTS],
    hash: u64,
    proven: u32,
    result: u32,
}

// A function of its own, so that the verifier follows it once for both families.
#[inline(never)]
fn of_backends(service: &Service, hash: u64, moved: u32, proven: bool) -> u32 {
    if moved as u16 != NO_BACKEND && count(moved as u16, proven) == Try::Counted {
        return moved as u16 as u32;
    }
    let take = |id: u16| {
        if count(id, proven) != Try::Counted {
            return false;
        }
        if take_token(id) {
            return true;
        }
        if let Some(at) = limit::of_backend(id) {
            // SAFETY: an entry of the map.
            unsafe { limit::take(at, Limit::ONE + Limit::HANDSHAKE) };
        }
        false
    };
    if moved & RETRY == 0
        && let Some(id) = trial(service, take)
    {
        return id as u32 | TRIAL;
    }
    let Some(table) = TABLES.get_value(service.id as u32, &0) else { return none(Reason::NoBackend) };
    let mut search = Search { table, hash, proven: proven as u32, result: none(Reason::Swapping) };
    // SAFETY: the callback has the type that the kernel calls, and what it works on outlives the loop.
    unsafe { bpf_loop(LIMITED_TRIES, consider as *mut c_void, (&raw mut search).cast(), 0) };
    // SAFETY: written by the callback, of which the compiler does not know.
    unsafe { (&raw const search.result).read_volatile() }
}

#[inline(always)]
fn count(id: u16, proven: bool) -> Try {
    let Some(at) = limit::of_backend(id) else { return Try::Full };
    // SAFETY: an entry of the map.
    unsafe { limit::begin(at, proven) }
}

/// Considers one slot. 1 ends the search.
unsafe extern "C" fn consider(_: u32, search: *mut Search) -> i64 {
    // SAFETY: the kernel hands over what `of_backends` gave it.
    let search = unsafe { &mut *search };
    let hash = search.hash;
    search.hash = rehash(hash);
    // SAFETY: the map's one value, which stays as long as the program runs.
    let Some(&id) = (unsafe { &*search.table }).get(opaque(slot(hash)) as usize) else { return 1 };
    let Some(backend) = BACKENDS.get(id as u32) else {
        search.result = none(Reason::NoBackend);
        return 1;
    };
    if backend.flags & backend_flags::ADMIT == 0 {
        return 0;
    }
    if !backend.link.is_resolved() {
        if search.result != none(Reason::Full) {
            search.result = none(Reason::Neighbour);
        }
        return 0;
    }
    match count(id, search.proven != 0) {
        Try::Counted => {
            search.result = id as u32;
            1
        }
        Try::Unproven => {
            search.result = none(Reason::Unproven);
            1
        }
        Try::Full => {
            if search.result != none(Reason::Full)
                && let Some(counters) = counters(id)
            {
                counters.spilled += 1;
            }
            search.result = none(Reason::Full);
            0
        }
    }
}
