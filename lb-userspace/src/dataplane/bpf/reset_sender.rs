//! Resets the connections of ejected and drained backends, at both ends.
//!
//! With `on_eject = "reset"` the program answers the next request of a client by a reset. The backend then still has its
//! half of that connection, and a client that sends no request still has a whole one. A thread resets these. It sends
//! frames of its own by the interfaces that the connection uses, with the number that each end expects next: an end
//! accepts a reset only at exactly that number (RFC 9293 section 3.10.7.4). An end that expects another number answers
//! with it (RFC 5961 section 3). By then the flow is gone, and the program answers a segment without a flow by a reset.

use std::{collections::BTreeMap, io, sync::Arc, thread, time::Duration};

use lb_common::abi::{Address, Flow, flow_state, head_state};
use lb_core::io::BackendId;
use tracing::warn;

use super::{
    flow_family::Family,
    flows::FlowTables,
    idle::now_ticks,
    reset_frame::reset_frame,
    reset_targets::{ResetFlows, ResetTargets, ScanResult, Target},
    wire::Wire,
};
use crate::dataplane::actor::monotonic_ns;

/// Between two scans, while there are targets.
const PACE: Duration = Duration::from_millis(100);

/// The thread rests this many times as long as a scan took.
const REST_FACTOR: u32 = 20;

/// A connection without a pending request is idle after its backend was silent for so many ticks of 2^30 ns (about
/// seconds). Waiting loses nothing, because the program answers a request that comes meanwhile by a reset. A response
/// that pauses gets that much time: nothing here knows that it is not complete.
const IDLE_TICKS: u32 = 14;

/// Resets connections; made by [`open`](super::open).
pub struct ResetSender {
    pub(super) flows: Arc<FlowTables>,
    pub(super) targets: Arc<ResetTargets>,
}

impl ResetSender {
    /// Starts the thread. It ends with the dataplane.
    pub fn spawn(self) -> io::Result<()> {
        let wire = Wire::open()?;
        thread::Builder::new().name("reset-sender".to_owned()).spawn(move || self.run(&wire))?;
        Ok(())
    }

    fn run(self, wire: &Wire) {
        let mut failing = false;
        while let Some(targets) = self.targets.wait() {
            let began_ns = monotonic_ns();
            let mut failed = None;
            self.scan(&targets, now_ticks(), &mut |ifindex, frame| {
                failed = wire.send(ifindex, frame).err().or(failed.take());
            });
            if let Some(error) = failed.as_ref().filter(|_| !failing) {
                warn!(%error, "a connection could not be reset; each end is reset when it sends its next segment");
            }
            failing = failed.is_some();
            thread::sleep(PACE.max(Duration::from_nanos(monotonic_ns() - began_ns) * REST_FACTOR));
        }
    }

    /// Scans once, as if it were so many ticks later. For packet tests.
    pub fn scan_once(&self, later_ticks: u32, mut send: impl FnMut(u32, &[u8])) {
        let targets = self.targets.current();
        self.scan(&targets, now_ticks().wrapping_add(later_ticks), &mut send);
    }

    fn scan(&self, targets: &BTreeMap<BackendId, Target>, now: u32, send: &mut dyn FnMut(u32, &[u8])) {
        let mut found = BTreeMap::new();
        let is_current = |id, target: &Target| self.targets.is_current(id, target);
        scan_family(&self.flows.v4, targets, &is_current, now, &mut found, send);
        scan_family(&self.flows.v6, targets, &is_current, now, &mut found, send);
        self.targets.record(targets, &found);
    }
}

fn scan_family<A: Address>(
    family: &Family<A>,
    targets: &BTreeMap<BackendId, Target>,
    is_current: &dyn Fn(BackendId, &Target) -> bool,
    now: u32,
    found: &mut BTreeMap<BackendId, ScanResult>,
    send: &mut dyn FnMut(u32, &[u8]),
) {
    family.each(|flow| {
        let id = BackendId(flow.backend);
        let Some(target) = targets.get(&id).filter(|target| target.generation.0 == flow.generation) else {
            return;
        };
        if flow.state & flow_state::TIME_WAIT != 0 {
            return;
        }
        let found = found.entry(id).or_default();
        // Of a backend that serves again, only these matter.
        found.living +=
            u64::from(target.flows != ResetFlows::ClientReset || flow.state & flow_state::CLIENT_RESET != 0);
        // If the program has changed the flow since, the next scan looks at it again.
        if !is_due(flow, target.flows, now) || !is_current(id, target) || !end(family, flow) {
            return;
        }
        if flow.state & flow_state::CLIENT_RESET == 0 {
            let cause = match target.flows {
                ResetFlows::All => &mut found.resets.drained,
                ResetFlows::Idle | ResetFlows::ClientReset => &mut found.resets.idle,
            };
            *cause += 1;
            let from = (flow.sent_end, flow.client_next());
            let vlan = flow_state::vlan(flow.state);
            send(flow.ifindex, &reset_frame(&flow.link, &flow.client.reversed(), from, vlan));
        }
        if target.link.is_resolved() {
            let from = (flow.client_next(), flow.sent_end);
            send(target.ifindex, &reset_frame(&target.link, &flow.reply.reversed(), from, target.vlan));
        }
    });
}

/// Ends a flow. In mode `dnat` it rests, because without a flow another backend would get what its client still sends.
fn end<A: Address>(family: &Family<A>, flow: &Flow<A>) -> bool {
    if flow.is_preserved() { family.rest(flow, now_ticks()) } else { family.remove(flow) }
}

/// Whether a living connection of a target is reset now.
fn is_due<A: Address>(flow: &Flow<A>, flows: ResetFlows, now: u32) -> bool {
    if flow.state & flow_state::CLIENT_RESET != 0 {
        return true;
    }
    match flows {
        ResetFlows::All => true,
        ResetFlows::ClientReset => false,
        ResetFlows::Idle => is_idle(flow, now),
    }
}

/// Whether the connection has no pending request and was silent for long enough.
fn is_idle<A: Address>(flow: &Flow<A>, now: u32) -> bool {
    let read = flow.state & (flow_state::EVIDENCE | flow_state::OPAQUE) == flow_state::EVIDENCE;
    let awaits = if read {
        flow.head & head_state::AWAITED != 0
    } else {
        // At each answer of the backend the program notes where the client's next request will begin.
        flow.client_next() != flow.asked_seq
    };
    flow.state & flow_state::ESTABLISHED != 0
        && !awaits
        && now.wrapping_sub(flow.seen) as i32 >= IDLE_TICKS as i32
}
