//! The flow tables of both families, as the daemon reads and cleans them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use lb_common::abi::{Addr, Address, Flow, FlowKey, Limit, V4, flow_state, port_flags};
use lb_core::io::{BackendId, Generation, ServiceId};

use super::{
    connection_limits::ConnectionLimits,
    flow_check::inconsistencies,
    flow_family::Family,
    idle::{ExpiredCounters, IdleTicks, now_ticks},
};
use crate::dataplane::{client_ways::Moved, counters::ExpiredFlows, steering::KnownFlow};

/// The flow tables of both families.
#[derive(Debug)]
pub struct FlowTables {
    pub(super) v4: Family<V4>,
    pub(super) v6: Family<Addr>,
    pub(super) idle: IdleTicks,
    pub(super) expired: ExpiredCounters,
    pub(super) limits: Arc<ConnectionLimits>,
}

/// How many flows there are, by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    pub established: u64,
    /// Half-open handshakes.
    pub handshakes: u64,
    /// Flows in time-wait: their NAT ports rest.
    pub time_wait: u64,
}

impl FlowTables {
    pub fn counts(&self) -> FlowCounts {
        let mut counts = FlowCounts::default();
        self.v4.each(|flow| counts.add(flow.state));
        self.v6.each(|flow| counts.add(flow.state));
        counts
    }

    /// The flow of a client, by the tuple of its packets.
    pub(super) fn by_client(&self, key: &FlowKey<Addr>) -> Option<KnownFlow> {
        match key.as_v4() {
            Some(key) => self.v4.by_client(&key).map(|flow| KnownFlow::from(&flow)),
            None => self.v6.by_client(key).map(|flow| KnownFlow::from(&flow)),
        }
    }

    /// Counts the connections of each of these backends, without time-wait and without those whose timeout has passed.
    pub(super) fn connections(&self, of: &[(BackendId, Generation)]) -> Vec<u64> {
        let mut counts: HashMap<_, u64> = of.iter().map(|backend| (*backend, 0)).collect();
        let now = now_ticks();
        self.v4.each(|flow| self.count(flow, now, &mut counts));
        self.v6.each(|flow| self.count(flow, now, &mut counts));
        of.iter().map(|backend| counts[backend]).collect()
    }

    fn count<A: Address>(
        &self,
        flow: &Flow<A>,
        now: u32,
        counts: &mut HashMap<(BackendId, Generation), u64>,
    ) {
        let of = (BackendId(flow.backend), Generation(flow.generation));
        if let Some(count) = counts.get_mut(&of)
            && self.is_open(flow, now)
        {
            *count += 1;
        }
    }

    /// Counts the connections whose clients are behind these interfaces, as above.
    pub(super) fn connections_by(&self, interfaces: &BTreeSet<u32>) -> u64 {
        let (now, mut count) = (now_ticks(), 0);
        self.v4.each(|flow| count += u64::from(self.comes_by(flow, interfaces, now)));
        self.v6.each(|flow| count += u64::from(self.comes_by(flow, interfaces, now)));
        count
    }

    fn comes_by<A: Address>(&self, flow: &Flow<A>, interfaces: &BTreeSet<u32>, now: u32) -> bool {
        interfaces.contains(&flow.ifindex) && self.is_open(flow, now)
    }

    fn is_open<A: Address>(&self, flow: &Flow<A>, now: u32) -> bool {
        flow.state & flow_state::TIME_WAIT == 0 && !self.idle.is_over(flow, now)
    }

    /// The flags of `PORTS` without which segments of the connections do not find their flows, by port.
    pub(super) fn port_flags(&self) -> Vec<u8> {
        let mut ports = vec![0; 1 << 16];
        self.v4.each(|flow| note_ports(flow, &mut ports));
        self.v6.each(|flow| note_ports(flow, &mut ports));
        ports
    }

    /// Gives the flows whose ways to their clients have moved the new ones. Returns how many.
    pub(super) fn follow(&self, moved: &Moved) -> u64 {
        self.v4.follow(moved) + self.v6.follow(moved)
    }

    /// Counts the connections of a service that begin to count.
    pub(super) fn count_in(&self, service: ServiceId) {
        self.v4.each(|flow| count_one(&self.v4, flow, service));
        self.v6.each(|flow| count_one(&self.v6, flow, service));
    }

    /// How many flows the daemon has removed because they were silent.
    pub fn expired(&self) -> ExpiredFlows {
        self.expired.read()
    }

    /// Removes the flows whose state is chosen.
    pub fn remove_all(&self, chosen: impl Fn(u32) -> bool) {
        self.v4.remove_all(&chosen);
        self.v6.remove_all(&chosen);
    }

    /// Where the maps contradict each other: nowhere, while no frame is under way.
    pub fn inconsistencies(&self) -> Vec<String> {
        let mut found = inconsistencies(&self.v4);
        found.extend(inconsistencies(&self.v6));
        let mut counted = HashMap::new();
        self.v4.each(|flow| add_counted(flow, &self.limits, &mut counted));
        self.v6.each(|flow| add_counted(flow, &self.limits, &mut counted));
        found.extend(self.limits.inconsistencies(&counted));
        found
    }
}

fn count_one<A: Address>(family: &Family<A>, flow: &Flow<A>, service: ServiceId) {
    const NONE: u32 = flow_state::COUNTED | flow_state::TIME_WAIT;
    if flow.service == service.0 && flow.state & NONE == 0 && family.limits.knows(flow) {
        family.count(flow);
    }
}

/// Adds a flow to the entries of `LIMITS` where it counts.
fn add_counted<A: Address>(flow: &Flow<A>, limits: &ConnectionLimits, counted: &mut HashMap<u32, u64>) {
    if flow.state & flow_state::COUNTED != 0 {
        for index in limits.places(flow) {
            let sum: &mut u64 = counted.entry(index).or_default();
            *sum = sum.wrapping_add(Limit::part(flow.state));
        }
    }
}

fn note_ports<A: Address>(flow: &Flow<A>, ports: &mut [u8]) {
    if flow.state & flow_state::TIME_WAIT == 0 {
        ports[usize::from(flow.client.dport.host())] |= port_flags::VIP;
        // Of mode `dnat` it is the client's own port. That flag only costs a lookup.
        ports[usize::from(flow.reply.dport.host())] |= port_flags::NAT;
    }
}

impl FlowCounts {
    fn add(&mut self, state: u32) {
        if state & flow_state::TIME_WAIT != 0 {
            self.time_wait += 1;
        } else if state & flow_state::ESTABLISHED != 0 {
            self.established += 1;
        } else {
            self.handshakes += 1;
        }
    }
}
