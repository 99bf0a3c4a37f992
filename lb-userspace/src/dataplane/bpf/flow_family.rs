//! The three maps that hold the flows of one address family.
//!
//! Reading costs no system call and no copy, and does not count as use of a flow. The daemon removes a flow by the same
//! protocol that the program's CPUs use among themselves (`lb-ebpf/src/program/flows`).

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use lb_common::{
    abi::{Address, CLIENT_WAYS, ClientSet, Flow, FlowKey, REPLY_SETS, REPLY_WAYS, ReplySet, flow_state},
    hash::{HashKeys, keyed_hash, other_set, set, tag},
};

use super::{connection_limits::ConnectionLimits, mapped::Mapped};
use crate::dataplane::client_ways::{ClientWay, Moved};

/// The three maps of a family.
#[derive(Debug)]
pub(super) struct Family<A: Address> {
    pub(super) clients: Mapped<ClientSet>,
    pub(super) replies: Mapped<ReplySet>,
    pub(super) flows: Mapped<Flow<A>>,
    pub(super) keys: HashKeys,
    pub(super) limits: Arc<ConnectionLimits>,
}

impl<A: Address> Family<A> {
    /// Visits every flow. If the program changes a flow meanwhile, the copy may be half old, half new.
    pub(super) fn each(&self, mut visit: impl FnMut(&Flow<A>)) {
        for number in 0..self.clients.len() {
            let set = self.clients.read(number);
            for way in (0..CLIENT_WAYS).filter(|way| set.tags[*way] != 0) {
                let flow = self.flows.read(number * CLIENT_WAYS + way);
                if flow.is_live() {
                    visit(&flow);
                }
            }
        }
    }

    /// Finds a flow as the program does.
    pub(super) fn by_client(&self, key: &FlowKey<A>) -> Option<Flow<A>> {
        let hash = keyed_hash(key, &self.keys);
        let sets = self.clients.len() as u32;
        [set(hash, sets), other_set(hash, sets)].into_iter().find_map(|number| {
            let number = number as usize;
            let way = self.clients.read(number).tags.iter().position(|seen| *seen == tag(hash))?;
            let flow = self.flows.read(number * CLIENT_WAYS + way);
            (flow.is_live() && flow.client == *key).then_some(flow)
        })
    }

    pub(super) fn remove_all(&self, chosen: impl Fn(u32) -> bool) {
        self.each(|flow| {
            if chosen(flow.state) {
                self.remove(flow);
            }
        });
    }

    /// Removes a flow that the caller has just read, unless its state has changed since.
    pub(super) fn remove(&self, flow: &Flow<A>) -> bool {
        if !self.swap(flow, 0) {
            return false;
        }
        self.counted_off(flow);
        // From here on the place belongs to this thread. It reads the flow again, as it is now.
        let slot = flow.slot as usize;
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

    /// Makes a trial that the caller has just read a connection like any other, unless its state has changed since.
    pub(super) fn end_trial(&self, flow: &Flow<A>) -> bool {
        let state = self.state(flow.slot as usize);
        let ended = flow.state & !flow_state::TRIAL;
        state.compare_exchange(flow.state, ended, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn state(&self, slot: usize) -> &AtomicU32 {
        let at = self.flows.at(slot);
        // SAFETY: a word of the mapping, which lives as long as this and is only ever written whole.
        unsafe { AtomicU32::from_ptr(&raw mut (*at).state) }
    }

    /// Sends a flow that the caller has just read into time-wait, unless its state has changed since. The program resets
    /// what still comes of it.
    pub(super) fn rest(&self, flow: &Flow<A>, now: u32) -> bool {
        let at = self.flows.at(flow.slot as usize);
        // SAFETY: as in `state`. First: from the other write on the flow expires by it.
        unsafe { AtomicU32::from_ptr(&raw mut (*at).seen) }.store(now, Ordering::Relaxed);
        let over = self.swap(flow, (flow.state | flow_state::TIME_WAIT) & !flow_state::COUNTED);
        if over {
            self.counted_off(flow);
        }
        over
    }

    /// Counts a flow that the caller has just read in the limits, unless its state has changed since.
    pub(super) fn count(&self, flow: &Flow<A>) -> bool {
        self.limits.add(flow);
        let counted = self.swap(flow, flow.state | flow_state::COUNTED);
        if !counted {
            self.limits.subtract(flow);
        }
        counted
    }

    /// Takes a flow that the caller has just read out of the limits, unless its state has changed since.
    pub(super) fn count_off(&self, flow: &Flow<A>) {
        if self.swap(flow, flow.state & !flow_state::COUNTED) {
            self.counted_off(flow);
        }
    }

    fn swap(&self, flow: &Flow<A>, state: u32) -> bool {
        let at = self.state(flow.slot as usize);
        at.compare_exchange(flow.state, state, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The state with which this flow was read is gone.
    fn counted_off(&self, flow: &Flow<A>) {
        if flow.state & flow_state::COUNTED != 0 {
            self.limits.subtract(flow);
        }
    }

    /// Removes a flow that the caller has just read, unless it has seen a packet since or its place has another flow.
    pub(super) fn expire(&self, flow: &Flow<A>) -> bool {
        let now = self.flows.read(flow.slot as usize);
        (now.seen, now.client) == (flow.seen, flow.client) && self.remove(flow)
    }

    /// Gives the flows whose ways to their clients have moved the new ones. Returns how many.
    pub(super) fn follow(&self, moved: &Moved) -> u64 {
        let mut followed = 0;
        self.each(|flow| {
            let has =
                ClientWay { ifindex: flow.ifindex, vlan: flow_state::vlan(flow.state), link: flow.link };
            if let Some(way) = moved.way(flow.client.src.wide().into(), &has) {
                self.set_way(flow, &way);
                followed += 1;
            }
        });
        followed
    }

    /// Gives a flow that the caller has just read another way to its client. If its place has another flow by now, that
    /// one learns its own again from its client.
    fn set_way(&self, flow: &Flow<A>, way: &ClientWay) {
        let at = self.flows.at(flow.slot as usize);
        // The program may have learnt yet another one.
        for (word, (before, now)) in flow.link.0.into_iter().zip(way.link.0).enumerate() {
            // SAFETY: as in `state`.
            let word = unsafe { AtomicU32::from_ptr(&raw mut (*at).link.0[word]) };
            let _ = word.compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed);
        }
        // SAFETY: as in `state`.
        let ifindex = unsafe { AtomicU32::from_ptr(&raw mut (*at).ifindex) };
        let _ = ifindex.compare_exchange(flow.ifindex, way.ifindex, Ordering::Relaxed, Ordering::Relaxed);
        let vlan = |state: u32| (state & flow_state::LIVE != 0).then(|| flow_state::in_vlan(state, way.vlan));
        if flow_state::vlan(flow.state) != way.vlan {
            let _ = self.state(flow.slot as usize).fetch_update(Ordering::AcqRel, Ordering::Relaxed, vlan);
        }
    }

    /// The sets in which the reply entry of a flow can be.
    pub(super) fn reply_sets(&self, hash: u64) -> [usize; 2] {
        let sets = self.clients.len() as u32 * REPLY_SETS;
        [set(hash, sets) as usize, other_set(hash, sets) as usize]
    }
}
