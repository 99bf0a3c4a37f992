//! `REVERSE_NAT`: the VIP of a reply that has no flow, and the ports that such replies come from.
//!
//! The map has an entry for the address and port of a backend if exactly one service has a backend there and its mode
//! is `dnat`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use aya::maps::{HashMap, MapData, MapError};
use lb_common::abi::{Port, ReverseNat, ServiceKey, socket_addr};
use lb_core::io::ServiceId;

use super::{access::absent_is_fine, registry::Registry, values::service_key};

/// The map, and what its content follows from, besides the [`Registry`].
#[derive(Debug)]
pub(super) struct ReverseNatMap {
    map: HashMap<MapData, ServiceKey, ReverseNat>,
    /// The VIPs of services whose mode is `dnat`.
    dnat_vips: BTreeMap<ServiceId, SocketAddr>,
    /// Ports that may be sources of replies. They stay when a service goes back to `nat`, because its older
    /// connections continue as they are.
    ports: BTreeSet<u16>,
    /// Addresses whose entry may differ from what it should be. A write that fails stays due.
    due: BTreeSet<SocketAddr>,
}

impl ReverseNatMap {
    pub(super) const fn new(map: HashMap<MapData, ServiceKey, ReverseNat>) -> Self {
        Self { map, dnat_vips: BTreeMap::new(), ports: BTreeSet::new(), due: BTreeSet::new() }
    }

    /// Takes over from an earlier run: the VIPs of its `dnat` services, and the ports of replies.
    pub(super) fn adopt(
        &mut self,
        dnat_vips: BTreeMap<ServiceId, SocketAddr>,
        ports: BTreeSet<u16>,
    ) -> Result<(), MapError> {
        for key in self.map.keys() {
            let key = key?;
            self.due.insert(socket_addr(key.addr, key.port));
        }
        self.dnat_vips = dnat_vips;
        self.ports = ports;
        Ok(())
    }

    /// Whether the backends of a service see the addresses of its clients.
    pub(super) fn is_dnat(&self, service: ServiceId) -> bool {
        self.dnat_vips.contains_key(&service)
    }

    pub(super) const fn ports(&self) -> &BTreeSet<u16> {
        &self.ports
    }

    /// A service has this VIP, and its mode is `dnat`. `None`: its mode is another one, or the service is gone.
    pub(super) fn set_dnat_vip(&mut self, id: ServiceId, vip: Option<SocketAddr>, registry: &Registry) {
        let before = match vip {
            Some(vip) => self.dnat_vips.insert(id, vip),
            None => self.dnat_vips.remove(&id),
        };
        if before != vip {
            let of_service = registry.iter().filter(|(_, _, service)| *service == id);
            self.due.extend(of_service.map(|(_, address, _)| address));
        }
    }

    /// The next [`settle`](Self::settle) writes the entries of these addresses.
    pub(super) fn mark_due(&mut self, addresses: impl IntoIterator<Item = SocketAddr>) {
        self.due.extend(addresses);
    }

    /// Writes what is due. Returns whether there are new ports.
    pub(super) fn settle(&mut self, registry: &Registry) -> Result<bool, MapError> {
        let mut new_ports = false;
        while let Some(address) = self.due.first().copied() {
            new_ports |= self.write(address, registry)?;
            self.due.remove(&address);
        }
        Ok(new_ports)
    }

    fn write(&mut self, address: SocketAddr, registry: &Registry) -> Result<bool, MapError> {
        let with_vip = |(id, service)| Some((id, service, *self.dnat_vips.get(&service)?));
        let candidates: Vec<_> = registry.at(address).filter_map(with_vip).collect();
        if let [(id, service, vip)] = candidates.as_slice() {
            let value = ReverseNat {
                vip: vip.ip().into(),
                port: Port::new(vip.port()),
                service: service.0,
                backend: id.0,
                zero: 0,
            };
            self.map.insert(service_key(address), value, 0)?;
        } else {
            absent_is_fine(self.map.remove(&service_key(address)))?;
        }
        Ok(!candidates.is_empty() && self.ports.insert(address.port()))
    }
}
