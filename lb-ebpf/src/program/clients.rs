//! Which clients a service has: those that complete a handshake, so nobody can make them up without receiving
//! at their addresses.

use lb_common::{abi::Address, hash::seen_bits};

use super::{atomic, flows::key, maps::CLIENTS_SEEN};

/// A client has completed a handshake.
// A function of its own, to spare the stack of its caller.
#[inline(never)]
pub(crate) fn note<A: Address>(service: u16, client: &A) -> u32 {
    let Some(seen) = CLIENTS_SEEN.get_ptr_mut(service as u32) else { return 0 };
    let [prefix, address] = seen_bits(client, [key(0), key(1)]);
    // SAFETY: aligned words of a map, which the daemon reads and clears meanwhile.
    unsafe {
        note_bit(&raw mut (*seen).prefixes, prefix);
        note_bit(&raw mut (*seen).addresses, address);
    }
    0
}

/// Most bits are there already, and a read does not take the cache line from the other CPUs.
///
/// # Safety
/// `at` must be an aligned and writable word of a map.
#[inline(always)]
unsafe fn note_bit(at: *mut u64, bit: u64) {
    // SAFETY: the caller's.
    unsafe {
        if at.read_volatile() & bit == 0 {
            atomic::set64(at, bit);
        }
    }
}
