//! The maps, and those of each family behind one trait. ARCHITECTURE.md explains the design of each.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, PerCpuArray, RingBuf},
    macros::btf_map,
};
use lb_common::{
    MAX_BACKENDS, MAX_SERVICES, MAX_SOURCES, TABLE_SLOTS,
    abi::{
        Addr, Backend, BackendCounters, ClientSet, Config, CrowdKey, ExchangeRecord, Flow, Limit,
        MAX_CROWDED, MAX_OWN_MACS, OwnAddr, OwnAddrFilter, OwnMac, Ports, RECENT_CLIENTS, ReplySet,
        ReverseNat, SeenClients, Service, ServiceKey, SourceKey, SuccessCounts, V4, Vlans,
    },
    reason::Reason,
};
use lb_ebpf::{
    family::{Family, Ipv4, Ipv6},
    verifier::opaque,
};

/// The daemon has such a map in its own memory: the flow tables, which it reads and sweeps, and small maps that it
/// reads often.
const SHARED: usize = BPF_F_MMAPABLE as usize;

/// A map whose size the daemon sets.
pub(crate) type Sized<T> = Array<T, 1, SHARED>;

#[btf_map]
pub(crate) static CONFIG: Array<Config, 1, SHARED> = Array::new();

/// Source prefixes that hold more than their share → how many flows: see `crowd`.
#[btf_map]
pub(crate) static CROWDED: HashMap<CrowdKey, u32, { MAX_CROWDED as usize }> = HashMap::new();

/// The uses of each port. One byte of it turns most other frames away.
#[btf_map]
pub(crate) static PORTS: Array<Ports, 1> = Array::new();

/// The VLANs whose tagged frames the program looks at.
#[btf_map]
pub(crate) static VLANS: Array<Vlans, 1> = Array::new();

/// The MAC addresses of the interfaces → the usual one of each: see `mac`.
#[btf_map]
pub(crate) static OWN_MACS: HashMap<OwnMac, [u8; 8], { MAX_OWN_MACS as usize }> = HashMap::new();

#[btf_map]
pub(crate) static SERVICES: HashMap<ServiceKey, Service, { MAX_SERVICES as usize }> = HashMap::new();

/// The sources that a service accepts: `source_rule`. Twice as many as may be configured, for a reload.
#[btf_map]
pub(crate) static SOURCES: LpmTrie<SourceKey, u32, { 2 * MAX_SOURCES as usize }> = LpmTrie::new();

/// Addresses of VIPs and backends.
#[btf_map]
pub(crate) static OWN_ADDRS: HashMap<Addr, OwnAddr, { (MAX_BACKENDS + MAX_SERVICES) as usize }> =
    HashMap::new();

/// Service id → an array with one value, so that one call fills a table and one swaps it. The value is a
/// [`Table`](lb_common::abi::Table), but not a structure by name: Linux 6.1 does not put a map without type
/// information into a map whose type is a structure.
#[btf_map]
pub(crate) static TABLES: ArrayOfMaps<Array<[u16; TABLE_SLOTS], 1>, { MAX_SERVICES as usize }> =
    ArrayOfMaps::new();

#[btf_map]
pub(crate) static BACKENDS: Array<Backend, { MAX_BACKENDS as usize }> = Array::new();

/// The filter before `OWN_ADDRS`: it shows at once that most clients are not in there.
#[btf_map]
pub(crate) static OWN_ADDR_FILTER: Array<OwnAddrFilter, 1, SHARED> = Array::new();

/// A backend's address and port → the VIP of its replies if they have no flow.
#[btf_map]
pub(crate) static REVERSE_NAT: HashMap<ServiceKey, ReverseNat, { MAX_BACKENDS as usize }> = HashMap::new();

// The flow tables of each family: see `flows`.
#[btf_map]
pub(crate) static CLIENTS4: Sized<ClientSet> = Array::new();
#[btf_map]
pub(crate) static CLIENTS6: Sized<ClientSet> = Array::new();
#[btf_map]
pub(crate) static REPLIES4: Sized<ReplySet> = Array::new();
#[btf_map]
pub(crate) static REPLIES6: Sized<ReplySet> = Array::new();
#[btf_map]
pub(crate) static FLOWS4: Sized<Flow<V4>> = Array::new();
#[btf_map]
pub(crate) static FLOWS6: Sized<Flow<Addr>> = Array::new();

/// When the next SYN is due on this CPU: see `pace`.
#[btf_map]
pub(crate) static PACE: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Backend id → the trial budget: new connections that a half-open backend may still get.
#[btf_map]
pub(crate) static TRIAL_BUDGETS: Array<i64, { MAX_BACKENDS as usize }, SHARED> = Array::new();

/// How many connections backends and services have, and may have: see `limit`.
#[btf_map]
pub(crate) static LIMITS: Array<Limit, { Limit::ENTRIES as usize }, SHARED> = Array::new();

/// Clients that have shown that they receive at their address, by a hash: see `proof`.
#[btf_map]
pub(crate) static PROVEN: Array<u64, { RECENT_CLIENTS as usize }> = Array::new();

/// Clients whose SYN found everything full, by a hash: see `waiting`.
#[btf_map]
pub(crate) static WAITING: Array<u64, { RECENT_CLIENTS as usize }> = Array::new();

/// Backend id → when it last answered a SYN, in nanoseconds of the coarse clock. 0: not yet.
#[btf_map]
pub(crate) static LAST_SYNACK: Array<u64, { MAX_BACKENDS as usize }, SHARED> = Array::new();

/// Service id → which clients have completed a handshake: see `clients`.
#[btf_map]
pub(crate) static CLIENTS_SEEN: Array<SeenClients, { MAX_SERVICES as usize }, SHARED> = Array::new();

/// Backend id → which of its good responses are mirrored: `mirror_mode`.
#[btf_map]
pub(crate) static MIRROR_MODES: Array<u32, { MAX_BACKENDS as usize }> = Array::new();

/// CPU → success counts: good responses that the program did not mirror. The daemon reads them as its own
/// memory.
#[btf_map]
pub(crate) static SUCCESS_COUNTS: Sized<SuccessCounts> = Array::new();

#[btf_map]
pub(crate) static BACKEND_COUNTERS: PerCpuArray<BackendCounters, { MAX_BACKENDS as usize }> =
    PerCpuArray::new();

/// Service id × `Reason::COUNT` + reason.
#[btf_map]
pub(crate) static DROPS: PerCpuArray<u64, { MAX_SERVICES as usize * Reason::COUNT }> = PerCpuArray::new();

/// Service id → the moment up to which its share of ICMP errors is used.
#[btf_map]
pub(crate) static ICMP_CLOCKS: Array<u64, { MAX_SERVICES as usize }> = Array::new();

/// Places of the two maps that follow.
pub(crate) const NARROW_PLACES: u32 = 4096;

/// Clients behind a narrow path, by a hash: see `narrow`.
#[btf_map]
pub(crate) static NARROW_CLIENTS: Array<u64, { NARROW_PLACES as usize }> = Array::new();

/// IPv6 flows about which a router has reported a small MTU: see `narrow`.
#[btf_map]
pub(crate) static NARROW_REPORTS: Array<u64, { NARROW_PLACES as usize }> = Array::new();

/// Records of exchanges: as many as 13 000.
#[btf_map]
pub(crate) static EVIDENCE: RingBuf<ExchangeRecord, { 4 << 20 }> = RingBuf::new();

/// The maps of one family.
pub(crate) trait Tables: Family {
    fn clients(number: u32) -> Option<*mut ClientSet>;
    fn replies(number: u32) -> Option<*mut ReplySet>;
    fn flow(slot: u32) -> Option<*mut Flow<Self::Addr>>;
    /// How many NAT addresses are configured.
    fn nat_len(config: &Config) -> u16;
    fn nat_address(config: &Config, number: u32) -> Option<Self::Addr>;
    /// The smallest path MTU that an ICMP error may report.
    fn min_path_mtu(config: &Config) -> u16;
}

impl Tables for Ipv4 {
    #[inline(always)]
    fn clients(number: u32) -> Option<*mut ClientSet> {
        CLIENTS4.get_ptr_mut(number)
    }

    #[inline(always)]
    fn replies(number: u32) -> Option<*mut ReplySet> {
        REPLIES4.get_ptr_mut(number)
    }

    #[inline(always)]
    fn flow(slot: u32) -> Option<*mut Flow<V4>> {
        FLOWS4.get_ptr_mut(slot)
    }

    #[inline(always)]
    fn nat_len(config: &Config) -> u16 {
        config.nat4_len
    }

    #[inline(always)]
    fn nat_address(config: &Config, number: u32) -> Option<V4> {
        config.nat4.get(opaque(number) as usize).copied()
    }

    #[inline(always)]
    fn min_path_mtu(config: &Config) -> u16 {
        config.min_path_mtu4
    }
}

impl Tables for Ipv6 {
    #[inline(always)]
    fn clients(number: u32) -> Option<*mut ClientSet> {
        CLIENTS6.get_ptr_mut(number)
    }

    #[inline(always)]
    fn replies(number: u32) -> Option<*mut ReplySet> {
        REPLIES6.get_ptr_mut(number)
    }

    #[inline(always)]
    fn flow(slot: u32) -> Option<*mut Flow<Addr>> {
        FLOWS6.get_ptr_mut(slot)
    }

    #[inline(always)]
    fn nat_len(config: &Config) -> u16 {
        config.nat6_len
    }

    #[inline(always)]
    fn nat_address(config: &Config, number: u32) -> Option<Addr> {
        config.nat6.get(opaque(number) as usize).copied()
    }

    #[inline(always)]
    fn min_path_mtu(config: &Config) -> u16 {
        config.min_path_mtu6
    }
}
