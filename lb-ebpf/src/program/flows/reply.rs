//! Flows by the reply's tuple: finding one, and reserving the tuple for a new one.

use lb_common::{
    abi::{Flow, FlowKey, REPLY_SETS, REPLY_WAYS, ReplySet, flow_state},
    hash::{other_set, set, tag},
};
use lb_ebpf::verifier::opaque;

use super::{
    bits::{is_zero, lowest, ones},
    owner::{Resting, STAYS, end_holder, free_place, owns, readiness},
    sets::{SPARE, entry, hash, sets},
};
use crate::program::{atomic, maps::Tables};

/// The flow of a segment from a backend. `preserved`: asked when the first set has none; true if the flow may
/// be one of mode `dnat`, which can be in either set.
#[inline(always)]
pub(crate) fn by_reply<F: Tables>(
    key: &FlowKey<F::Addr>,
    preserved: impl FnOnce() -> bool,
) -> Option<&'static mut Flow<F::Addr>> {
    let hash = hash(key);
    let sets = sets() * REPLY_SETS;
    match in_replies::<F>(key, set(hash, sets), tag(hash)) {
        Some(flow) => Some(flow),
        None if preserved() => in_replies::<F>(key, other_set(hash, sets), tag(hash)),
        None => None,
    }
}

#[inline(always)]
fn in_replies<F: Tables>(
    key: &FlowKey<F::Addr>,
    number: u32,
    tag: u32,
) -> Option<&'static mut Flow<F::Addr>> {
    let set = F::replies(number)?;
    let slot = {
        let mut way = 0;
        loop {
            // SAFETY: words of maps may be read while others write them.
            let entry = unsafe { (&raw const (*set).ways[way]).read_volatile() };
            if entry as u32 == tag {
                break (entry >> 32) as u32;
            }
            way += 1;
            if way == REPLY_WAYS {
                return None;
            }
        }
    };
    // SAFETY: as in `in_set`.
    let flow = unsafe { &mut *F::flow(slot)? };
    (flow.is_live() && flow.reply.is(key)).then_some(flow)
}

/// Begins to load the set that [`reserve_reply`] will read, and does not wait for it.
#[inline(always)]
pub(crate) fn prefetch<F: Tables>(reply: &FlowKey<F::Addr>) {
    if let Some(set) = F::replies(set(hash(reply), sets() * REPLY_SETS)) {
        // SAFETY: words of maps may be read while others write them.
        unsafe { (&raw const (*set).ways[0]).read_volatile() };
    }
}

/// Reserves the tuple of a flow's replies, if it is free or if its holder may be ended. A half-open handshake
/// may be ended from `least_age` on, in microseconds, and a flow in time-wait as `resting` says.
#[inline(always)]
pub(crate) fn reserve_reply<F: Tables>(flow: &Flow<F::Addr>, least_age: i32, resting: Resting) -> bool {
    let hash = hash(&flow.reply);
    let tag = tag(hash);
    let Some(set) = F::replies(set(hash, sets() * REPLY_SETS)) else { return false };
    let (same, free) = ways(set, tag);
    if same != 0 {
        return take_over::<F>(set, same, flow, tag, least_age, resting);
    }
    enter(set, free, entry(flow.slot, tag), || ways(set, tag).0)
}

/// The same in mode `dnat`. No other tuple will do for this flow, so its entry may lie in either of two sets,
/// and every flow that may be evicted is evicted for it.
#[inline(always)]
pub(crate) fn reserve_preserved<F: Tables>(flow: &Flow<F::Addr>) -> bool {
    let hash = hash(&flow.reply);
    let tag = tag(hash);
    let sets = sets() * REPLY_SETS;
    let numbers = (set(hash, sets), other_set(hash, sets));
    let Some(first) = F::replies(numbers.0) else { return false };
    let Some(second) = F::replies(numbers.1) else { return false };
    let (same, free) = ways(first, tag);
    let (same_too, free_too) = ways(second, tag);
    if same | same_too != 0 {
        let (set, same) = if same != 0 { (first, same) } else { (second, same_too) };
        return take_over::<F>(set, same, flow, tag, i32::MIN, Resting::Any);
    }
    if free | free_too == 0 {
        return evict_one::<F>(first, flow, tag);
    }
    // The first set, where an entry is found at once, until it is fuller than the other.
    let in_first = ones(free) > SPARE || ones(free) >= ones(free_too);
    let (set, free) = if in_first { (first, free) } else { (second, free_too) };
    enter(set, free, entry(flow.slot, tag), || {
        let other = if numbers.0 == numbers.1 { 0 } else { ways(second, tag).0 };
        ways(first, tag).0 | other << REPLY_WAYS
    })
}

/// Which ways of a set have this tag, and which are free.
#[inline(always)]
fn ways(set: *mut ReplySet, tag: u32) -> (u32, u32) {
    let (mut same, mut free) = (0, 0);
    for way in 0..REPLY_WAYS {
        // SAFETY: words of maps may be read while others write them.
        let seen = unsafe { (&raw const (*set).ways[way]).read_volatile() };
        same |= is_zero(seen as u32 ^ tag) << way;
        free |= is_zero(seen as u32) << way;
        // At once, before the next way is read. Otherwise the compiler holds a whole set on the stack.
        (same, free) = (opaque(same) as u32, opaque(free) as u32);
    }
    (same, free)
}

/// Enters a flow into a free way. It steps back if another CPU has entered the same tag at the same time.
/// `all`: a mask of the ways that have the tag.
#[inline(always)]
fn enter(set: *mut ReplySet, free: u32, mine: u64, all: impl FnOnce() -> u32) -> bool {
    let way = lowest(free) as usize;
    if free == 0 || way >= REPLY_WAYS {
        return false;
    }
    // SAFETY: inside, by the line above.
    let at = unsafe { (&raw mut (*set).ways).cast::<u64>().add(way) };
    // SAFETY: a word of a map.
    if !unsafe { atomic::replace64(at, 0, mine) } {
        return false;
    }
    let same = all();
    if same & same.wrapping_sub(1) != 0 {
        // SAFETY: a word of a map.
        unsafe { atomic::replace64(at, mine, 0) };
        return false;
    }
    true
}

/// Takes the entry of a flow that has the same tag, if that flow may be ended.
#[inline(always)]
fn take_over<F: Tables>(
    set: *mut ReplySet,
    same: u32,
    flow: &Flow<F::Addr>,
    tag: u32,
    least_age: i32,
    resting: Resting,
) -> bool {
    let taken = lowest(same) as usize;
    if taken >= REPLY_WAYS {
        return false;
    }
    // SAFETY: inside, by the line above; read once more, it may be another's by now.
    let at = unsafe { (&raw mut (*set).ways).cast::<u64>().add(taken) };
    // SAFETY: a word of a map.
    let found = unsafe { at.read_volatile() };
    let holder = (found >> 32) as u32;
    if found as u32 != tag || !end_holder::<F>(holder, flow, least_age, resting) {
        return false;
    }
    // SAFETY: a word of a map: the entry of a flow that this CPU has ended.
    unsafe { at.write_volatile(entry(flow.slot, tag)) };
    free_place::<F>(holder);
    true
}

/// Evicts a flow of a full set and takes its entry.
#[inline(always)]
fn evict_one<F: Tables>(set: *mut ReplySet, flow: &Flow<F::Addr>, tag: u32) -> bool {
    for way in 0..opaque(REPLY_WAYS as u32) as usize {
        let way = opaque(way as u32) as usize;
        if way >= REPLY_WAYS {
            break;
        }
        // SAFETY: inside, by the line above.
        let at = unsafe { (&raw mut (*set).ways).cast::<u64>().add(way) };
        // SAFETY: a word of a map.
        let found = unsafe { at.read_volatile() };
        let holder = (found >> 32) as u32;
        let Some(other) = F::flow(holder) else { continue };
        // SAFETY: as in `in_set`.
        let other = unsafe { &mut *other };
        // SAFETY: a word of a map that others may write.
        let state = unsafe { (&raw const other.state).read_volatile() };
        // The entry must still be the one that was read. Otherwise the entry of another flow would be
        // overwritten.
        // SAFETY: a word of a map.
        let still = || unsafe { at.read_volatile() } == found;
        if state & flow_state::LIVE != 0
            && readiness(other, state, flow.asked_us) != STAYS
            && still()
            && owns(other, state)
        {
            // SAFETY: a word of a map: the entry of a flow that this CPU has ended.
            unsafe { at.write_volatile(entry(flow.slot, tag)) };
            free_place::<F>(holder);
            return true;
        }
    }
    false
}
