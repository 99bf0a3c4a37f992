//! What waits too long: a SYN that nothing answers, a request without a response, a connection that is silent.
//!
//! What does not happen wakes no program, so a thread looks through the flows. Exchanges that are overdue it
//! tells, each once: those that it has told are remembered as long as they wait. What was overdue before the
//! thread began is an earlier run's, which has told it. Flows that are silent for too long it ends, but none
//! of which there is still something to be told.

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

use super::{
    super::actor::monotonic_ns,
    flows::{Family, FlowTables, now_ticks},
    idle::ExpiredFlows,
};

/// Between two looks, at least and at most. In between, a quarter of the shortest time that is watched.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);
/// Reading all tables takes less, by far.
const LONGEST_LOOK_US: u32 = 60_000_000;

/// Of the time, one part in so many is for looking.
const LEISURE: u32 = 20;

/// An exchange that waits too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimedOut {
    pub backend: BackendId,
    pub generation: Generation,
    pub client: SocketAddr,
    pub failure: L4Failure,
    /// When it began: [`Flow::asked_us`].
    pub began_us: u32,
}

/// For how long each service waits.
pub type Limits = BTreeMap<ServiceId, Timeouts>;

/// Reads the flow tables, and ends what is silent in them; made by [`open`](super::open).
pub struct Watch {
    pub(super) flows: Arc<FlowTables>,
}

impl Watch {
    /// Starts the thread. It ends when nobody wants to hear of it any more.
    pub fn spawn(self, limits: watch::Receiver<Limits>) -> io::Result<mpsc::Receiver<TimedOut>> {
        // As many as one look may find while the daemon is busy; then the thread waits.
        let (found, inbox) = mpsc::channel(1024);
        thread::Builder::new().name("overdue".to_owned()).spawn(move || self.run(&limits, &found))?;
        Ok(inbox)
    }

    fn run(self, limits: &watch::Receiver<Limits>, found: &mpsc::Sender<TimedOut>) {
        // What waits already when this thread begins, it knows; and what of that is overdue is not news.
        let mut told = None;
        while !found.is_closed() {
            let began_ns = monotonic_ns();
            let limits = limits.borrow().clone();
            let Look { new, known } = self.look(&limits, told.as_ref(), Now::read());
            for overdue in new {
                if found.blocking_send(overdue).is_err() {
                    return;
                }
            }
            told = Some(known);
            thread::sleep(pace(&limits).max(Duration::from_nanos(monotonic_ns() - began_ns) * LEISURE));
        }
    }

    /// What it has ended so far.
    pub fn forgotten(&self) -> ExpiredFlows {
        self.flows.forgotten()
    }

    /// `told`: whom it was told of, as long as they wait; `None` at the first look.
    pub fn look(&self, limits: &Limits, told: Option<&HashSet<TimedOut>>, now: Now) -> Look {
        let mut look = Look::default();
        self.look_at(&self.flows.v4, limits, told, now, &mut look);
        self.look_at(&self.flows.v6, limits, told, now, &mut look);
        look
    }

    fn look_at<A: Address>(
        &self,
        family: &Family<A>,
        limits: &Limits,
        told: Option<&HashSet<TimedOut>>,
        now: Now,
        look: &mut Look,
    ) {
        let watched = Watched::of(limits);
        family.each(|flow| {
            let waits = watched.waits(flow).map(|failure| TimedOut::of(flow, failure));
            let to_be_told = waits.is_some_and(|overdue| {
                let service = ServiceId(flow.service);
                !look.note(overdue, service, limits, told, now) && overdue.limit(service, limits) > 0
            });
            if !to_be_told && self.flows.idle.is_over(flow, now.ticks) && family.forget(flow) {
                self.flows.forgotten.count(flow.state);
            }
        });
    }
}

/// The time, by both clocks of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Of [`Flow::asked_us`].
    pub us: u32,
    /// Of [`Flow::seen`].
    pub ticks: u32,
}

impl Now {
    pub fn read() -> Self {
        Self { us: (monotonic_ns() / 1000) as u32, ticks: now_ticks() }
    }
}

/// What a look through the tables has shown.
#[derive(Debug, Default)]
pub struct Look {
    pub new: Vec<TimedOut>,
    /// These, and those that were told of before and wait still: the clock of 32 bits goes round in 71
    /// minutes, so that age alone would tell them again.
    pub known: HashSet<TimedOut>,
}

impl Look {
    /// Whether it is told, now or before.
    fn note(
        &mut self,
        overdue: TimedOut,
        service: ServiceId,
        limits: &Limits,
        told: Option<&HashSet<TimedOut>>,
        now: Now,
    ) -> bool {
        let is_over = overdue.is_over(service, limits, now.us);
        let is_told = match told {
            Some(told) if told.contains(&overdue) => true,
            Some(_) if is_over => {
                self.new.push(overdue);
                true
            }
            None => is_over || overdue.is_ancient(now.us),
            Some(_) => false,
        };
        if is_told {
            self.known.insert(overdue);
        }
        is_told
    }
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
        if flow.state & flow_state::TIME_WAIT != 0 {
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

impl TimedOut {
    fn of<A: Address>(flow: &Flow<A>, failure: L4Failure) -> Self {
        Self {
            backend: BackendId(flow.backend),
            generation: Generation(flow.generation),
            client: socket_addr(flow.client.src.wide(), flow.client.sport),
            failure,
            began_us: flow.asked_us,
        }
    }

    /// For how long a service waits, in milliseconds. 0: nobody does.
    fn limit(&self, service: ServiceId, limits: &Limits) -> u64 {
        limits.get(&service).map_or(0, |of| match self.failure {
            L4Failure::ConnectTimeout => of.connect.0,
            L4Failure::ResponseTimeout => of.response.0,
            L4Failure::ConnectRefused | L4Failure::Reset | L4Failure::NoResponse => 0,
        })
    }

    fn is_over(&self, service: ServiceId, limits: &Limits, now: u32) -> bool {
        let limit = self.limit(service, limits);
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
