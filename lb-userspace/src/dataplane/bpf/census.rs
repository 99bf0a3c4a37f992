//! The census: how much each source prefix holds of a flow table and of the backends' NAT ports.
//!
//! The timeout scanner reads all flows anyway, and counts them meanwhile. Only where something is three quarters full,
//! it reads the flows once more, by source prefix.

use std::collections::{BTreeMap, HashMap};

use lb_common::{
    NO_BACKEND,
    abi::{Address, CrowdKey, Flow, MAX_CROWDED, Port, flow_state},
};

use super::flow_family::Family;

/// The space of one family, and the share of it for one source prefix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capacity {
    /// Flows that the table can hold.
    pub(super) flows: u64,
    /// NAT ports towards one address and port of a backend, of all NAT addresses.
    pub(super) nat_ports: u64,
    /// How much of either one source prefix may hold, in percent.
    pub(super) share: u8,
}

impl Capacity {
    const fn is_more_than_a_share(&self, count: u64, of: u64) -> bool {
        count * 100 > of * self.share as u64
    }
}

/// The results of a census.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// The prefixes that hold more than their share of something that is three quarters full, and how much.
    pub(super) crowded: BTreeMap<CrowdKey, u32>,
    /// Something is half full: the next census is due soon.
    pub(super) is_filling: bool,
}

/// An address and port that NAT ports lead to.
type Target = ([u64; 2], Port);

/// The flows of a family that nothing evicts, counted.
#[derive(Debug, Default)]
pub(super) struct Census {
    flows: u64,
    /// In mode `nat`, by backend id.
    nat: Vec<Option<(Target, u64)>>,
}

/// Backends of one address and port: the services have one id each for it, and its NAT ports in common.
#[derive(Debug, Default)]
struct Group {
    count: u64,
    ids: Vec<u16>,
}

impl Census {
    pub(super) fn count<A: Address>(&mut self, flow: &Flow<A>) {
        if !holds(flow) {
            return;
        }
        self.flows += 1;
        if !has_nat_port(flow) {
            return;
        }
        let id = usize::from(flow.backend);
        if self.nat.len() <= id {
            self.nat.resize(id + 1, None);
        }
        let target = (flow.reply.src.pairs(), flow.reply.sport);
        match &mut self.nat[id] {
            Some((known, count)) if *known == target => *count += 1,
            // The id was given to another backend, and the former one's flows are about to go.
            other => *other = Some((target, 1)),
        }
    }

    /// Looks at the flows again, if something is three quarters full.
    pub(super) fn findings<A: Address>(&self, family: &Family<A>, capacity: Capacity) -> Findings {
        let mut findings = Findings::default();
        if capacity.share >= 100 {
            return findings;
        }
        let full = |count: u64, of: u64, quarters: u64| count * 4 >= of * quarters;
        let groups = self.groups();
        let fullest = groups.values().map(|group| group.count).max().unwrap_or(0);
        findings.is_filling = full(self.flows, capacity.flows, 2) || full(fullest, capacity.nat_ports, 2);
        let table = full(self.flows, capacity.flows, 3);
        let groups: Vec<Group> =
            groups.into_values().filter(|group| full(group.count, capacity.nat_ports, 3)).collect();
        if table || !groups.is_empty() {
            findings.crowded = crowded(family, capacity, table, &groups);
        }
        findings
    }

    fn groups(&self) -> HashMap<Target, Group> {
        let mut groups: HashMap<Target, Group> = HashMap::new();
        for (id, (target, count)) in (0..).zip(&self.nat).filter_map(|(id, of)| Some((id, of.as_ref()?))) {
            let group = groups.entry(*target).or_default();
            group.count += count;
            group.ids.push(id);
        }
        groups
    }
}

/// Whether a flow keeps its place and its port from all others. A half-open handshake and a connection that is over do
/// not.
const fn holds<A: Address>(flow: &Flow<A>) -> bool {
    flow.state & (flow_state::ESTABLISHED | flow_state::TIME_WAIT) == flow_state::ESTABLISHED
}

fn has_nat_port<A: Address>(flow: &Flow<A>) -> bool {
    flow.reply.dst != flow.client.src
}

/// The prefixes that hold more than their share: of the table if that is asked, and of the NAT ports of these backends.
fn crowded<A: Address>(
    family: &Family<A>,
    capacity: Capacity,
    table: bool,
    groups: &[Group],
) -> BTreeMap<CrowdKey, u32> {
    let by_id: HashMap<u16, &Group> =
        groups.iter().flat_map(|group| group.ids.iter().map(move |id| (*id, group))).collect();
    let mut held: HashMap<CrowdKey, u32> = HashMap::new();
    family.each(|flow| {
        if !holds(flow) {
            return;
        }
        if table {
            *held.entry(CrowdKey::new(&flow.client.src, NO_BACKEND)).or_default() += 1;
        }
        if has_nat_port(flow)
            && let Some(first) = by_id.get(&flow.backend).and_then(|group| group.ids.first())
        {
            *held.entry(CrowdKey::new(&flow.client.src, *first)).or_default() += 1;
        }
    });
    let mut most: Vec<(CrowdKey, u32)> = held
        .into_iter()
        .filter(|(key, count)| {
            let of = if key.backend == NO_BACKEND { capacity.flows } else { capacity.nat_ports };
            capacity.is_more_than_a_share((*count).into(), of)
        })
        .collect();
    most.sort_unstable_by_key(|(_, count)| std::cmp::Reverse(*count));
    let all = most.into_iter().flat_map(|(key, count)| {
        let ids = by_id.get(&key.backend).map_or(&[NO_BACKEND][..], |group| &group.ids);
        ids.iter().map(move |id| (CrowdKey { backend: *id, ..key }, count))
    });
    // The map has no more entries. Without the smallest ones most of the rule still holds.
    all.take(MAX_CROWDED as usize).collect()
}
