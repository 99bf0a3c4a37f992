//! No source prefix takes more than its share of a flow table, or of a backend's NAT ports, once these are three
//! quarters full.
//!
//! The daemon reads all flows from time to time anyway, so it counts them there. Usually it lists nobody, and then a
//! SYN costs one comparison.

use lb_common::{
    NO_BACKEND,
    abi::{CrowdKey, FlowKey},
};

use super::{
    clock::{coarse_ns, ticks},
    maps::{CONFIG, CROWDED, Tables},
};

/// Whether the client's prefix may begin no connection, and complete none: it holds too much of the flow table, or of
/// the NAT ports of this backend. [`NO_BACKEND`]: of the flow table alone.
#[inline(always)]
pub(crate) fn refuses<F: Tables>(client: &FlowKey<F::Addr>, backend: u16) -> bool {
    is_on() && is_listed::<F>(client, backend) != 0
}

#[inline(always)]
fn is_on() -> bool {
    let Some(config) = CONFIG.get_ptr(0) else { return false };
    // SAFETY: an aligned word of a map, which the daemon writes.
    let until = unsafe { (&raw const (*config).crowded_until).read_volatile() };
    until != 0 && (until.wrapping_sub(ticks(coarse_ns())) as i32) > 0
}

// A function of its own, because the stack of its caller is full.
#[inline(never)]
fn is_listed<F: Tables>(client: &FlowKey<F::Addr>, backend: u16) -> u32 {
    let mut key = CrowdKey::new(&client.src, NO_BACKEND);
    // SAFETY: the value is not read.
    if unsafe { CROWDED.get(key) }.is_some() {
        return 1;
    }
    if backend == NO_BACKEND {
        return 0;
    }
    key.backend = backend;
    // SAFETY: as above.
    unsafe { CROWDED.get(key) }.is_some() as u32
}
