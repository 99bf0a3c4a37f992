//! By which way an address may come as a client: what the program knows of VIPs and backends.

use std::{collections::BTreeMap, net::IpAddr};

use aya::maps::{HashMap, MapData, MapError};
use lb_common::abi::{Addr, Origin};

use super::absent_is_fine;

pub(super) struct Origins {
    map: HashMap<MapData, Addr, Origin>,
    /// What the map holds.
    held: BTreeMap<IpAddr, Origin>,
}

impl Origins {
    /// With what an earlier run left there.
    pub(super) fn adopt(map: HashMap<MapData, Addr, Origin>) -> Result<Self, MapError> {
        let held = map.iter().map(|entry| entry.map(|(address, origin)| (address.into(), origin)));
        let held = held.collect::<Result<_, _>>()?;
        Ok(Self { map, held })
    }

    /// `None`: anybody may come from there.
    pub(super) fn write(&mut self, address: IpAddr, origin: Option<Origin>) -> Result<(), MapError> {
        if self.held.get(&address) == origin.as_ref() {
            return Ok(());
        }
        match origin {
            Some(origin) => {
                self.map.insert(Addr::from(address), origin, 0)?;
                self.held.insert(address, origin);
            }
            None => {
                absent_is_fine(self.map.remove(&Addr::from(address)))?;
                self.held.remove(&address);
            }
        }
        Ok(())
    }
}
