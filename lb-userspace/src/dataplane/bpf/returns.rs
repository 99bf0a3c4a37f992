//! `REVERSE_NAT`: whose replies are whose when no flow tells, and from which ports such replies come.
//!
//! An entry is there for each backend's address and port that one service alone has, if its mode is `dnat`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use aya::maps::{HashMap, MapData, MapError};
use lb_common::abi::{Port, ReverseNat, ServiceKey, socket_addr};
use lb_core::io::{Adopted, BackendId, ServiceId};

use super::{absent_is_fine, service_key};

/// The map, and what its content follows from.
#[derive(Debug)]
pub(super) struct Returns {
    map: HashMap<MapData, ServiceKey, ReverseNat>,
    /// The VIPs of services whose mode is `dnat`.
    kept: BTreeMap<ServiceId, SocketAddr>,
    /// Where each backend is, and whose it is.
    backends: BTreeMap<BackendId, (SocketAddr, ServiceId)>,
    /// The same from the other side.
    users: BTreeMap<SocketAddr, BTreeMap<BackendId, ServiceId>>,
    /// Ports that may be sources of replies. They stay when a service goes back to `nat`: connections that
    /// began before go on as they are.
    ports: BTreeSet<u16>,
    /// Addresses whose entry may not be what it has to be. A write that fails stays due.
    due: BTreeSet<SocketAddr>,
}

impl Returns {
    pub(super) const fn new(map: HashMap<MapData, ServiceKey, ReverseNat>) -> Self {
        Self {
            map,
            kept: BTreeMap::new(),
            backends: BTreeMap::new(),
            users: BTreeMap::new(),
            ports: BTreeSet::new(),
            due: BTreeSet::new(),
        }
    }

    /// What an earlier run left: the VIPs of its `dnat` services, its backends, and the ports of replies.
    pub(super) fn adopt(
        &mut self,
        kept: BTreeMap<ServiceId, SocketAddr>,
        backends: &[Adopted],
        ports: BTreeSet<u16>,
    ) -> Result<(), MapError> {
        for key in self.map.keys() {
            let key = key?;
            self.due.insert(socket_addr(key.addr, key.port));
        }
        self.kept = kept;
        self.ports = ports;
        for backend in backends {
            self.backend(backend.id, backend.address, backend.service);
        }
        Ok(())
    }

    /// Every backend, where it is, and whose it is.
    pub(super) fn backends(&self) -> impl Iterator<Item = (BackendId, SocketAddr, ServiceId)> {
        self.backends.iter().map(|(id, (address, service))| (*id, *address, *service))
    }

    /// Whether the clients of a service keep their addresses.
    pub(super) fn keeps(&self, service: ServiceId) -> bool {
        self.kept.contains_key(&service)
    }

    pub(super) const fn ports(&self) -> &BTreeSet<u16> {
        &self.ports
    }

    /// A service has this VIP, and its mode is `dnat`; `None`: it is not, or there is no such service.
    pub(super) fn service(&mut self, id: ServiceId, vip: Option<SocketAddr>) {
        let before = match vip {
            Some(vip) => self.kept.insert(id, vip),
            None => self.kept.remove(&id),
        };
        if before != vip {
            let its = self.backends.values().filter(|(_, service)| *service == id);
            self.due.extend(its.map(|(address, _)| *address));
        }
    }

    pub(super) fn backend(&mut self, id: BackendId, address: SocketAddr, service: ServiceId) {
        if self.backends.get(&id) == Some(&(address, service)) {
            return;
        }
        self.remove_backend(id);
        self.backends.insert(id, (address, service));
        self.users.entry(address).or_default().insert(id, service);
        self.due.insert(address);
    }

    pub(super) fn remove_backend(&mut self, id: BackendId) {
        let Some((address, _)) = self.backends.remove(&id) else { return };
        if let Some(users) = self.users.get_mut(&address) {
            users.remove(&id);
            if users.is_empty() {
                self.users.remove(&address);
            }
        }
        self.due.insert(address);
    }

    /// Writes what is due. True: there are new ports.
    pub(super) fn settle(&mut self) -> Result<bool, MapError> {
        let mut more = false;
        while let Some(address) = self.due.first().copied() {
            more |= self.write(address)?;
            self.due.remove(&address);
        }
        Ok(more)
    }

    fn write(&mut self, address: SocketAddr) -> Result<bool, MapError> {
        let users = self.users.get(&address);
        let kept = |(id, service): (&BackendId, &ServiceId)| Some((*id, *service, *self.kept.get(service)?));
        let its: Vec<_> = users.into_iter().flatten().filter_map(kept).collect();
        if let [(id, service, vip)] = its.as_slice() {
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
        Ok(!its.is_empty() && self.ports.insert(address.port()))
    }
}
