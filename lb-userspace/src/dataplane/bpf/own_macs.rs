//! `OWN_MACS`: the MAC addresses at which the node takes frames of its interfaces, and the program's quick look at the
//! usual ones.

use std::collections::BTreeMap;

use aya::maps::{Array, HashMap, MapData, MapError};
use lb_common::abi::{OwnMac, UsualMacs};

use super::access::absent_is_fine;
use crate::dataplane::OwnMacs;

/// The section of the program's `USUAL_MACS`.
pub(super) const USUAL: &str = ".data.usual_macs";

pub(super) struct OwnMacMap {
    map: HashMap<MapData, OwnMac, [u8; 8]>,
    usual: Array<MapData, UsualMacs>,
    /// The content of the map.
    held: OwnMacs,
}

impl OwnMacMap {
    /// Takes over what an earlier run wrote.
    pub(super) fn adopt(
        map: HashMap<MapData, OwnMac, [u8; 8]>,
        usual: Array<MapData, UsualMacs>,
    ) -> Result<Self, MapError> {
        let held =
            map.iter().map(|entry| entry.map(|(mac, [a, b, c, d, e, f, ..])| (mac, [a, b, c, d, e, f])));
        let held = held.collect::<Result<_, _>>()?;
        Ok(Self { map, usual, held })
    }

    /// Makes the content what is wanted. New addresses come first, so that no frame meets none.
    pub(super) fn write(&mut self, wanted: &OwnMacs) -> Result<(), MapError> {
        if self.held == *wanted {
            return Ok(());
        }
        self.add(wanted)?;
        let gone: Vec<OwnMac> = self.held.keys().filter(|mac| !wanted.contains_key(mac)).copied().collect();
        for mac in gone {
            absent_is_fine(self.map.remove(&mac))?;
            self.held.remove(&mac);
        }
        Ok(())
    }

    /// Adds addresses and removes none.
    pub(super) fn add(&mut self, wanted: &OwnMacs) -> Result<(), MapError> {
        self.usual.set(0, usual(wanted), 0)?;
        for (mac, usual) in wanted {
            if self.held.get(mac) == Some(usual) {
                continue;
            }
            let [a, b, c, d, e, f] = *usual;
            self.map.insert(mac, [a, b, c, d, e, f, 0, 0], 0)?;
            self.held.insert(*mac, *usual);
        }
        Ok(())
    }
}

/// One address of each interface.
fn usual(macs: &OwnMacs) -> UsualMacs {
    let usual: BTreeMap<u32, [u8; 6]> = macs.iter().map(|(mac, usual)| (mac.ifindex, *usual)).collect();
    UsualMacs::of(usual.into_iter().map(|(ifindex, mac)| OwnMac::new(ifindex, mac)))
}
