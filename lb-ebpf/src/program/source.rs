//! Who may begin a connection. Looked at for what belongs to none.

use aya_ebpf::btf_maps::lpm_trie::Key;
use lb_common::abi::{Address as _, FlowKey, Service, SourceKey, service_flags, source_rule};

use super::{
    maps::{KNOWN, SOURCES},
    table::Tables,
};

/// Whether a segment claims to come from a VIP, or from a backend by another way than that backend's.
///
/// A backend may be another service's client, so its address alone says nothing.
// Functions of their own, because the stack of their caller is full.
#[inline(never)]
pub(super) fn is_forged<F: Tables>(key: &FlowKey<F::Addr>, ifindex: u32, vlan: u16) -> bool {
    // SAFETY: integers; each is valid by itself while the daemon writes another.
    match unsafe { KNOWN.get(key.src.wide()) } {
        Some(origin) => origin.ifindex != ifindex || origin.vlan != vlan,
        None => false,
    }
}

/// Whether a service takes connections of this source: the longest prefix decides.
#[inline(never)]
pub(super) fn is_denied<F: Tables>(key: &FlowKey<F::Addr>, service: &Service) -> bool {
    let set = (service.flags & service_flags::SECOND_SET != 0) as u16;
    let source = SourceKey { service: service.id, set, addr: key.src.wide() };
    match SOURCES.get(&Key::new(SourceKey::BITS, source)) {
        Some(rule) => *rule == source_rule::DENY,
        None => service.flags & service_flags::LISTED_ONLY != 0,
    }
}
