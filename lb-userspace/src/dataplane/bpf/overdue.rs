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
    sync::Arc,
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
/// Reading all tables takes less, by far.
const LONGEST_LOOK_US: u32 = 60_000_000;

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
    pub(super) flows: Arc<FlowTables>,
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
        // What waits already when this thread begins, it knows; and what of that is overdue is not news.
        let mut told = None;
        while !found.is_closed() {
            let began_ns = monotonic_ns();
            let limits = limits.borrow().clone();
            let Look { new, known } = self.look(&limits, told.as_ref());
            for overdue in new {
                if found.blocking_send(overdue).is_err() {
                    return;
                }
            }
            told = Some(known);
            thread::sleep(pace(&limits).max(Duration::from_nanos(monotonic_ns() - began_ns) * LEISURE));
        }
    }

    /// `told`: whom it was told of, as long as they wait; `None` at the first look.
    fn look(&self, limits: &Limits, told: Option<&HashSet<Overdue>>) -> Look {
        let mut look = Look::default();
        let watched = Watched::of(limits);
        if !watched.connect && !watched.response {
            return look;
        }
        let now = now_us();
        let mut note = |service: u16, overdue: Overdue| {
            let is_over = overdue.is_over(ServiceId(service), limits, now);
            match told {
                Some(told) if told.contains(&overdue) => drop(look.known.insert(overdue)),
                Some(_) if is_over => {
                    look.known.insert(overdue);
                    look.new.push(overdue);
                }
                None if is_over || overdue.is_ancient(now) => drop(look.known.insert(overdue)),
                Some(_) | None => {}
            }
        };
        self.flows.v4.each(|flow| {
            if let Some(failure) = watched.waits(flow) {
                note(flow.service, Overdue::of(flow, failure));
            }
        });
        self.flows.v6.each(|flow| {
            if let Some(failure) = watched.waits(flow) {
                note(flow.service, Overdue::of(flow, failure));
            }
        });
        look
    }
}

/// What a look through the tables has shown.
#[derive(Debug, Default)]
struct Look {
    new: Vec<Overdue>,
    /// These, and those that were told of before and wait still: the clock of 32 bits goes round in 71
    /// minutes, so that age alone would tell them again.
    known: HashSet<Overdue>,
}

/// Which of the times any service has a limit for.
#[derive(Clone, Copy, Debug)]
struct Watched {
    connect: bool,
    response: bool,
}

impl Watched {
    fn of(limits: &Limits) -> Self {
        Self {
            connect: limits.values().any(|of| of.connect.0 > 0),
            response: limits.values().any(|of| of.response.0 > 0),
        }
    }

    /// What a flow waits for, by how it fails.
    fn waits<A: Address>(self, flow: &Flow<A>) -> Option<L4Failure> {
        if flow.state & flow_state::OVER != 0 {
            return None;
        }
        if flow.state & flow_state::ESTABLISHED == 0 {
            let waits = self.connect && flow.head & head_state::CONNECTING != 0;
            return waits.then_some(L4Failure::ConnectTimeout);
        }
        let owed = flow.head & (head_state::OWED | head_state::CONTINUES) == head_state::OWED;
        let closed = flow.state & flow_state::CLIENT_FIN != 0;
        let waits = self.response && owed && flow.head & head_state::AWAITED != 0 && !closed;
        waits.then_some(L4Failure::ResponseTimeout)
    }
}

impl Overdue {
    fn of<A: Address>(flow: &Flow<A>, failure: L4Failure) -> Self {
        Self {
            backend: BackendId(flow.backend),
            generation: Generation(flow.generation),
            client: socket_addr(flow.client.src.wide(), flow.client.sport),
            failure,
            began_us: flow.request_us,
        }
    }

    fn is_over(&self, service: ServiceId, limits: &Limits, now: u32) -> bool {
        let limit = limits.get(&service).map_or(0, |of| match self.failure {
            L4Failure::ConnectTimeout => of.connect.0,
            L4Failure::ResponseTimeout => of.response.0,
            L4Failure::ConnectRefused | L4Failure::Reset | L4Failure::NoResponse => 0,
        });
        limit > 0 && !self.is_ancient(now) && u64::from(self.age_us(now)) >= limit * 1000
    }

    const fn age_us(&self, now: u32) -> u32 {
        match now.wrapping_sub(self.began_us) {
            // It began while the tables were being read.
            age if age > u32::MAX - LONGEST_LOOK_US => 0,
            age => age,
        }
    }

    /// Beyond half of the clock's circle a time is long ago.
    const fn is_ancient(&self, now: u32) -> bool {
        self.age_us(now) > u32::MAX / 2
    }
}

fn pace(limits: &Limits) -> Duration {
    let all = limits.values().flat_map(|of| [of.connect.0, of.response.0]);
    let least = all.filter(|ms| *ms > 0).min().map_or(LONGEST, |ms| Duration::from_millis(ms / 4));
    least.clamp(SHORTEST, LONGEST)
}

fn now_us() -> u32 {
    (monotonic_ns() / 1000) as u32
}
