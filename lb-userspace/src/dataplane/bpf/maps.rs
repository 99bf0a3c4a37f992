//! Every map of the program: whether it outlives the daemon, and how many entries it has.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use aya::maps::{Map, MapError, MapFd, MapInfo};
use lb_common::abi::{CLIENT_WAYS, REPLY_SETS};

/// One map of the object file.
#[derive(Clone, Copy, Debug)]
pub(super) struct MapEntry {
    pub(super) name: &'static str,
    pub(super) lifetime: Lifetime,
    pub(super) entries: Entries,
}

/// How long a map lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lifetime {
    /// Pinned: the next daemon adopts it with its content.
    Pinned,
    /// Each daemon makes an empty one, for this reason.
    Daemon(&'static str),
}

/// How many entries a map has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entries {
    /// As many as the object file says.
    Declared,
    /// A flow table: so many for each set of clients.
    PerClientSet(u32),
    PerCpu,
}

const fn pinned(name: &'static str) -> MapEntry {
    MapEntry { name, lifetime: Lifetime::Pinned, entries: Entries::Declared }
}

const fn flow_table(name: &'static str, per_client_set: u32) -> MapEntry {
    MapEntry { name, lifetime: Lifetime::Pinned, entries: Entries::PerClientSet(per_client_set) }
}

const fn of_daemon(name: &'static str, entries: Entries, reason: &'static str) -> MapEntry {
    MapEntry { name, lifetime: Lifetime::Daemon(reason), entries }
}

pub(super) const MAPS: [MapEntry; 34] = [
    pinned("CONFIG"),
    pinned("PORTS"),
    pinned("VLANS"),
    pinned("SERVICES"),
    pinned("SOURCES"),
    pinned("OWN_ADDRS"),
    pinned("OWN_MACS"),
    pinned("TABLES"),
    pinned("BACKENDS"),
    pinned("REVERSE_NAT"),
    flow_table("CLIENTS4", 1),
    flow_table("CLIENTS6", 1),
    flow_table("REPLIES4", REPLY_SETS),
    flow_table("REPLIES6", REPLY_SETS),
    flow_table("FLOWS4", CLIENT_WAYS as u32),
    flow_table("FLOWS6", CLIENT_WAYS as u32),
    pinned("PACE"),
    pinned("TRIAL_BUDGETS"),
    pinned("LIMITS"),
    pinned("CLIENTS_SEEN"),
    pinned("BACKEND_COUNTERS"),
    pinned("DROPS"),
    pinned("ICMP_CLOCKS"),
    pinned("EVIDENCE"),
    of_daemon("OWN_ADDR_FILTER", Entries::Declared, "the daemon fills it from OWN_ADDRS at its start"),
    of_daemon(
        "LAST_SYNACK",
        Entries::Declared,
        "it matters for seconds: zero means that no SYN-ACK was seen yet",
    ),
    of_daemon(
        "CROWDED",
        Entries::Declared,
        "the timeout scanner counts flows again, and lists who holds too much",
    ),
    of_daemon("NARROW_CLIENTS", Entries::Declared, "each client that it forgets costs one more ICMP error"),
    of_daemon("NARROW_REPORTS", Entries::Declared, "a router reports again"),
    of_daemon("PROVEN", Entries::Declared, "a client proves its address again"),
    of_daemon("WAITING", Entries::Declared, "clients that wait try again, and wait once more"),
    of_daemon("MIRROR_MODES", Entries::Declared, "the engine's first plan writes the mode of every backend"),
    of_daemon("SUCCESS_COUNTS", Entries::PerCpu, "the daemon reads differences, which begin at zero"),
    of_daemon("AYA_LOGS", Entries::Declared, "a daemon reads the log of the program that it has loaded"),
];

pub(super) fn pinned_maps() -> impl Iterator<Item = &'static str> {
    MAPS.iter().filter(|map| map.lifetime == Lifetime::Pinned).map(|map| map.name)
}

pub(super) fn is_flow_table(name: &str) -> bool {
    MAPS.iter().any(|map| map.name == name && matches!(map.entries, Entries::PerClientSet(_)))
}

/// The kernel's description of a map.
pub(super) fn map_info(map: &Map) -> Result<MapInfo, MapError> {
    match map {
        Map::Array(data)
        | Map::ArrayOfMaps(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data) => data.info(),
        // The program declares no other kinds.
        _ => Err(MapError::InvalidMapType { map_type: 0 }),
    }
}

/// How large the loaded program is.
#[derive(Clone, Debug, Default)]
pub struct ProgramSize {
    /// Instructions that the verifier went through.
    pub verified_instructions: Option<u32>,
    /// Of each pinned map: name, entries, and bytes that the kernel holds for it.
    pub maps: Vec<(String, u32, u64)>,
}

impl ProgramSize {
    /// The flow tables of both families together.
    pub fn flow_table_bytes(&self) -> u64 {
        self.maps.iter().filter(|(name, ..)| is_flow_table(name)).map(|(_, _, bytes)| bytes).sum()
    }
}

/// The sizes of the maps that are pinned in a directory.
pub(super) fn pinned_sizes(dir: &Path) -> Vec<(String, u32, u64)> {
    pinned_maps()
        .filter_map(|name| {
            let info = MapInfo::from_pin(dir.join(name)).ok()?;
            let fd = info.fd().ok()?;
            Some((name.to_owned(), info.max_entries(), memlock(&fd).unwrap_or(0)))
        })
        .collect()
}

/// The kernel's own account of a map's memory.
fn memlock(fd: &MapFd) -> Option<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::dataplane::bpf::program::{TC_OBJECT, XDP_OBJECT};

    #[test]
    fn the_table_has_exactly_the_maps_of_the_object_files() {
        let table: BTreeSet<_> = MAPS.iter().map(|map| map.name.to_owned()).collect();
        assert_eq!(table.len(), MAPS.len(), "each name once");
        for object in [XDP_OBJECT, TC_OBJECT] {
            let object = aya_obj::Object::parse(object).expect("the build has made it");
            // The compiler's sections with constants and statics are maps, too. Their names begin with a dot.
            let maps = object.maps.into_keys().filter(|name| !name.starts_with('.'));
            assert_eq!(maps.collect::<BTreeSet<_>>(), table);
        }
    }

    #[test]
    fn each_map_that_is_not_pinned_has_a_reason() {
        for map in MAPS {
            let Lifetime::Daemon(reason) = map.lifetime else { continue };
            assert!(!reason.is_empty(), "{}", map.name);
        }
        assert_eq!(pinned_maps().count(), 24);
    }
}
