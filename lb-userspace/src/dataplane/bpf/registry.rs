//! The backends that the maps hold: id, address and service of each.
//!
//! The registry is the daemon's own memory. Several services can have a backend at one address.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_core::io::{BackendId, ServiceId};

#[derive(Debug, Default)]
pub(super) struct Registry {
    backends: BTreeMap<BackendId, (SocketAddr, ServiceId)>,
    /// The same, by address.
    by_address: BTreeMap<SocketAddr, BTreeMap<BackendId, ServiceId>>,
}

impl Registry {
    pub(super) fn iter(&self) -> impl Iterator<Item = (BackendId, SocketAddr, ServiceId)> {
        self.backends.iter().map(|(id, (address, service))| (*id, *address, *service))
    }

    /// The backends at an address, each with its service.
    pub(super) fn at(&self, address: SocketAddr) -> impl Iterator<Item = (BackendId, ServiceId)> {
        self.by_address.get(&address).into_iter().flatten().map(|(id, service)| (*id, *service))
    }

    /// Adds or changes a backend. Returns the addresses whose backends have changed.
    pub(super) fn insert(
        &mut self,
        id: BackendId,
        address: SocketAddr,
        service: ServiceId,
    ) -> Vec<SocketAddr> {
        if self.backends.get(&id) == Some(&(address, service)) {
            return Vec::new();
        }
        let before = self.remove(id);
        self.backends.insert(id, (address, service));
        self.by_address.entry(address).or_default().insert(id, service);
        before.into_iter().chain([address]).collect()
    }

    /// Removes a backend. Returns its address.
    pub(super) fn remove(&mut self, id: BackendId) -> Option<SocketAddr> {
        let (address, _) = self.backends.remove(&id)?;
        if let Some(backends) = self.by_address.get_mut(&address) {
            backends.remove(&id);
            if backends.is_empty() {
                self.by_address.remove(&address);
            }
        }
        Some(address)
    }
}
