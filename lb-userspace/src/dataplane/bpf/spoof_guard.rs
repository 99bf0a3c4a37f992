//! By which way an address may come as a client: what the program knows of VIPs and backends.

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

use super::{absent_is_fine, flows::Shared};

pub(super) struct SpoofGuard {
    map: HashMap<MapData, Addr, OwnAddr>,
    hashes: Shared<OwnAddrFilter>,
    /// What the map holds.
    held: BTreeMap<IpAddr, OwnAddr>,
}

impl SpoofGuard {
    /// With what an earlier run left there.
    pub(super) fn adopt(
        map: HashMap<MapData, Addr, OwnAddr>,
        hashes: Shared<OwnAddrFilter>,
    ) -> Result<Self, MapError> {
        let held = map.iter().map(|entry| entry.map(|(address, origin)| (address.into(), origin)));
        let held = held.collect::<Result<BTreeMap<_, _>, _>>()?;
        let origins = Self { map, hashes, held };
        origins.held.keys().for_each(|address| origins.note(hash(*address), true));
        Ok(origins)
    }

    /// `None`: anybody may come from there.
    pub(super) fn write(&mut self, address: IpAddr, origin: Option<OwnAddr>) -> Result<(), MapError> {
        if self.held.get(&address) == origin.as_ref() {
            return Ok(());
        }
        match origin {
            Some(origin) => {
                // First, for without it nobody looks further.
                self.note(hash(address), true);
                self.map.insert(Addr::from(address), origin, 0)?;
                self.held.insert(address, origin);
            }
            None => {
                absent_is_fine(self.map.remove(&Addr::from(address)))?;
                self.held.remove(&address);
                let mine = hash(address);
                self.note(mine, self.held.keys().any(|other| hash(*other) == mine));
            }
        }
        Ok(())
    }

    /// Whether any address that is held has this hash.
    fn note(&self, hash: u16, any: bool) {
        // SAFETY: a byte of the mapping, which nobody else writes; any number of 16 bits is inside.
        let at = unsafe { AtomicU8::from_ptr(self.hashes.at(0).cast::<u8>().add(usize::from(hash))) };
        at.store(any.into(), Ordering::Relaxed);
    }
}

/// As the program computes it, which knows the addresses of a family.
fn hash(address: IpAddr) -> u16 {
    let wide = Addr::from(address);
    match address {
        IpAddr::V4(_) => address_hash(&V4::narrow(&wide)),
        IpAddr::V6(_) => address_hash(&wide),
    }
}
