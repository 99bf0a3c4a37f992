//! `LIMITS`: how many connections services and backends have, and may have.
//!
//! The program counts exactly (`lb-ebpf/src/program/limit.rs`), and the daemon follows its rule: the thread that sets
//! `COUNTED` in the state of a flow has counted it before, and the one that takes it out counts it off. A daemon that
//! dies between the two leaves a wrong count. So the timeout scanner compares the counts with the flows, see
//! [`limit_check`](super::limit_check).

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use lb_common::{
    MAX_BACKENDS,
    abi::{Address, Flow, Limit},
};
use lb_core::{
    config::ServiceLimit,
    io::{BackendId, Generation, ServiceId},
};

use super::mapped::Mapped;
use crate::dataplane::counters::LimitCounts;

/// Works on the map in this process's memory, without a system call.
#[derive(Debug)]
pub struct ConnectionLimits {
    entries: Mapped<Limit>,
    /// The generation of each backend id. 0: none.
    generations: Vec<AtomicU32>,
    /// The services whose connections count.
    counting: Mutex<BTreeSet<ServiceId>>,
}

impl ConnectionLimits {
    pub(super) fn new(entries: Mapped<Limit>) -> Self {
        let generations = (0..MAX_BACKENDS).map(|_| AtomicU32::new(0)).collect();
        Self { entries, generations, counting: Mutex::default() }
    }

    fn counting(&self) -> MutexGuard<'_, BTreeSet<ServiceId>> {
        self.counting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before the service's entry is written.
    pub(super) fn set_service(&self, id: ServiceId, limit: Option<ServiceLimit>) {
        self.set_most(Limit::of_service(id.0), limit.map_or(0, |limit| limit.max_connections));
        match limit {
            Some(_) => self.counting().insert(id),
            None => self.counting().remove(&id),
        };
    }

    /// Before the backend's entry is written.
    pub(super) fn set_backend(&self, id: BackendId, generation: Generation, most: u32) {
        if self.generations[usize::from(id.0)].swap(generation.0, Ordering::Relaxed) != generation.0 {
            // Connections of the backend that had the id do not count here.
            self.open(id.0.into()).store(0, Ordering::Relaxed);
        }
        self.set_most(id.0.into(), most);
    }

    /// A backend that an earlier run has left in the maps.
    pub(super) fn adopt(&self, id: BackendId, generation: Generation) {
        self.generations[usize::from(id.0)].store(generation.0, Ordering::Relaxed);
    }

    /// After the backend's entry was removed.
    pub(super) fn remove_backend(&self, id: BackendId) {
        self.generations[usize::from(id.0)].store(0, Ordering::Relaxed);
        self.set_most(id.0.into(), 0);
    }

    fn set_most(&self, index: u32, most: u32) {
        // SAFETY: an aligned word of the mapping.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.entries.at(index as usize)).most) }
            .store(most, Ordering::Relaxed);
    }

    fn open(&self, index: u32) -> &AtomicU64 {
        // SAFETY: an aligned word of the mapping, which lives as long as this.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.entries.at(index as usize)).open) }
    }

    /// The services whose connections count.
    pub fn services(&self) -> BTreeSet<ServiceId> {
        self.counting().clone()
    }

    /// SYNs of a service that found everything full, since the maps were made.
    pub fn refused(&self, service: ServiceId) -> u64 {
        self.entry(Limit::of_service(service.0)).refused
    }

    pub fn of_service(&self, service: ServiceId) -> LimitCounts {
        self.entry(Limit::of_service(service.0)).into()
    }

    pub fn of_backend(&self, backend: BackendId) -> LimitCounts {
        self.entry(backend.0.into()).into()
    }

    /// Where the counts differ from these, which are those of the flows.
    pub(super) fn inconsistencies(&self, flows: &HashMap<u32, u64>) -> Vec<String> {
        let wrong = (0..Limit::ENTRIES).filter_map(|index| {
            let (open, flows) = (self.entry(index).open, flows.get(&index).copied().unwrap_or(0));
            (open != flows)
                .then(|| format!("entry {index} of LIMITS counts {open:#x}, the flows are {flows:#x}"))
        });
        wrong.collect()
    }

    pub(super) fn is_full(&self, index: u32) -> bool {
        let Limit { open, most, .. } = self.entry(index);
        most != 0 && i64::from(Limit::connections(open)) >= i64::from(most)
    }

    pub(super) fn entry(&self, index: u32) -> Limit {
        self.entries.read(index as usize)
    }

    /// Whether the flow's backend still has its id.
    pub(super) fn knows<A: Address>(&self, flow: &Flow<A>) -> bool {
        let generation = self.generations.get(usize::from(flow.backend));
        generation.is_some_and(|generation| generation.load(Ordering::Relaxed) == flow.generation)
    }

    /// Where a flow counts: in its service, and in its backend if that still has its id.
    pub(super) fn places<A: Address>(&self, flow: &Flow<A>) -> impl Iterator<Item = u32> + use<A> {
        let backend = self.knows(flow).then_some(u32::from(flow.backend));
        backend.into_iter().chain([Limit::of_service(flow.service)])
    }

    pub(super) fn add<A: Address>(&self, flow: &Flow<A>) {
        let part = Limit::part(flow.state);
        self.places(flow).for_each(|index| self.change(index, part));
    }

    pub(super) fn subtract<A: Address>(&self, flow: &Flow<A>) {
        let part = Limit::part(flow.state).wrapping_neg();
        self.places(flow).for_each(|index| self.change(index, part));
        // SAFETY: an aligned word of the mapping.
        unsafe {
            AtomicU32::from_ptr(&raw mut (*self.entries.at(Limit::of_service(flow.service) as usize)).ended)
        }
        .fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn change(&self, index: u32, by: u64) {
        self.open(index).fetch_add(by, Ordering::Relaxed);
    }
}

impl From<Limit> for LimitCounts {
    fn from(limit: Limit) -> Self {
        let count = |of: i32| u32::try_from(of).unwrap_or(0);
        Self {
            used: count(Limit::connections(limit.open)),
            handshakes: count(Limit::handshakes(limit.open)),
            limit: limit.most,
        }
    }
}
