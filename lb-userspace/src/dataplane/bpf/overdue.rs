//! Exchanges that wait too long: a SYN that nothing answers, a request without a response.
//!
//! What does not happen wakes no program, so a thread looks through the
//! handshakes and, where a service has a `response_timeout`, through the
//! flows. It only reads. It tells each exchange once: those that it has told are
//! remembered as long as they wait. What was overdue before the thread began is
//! an earlier run's, which has told it.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    net::SocketAddr,
    thread,
    time::Duration,
};

use lb_common::abi::{Flow, FlowKey, flow_state, head_state, socket_addr};
use lb_core::{
    engine::Timeouts,
    io::{BackendId, Generation, L4Failure, ServiceId},
};
use tokio::sync::{mpsc, watch};
use tracing::warn;

use super::{super::actor::monotonic_ns, walk::Walker};

/// Between two looks, at least and at most. In between, a quarter of the shortest time that is watched.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

/// Of the time, one part in so many is for looking.
const LEISURE: u32 = 20;

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
    pub(super) embryos: Walker<FlowKey, Flow>,
    pub(super) flows: Walker<FlowKey, Flow>,
}

impl Watch {
    /// Starts the thread. It ends when nobody wants to hear of it any more.
    pub fn spawn(self, limits: watch::Receiver<Limits>) -> io::Result<mpsc::Receiver<Overdue>> {
        // As many as one look may find while the daemon is busy; then the thread waits.
        let (found, inbox) = mpsc::channel(1024);
        thread::Builder::new().name("overdue".to_owned()).spawn(move || self.run(&limits, &found))?;
        Ok(inbox)
    }

    fn run(mut self, limits: &watch::Receiver<Limits>, found: &mpsc::Sender<Overdue>) {
        // What waits already when this thread begins, it knows; and what of that is overdue is not news.
        let mut told = None;
        let mut failing = false;
        while !found.is_closed() {
            let began_ns = monotonic_ns();
            let limits = limits.borrow().clone();
            match self.look(&limits, told.as_ref()) {
                Ok(Look { new, known }) => {
                    failing = false;
                    for overdue in new {
                        if found.blocking_send(overdue).is_err() {
                            return;
                        }
                    }
                    told = Some(known);
                }
                Err(error) if !failing => {
                    warn!(%error, "cannot look for exchanges that wait too long");
                    failing = true;
                }
                Err(_) => {}
            }
            thread::sleep(pace(&limits).max(Duration::from_nanos(monotonic_ns() - began_ns) * LEISURE));
        }
    }

    /// `told`: whom it was told of, as long as they wait; `None` at the first look.
    fn look(&mut self, limits: &Limits, told: Option<&HashSet<Overdue>>) -> io::Result<Look> {
        let mut look = Look::default();
        let now = now_us();
        let mut note = |flow: &Flow, failure| {
            let overdue = Overdue::of(flow, failure);
            let is_over = overdue.is_over(flow, limits, now);
            match told {
                Some(told) if told.contains(&overdue) => drop(look.known.insert(overdue)),
                Some(_) if is_over => {
                    look.known.insert(overdue);
                    look.new.push(overdue);
                }
                None if is_over || is_ancient(flow, now) => drop(look.known.insert(overdue)),
                Some(_) | None => {}
            }
        };
        if limits.values().any(|of| of.connect.0 > 0) {
            self.embryos.each(|_, flow| {
                if flow.head & head_state::CONNECTING != 0 && flow.state & flow_state::OVER == 0 {
                    note(flow, L4Failure::ConnectTimeout);
                }
            })?;
        }
        if limits.values().any(|of| of.response.0 > 0) {
            self.flows.each(|_, flow| {
                let owed = flow.head & (head_state::OWED | head_state::CONTINUES) == head_state::OWED;
                let closed = flow.state & flow_state::FIN_SEEN != 0;
                if owed && flow.head & head_state::AWAITED != 0 && !closed {
                    note(flow, L4Failure::ResponseTimeout);
                }
            })?;
        }
        Ok(look)
    }
}

/// What a look through the maps has shown.
#[derive(Debug, Default)]
struct Look {
    new: Vec<Overdue>,
    /// These, and those that were told of before and wait still: the clock of 32 bits goes round in 71
    /// minutes, so that age alone would tell them again.
    known: HashSet<Overdue>,
}

impl Overdue {
    fn of(flow: &Flow, failure: L4Failure) -> Self {
        Self {
            backend: BackendId(flow.backend),
            generation: Generation(flow.generation),
            client: socket_addr(flow.to.dst, flow.to.dport),
            failure,
            began_us: flow.request_us,
        }
    }

    fn is_over(&self, flow: &Flow, limits: &Limits, now: u32) -> bool {
        let limit = limits.get(&ServiceId(flow.service)).map_or(0, |of| match self.failure {
            L4Failure::ConnectTimeout => of.connect.0,
            L4Failure::ResponseTimeout => of.response.0,
            L4Failure::ConnectRefused | L4Failure::Reset | L4Failure::NoResponse => 0,
        });
        limit > 0 && !is_ancient(flow, now) && u64::from(age_us(flow, now)) >= limit * 1000
    }
}

fn age_us(flow: &Flow, now: u32) -> u32 {
    now.wrapping_sub(flow.request_us)
}

/// Beyond half of the clock's circle a time is long ago; or still to come, as another CPU's may be that was read a moment later.
fn is_ancient(flow: &Flow, now: u32) -> bool {
    age_us(flow, now) > u32::MAX / 2
}

fn pace(limits: &Limits) -> Duration {
    let all = limits.values().flat_map(|of| [of.connect.0, of.response.0]);
    let least = all.filter(|ms| *ms > 0).min().map_or(LONGEST, |ms| Duration::from_millis(ms / 4));
    least.clamp(SHORTEST, LONGEST)
}

fn now_us() -> u32 {
    (monotonic_ns() / 1000) as u32
}
