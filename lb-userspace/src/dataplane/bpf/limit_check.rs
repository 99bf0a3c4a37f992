//! Compares the counts of `LIMITS` with the flows, and repairs them.
//!
//! The timeout scanner reads all flows anyway. Connections begin and end meanwhile, so a difference means something only
//! of an entry where nothing has moved, and only if several scans find the same one: a CPU may be between the two
//! halves of its work.

use std::collections::{BTreeSet, HashMap};

use lb_common::abi::{Address, Flow, Limit, flow_state};
use lb_core::io::ServiceId;
use tracing::warn;

use super::{connection_limits::ConnectionLimits, flow_family::Family};

/// So many scans in a row must find the same difference.
const SCANS: u32 = 3;

/// The findings of the scans.
#[derive(Debug, Default)]
pub(super) struct LimitCheck {
    suspects: HashMap<u32, Difference>,
    /// Counts that were wrong.
    repaired: u64,
}

/// The content of an entry that differs from the flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Difference {
    open: u64,
    begun: u64,
    flows: u64,
    scans: u32,
}

/// The flows of one scan, counted.
pub(super) struct Tally {
    /// The services whose connections count.
    services: BTreeSet<ServiceId>,
    before: Vec<(u64, u64)>,
    flows: HashMap<u32, u64>,
}

impl Tally {
    /// `None`: nobody has a limit.
    pub(super) fn begin(limits: &ConnectionLimits) -> Option<Self> {
        let of = |index| {
            let Limit { open, begun, .. } = limits.entry(index);
            (open, begun)
        };
        let services = limits.services();
        let counts = !services.is_empty();
        counts.then(|| Self {
            services,
            before: (0..Limit::ENTRIES).map(of).collect(),
            flows: HashMap::new(),
        })
    }

    /// Counts a flow that counts, and has one counted that should.
    pub(super) fn see<A: Address>(&mut self, family: &Family<A>, flow: &Flow<A>, limits: &ConnectionLimits) {
        if flow.state & flow_state::TIME_WAIT != 0 {
            return;
        }
        let counted = match (flow.state & flow_state::COUNTED != 0, limits.knows(flow)) {
            // Its backend is gone, and with it the connection.
            (true, false) => {
                family.count_off(flow);
                false
            }
            // It began when its service had no limit.
            (false, true) => self.services.contains(&ServiceId(flow.service)) && family.count(flow),
            (counted, _) => counted,
        };
        if counted {
            for index in limits.places(flow) {
                let sum = self.flows.entry(index).or_default();
                *sum = sum.wrapping_add(Limit::part(flow.state));
            }
        }
    }
}

impl LimitCheck {
    /// How many counts were wrong so far.
    pub(super) const fn repaired(&self) -> u64 {
        self.repaired
    }

    /// At the end of a scan.
    pub(super) fn end(&mut self, tally: &Tally, limits: &ConnectionLimits) {
        let mut suspects = HashMap::new();
        for (index, before) in (0..).zip(&tally.before) {
            let Limit { open, begun, .. } = limits.entry(index);
            let flows = tally.flows.get(&index).copied().unwrap_or(0);
            if (open, begun) != *before || open == flows {
                continue;
            }
            let found = Difference { open, begun, flows, scans: 1 };
            let scans = match self.suspects.get(&index) {
                Some(last) if Difference { scans: 1, ..*last } == found => last.scans + 1,
                _ => 1,
            };
            if scans < SCANS {
                suspects.insert(index, Difference { scans, ..found });
                continue;
            }
            warn!(
                index,
                counted = Limit::connections(open),
                flows = Limit::connections(flows),
                "a count of connections was wrong, as after a daemon that was killed: counted again"
            );
            limits.change(index, flows.wrapping_sub(open));
            self.repaired += 1;
        }
        self.suspects = suspects;
    }
}
