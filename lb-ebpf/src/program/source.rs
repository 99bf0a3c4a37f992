//! The checks of a source that begins a connection: the spoof guard, and the rules of the service.

use aya_ebpf::btf_maps::lpm_trie::Key;
use lb_common::{
    abi::{Address as _, FlowKey, Service, SourceKey, service_flags, source_rule},
    hash::address_hash,
};
use lb_ebpf::verifier::opaque;

use super::maps::{OWN_ADDR_FILTER, OWN_ADDRS, SOURCES, Tables};

/// Whether a segment claims to come from a VIP, or from a backend by another interface or VLAN than that
/// backend's.
///
/// A backend may be a client of another service, so its address alone proves nothing.
#[inline(always)]
pub(crate) fn is_forged<F: Tables>(key: &FlowKey<F::Addr>, ifindex: u32, vlan: u16) -> bool {
    may_be_known::<F>(&key.src) && comes_by_another_way::<F>(key, ifindex, vlan)
}

#[inline(always)]
fn may_be_known<F: Tables>(address: &F::Addr) -> bool {
    let Some(hashes) = OWN_ADDR_FILTER.get_ptr(0) else { return true };
    let at = opaque(address_hash(address).into()) as usize & 0xffff;
    // SAFETY: an index of 16 bits is inside; bytes may be read while the daemon writes them.
    unsafe { (&raw const (*hashes).0).cast::<u8>().add(at).read_volatile() != 0 }
}

// A function of its own, because the stack of its caller is full. The same holds for `is_denied`.
#[inline(never)]
fn comes_by_another_way<F: Tables>(key: &FlowKey<F::Addr>, ifindex: u32, vlan: u16) -> bool {
    // SAFETY: integers; each is valid by itself while the daemon writes another.
    match unsafe { OWN_ADDRS.get(key.src.wide()) } {
        Some(origin) => !origin.leads_by(ifindex, vlan),
        None => false,
    }
}

/// Whether a service refuses connections of this source: the longest prefix decides.
#[inline(never)]
pub(crate) fn is_denied<F: Tables>(key: &FlowKey<F::Addr>, service: &Service) -> bool {
    let set = (service.flags & service_flags::SECOND_SET != 0) as u16;
    let source = SourceKey { service: service.id, set, addr: key.src.wide() };
    match SOURCES.get(&Key::new(SourceKey::BITS, source)) {
        Some(rule) => *rule == source_rule::DENY,
        None => service.flags & service_flags::LISTED_ONLY != 0,
    }
}
