//! The flow tables as this process's own memory: the kernel's arrays, mapped.
//!
//! Reading costs no system call and no copy, and counts as no use. A flow is ended here by the same
//! protocol that the program's CPUs use among themselves (`lb-ebpf/src/program/table.rs`).

use std::{
    io,
    num::NonZeroUsize,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use lb_common::{
    abi::{
        Addr, Address, CLIENT_WAYS, ClientSet, Flow, FlowKey, REPLY_SETS, REPLY_WAYS, ReplySet, V4,
        flow_state,
    },
    hash::{HashKeys, keyed_hash, other_set, set, tag},
};
use lb_core::io::{BackendId, Generation};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::idle::{ExpiredFlows, IdleTicks, Tally};
use crate::dataplane::{actor::monotonic_ns, steering::Known};

/// Both families' tables.
#[derive(Debug)]
pub struct FlowTables {
    pub(super) v4: Family<V4>,
    pub(super) v6: Family<Addr>,
    pub(super) idle: IdleTicks,
    pub(super) forgotten: Tally,
}

/// How many of what there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    pub established: u64,
    pub embryos: u64,
    /// Over: their NAT ports rest.
    pub resting: u64,
}

impl FlowTables {
    pub fn census(&self) -> FlowCounts {
        let mut census = FlowCounts::default();
        self.v4.each(|flow| census.add(flow.state));
        self.v6.each(|flow| census.add(flow.state));
        census
    }

    /// The connection of a client, by the tuple of what it sends.
    pub(super) fn by_client(&self, key: &FlowKey<Addr>) -> Option<Known> {
        match key.as_v4() {
            Some(key) => self.v4.by_client(&key).map(|flow| Known::from(&flow)),
            None => self.v6.by_client(key).map(|flow| Known::from(&flow)),
        }
    }

    /// Connections of a backend that are neither over nor silent for too long.
    pub(super) fn connections(&self, backend: BackendId, generation: Generation) -> u64 {
        let (now, mut count) = (now_ticks(), 0);
        self.v4.each(|flow| count += u64::from(self.is_its(flow, backend, generation, now)));
        self.v6.each(|flow| count += u64::from(self.is_its(flow, backend, generation, now)));
        count
    }

    fn is_its<A: Address>(&self, flow: &Flow<A>, id: BackendId, generation: Generation, now: u32) -> bool {
        (flow.backend, flow.generation) == (id.0, generation.0)
            && flow.state & flow_state::TIME_WAIT == 0
            && !self.idle.is_over(flow, now)
    }

    /// How many were forgotten for their silence.
    pub fn forgotten(&self) -> ExpiredFlows {
        self.forgotten.read()
    }

    /// Ends every flow, or those whose state is chosen.
    pub fn end_all(&self, chosen: impl Fn(u32) -> bool) {
        self.v4.end_all(&chosen);
        self.v6.end_all(&chosen);
    }

    /// Places that lead nowhere, and flows that nothing leads to: none, while no frame is under way.
    pub fn inconsistencies(&self) -> Vec<String> {
        let mut found = self.v4.inconsistencies();
        found.extend(self.v6.inconsistencies());
        found
    }
}

/// The time as the program notes it down with a flow.
pub(super) fn now_ticks() -> u32 {
    (monotonic_ns() >> 30) as u32
}

impl FlowCounts {
    fn add(&mut self, state: u32) {
        if state & flow_state::TIME_WAIT != 0 {
            self.resting += 1;
        } else if state & flow_state::ESTABLISHED != 0 {
            self.established += 1;
        } else {
            self.embryos += 1;
        }
    }
}

/// The three maps of a family.
#[derive(Debug)]
pub(super) struct Family<A: Address> {
    pub(super) clients: Shared<ClientSet>,
    pub(super) replies: Shared<ReplySet>,
    pub(super) flows: Shared<Flow<A>>,
    pub(super) keys: HashKeys,
}

impl<A: Address> Family<A> {
    /// Shows every flow as it is found. One that changes meanwhile may be shown half old, half new.
    pub(super) fn each(&self, mut visit: impl FnMut(&Flow<A>)) {
        for number in 0..self.clients.len {
            let set = self.clients.read(number);
            for way in (0..CLIENT_WAYS).filter(|way| set.tags[*way] != 0) {
                let flow = self.flows.read(number * CLIENT_WAYS + way);
                if flow.is_live() {
                    visit(&flow);
                }
            }
        }
    }

    /// Found as the program finds it.
    fn by_client(&self, key: &FlowKey<A>) -> Option<Flow<A>> {
        let hash = keyed_hash(key, &self.keys);
        let sets = self.clients.len as u32;
        [set(hash, sets), other_set(hash, sets)].into_iter().find_map(|number| {
            let number = number as usize;
            let way = self.clients.read(number).tags.iter().position(|seen| *seen == tag(hash))?;
            let flow = self.flows.read(number * CLIENT_WAYS + way);
            (flow.is_live() && flow.client == *key).then_some(flow)
        })
    }

    fn end_all(&self, chosen: impl Fn(u32) -> bool) {
        self.each(|flow| {
            if chosen(flow.state) {
                self.end(flow);
            }
        });
    }

    /// Ends a flow that was just read, unless it has changed since.
    pub(super) fn end(&self, flow: &Flow<A>) -> bool {
        let slot = flow.slot as usize;
        let at = self.flows.at(slot);
        // SAFETY: a word of the mapping, which is only ever written whole.
        let state = unsafe { AtomicU32::from_ptr(&raw mut (*at).state) };
        if state.compare_exchange(flow.state, 0, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return false;
        }
        // From here on it is ours: as it is now.
        let hash = keyed_hash(&self.flows.read(slot).reply, &self.keys);
        let entry = u64::from(flow.slot) << 32 | u64::from(tag(hash));
        let ways = self.reply_sets(hash).into_iter().flat_map(|number| {
            let replies = self.replies.at(number);
            // SAFETY: as above.
            (0..REPLY_WAYS).map(move |way| unsafe { AtomicU64::from_ptr(&raw mut (*replies).ways[way]) })
        });
        for at in ways {
            if at.compare_exchange(entry, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                break;
            }
        }
        let clients = self.clients.at(slot / CLIENT_WAYS);
        // SAFETY: as above.
        let tag = unsafe { AtomicU32::from_ptr(&raw mut (*clients).tags[slot % CLIENT_WAYS]) };
        tag.store(0, Ordering::Release);
        true
    }

    /// Ends a flow that was just read, unless it was heard of since or is another one's by now.
    pub(super) fn forget(&self, flow: &Flow<A>) -> bool {
        let now = self.flows.read(flow.slot as usize);
        (now.seen, now.client) == (flow.seen, flow.client) && self.end(flow)
    }

    /// Where the reply's entry of a flow may be.
    fn reply_sets(&self, hash: u64) -> [usize; 2] {
        let sets = self.clients.len as u32 * REPLY_SETS;
        [set(hash, sets) as usize, other_set(hash, sets) as usize]
    }

    fn inconsistencies(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut live = 0;
        for slot in 0..self.flows.len {
            let flow = self.flows.read(slot);
            let tagged = self.clients.read(slot / CLIENT_WAYS).tags[slot % CLIENT_WAYS];
            if !flow.is_live() {
                if tagged != 0 {
                    found.push(format!("place {slot} is taken by nothing"));
                }
                continue;
            }
            live += 1;
            if flow.slot as usize != slot || tagged != tag(keyed_hash(&flow.client, &self.keys)) {
                found.push(format!("the flow at {slot} is not where its client's hash leads"));
            }
            let first = set(keyed_hash(&flow.client, &self.keys), self.clients.len as u32) as usize;
            if first != slot / CLIENT_WAYS && self.clients.read(first).spilled == 0 {
                found.push(format!("the flow at {slot} lies where nobody looks for it"));
            }
            let hash = keyed_hash(&flow.reply, &self.keys);
            let entry = (slot as u64) << 32 | u64::from(tag(hash));
            if !self.reply_sets(hash).into_iter().any(|set| self.replies.read(set).ways.contains(&entry)) {
                found.push(format!("nothing leads from its replies to the flow at {slot}"));
            }
        }
        for number in 0..self.replies.len {
            let mut tags: Vec<_> = self.replies.read(number).ways.map(|entry| entry as u32).to_vec();
            tags.retain(|tag| *tag != 0);
            tags.sort_unstable();
            if tags.windows(2).any(|pair| pair[0] == pair[1]) {
                found.push(format!("two flows share a NAT port in set {number}"));
            }
        }
        let sets = (0..self.replies.len).map(|number| self.replies.read(number));
        let entries = sets.flat_map(|set| set.ways).filter(|entry| *entry != 0).count();
        if entries != live {
            found.push(format!("{entries} reply entries, {live} flows"));
        }
        found
    }
}

/// The values of an array map made with `BPF_F_MMAPABLE`.
#[derive(Debug)]
pub(super) struct Shared<T> {
    at: NonNull<T>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone, and everything in it is read and written as words that
// others write at the same time, from whatever thread.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T: Copy> Shared<T> {
    /// `len` values of this very type must be what the map has.
    pub(super) fn new(map: impl AsFd, len: usize) -> io::Result<Self> {
        assert!(size_of::<T>().is_multiple_of(8), "the kernel would keep them further apart");
        let bytes = NonZeroUsize::new(len * size_of::<T>())
            .ok_or_else(|| io::Error::other("a flow table of nothing"))?;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe {
            mmap(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, map, 0)
        };
        Ok(Self { at: at?.cast(), len })
    }

    pub(super) fn at(&self, index: usize) -> *mut T {
        assert!(index < self.len, "inside the map");
        // SAFETY: inside the mapping, by the line above.
        unsafe { self.at.as_ptr().add(index) }
    }

    pub(super) fn read(&self, index: usize) -> T {
        // SAFETY: readable, and any bits make a value; volatile because others write it.
        unsafe { self.at(index).read_volatile() }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new`, and nothing of it is handed out.
        if let Err(error) = unsafe { munmap(self.at.cast(), self.len * size_of::<T>()) } {
            tracing::debug!(%error, "a flow table stays mapped");
        }
    }
}
