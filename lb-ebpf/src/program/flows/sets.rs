//! Hashes of tuples, the sets that they select, and words of a set.

use lb_common::{
    abi::{Address, CLIENT_WAYS, FlowKey},
    hash::{HashKeys, keyed_hash_by},
};
use lb_ebpf::verifier::opaque;

use crate::program::maps::Tables;

/// Sets of `CLIENTS4` and `CLIENTS6`. The daemon sets it when it loads the program.
#[unsafe(no_mangle)]
static CLIENT_SETS: u32 = 1;

/// Derived from `Config::seed`. The daemon sets it when it loads the program.
#[unsafe(no_mangle)]
static HASH_KEYS: HashKeys = HashKeys([0; HashKeys::COUNT]);

/// Ways of the first set that stay free for flows that have no other set.
pub(crate) const SPARE: u32 = 4;

#[inline(always)]
pub(crate) fn sets() -> u32 {
    // SAFETY: a constant of the loaded program; volatile because the loader rewrites it.
    unsafe { (&raw const CLIENT_SETS).read_volatile() }
}

/// One of the keys of the hash.
#[inline(always)]
pub(crate) fn key(number: usize) -> u64 {
    // SAFETY: as above.
    unsafe { (&raw const HASH_KEYS.0[number]).read_volatile() }
}

#[inline(always)]
pub(crate) fn hash<A: Address>(of: &FlowKey<A>) -> u64 {
    keyed_hash_by(of, key)
}

/// The way of a tag, if that is free: most tags are found at the first look.
#[inline(always)]
pub(crate) const fn home(tag: u32) -> u32 {
    ((tag >> 8) * CLIENT_WAYS as u32) >> 24
}

/// # Safety
/// `words` must be readable.
#[inline(always)]
pub(crate) unsafe fn word<const N: usize>(words: *const [u32; N], index: u32) -> Option<u32> {
    let index = opaque(index) as usize;
    if index >= N {
        return None;
    }
    // SAFETY: inside, by the line above.
    Some(unsafe { words.cast::<u32>().add(index).read_volatile() })
}

#[inline(always)]
pub(crate) const fn entry(slot: u32, tag: u32) -> u64 {
    (slot as u64) << 32 | tag as u64
}

/// The way in a set that is considered first for eviction.
#[inline(always)]
pub(crate) fn cursor<F: Tables>(number: u32) -> Option<u32> {
    // SAFETY: a word of a map.
    Some(unsafe { (&raw const (*F::clients(number)?).cursor).read_volatile() } as u32)
}

#[inline(always)]
pub(crate) fn set_cursor<F: Tables>(number: u32, way: u32) {
    if let Some(set) = F::clients(number) {
        // SAFETY: a word of a map. Two CPUs that write it at once lose a turn.
        unsafe { (&raw mut (*set).cursor).write_volatile(way as u16) };
    }
}
