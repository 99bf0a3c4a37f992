//! Flows by the client's tuple: finding one, and claiming a place for a new one.

use lb_common::{
    abi::{CLIENT_WAYS, ClientSet, Flow, FlowKey},
    hash::{other_set, set, tag},
};
use lb_ebpf::verifier::{forget, opaque};

use super::{
    bits::{is_zero, lowest, ones},
    sets::{SPARE, hash, home, sets, word},
};
use crate::program::{atomic, maps::Tables};

/// The flow of a segment from a client.
#[inline(always)]
pub(crate) fn by_client<F: Tables>(key: &FlowKey<F::Addr>) -> Option<&'static mut Flow<F::Addr>> {
    let hash = hash(key);
    let number = set(hash, sets());
    let first = F::clients(number)?;
    match in_set::<F>(key, first, number, tag(hash)) {
        Some(flow) => Some(flow),
        // Most sets have no flow in the other set, and a look there waits for memory.
        // SAFETY: a word of a map.
        None if unsafe { (&raw const (*first).spilled).read_volatile() } != 0 => {
            let number = other_set(hash, sets());
            in_set::<F>(key, F::clients(number)?, number, tag(hash))
        }
        None => None,
    }
}

#[inline(always)]
fn in_set<F: Tables>(
    key: &FlowKey<F::Addr>,
    set: *mut ClientSet,
    number: u32,
    tag: u32,
) -> Option<&'static mut Flow<F::Addr>> {
    let mut way = home(tag);
    // SAFETY: words of maps may be read while others write them.
    if unsafe { word(&raw const (*set).tags, way) } != Some(tag) {
        way = 0;
        // SAFETY: as above.
        while unsafe { word(&raw const (*set).tags, way)? } != tag {
            way += 1;
        }
        // From here on the verifier sees one path, wherever the tag was found.
        way = forget(way, tag) & 15;
    }
    let flow = F::flow(number * CLIENT_WAYS as u32 + way)?;
    // SAFETY: map values stay where they are. Another CPU may write the same flow; fields are words,
    // and each is valid by itself.
    let flow = unsafe { &mut *flow };
    (flow.is_live() && flow.client.is(key)).then_some(flow)
}

/// No place.
pub(crate) const NOWHERE: u64 = u64::MAX;

/// A free way for a new flow of this client, or [`NOWHERE`]. It holds no state yet, so nobody finds it.
///
/// The first set is preferred, because a flow is found there at once, until few of its ways are free. Then
/// the set with more free ways is used. If one set were filled before the other was used, some flows would
/// find no way long before there are `max_flows`.
// A function of its own, so that the verifier follows it only once.
#[inline(never)]
pub(crate) fn claim<F: Tables>(key: &FlowKey<F::Addr>) -> u64 {
    let hash = hash(key);
    let tag = tag(hash);
    let (first, other) = (set(hash, sets()), other_set(hash, sets()));
    // Another CPU may have been quicker: one more try.
    for _ in 0..opaque(2) {
        let (mut number, mut free) = (first, free_ways::<F>(first, tag));
        if ones(free) <= SPARE {
            let there = free_ways::<F>(other, tag);
            if ones(there) > ones(free) {
                (number, free) = (other, there);
            }
        }
        if let Some(place) = take::<F>(number, free, tag) {
            if number != first {
                spill::<F>(first);
            }
            // From here on the verifier sees one path, wherever the way was found.
            return forget(place, tag) as u64;
        }
    }
    NOWHERE
}

/// The free ways of a set, as a mask. 0 if the set already has the tag.
#[inline(always)]
fn free_ways<F: Tables>(number: u32, tag: u32) -> u32 {
    let Some(set) = F::clients(number) else { return 0 };
    let (mut same, mut free) = (0, 0);
    for way in 0..CLIENT_WAYS {
        // SAFETY: words of maps may be read while others write them.
        let seen = unsafe { (&raw const (*set).tags[way]).read_volatile() };
        // Added up way by way. Otherwise the compiler holds all ways until the end, on a stack that is full.
        same = opaque(same | is_zero(seen ^ tag)) as u32;
        free = opaque(free | is_zero(seen) << way) as u32;
    }
    free & same.wrapping_sub(1)
}

/// Takes one of these free ways: the home of the tag, if that is among them.
#[inline(always)]
fn take<F: Tables>(number: u32, free: u32, tag: u32) -> Option<u32> {
    let set = F::clients(number)?;
    let home = 1 << home(tag);
    let chosen = if free & home != 0 { home } else { free };
    let way = lowest(chosen) as usize;
    if chosen == 0 || way >= CLIENT_WAYS {
        return None;
    }
    // SAFETY: inside, by the line above.
    let won = unsafe { atomic::replace32((&raw mut (*set).tags).cast::<u32>().add(way), 0, tag) };
    won.then_some(number * CLIENT_WAYS as u32 + way as u32)
}

/// Notes that a flow of this set goes to the other one. This comes before the flow can be looked for.
#[inline(always)]
fn spill<F: Tables>(number: u32) {
    if let Some(set) = F::clients(number) {
        // SAFETY: a word of a map, which only ever becomes 1.
        unsafe { (&raw mut (*set).spilled).write_volatile(1) };
    }
}
