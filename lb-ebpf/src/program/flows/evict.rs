//! A place for a new flow in two full sets: which flow is evicted.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_loop;
use lb_common::{
    abi::{CLIENT_WAYS, FlowKey},
    hash::{other_set, set, tag},
};
use lb_ebpf::verifier::opaque;

use super::{
    client::NOWHERE,
    owner::{AT_ONCE, STAYS, free_reply, owns, readiness},
    sets::{cursor, hash, set_cursor, sets},
};
use crate::program::{atomic, maps::Tables};

/// How many flows of a full set the program considers. The next SYN considers the next ones.
const TURNS: u32 = 5;

/// The same when no way is free: it evicts a flow, if one may be evicted. `now` in nanoseconds.
#[inline(never)]
pub(crate) fn claim_taken<F: Tables>(key: &FlowKey<F::Addr>, now: u64) -> u64 {
    let hash = hash(key);
    let numbers = (set(hash, sets()), other_set(hash, sets()));
    evict::<F>(numbers, tag(hash), now).map_or(NOWHERE, u64::from)
}

/// The flows that are considered, and the best choice so far.
#[repr(C)]
struct Search {
    set: u32,
    other: u32,
    way: u32,
    /// `readiness`
    best: u32,
    chosen: u32,
    /// The state of the best when it was considered.
    state: u32,
    /// In microseconds, modulo 2^32.
    now: u32,
}

/// Evicts the flow that is readiest of those considered. In a set that is full of a flood's half-open
/// handshakes, that is the next one at the cursor: they leave in the order in which they came.
#[inline(always)]
fn evict<F: Tables>((number, other): (u32, u32), tag: u32, now: u64) -> Option<u32> {
    let way = cursor::<F>(number)?;
    let now = (now / 1000) as u32;
    let mut search = Search { set: number, other, way, best: STAYS, chosen: 0, state: 0, now };
    // The kernel runs the turns (`bpf_loop`, Linux 5.17), so that the verifier looks at one turn only.
    // SAFETY: the callback has the type that the kernel calls, and the search outlives the loop.
    unsafe { bpf_loop(2 * TURNS, consider::<F> as *mut c_void, (&raw mut search).cast(), 0) };
    let found = &raw const search;
    // SAFETY: written by the callback, of which the compiler does not know.
    let (number, best, chosen, state) = unsafe {
        (
            (&raw const (*found).set).read_volatile(),
            (&raw const (*found).best).read_volatile(),
            (&raw const (*found).chosen).read_volatile(),
            (&raw const (*found).state).read_volatile(),
        )
    };
    let at = opaque(chosen) as usize;
    if best == STAYS || at >= CLIENT_WAYS {
        return None;
    }
    let set = F::clients(number)?;
    let slot = number * CLIENT_WAYS as u32 + at as u32;
    // SAFETY: as in `in_set`.
    let flow = unsafe { &mut *F::flow(slot)? };
    // If the flow has changed since, it stays.
    if !owns(flow, state) {
        return None;
    }
    free_reply::<F>(flow);
    // SAFETY: inside, and its place is ours.
    unsafe { atomic::publish((&raw mut (*set).tags).cast::<u32>().add(at), tag) };
    set_cursor::<F>(number, at as u32 + 1);
    Some(slot)
}

/// One turn of the search. 1 ends it.
unsafe extern "C" fn consider<F: Tables>(turn: u32, search: *mut Search) -> i64 {
    // SAFETY: the kernel hands over what `evict` gave it.
    let search = unsafe { &mut *search };
    if turn == TURNS {
        if search.best != STAYS {
            return 1;
        }
        // No flow of this set may be evicted. The next SYN begins with other flows.
        set_cursor::<F>(search.set, search.way);
        search.set = search.other;
        search.way = cursor::<F>(search.set).unwrap_or(0);
    }
    let way = if search.way < CLIENT_WAYS as u32 { search.way } else { 0 };
    search.way = way + 1;
    let Some(flow) = F::flow(search.set * CLIENT_WAYS as u32 + way) else { return 1 };
    // SAFETY: as in `in_set`.
    let flow = unsafe { &*flow };
    // SAFETY: a word of a map that others may write.
    let state = unsafe { (&raw const flow.state).read_volatile() };
    let readiness = readiness(flow, state, search.now);
    if readiness > search.best {
        (search.best, search.chosen, search.state) = (readiness, way, state);
    }
    i64::from(search.best >= AT_ONCE)
}
