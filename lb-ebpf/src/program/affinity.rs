//! The hash by which a service chooses the backend of a connection.

use lb_common::{
    abi::{FlowKey, Service},
    hash::{flow_hash, source_hash},
};

use super::maps::Tables;

/// Of the whole tuple, or with affinity of the client's address.
#[inline(always)]
pub(crate) fn service_hash<F: Tables>(service: &Service, key: &FlowKey<F::Addr>) -> u64 {
    if service.affinity == 0 { flow_hash(key) } else { by_source::<F>(key, service.affinity as u32) }
}

// A function of its own, to spare the stack of its caller.
#[inline(never)]
fn by_source<F: Tables>(key: &FlowKey<F::Addr>, bits: u32) -> u64 {
    source_hash(key, bits)
}
