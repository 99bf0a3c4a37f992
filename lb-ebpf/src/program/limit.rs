//! Limits of connections (`max_connections`): how many a backend or a service has.
//!
//! The counts are exact with any number of CPUs. The CPU that sets `COUNTED` in the state of a flow has counted it before,
//! and the one that takes it out of the state, or swaps the state away, counts it off. Both are one atomic operation on
//! the state, so each connection is counted once and counted off once.

use lb_common::{
    MAX_BACKENDS,
    abi::{Address, Flow, Limit, flow_state},
};
use lb_ebpf::verifier::opaque;

use super::{
    atomic,
    backend::backend_of,
    maps::{BACKENDS, LIMITS, Tables},
};

/// The result of a try to count a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Try {
    Counted,
    Full,
    /// Half-open handshakes hold half of the limit, and this client has not proven its address.
    Unproven,
}

#[inline(always)]
pub(crate) fn of_backend(id: u16) -> Option<*mut Limit> {
    LIMITS.get_ptr_mut(id as u32)
}

#[inline(always)]
pub(crate) fn of_service(id: u16) -> Option<*mut Limit> {
    LIMITS.get_ptr_mut(Limit::of_service(id))
}

/// Counts a half-open handshake, if the limit allows it.
///
/// # Safety
/// `at` must be an entry of `LIMITS`. The same holds for the other functions here.
#[inline(always)]
pub(crate) unsafe fn begin(at: *mut Limit, proven: bool) -> Try {
    const HANDSHAKE: u64 = Limit::ONE + Limit::HANDSHAKE;
    // SAFETY: aligned words of a map, which other CPUs and the daemon write.
    unsafe {
        let most = (&raw const (*at).most).read_volatile() as i32;
        let open = (&raw mut (*at).open).cast::<i64>();
        if most != 0 {
            let seen = open.read_volatile() as u64;
            if Limit::connections(seen) >= most {
                return Try::Full;
            }
            if !proven && 2 * (Limit::handshakes(seen) as i64 + 1) > most as i64 {
                return Try::Unproven;
            }
        }
        let before = atomic::fetch_add(open, HANDSHAKE as i64) as u64;
        if most != 0 && Limit::connections(before) >= most {
            // Another CPU has begun the last connection meanwhile.
            atomic::fetch_add(open, (HANDSHAKE as i64).wrapping_neg());
            return Try::Full;
        }
        atomic::fetch_add((&raw mut (*at).begun).cast(), 1);
    }
    Try::Counted
}

/// Takes a part of the counts back: [`Limit::part`], or `Limit::HANDSHAKE` alone.
#[inline(always)]
pub(crate) unsafe fn take(at: *mut Limit, part: u64) {
    // SAFETY: as in `begin`.
    unsafe { atomic::fetch_add((&raw mut (*at).open).cast(), (part as i64).wrapping_neg()) };
}

/// The two ids of a flow as one number: a BPF function takes few.
#[inline(always)]
pub(crate) const fn who(backend: u16, service: u16) -> u32 {
    backend as u32 | (service as u32) << 16
}

/// The connection of a flow is over, which had this state. It does nothing for one that does not count: it has no branch
/// in its callers, because the verifier would follow both sides of each. `generation`: another backend that has the id by
/// now has its own count.
// A function of its own, because its callers have few registers. The same holds for `rest`.
#[inline(never)]
pub(crate) fn end(who: u32, generation: u32, state: u32) -> u32 {
    if state & flow_state::COUNTED == 0 {
        return 0;
    }
    let (backend, service) = (who as u16, (who >> 16) as u16);
    let part = Limit::part(state);
    let same = BACKENDS.get(backend as u32).is_some_and(|now| now.generation == generation);
    if same && let Some(at) = of_backend(backend) {
        // SAFETY: an entry of the map.
        unsafe { take(at, part) };
    }
    if let Some(at) = of_service(service) {
        // SAFETY: as above.
        unsafe {
            take(at, part);
            atomic::add32(&raw mut (*at).ended, 1);
        }
    }
    0
}

/// The same of a flow whose place is the caller's. `state`: before the caller has swapped it away.
#[inline(always)]
pub(crate) fn ended<A: Address>(flow: &Flow<A>, state: u32) {
    end(who(flow.backend, flow.service), flow.generation, state);
}

/// How often other CPUs may set bits of a state meanwhile.
const TRIES: u32 = 4;

/// Sets bits of the state with which the flow goes into time-wait, and counts its connection off. If another CPU ends
/// the flow first, it does that.
#[inline(never)]
pub(crate) fn rest<F: Tables>(slot: u32, set: u32) -> u32 {
    let Some(flow) = F::flow(slot) else { return 0 };
    // SAFETY: as in `flows`: a place of a map, whose fields are valid each by itself.
    let flow = unsafe { &mut *flow };
    for _ in 0..opaque(TRIES) {
        // Before the swap: after it the place may get another flow.
        let (who, generation) = (who(flow.backend, flow.service), flow.generation);
        // SAFETY: a word of a map that others may write.
        let state = unsafe { (&raw const flow.state).read_volatile() };
        if state & flow_state::LIVE == 0 {
            return 0;
        }
        // SAFETY: as above.
        if unsafe { atomic::replace32(&raw mut flow.state, state, (state | set) & !flow_state::COUNTED) } {
            return end(who, generation, state);
        }
    }
    0
}

/// A handshake that counted is complete.
#[inline(always)]
pub(crate) fn complete<A: Address>(flow: &Flow<A>) {
    let backend = backend_of(flow).and_then(|_| of_backend(flow.backend));
    for at in [backend, of_service(flow.service)].into_iter().flatten() {
        // SAFETY: entries of the map.
        unsafe { take(at, Limit::HANDSHAKE) };
    }
}

const _: () = assert!(MAX_BACKENDS <= 1 << 16);
