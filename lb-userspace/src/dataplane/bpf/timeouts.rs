//! The timeout scanner: finds SYNs without a SYN-ACK and requests without a response, removes silent flows, and counts
//! who holds how many of the others.
//!
//! A packet that does not come runs no program, so a thread scans the flows. It reports each exchange whose timeout has
//! passed once: it remembers those that it has reported for as long as they wait. Timeouts that had passed before the
//! thread started belong to an earlier run, which has reported them. The thread removes flows that were silent for
//! their idle timeout, unless it still has to report something about them, and resets them at both ends. It gives back the tokens of trials that are
//! none, see [`trial_budgets`](super::trial_budgets).

use std::{
    collections::{BTreeMap, HashSet},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use lb_common::abi::{Address, Flow, flow_state, head_state, socket_addr};
use lb_core::{
    engine::Timeouts,
    io::{BackendId, Generation, L4Failure, ServiceId},
};
use tokio::sync::{mpsc, watch};
use tracing::debug;

use super::{
    census::{Census, Findings},
    crowd::Crowd,
    flow_family::Family,
    flows::FlowTables,
    idle::now_ticks,
    limit_check::{LimitCheck, Tally},
    reset_frame::reset_frame,
    reset_targets::{Hop, ResetTargets},
    trial_budgets::{TrialBudgets, is_no_trial},
    wire::Wire,
};
use crate::dataplane::{actor::monotonic_ns, counters::ExpiredFlows};

/// Between two scans: a quarter of the shortest timeout, within these limits.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// A source needs 260 000 handshakes a second to fill the default table from half full within this time.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// A scan takes far less.
const LONGEST_SCAN_US: u32 = 60_000_000;

/// The thread rests this many times as long as a scan took.
const REST_FACTOR: u32 = 20;
/// The same while a table is filling: one source could fill the rest of it between two scans.
const REST_FACTOR_WHEN_FILLING: u32 = 4;

/// The list of crowded prefixes holds for this many times as long as a scan and the rest after it, and some seconds.
const LISTS: u64 = 2 * REST_FACTOR as u64;
const LIST_TICKS: u32 = 10;

/// An exchange whose timeout has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimedOut {
    pub service: ServiceId,
    pub backend: BackendId,
    pub generation: Generation,
    pub client: SocketAddr,
    pub failure: L4Failure,
    /// When it began: [`Flow::asked_us`].
    pub began_us: u32,
}

/// The timeouts of each service.
pub type Limits = BTreeMap<ServiceId, Timeouts>;

/// Scans the flow tables; made by [`open`](super::open).
pub struct TimeoutScanner {
    pub(super) flows: Arc<FlowTables>,
    pub(super) crowd: Arc<Crowd>,
    pub(super) budgets: Arc<TrialBudgets>,
    pub(super) targets: Arc<ResetTargets>,
    pub(super) check: Mutex<LimitCheck>,
}

/// Idle connections that one scan resets. The rest waits for the next scan: so many frames at a time do not fill the
/// queue of an interface.
const RESETS: usize = 1024;

impl TimeoutScanner {
    /// Starts the thread. It ends when the receiver of its reports is dropped.
    pub fn spawn(self, limits: watch::Receiver<Limits>) -> io::Result<mpsc::Receiver<TimedOut>> {
        let wire = Wire::open()?;
        // As many as one scan may find while the daemon is busy. When the channel is full, the thread waits.
        let (found, inbox) = mpsc::channel(1024);
        thread::Builder::new().name("timeouts".to_owned()).spawn(move || self.run(&limits, &found, &wire))?;
        Ok(inbox)
    }

    fn run(self, limits: &watch::Receiver<Limits>, found: &mpsc::Sender<TimedOut>, wire: &Wire) {
        // `None`: the first scan reports nothing. An earlier run has reported what it finds.
        let mut reported = None;
        while !found.is_closed() {
            let began_ns = monotonic_ns();
            let limits = limits.borrow().clone();
            let Scan { new, known, is_filling, resets } = self.scan(&limits, reported.as_ref(), Now::read());
            for (ifindex, frame) in resets {
                if let Err(error) = wire.send(ifindex, &frame) {
                    debug!(%error, "an end of an idle connection is reset when it sends its next segment");
                }
            }
            for timed_out in new {
                if found.blocking_send(timed_out).is_err() {
                    return;
                }
            }
            reported = Some(known);
            let took = Duration::from_nanos(monotonic_ns() - began_ns);
            thread::sleep(match is_filling {
                false => pause(&limits).max(took * REST_FACTOR),
                true => SHORTEST_PAUSE.max(took * REST_FACTOR_WHEN_FILLING),
            });
        }
    }

    /// The budgets that it gives tokens back to.
    pub fn trial_budgets(&self) -> &TrialBudgets {
        &self.budgets
    }

    /// How many counts of `LIMITS` were wrong so far.
    pub fn repaired(&self) -> u64 {
        self.check.lock().unwrap_or_else(PoisonError::into_inner).repaired()
    }

    /// The flows that were removed so far.
    pub fn expired_flows(&self) -> ExpiredFlows {
        self.flows.expired()
    }

    /// Scans once. `reported`: the exchanges that were reported and still wait. `None`: this is the first scan.
    pub fn scan(&self, limits: &Limits, reported: Option<&HashSet<TimedOut>>, now: Now) -> Scan {
        let began_ns = monotonic_ns();
        let mut scan = Scan::default();
        let mut tally = Tally::begin(&self.flows.limits);
        let mut findings = self.scan_family(&self.flows.v4, limits, reported, now, &mut scan, &mut tally);
        let v6 = self.scan_family(&self.flows.v6, limits, reported, now, &mut scan, &mut tally);
        if let Some(tally) = tally {
            self.check.lock().unwrap_or_else(PoisonError::into_inner).end(&tally, &self.flows.limits);
        }
        findings.crowded.extend(v6.crowded);
        scan.is_filling = findings.is_filling || v6.is_filling;
        let lasts = (((monotonic_ns() - began_ns) * LISTS) >> 30) as u32 + LIST_TICKS;
        self.crowd.publish(findings.crowded, now.ticks.wrapping_add(lasts));
        scan
    }

    fn scan_family<A: Address>(
        &self,
        family: &Family<A>,
        limits: &Limits,
        reported: Option<&HashSet<TimedOut>>,
        now: Now,
        scan: &mut Scan,
        tally: &mut Option<Tally>,
    ) -> Findings {
        let (watched, hops) = (Watched::of(limits), self.targets.hops());
        let mut census = Census::default();
        family.each(|flow| {
            if is_no_trial(flow, now.us) && family.end_trial(flow) {
                self.budgets.give_back(BackendId(flow.backend));
            }
            let waits = watched.waits(flow).map(|failure| TimedOut::of(flow, failure));
            let to_be_reported = waits.is_some_and(|exchange| {
                let service = ServiceId(flow.service);
                !scan.note(exchange, service, limits, reported, now) && exchange.limit(service, limits) > 0
            });
            let is_over = !to_be_reported && self.flows.idle.is_over(flow, now.ticks);
            let is_open = is_open(flow);
            if is_over && !(is_open && scan.resets.len() >= 2 * RESETS) && family.expire(flow) {
                self.flows.expired.count(flow.state);
                if is_open {
                    scan.resets.extend(resets(flow, hops.get(&BackendId(flow.backend))));
                }
            } else {
                census.count(flow);
                if let Some(tally) = tally {
                    tally.see(family, flow, &self.flows.limits);
                }
            }
        });
        census.findings(family, self.crowd.capacity::<A>(family.flows.len()))
    }
}

/// Whether both ends believe in the connection, and the flow is all that joins them. In mode `dnat` the table joins them
/// as well: there a connection lives on without its flow.
fn is_open<A: Address>(flow: &Flow<A>) -> bool {
    flow.state & (flow_state::ESTABLISHED | flow_state::TIME_WAIT) == flow_state::ESTABLISHED
        && !(flow.client_closes() && flow.backend_closes())
        && !flow.is_preserved()
}

/// The frames that reset a connection at both ends, each with its interface.
fn resets<A: Address>(flow: &Flow<A>, hop: Option<&Hop>) -> impl Iterator<Item = (u32, Vec<u8>)> {
    let (client, backend) = (flow.client_next(), flow.sent_end);
    let vlan = flow_state::vlan(flow.state);
    let to_client = reset_frame(&flow.link, &flow.client.reversed(), (backend, client), vlan);
    let hop = hop.filter(|hop| hop.generation.0 == flow.generation && hop.link.is_resolved());
    let to_backend = hop.map(|hop| {
        (hop.ifindex, reset_frame(&hop.link, &flow.reply.reversed(), (client, backend), hop.vlan))
    });
    [(flow.ifindex, to_client)].into_iter().chain(to_backend)
}

/// The time, in both units of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// As [`Flow::asked_us`].
    pub us: u32,
    /// As [`Flow::seen`].
    pub ticks: u32,
}

impl Now {
    pub fn read() -> Self {
        Self { us: (monotonic_ns() / 1000) as u32, ticks: now_ticks() }
    }
}

/// The results of one scan.
#[derive(Debug, Default)]
pub struct Scan {
    /// To be reported now.
    pub new: Vec<TimedOut>,
    /// Reported now or before, and still waiting. The age alone would report them again, because the clock of 32 bits
    /// goes round in 71 minutes.
    pub known: HashSet<TimedOut>,
    /// A flow table, or the NAT ports of a backend, are half full.
    pub is_filling: bool,
    /// The frames that reset both ends of idle connections, each with the interface by which it leaves.
    pub resets: Vec<(u32, Vec<u8>)>,
}

impl Scan {
    /// Notes a waiting exchange. Returns whether it is reported now or was before.
    fn note(
        &mut self,
        exchange: TimedOut,
        service: ServiceId,
        limits: &Limits,
        reported: Option<&HashSet<TimedOut>>,
        now: Now,
    ) -> bool {
        let is_over = exchange.is_over(service, limits, now.us);
        let is_reported = match reported {
            Some(reported) if reported.contains(&exchange) => true,
            Some(_) if is_over => {
                self.new.push(exchange);
                true
            }
            None => is_over || exchange.is_ancient(now.us),
            Some(_) => false,
        };
        if is_reported {
            self.known.insert(exchange);
        }
        is_reported
    }
}

/// The timeouts that at least one service has.
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

    /// The failure that a flow is on its way to, if it waits for a packet.
    fn waits<A: Address>(self, flow: &Flow<A>) -> Option<L4Failure> {
        if flow.state & flow_state::TIME_WAIT != 0 {
            return None;
        }
        if flow.state & flow_state::ESTABLISHED == 0 {
            let waits = self.connect && flow.head & head_state::CONNECTING != 0;
            return waits.then_some(L4Failure::ConnectTimeout);
        }
        const DUE: u32 = head_state::OWED;
        const NOT_DUE: u32 = head_state::CONTINUES | head_state::UNTIMED;
        let owed = flow.head & (DUE | NOT_DUE) == DUE && flow.head & head_state::AWAITED != 0;
        let closes = flow.client_closes() || flow.backend_closes();
        // A request that the backend's stack does not have is not the backend's to answer.
        let waits = self.response && owed && flow.backend_has_all() && !closes;
        waits.then_some(L4Failure::ResponseTimeout)
    }
}

impl TimedOut {
    fn of<A: Address>(flow: &Flow<A>, failure: L4Failure) -> Self {
        Self {
            service: ServiceId(flow.service),
            backend: BackendId(flow.backend),
            generation: Generation(flow.generation),
            client: socket_addr(flow.client.src.wide(), flow.client.sport),
            failure,
            began_us: flow.asked_us,
        }
    }

    /// The service's timeout in milliseconds. 0: it has none.
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
            // It began during the scan.
            age if age > u32::MAX - LONGEST_SCAN_US => 0,
            age => age,
        }
    }

    /// More than half of the clock's circle ago.
    const fn is_ancient(&self, now: u32) -> bool {
        self.age_us(now) > u32::MAX / 2
    }
}

fn pause(limits: &Limits) -> Duration {
    let all = limits.values().flat_map(|of| [of.connect.0, of.response.0]);
    let least = all.filter(|ms| *ms > 0).min().map_or(LONGEST_PAUSE, |ms| Duration::from_millis(ms / 4));
    least.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}
