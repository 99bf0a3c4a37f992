//! The spoof guard's map: by which interface a client may come from the address of a VIP or a backend.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::atomic::{AtomicU8, Ordering},
};

use aya::maps::{HashMap, MapData, MapError};
use lb_common::{
    abi::{Addr, Address as _, OwnAddr, OwnAddrFilter, V4},
    hash::address_hash,
};

use super::{access::absent_is_fine, mapped::Mapped};

pub(super) struct SpoofGuard {
    map: HashMap<MapData, Addr, OwnAddr>,
    filter: Mapped<OwnAddrFilter>,
    /// The content of the map.
    held: BTreeMap<IpAddr, OwnAddr>,
}

impl SpoofGuard {
    /// Takes over what an earlier run wrote.
    pub(super) fn adopt(
        map: HashMap<MapData, Addr, OwnAddr>,
        filter: Mapped<OwnAddrFilter>,
    ) -> Result<Self, MapError> {
        let held = map.iter().map(|entry| entry.map(|(address, own)| (address.into(), own)));
        let held = held.collect::<Result<BTreeMap<_, _>, _>>()?;
        let guard = Self { map, filter, held };
        guard.held.keys().for_each(|address| guard.set_filter(hash(*address), true));
        Ok(guard)
    }

    /// The entry of an address. `None`: it has none.
    pub(super) fn own(&self, address: IpAddr) -> Option<OwnAddr> {
        self.held.get(&address).copied()
    }

    /// `None`: a client may come from this address by any interface.
    pub(super) fn write(&mut self, address: IpAddr, own: Option<OwnAddr>) -> Result<(), MapError> {
        if self.held.get(&address) == own.as_ref() {
            return Ok(());
        }
        match own {
            Some(own) => {
                // First, because without it the program does not look into the map.
                self.set_filter(hash(address), true);
                self.map.insert(Addr::from(address), own, 0)?;
                self.held.insert(address, own);
            }
            None => {
                absent_is_fine(self.map.remove(&Addr::from(address)))?;
                self.held.remove(&address);
                let own_hash = hash(address);
                self.set_filter(own_hash, self.held.keys().any(|other| hash(*other) == own_hash));
            }
        }
        Ok(())
    }

    /// Sets whether any address in the map has this hash.
    fn set_filter(&self, hash: u16, any: bool) {
        // SAFETY: a byte of the mapping, which nobody else writes; any number of 16 bits is inside.
        let at = unsafe { AtomicU8::from_ptr(self.filter.at(0).cast::<u8>().add(usize::from(hash))) };
        at.store(any.into(), Ordering::Relaxed);
    }
}

/// As the program computes it, which hashes an address in the form of its family.
fn hash(address: IpAddr) -> u16 {
    let wide = Addr::from(address);
    match address {
        IpAddr::V4(_) => address_hash(&V4::narrow(&wide)),
        IpAddr::V6(_) => address_hash(&wide),
    }
}
