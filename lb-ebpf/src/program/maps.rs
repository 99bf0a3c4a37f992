//! The maps. DESIGN of each: ARCHITECTURE.md, "Maps".

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, HashMap, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use lb_common::{
    MAX_BACKENDS, MAX_SERVICES,
    abi::{Backend, BackendCounters, Config, Flow, FlowKey, HeadRecord, Service, ServiceKey, Table},
    reason::Reason,
};

#[btf_map]
pub(super) static CONFIG: Array<Config, 1> = Array::new();

#[btf_map]
pub(super) static SERVICES: HashMap<ServiceKey, Service, { MAX_SERVICES as usize }> = HashMap::new();

/// Service id → an array with one value, so that one call fills a table and one swaps it.
#[btf_map]
pub(super) static TABLES: ArrayOfMaps<Array<Table, 1>, { MAX_SERVICES as usize }> = ArrayOfMaps::new();

#[btf_map]
pub(super) static BACKENDS: Array<Backend, { MAX_BACKENDS as usize }> = Array::new();

/// Two entries a connection. The daemon sets the size from `max_flows`.
#[btf_map]
pub(super) static FLOWS: LruHashMap<FlowKey, Flow, 262_144> = LruHashMap::new();

/// Handshakes under way, two entries each: a flood of SYNs evicts only these.
#[btf_map]
pub(super) static EMBRYOS: LruHashMap<FlowKey, Flow, 32_768> = LruHashMap::new();

/// Backend id → new connections that a half-open backend may still be given.
#[btf_map]
pub(super) static TRIAL: Array<i64, { MAX_BACKENDS as usize }> = Array::new();

/// An entry being made: two of them do not fit on the stack.
#[btf_map]
pub(super) static SCRATCH: PerCpuArray<Flow, 1> = PerCpuArray::new();

#[btf_map]
pub(super) static BACKEND_COUNTERS: PerCpuArray<BackendCounters, { MAX_BACKENDS as usize }> =
    PerCpuArray::new();

/// Service id × `Reason::COUNT` + reason.
#[btf_map]
pub(super) static DROPS: PerCpuArray<u64, { MAX_SERVICES as usize * Reason::COUNT }> = PerCpuArray::new();

/// Mirrored response heads: room for 13 000.
#[btf_map]
pub(super) static EVENTS: RingBuf<HeadRecord, { 4 << 20 }> = RingBuf::new();
