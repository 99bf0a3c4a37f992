//! The ownership of a flow's place: freeing it, and which flows may lose it.

use lb_common::{
    abi::{Address, CLIENT_WAYS, Flow, REPLY_SETS, REPLY_WAYS, flow_state, head_state},
    hash::{other_set, set, tag},
};
use lb_ebpf::{stamps::begins_again, verifier::opaque};

use super::sets::{entry, hash, sets};
use crate::program::{
    atomic,
    backend::backend_of,
    clock::{coarse_ns, ticks},
    limit,
    maps::Tables,
};

/// Ticks of `Flow::seen` after which a new flow may evict a silent one. The daemon sets it when it loads the
/// program, and expires flows after the same time.
#[unsafe(no_mangle)]
static SILENCE: u32 = u32::MAX;

/// How often the program tries to swap a state whose bits other CPUs set meanwhile.
const SWAP_TRIES: u32 = 4;

/// Frees a flow's place and its NAT port.
#[inline(always)]
pub(crate) fn release<F: Tables>(flow: &mut Flow<F::Addr>) {
    for _ in 0..opaque(SWAP_TRIES) {
        // SAFETY: a word of a map that others may write.
        let state = unsafe { (&raw const flow.state).read_volatile() };
        if state & flow_state::LIVE == 0 {
            return;
        }
        if owns(flow, state) {
            free_reply::<F>(flow);
            free_place::<F>(flow.slot);
            return;
        }
    }
}

/// Whether this CPU wins the swap, and so ends the flow.
#[inline(always)]
pub(crate) fn owns<A: Address>(flow: &mut Flow<A>, state: u32) -> bool {
    // SAFETY: a word of a map.
    let owns = unsafe { atomic::replace32(&raw mut flow.state, state, 0) };
    if owns {
        limit::ended(flow, state);
    }
    owns
}

#[inline(always)]
pub(crate) fn free_reply<F: Tables>(flow: &Flow<F::Addr>) {
    let hash = hash(&flow.reply);
    let entry = entry(flow.slot, tag(hash));
    let sets = sets() * REPLY_SETS;
    // Nearly all entries are in the first set. Only a flow in mode `dnat` can have its entry in the other.
    if !free_entry::<F>(set(hash, sets), entry) {
        free_entry::<F>(other_set(hash, sets), entry);
    }
}

#[inline(always)]
fn free_entry<F: Tables>(number: u32, entry: u64) -> bool {
    let Some(set) = F::replies(number) else { return false };
    for way in 0..REPLY_WAYS {
        // SAFETY: words of a map that others may write.
        unsafe {
            let at = &raw mut (*set).ways[way];
            if at.read_volatile() == entry {
                return atomic::replace64(at, entry, 0);
            }
        }
    }
    false
}

#[inline(always)]
pub(crate) fn free_place<F: Tables>(slot: u32) {
    let number = slot / CLIENT_WAYS as u32;
    let way = opaque(slot - number * CLIENT_WAYS as u32) as usize;
    let Some(set) = F::clients(number) else { return };
    if way < CLIENT_WAYS {
        // SAFETY: a word of a map, and its place is ours.
        unsafe { atomic::publish((&raw mut (*set).tags).cast::<u32>().add(way), 0) };
    }
}

/// A living connection is not evicted.
pub(crate) const STAYS: u32 = 0;

/// From this readiness on the search ends: a half-open handshake of a quarter of a second, a flow in
/// time-wait, or a dead one.
pub(crate) const AT_ONCE: u32 = 1 << 18;

/// How ready a flow is to be evicted. For a half-open handshake it grows with its age, so that the youngest
/// are evicted last.
#[inline(always)]
pub(crate) fn readiness<A: Address>(flow: &Flow<A>, state: u32, now_us: u32) -> u32 {
    if state & flow_state::LIVE == 0 {
        // Another CPU is taking or freeing this place.
        return STAYS;
    }
    if state & flow_state::TIME_WAIT != 0 {
        return AT_ONCE;
    }
    if state & flow_state::ESTABLISHED == 0 {
        return handshake_age(flow, now_us).max(0) as u32 | 1;
    }
    if is_dead(flow, ticks(coarse_ns())) { AT_ONCE } else { STAYS }
}

/// In microseconds, since the SYN was seen. Negative for a SYN that came meanwhile.
#[inline(always)]
fn handshake_age<A: Address>(flow: &Flow<A>, now_us: u32) -> i32 {
    now_us.wrapping_sub(flow.asked_us) as i32
}

/// Whether its backend is gone, or the flow was silent for too long.
#[inline(always)]
fn is_dead<A: Address>(flow: &Flow<A>, now: u32) -> bool {
    // SAFETY: a constant of the loaded program; volatile because the loader rewrites it.
    let silence = unsafe { (&raw const SILENCE).read_volatile() };
    now.wrapping_sub(flow.seen) >= silence || backend_of(flow).is_none()
}

/// From which flows in time-wait a new one may take the tuple of its replies. Each also takes from those of its own
/// client, whose numbers go on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resting {
    /// From no other.
    Own,
    /// From those that the backend has forgotten, and from those of the same address for which it begins again. If a
    /// client whose clock is ahead took from all others, one whose clock is behind would find none.
    OwnAddress,
    /// From all for which the backend begins again.
    Harmless,
    Any,
}

impl Resting {
    /// Whether a flow in time-wait gives its tuple to another.
    #[inline(always)]
    fn gives<A: Address>(self, flow: &Flow<A>, successor: &Flow<A>) -> bool {
        if self == Self::Any || flow.client == successor.client {
            return true;
        }
        if self == Self::Own {
            return false;
        }
        let syn = successor.asked_seq.wrapping_sub(1);
        let begins =
            begins_again(flow.client_fin_ack, flow.whole_end_or_stamp, syn, successor.whole_end_or_stamp);
        let may = self == Self::Harmless || flow.client.src == successor.client.src;
        flow.head & head_state::FORGOTTEN != 0 || may && begins
    }
}

/// Ends the flow that has a tuple which another flow needs, if it may be ended.
#[inline(always)]
pub(crate) fn end_holder<F: Tables>(
    holder: u32,
    successor: &Flow<F::Addr>,
    least_age: i32,
    resting: Resting,
) -> bool {
    let Some(flow) = F::flow(holder) else { return false };
    // SAFETY: as in `in_set`.
    let flow = unsafe { &mut *flow };
    // SAFETY: a word of a map that others may write.
    let state = unsafe { (&raw const flow.state).read_volatile() };
    if state & flow_state::LIVE == 0 {
        return false;
    }
    // The place may belong to another flow since its number was read.
    if flow.reply != successor.reply {
        return false;
    }
    let may = if state & flow_state::TIME_WAIT != 0 {
        resting.gives(flow, successor)
    } else if state & flow_state::ESTABLISHED == 0 {
        handshake_age(flow, successor.asked_us) >= least_age
    } else {
        is_dead(flow, successor.seen)
    };
    may && owns(flow, state)
}
