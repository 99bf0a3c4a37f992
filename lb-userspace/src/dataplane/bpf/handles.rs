//! Typed handles to the maps of a loaded program.

use std::{collections::BTreeMap, net::IpAddr, ops::RangeInclusive, os::fd::AsFd, sync::Arc};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData},
};
use lb_common::{
    abi::{Address, Config, OwnAddrFilter, VLAN_IDS, Vlans},
    hash::HashKeys,
};

use super::{
    backends::Backends,
    clients_seen::ClientsSeen,
    connection_limits::ConnectionLimits,
    crowd::Crowd,
    dataplane::Bpf,
    error::OpenError,
    flow_family::Family,
    flows::FlowTables,
    idle::{ExpiredCounters, IdleTicks},
    mapped::Mapped,
    maps::map_info,
    nat_addresses::NatAddresses,
    own_macs::{OwnMacMap, USUAL},
    ports::PortMap,
    program::cpus,
    registry::Registry,
    reverse_nat::ReverseNatMap,
    ring::EvidenceRing,
    sources::SourceRules,
    spoof_guard::SpoofGuard,
    success_counts::SuccessCounts,
    syn_acks::SynAcks,
    trial_budgets::TrialBudgets,
};

/// ICMP errors that report a smaller path MTU are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinPathMtu {
    pub ipv4: u16,
    pub ipv6: u16,
}

impl Default for MinPathMtu {
    /// No link between an IPv4 client and its server is narrower today. Each IPv6 link carries 1280 bytes (RFC 8200).
    fn default() -> Self {
        Self { ipv4: 552, ipv6: 1280 }
    }
}

/// The success counts of a loaded program.
pub(super) fn success_counts(ebpf: &Ebpf) -> Result<SuccessCounts, OpenError> {
    let Some(Map::Array(map)) = ebpf.map("SUCCESS_COUNTS") else {
        return Err(OpenError::Object("SUCCESS_COUNTS"));
    };
    SuccessCounts::new(map.fd().as_fd(), cpus()?).map_err(OpenError::Descriptor)
}

/// When the backends of a loaded program last answered a SYN.
pub(super) fn syn_acks(ebpf: &Ebpf) -> Result<SynAcks, OpenError> {
    Ok(SynAcks(mapped(ebpf, "LAST_SYNACK")?))
}

/// The trial budgets of a loaded program.
pub(super) fn trial_budgets(ebpf: &Ebpf) -> Result<TrialBudgets, OpenError> {
    Ok(TrialBudgets::new(mapped(ebpf, "TRIAL_BUDGETS")?))
}

/// The clients of the services of a loaded program.
pub(super) fn clients_seen(ebpf: &Ebpf) -> Result<ClientsSeen, OpenError> {
    Ok(ClientsSeen::new(mapped(ebpf, "CLIENTS_SEEN")?))
}

/// A map that the daemon has mapped into its memory.
fn mapped<T: Copy>(ebpf: &Ebpf, name: &'static str) -> Result<Mapped<T>, OpenError> {
    let Some(Map::Array(map)) = ebpf.map(name) else { return Err(OpenError::Object(name)) };
    let entries = map.info().map_err(OpenError::Map)?.max_entries() as usize;
    Mapped::new(map.fd().as_fd(), entries).map_err(OpenError::Descriptor)
}

/// The NAT addresses of a loaded program.
pub(super) fn nat_addresses(ebpf: &Ebpf) -> Result<NatAddresses, OpenError> {
    Ok(NatAddresses::new(mapped(ebpf, "CONFIG")?))
}

/// The list of crowded prefixes of a loaded program. `share`: how much one prefix may hold, in percent.
pub(super) fn crowd(ebpf: &Ebpf, share: u8) -> Result<Arc<Crowd>, OpenError> {
    let map = HashMap::try_from(duplicate(ebpf, "CROWDED")?).map_err(OpenError::Map)?;
    Ok(Arc::new(Crowd::new(mapped(ebpf, "CONFIG")?, map, share)))
}

/// Another descriptor of a map.
pub(super) fn duplicate(ebpf: &Ebpf, name: &'static str) -> Result<Map, OpenError> {
    let map = ebpf.map(name).ok_or(OpenError::Object(name))?;
    let id = map_info(map).map_err(OpenError::Map)?.id();
    MapData::from_id(id).and_then(Map::from_map_data).map_err(OpenError::Map)
}

pub(super) fn own_addr_filter(ebpf: &Ebpf) -> Result<Mapped<OwnAddrFilter>, OpenError> {
    mapped(ebpf, "OWN_ADDR_FILTER")
}

/// The flow tables of a loaded program.
pub(super) fn flows(ebpf: &Ebpf, seed: u64, idle: IdleTicks) -> Result<FlowTables, OpenError> {
    fn family<A: Address>(
        ebpf: &Ebpf,
        keys: HashKeys,
        limits: &Arc<ConnectionLimits>,
        [clients, replies, flows]: [&'static str; 3],
    ) -> Result<Family<A>, OpenError> {
        Ok(Family {
            clients: mapped(ebpf, clients)?,
            replies: mapped(ebpf, replies)?,
            flows: mapped(ebpf, flows)?,
            keys,
            limits: Arc::clone(limits),
        })
    }
    let keys = HashKeys::from_seed(seed);
    let limits = Arc::new(ConnectionLimits::new(mapped(ebpf, "LIMITS")?));
    Ok(FlowTables {
        v4: family(ebpf, keys, &limits, ["CLIENTS4", "REPLIES4", "FLOWS4"])?,
        v6: family(ebpf, keys, &limits, ["CLIENTS6", "REPLIES6", "FLOWS6"])?,
        idle,
        expired: ExpiredCounters::default(),
        limits,
    })
}

/// The maps of a loaded program, as the daemon uses them.
pub(super) struct Handles {
    config: Array<MapData, Config>,
    vlans: Array<MapData, Vlans>,
    pub(super) dataplane: Bpf,
    pub(super) evidence: EvidenceRing,
}

impl Handles {
    /// `map` gives a map by its name.
    pub(super) fn take(
        mut map: impl FnMut(&'static str) -> Result<Map, OpenError>,
        filter: Mapped<OwnAddrFilter>,
        flows: Arc<FlowTables>,
        crowd: Arc<Crowd>,
        nat_addresses: NatAddresses,
        trial_budgets: Arc<TrialBudgets>,
        nat_ports: RangeInclusive<u16>,
    ) -> Result<Self, OpenError> {
        fn take<T: TryFrom<Map>>(
            map: &mut impl FnMut(&'static str) -> Result<Map, OpenError>,
            name: &'static str,
        ) -> Result<T, OpenError> {
            T::try_from(map(name)?).map_err(|_| OpenError::Object(name))
        }
        Ok(Self {
            config: take(&mut map, "CONFIG")?,
            vlans: take(&mut map, "VLANS")?,
            evidence: EvidenceRing::new(take(&mut map, "EVIDENCE")?),
            dataplane: Bpf {
                services: take(&mut map, "SERVICES")?,
                tables: take(&mut map, "TABLES")?,
                backends: Backends::new(take(&mut map, "BACKENDS")?, take(&mut map, "BACKEND_COUNTERS")?),
                trial: take(&mut map, "TRIAL_BUDGETS")?,
                mirror_modes: take(&mut map, "MIRROR_MODES")?,
                drops: take(&mut map, "DROPS")?,
                ports: PortMap::new(take(&mut map, "PORTS")?, nat_ports),
                sources: SourceRules::adopt(take(&mut map, "SOURCES")?).map_err(OpenError::Map)?,
                spoof_guard: SpoofGuard::adopt(take(&mut map, "OWN_ADDRS")?, filter)
                    .map_err(OpenError::Map)?,
                own_macs: OwnMacMap::adopt(take(&mut map, "OWN_MACS")?, take(&mut map, USUAL)?)
                    .map_err(OpenError::Map)?,
                reverse_nat: ReverseNatMap::new(take(&mut map, "REVERSE_NAT")?),
                registry: Registry::default(),
                flows,
                crowd,
                nat_addresses,
                trial_budgets,
                reset_targets: Arc::default(),
                vips: BTreeMap::new(),
                path_warnings: BTreeMap::new(),
            },
        })
    }

    /// Writes the settings that the program reads.
    pub(super) fn configure(
        &mut self,
        seed: u64,
        nat_addresses: &[IpAddr],
        vlans: &[u16],
        new_flows: u32,
        min_path_mtu: MinPathMtu,
    ) -> Result<(), OpenError> {
        let ports = self.dataplane.ports.nat();
        let config = Config {
            seed,
            nat_first: *ports.start(),
            nat_last: *ports.end(),
            syn_interval_ns: 1_000_000_000u32.checked_div(new_flows).unwrap_or(0),
            min_path_mtu4: min_path_mtu.ipv4,
            min_path_mtu6: min_path_mtu.ipv6,
            ..Config::default()
        };
        self.config.set(0, config, 0).map_err(OpenError::Map)?;
        self.dataplane.nat_addresses.set(nat_addresses);
        let mut wanted = Vlans([0; VLAN_IDS]);
        // A tag with this id names no VLAN, it only gives a priority.
        wanted.0[0] = 1;
        for id in vlans {
            // The configuration refuses other numbers.
            if let Some(entry) = wanted.0.get_mut(usize::from(*id)) {
                *entry = 1;
            }
        }
        self.vlans.set(0, wanted, 0).map_err(OpenError::Map)?;
        self.dataplane.write_ports().map_err(OpenError::Map)
    }
}
