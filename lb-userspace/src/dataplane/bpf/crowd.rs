//! `CROWDED`: the source prefixes that may begin no connections for now, because they hold more than their share.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::maps::{HashMap, MapData, MapError};
use lb_common::abi::{Address, Config, CrowdKey};
use tracing::warn;

use super::{access::absent_is_fine, census::Capacity, mapped::Mapped};

/// The list, as the timeout scanner writes it and as `explain` reads it.
#[derive(Debug)]
pub(super) struct Crowd {
    config: Mapped<Config>,
    /// How much one prefix may hold, in percent. 100: everything.
    share: u8,
    list: Mutex<List>,
}

#[derive(Debug)]
struct List {
    map: HashMap<MapData, CrowdKey, u32>,
    /// The content of the map.
    present: BTreeMap<CrowdKey, u32>,
}

impl Crowd {
    pub(super) fn new(config: Mapped<Config>, map: HashMap<MapData, CrowdKey, u32>, share: u8) -> Self {
        Self { config, share, list: Mutex::new(List { map, present: BTreeMap::new() }) }
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The capacity of a family whose flow table has so many places.
    pub(super) fn capacity<A: Address>(&self, places: usize) -> Capacity {
        let config = self.config.read(0);
        let addresses = if size_of::<A>() == 4 { config.nat4_len } else { config.nat6_len };
        let ports = u64::from(config.nat_last) + 1 - u64::from(config.nat_first);
        Capacity {
            // The tables are half as large again as `max_flows`.
            flows: places as u64 * 2 / 3,
            nat_ports: ports * u64::from(addresses.max(1)),
            share: self.share,
        }
    }

    /// Replaces the list. It holds until this tick of 2^30 ns, unless it is written again before.
    pub(super) fn publish(&self, crowded: BTreeMap<CrowdKey, u32>, until: u32) {
        let mut list = self.list();
        if list.present.is_empty() && crowded.is_empty() {
            return;
        }
        if crowded.is_empty() {
            self.set_until(0);
        }
        if let Err(error) = list.replace(&crowded) {
            warn!(%error, "the list of source prefixes that hold too much cannot be written");
        }
        if !crowded.is_empty() {
            if list.present.is_empty() {
                warn!(
                    prefixes = crowded.len(),
                    share = self.share,
                    "a flow table or the NAT ports of a backend are nearly full: no new connections of the source prefixes \
                     that hold more than their share"
                );
            }
            self.set_until(if until == 0 { 1 } else { until });
        }
        list.present = crowded;
    }

    pub(super) fn holds_too_much(&self, key: &CrowdKey) -> bool {
        self.list().present.contains_key(key)
    }

    fn set_until(&self, until: u32) {
        // SAFETY: a word of the mapping, which the program reads meanwhile.
        unsafe { (&raw mut (*self.config.at(0)).crowded_until).write_volatile(until) };
    }
}

impl List {
    fn replace(&mut self, crowded: &BTreeMap<CrowdKey, u32>) -> Result<(), MapError> {
        for gone in self.present.keys().filter(|key| !crowded.contains_key(key)) {
            absent_is_fine(self.map.remove(gone))?;
        }
        for (key, count) in crowded {
            self.map.insert(key, count, 0)?;
        }
        Ok(())
    }
}
