//! Source rules: the addresses that each service accepts connections from, in one trie.
//!
//! A service has two sets of rules, and its entry names one of them. The daemon writes new rules into the other set,
//! switches the entry over and removes the old rules. So the program judges a SYN by the old rules or by the new ones,
//! never by a mixture.

use std::collections::BTreeMap;

use aya::maps::{
    MapData, MapError,
    lpm_trie::{Key, LpmTrie},
};
use lb_common::abi::{Addr, SourceKey, service_flags, source_rule};
use lb_core::{
    config::{Prefix, Sources},
    io::ServiceId,
};

use super::access::absent_is_fine;

/// A prefix: the key, and how many of its bits count.
type Rule = (SourceKey, u32);

pub(super) struct SourceRules {
    map: LpmTrie<MapData, SourceKey, u32>,
    /// The content of the map.
    held: BTreeMap<Rule, u32>,
}

impl SourceRules {
    /// Takes over what an earlier run wrote.
    pub(super) fn adopt(map: LpmTrie<MapData, SourceKey, u32>) -> Result<Self, MapError> {
        let held = map.iter().map(|entry| entry.map(|(key, rule)| ((key.data(), key.prefix_len()), rule)));
        let held = held.collect::<Result<_, _>>()?;
        Ok(Self { map, held })
    }

    /// Writes the rules of a service. `present`: the flags of its entry. Returns the flags that name the rules.
    pub(super) fn write(
        &mut self,
        id: ServiceId,
        sources: &Sources,
        present: Option<u16>,
    ) -> Result<u16, MapError> {
        let present = present.unwrap_or(0) & service_flags::SECOND_SET;
        let (in_use, other) = if present == 0 { (0, 1) } else { (1, 0) };
        let listed_only = if sources.allow.is_empty() { 0 } else { service_flags::LISTED_ONLY };
        let flags = if rules(id, 0, sources).is_empty() { 0 } else { service_flags::SOURCES | listed_only };
        if self.of(id, in_use) == rules(id, in_use, sources) {
            return Ok(flags | present);
        }
        self.clear(id, other)?;
        for ((key, bits), rule) in rules(id, other, sources) {
            self.map.insert(&Key::new(bits, key), rule, 0)?;
            self.held.insert((key, bits), rule);
        }
        Ok(flags | (present ^ service_flags::SECOND_SET))
    }

    /// Removes the set that an entry with these flags does not name.
    pub(super) fn tidy(&mut self, id: ServiceId, flags: u16) -> Result<(), MapError> {
        self.clear(id, u16::from(flags & service_flags::SECOND_SET == 0))
    }

    pub(super) fn remove(&mut self, id: ServiceId) -> Result<(), MapError> {
        self.clear(id, 0)?;
        self.clear(id, 1)
    }

    /// The rule that the program would find for this source.
    pub(super) fn rule(&self, service: u16, flags: u16, addr: Addr) -> Result<u32, MapError> {
        let set = u16::from(flags & service_flags::SECOND_SET != 0);
        self.map.get(&Key::new(SourceKey::BITS, SourceKey { service, set, addr }), 0)
    }

    fn of(&self, id: ServiceId, set: u16) -> BTreeMap<Rule, u32> {
        let of_set = |key: &SourceKey| (key.service, key.set) == (id.0, set);
        self.held.iter().filter(|((key, _), _)| of_set(key)).map(|(rule, value)| (*rule, *value)).collect()
    }

    fn clear(&mut self, id: ServiceId, set: u16) -> Result<(), MapError> {
        for (key, bits) in self.of(id, set).into_keys() {
            absent_is_fine(self.map.remove(&Key::new(bits, key)))?;
            self.held.remove(&(key, bits));
        }
        Ok(())
    }
}

fn rules(id: ServiceId, set: u16, sources: &Sources) -> BTreeMap<Rule, u32> {
    let rule = |prefix: &Prefix| {
        // The address in the key is 128 bits wide. IPv4 addresses are at its end.
        let before = SourceKey::BITS - if prefix.address.is_ipv4() { 32 } else { 128 };
        (SourceKey { service: id.0, set, addr: prefix.address.into() }, before + u32::from(prefix.length))
    };
    let allow = sources.allow.iter().map(|prefix| (rule(prefix), source_rule::ALLOW));
    let deny = sources.deny.iter().map(|prefix| (rule(prefix), source_rule::DENY));
    allow.chain(deny).collect()
}
