//! Taking over the maps of an earlier run.

use std::{collections::BTreeMap, net::SocketAddr};

use aya::maps::MapError;
use lb_common::{
    MAX_BACKENDS,
    abi::{Service, ServiceKey, backend_flags, service_flags, socket_addr},
};
use lb_core::io::{Adopted, BackendId, Generation, ServiceId};

use super::{dataplane::Bpf, values::backend_address};

/// Reads services and backends from the maps. The engine keeps those that are still configured, and removes the rest.
pub(super) fn adopt(dataplane: &mut Bpf) -> Result<Vec<Adopted>, MapError> {
    let services: Vec<(ServiceKey, Service)> = dataplane.services.iter().collect::<Result<_, _>>()?;
    let vips: BTreeMap<u16, SocketAddr> =
        services.iter().map(|(key, value)| (value.id, socket_addr(key.addr, key.port))).collect();
    dataplane.vips = vips.iter().map(|(id, vip)| (*vip, ServiceId(*id))).collect();
    let mut adopted = Vec::new();
    if services.is_empty() {
        return Ok(adopted);
    }
    for id in 0..MAX_BACKENDS {
        let id = BackendId(id as u16);
        let value = dataplane.backends.read(id)?;
        if value.generation != 0 {
            dataplane.flows.limits.adopt(id, Generation(value.generation));
            adopted.push(Adopted {
                service: ServiceId(value.service),
                vip: vips.get(&value.service).copied(),
                admits: value.flags & (backend_flags::ADMIT | backend_flags::TRIAL) != 0,
                id,
                generation: Generation(value.generation),
                address: backend_address(&value),
            });
        }
    }
    let dnat = services.iter().filter(|(_, value)| value.flags & service_flags::DNAT != 0);
    let dnat_vips = dnat.map(|(key, value)| (ServiceId(value.id), socket_addr(key.addr, key.port))).collect();
    dataplane.reverse_nat.adopt(dnat_vips, dataplane.ports.pinned_dnat()?)?;
    for backend in &adopted {
        let changed = dataplane.registry.insert(backend.id, backend.address, backend.service);
        dataplane.reverse_nat.mark_due(changed);
    }
    Ok(adopted)
}

/// How many records every CPU has lost of each adopted backend: what the earlier run had to know.
pub(super) fn lost_heads(
    dataplane: &Bpf,
    adopted: &[Adopted],
) -> Result<Vec<(BackendId, Generation, Vec<u32>)>, MapError> {
    let of =
        |backend: &Adopted| Ok((backend.id, backend.generation, dataplane.backends.lost_heads(backend.id)?));
    adopted.iter().map(of).collect()
}
