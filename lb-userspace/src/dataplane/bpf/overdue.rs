//! Exchanges that wait too long: a SYN that nothing answers, a request without a response.
//!
//! What does not happen wakes no program, so a thread looks through the
//! handshakes and, where a service has a `response_timeout`, through the
//! flows. It only reads. It tells each exchange once: those that it has told are
//! remembered until they are gone. What was overdue before the thread began is
//! an earlier run's, which has told it.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    net::SocketAddr,
    thread,
    time::Duration,
};

use lb_common::abi::{Address, Flow, flow_state, head_state, socket_addr};
use lb_core::{
    engine::Timeouts,
    io::{BackendId, Generation, L4Failure, ServiceId},
};
use tokio::sync::{mpsc, watch};

use super::{super::actor::monotonic_ns, flows::FlowTables};

/// Between two looks, at least and at most. In between, a quarter of the shortest time that is watched.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

/// Of the time, one part in so many is for looking.
const LEISURE: u32 = 20;

/// A handshake this much older than its time, in ticks of [`Flow::seen`], was told of long ago: its
/// microseconds may have gone round since.
const STALE_TICKS: u32 = 1800;

/// An exchange that waits too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Overdue {
    pub backend: BackendId,
    pub generation: Generation,
    pub client: SocketAddr,
    pub failure: L4Failure,
    /// When it began: [`Flow::request_us`].
    pub began_us: u32,
}

/// For how long each service waits.
pub type Limits = BTreeMap<ServiceId, Timeouts>;

/// Reads the maps; made by [`open`](super::open).
pub struct Watch {
    pub(super) flows: FlowTables,
}

impl Watch {
    /// Starts the thread. It ends when nobody wants to hear of it any more.
    pub fn spawn(self, limits: watch::Receiver<Limits>) -> io::Result<mpsc::Receiver<Overdue>> {
        // As many as one look may find while the daemon is busy; then the thread waits.
        let (found, inbox) = mpsc::channel(1024);
        thread::Builder::new().name("overdue".to_owned()).spawn(move || self.run(&limits, &found))?;
        Ok(inbox)
    }

    fn run(self, limits: &watch::Receiver<Limits>, found: &mpsc::Sender<Overdue>) {
        let mut told = HashSet::new();
        let mut before_us = now_us();
        while !found.is_closed() {
            let began_ns = monotonic_ns();
            let limits = limits.borrow().clone();
            let now = now_us();
            let overdue = self.look(&limits, now);
            // What was already overdue when this thread began is not news.
            let is_new = |of: &&(Overdue, u32)| !told.contains(&of.0) && of.1 <= now.wrapping_sub(before_us);
            for (overdue, _) in overdue.iter().filter(is_new) {
                if found.blocking_send(*overdue).is_err() {
                    return;
                }
            }
            told = overdue.into_iter().map(|(overdue, _)| overdue).collect();
            before_us = now;
            thread::sleep(pace(&limits).max(Duration::from_nanos(monotonic_ns() - began_ns) * LEISURE));
        }
    }

    /// All that is overdue, and by how many microseconds.
    fn look(&self, limits: &Limits, now: u32) -> Vec<(Overdue, u32)> {
        if limits.values().all(|of| of.connect.0 == 0 && of.response.0 == 0) {
            return Vec::new();
        }
        let mut found = Vec::new();
        let ticks = now_ticks();
        self.flows
            .v4
            .each(|flow| found.extend(waits(flow, ticks).and_then(|of| overdue(flow, of, limits, now))));
        self.flows
            .v6
            .each(|flow| found.extend(waits(flow, ticks).and_then(|of| overdue(flow, of, limits, now))));
        found
    }
}

/// What a flow waits for, by how it fails.
fn waits<A: Address>(flow: &Flow<A>, ticks: u32) -> Option<L4Failure> {
    if flow.state & flow_state::OVER != 0 {
        return None;
    }
    if flow.state & flow_state::ESTABLISHED == 0 {
        let fresh = ticks.wrapping_sub(flow.seen) < STALE_TICKS;
        return (fresh && flow.head & head_state::CONNECTING != 0).then_some(L4Failure::ConnectTimeout);
    }
    let begun = flow.head & head_state::CONTINUES != 0;
    let closed = flow.state & flow_state::CLIENT_FIN != 0;
    (flow.head & head_state::AWAITED != 0 && !begun && !closed).then_some(L4Failure::ResponseTimeout)
}

fn overdue<A: Address>(
    flow: &Flow<A>,
    failure: L4Failure,
    limits: &Limits,
    now: u32,
) -> Option<(Overdue, u32)> {
    let of = limits.get(&ServiceId(flow.service))?;
    let limit = match failure {
        L4Failure::ConnectTimeout => of.connect,
        L4Failure::ResponseTimeout => of.response,
        L4Failure::ConnectRefused | L4Failure::Reset | L4Failure::NoResponse => return None,
    };
    let limit_us = u32::try_from(limit.0.checked_mul(1000)?).ok().filter(|limit| *limit > 0)?;
    let by = now.wrapping_sub(flow.request_us).checked_sub(limit_us)?;
    // The other half of the circle is the future: another CPU's clock, read a moment later.
    if now.wrapping_sub(flow.request_us) > u32::MAX / 2 {
        return None;
    }
    let overdue = Overdue {
        backend: BackendId(flow.backend),
        generation: Generation(flow.generation),
        client: socket_addr(flow.client.src.wide(), flow.client.sport),
        failure,
        began_us: flow.request_us,
    };
    Some((overdue, by))
}

fn pace(limits: &Limits) -> Duration {
    let all = limits.values().flat_map(|of| [of.connect.0, of.response.0]);
    let least = all.filter(|ms| *ms > 0).min().map_or(LONGEST, |ms| Duration::from_millis(ms / 4));
    least.clamp(SHORTEST, LONGEST)
}

fn now_us() -> u32 {
    (monotonic_ns() / 1000) as u32
}

fn now_ticks() -> u32 {
    (monotonic_ns() >> 30) as u32
}
