//! The loop: takes the earliest of an input and a deadline, and gives it to the engine or to a handler.

use std::{sync::Arc, time::Duration};

use lb_common::abi::ExchangeRecord;
use lb_core::{
    io::{BackendId, ClientCounts, Input, ServiceId},
    time::Instant,
};
use tokio::{
    io::unix::AsyncFd,
    sync::{mpsc, watch},
    time::{Interval, MissedTickBehavior, interval},
};
use tracing::{error, warn};

use super::{
    driver::Driver, handlers::Handlers, lag::Lag, leaving::LeavingCounts, overflow::Overflows,
    reload::Inspected,
};
use crate::{
    control::Request,
    dataplane::{
        actor,
        bpf::{ClientsSeen, ConnectionLimits, EvidenceRing, SuccessCounts, SynAcks, TimedOut, TrialBudgets},
        interfaces::Interface,
        next_hop::Paths,
    },
    discovery::Reading,
    evidence::{self, Inputs, Intake, Timeout},
};

/// Records that are read before anything else gets its turn.
const BATCH: usize = 4096;

/// A client that was not seen for two of these periods is forgotten.
const CLIENTS_PERIOD: Duration = Duration::from_secs(60);

/// Where inputs come from.
pub(super) struct Sources {
    pub(super) ring: AsyncFd<EvidenceRing>,
    pub(super) reports: mpsc::Receiver<actor::Report>,
    pub(super) inputs: mpsc::Receiver<Input>,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) inspected: mpsc::UnboundedReceiver<Inspected>,
    pub(super) paths: watch::Receiver<Paths>,
    pub(super) interfaces: watch::Receiver<Vec<Interface>>,
    pub(super) readings: mpsc::Receiver<Reading>,
    pub(super) timeouts: mpsc::Receiver<TimedOut>,
}

/// Counts of the program, which the loop reads as its own memory.
pub(super) struct Counts {
    pub(super) success_counts: SuccessCounts,
    pub(super) syn_acks: SynAcks,
    pub(super) clients_seen: ClientsSeen,
    pub(super) trial_budgets: Arc<TrialBudgets>,
    pub(super) connection_limits: Arc<ConnectionLimits>,
}

pub(super) struct EventLoop {
    driver: Driver,
    handlers: Handlers,
    intake: Intake,
    counts: Counts,
    /// When the present period of the clients that were seen ends.
    clients_until: Duration,
    overflows: Overflows,
    leaving: LeavingCounts,
    lag: Lag,
    /// Good responses wake nobody, so the ring is also read at these moments.
    next_read: Interval,
}

impl EventLoop {
    /// Begins with giving the engine its configuration.
    pub(super) fn new(
        mut driver: Driver,
        mut handlers: Handlers,
        intake: Intake,
        counts: Counts,
        leaving: LeavingCounts,
    ) -> Self {
        handlers.configure(&mut driver);
        let mut next_read = interval(evidence::read_interval(0));
        next_read.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let clients_until = driver.clock().elapsed() + CLIENTS_PERIOD;
        let (overflows, lag) = (Overflows::default(), Lag::default());
        Self { driver, handlers, intake, counts, clients_until, overflows, leaving, lag, next_read }
    }

    /// Waits for the next thing to happen and deals with it. May be dropped while it waits.
    pub(super) async fn turn(&mut self, sources: &mut Sources) {
        let deadline = self.driver.engine().next_deadline();
        let save = self.driver.save_due();
        let clock = self.driver.clock();
        let sleep = async move {
            match deadline {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The ring comes last: under a flood of records there are always more, and everything
            // else must still get its turn.
            biased;
            Some(report) = sources.reports.recv() => {
                self.begin();
                self.driver.applied(report);
            }
            () = sleep => {
                self.begin();
                self.note_delay(deadline);
                self.read_trial_budgets();
                self.driver.handle(Input::Tick);
            }
            Some(input) = sources.inputs.recv() => {
                self.begin();
                self.receive(input);
            }
            Some(request) = sources.requests.recv() => {
                self.begin();
                self.read_success_counts();
                self.handlers.handle(request, &mut self.driver, self.lag);
            }
            Some(inspected) = sources.inspected.recv() => {
                self.begin();
                self.handlers.decide(inspected, &mut self.driver);
            }
            // Its sender lives as long as the loop, unless netlink is gone.
            Ok(()) = sources.paths.changed() => {
                self.begin();
                let paths = sources.paths.borrow_and_update().clone();
                self.handlers.follow_paths(paths, &mut self.driver);
            }
            Ok(()) = sources.interfaces.changed() => {
                self.begin();
                let interfaces = sources.interfaces.borrow_and_update().clone();
                self.handlers.follow_interfaces(&interfaces, &mut self.driver);
            }
            Some(reading) = sources.readings.recv() => {
                self.begin();
                self.discover(&[reading]);
            }
            Some(found) = sources.timeouts.recv() => {
                self.begin();
                self.timed_out(found);
            }
            () = clock.sleep_until(save) => {
                self.begin();
                self.driver.save();
            }
            () = self.leaving.due() => {
                self.begin();
                self.leaving.count(self.driver.engine(), &self.driver.edges().dataplane);
            }
            ready = sources.ring.readable_mut() => {
                self.lag.begin(clock.elapsed());
                match ready {
                    Ok(mut ready) => {
                        if self.read_ring(ready.get_inner_mut()) < BATCH {
                            ready.clear_ready();
                        }
                    }
                    Err(error) => error!(%error, "the ring of response heads cannot be watched"),
                }
            }
            _ = self.next_read.tick() => {
                self.begin();
                self.turn_clients();
                self.look_for_overflows();
                self.read_success_counts();
                match self.read_ring(sources.ring.get_mut()) {
                    // More is in the ring. It would otherwise wait for the next read, and the ring fill.
                    BATCH => self.next_read.reset_immediately(),
                    read => self.next_read.reset_after(evidence::read_interval(read)),
                }
            }
        }
        self.lag.end(self.driver.clock().elapsed());
    }

    fn begin(&mut self) {
        self.lag.begin(self.driver.clock().elapsed());
    }

    /// The loop deals with the deadline only now.
    fn note_delay(&mut self, deadline: Option<Instant>) {
        let at = self.driver.clock().elapsed();
        if let Some(deadline) = deadline {
            self.lag.note(at.saturating_sub(Duration::from_millis(deadline.0)), at);
        }
    }

    /// SIGHUP.
    pub(super) fn hang_up(&mut self) {
        self.handlers.hang_up(&self.driver);
    }

    /// Takes the first readings of discovery files. The state file has the sets from now on.
    pub(super) fn begin_discovery(&mut self, readings: &[Reading]) {
        self.discover(readings);
        self.handlers.remember(&mut self.driver);
    }

    fn discover(&mut self, readings: &[Reading]) {
        self.handlers.follow_discovery(readings, &mut self.driver);
    }

    pub(super) async fn stop(mut self) {
        self.handlers.remember(&mut self.driver);
        self.driver.stop().await;
    }

    /// Reads the records in the ring, at most [`BATCH`]. Returns their number.
    fn read_ring(&mut self, ring: &mut EvidenceRing) -> usize {
        for read in 0..BATCH {
            let Some(record) = ring.pop() else { return read };
            self.record(&record);
        }
        BATCH
    }

    /// The result of a probe or of a confirmation.
    fn receive(&mut self, mut input: Input) {
        if let Input::Confirmation { backend, answered, .. } = &mut input
            && let Some(began_ns) = self.driver.confirmation_ended(*backend)
        {
            *answered = self.counts.syn_acks.answered_since(*backend, began_ns);
        }
        self.driver.handle(input);
    }

    /// Reports the half-open backends that have used trials, before a sweep takes that for silence.
    fn read_trial_budgets(&mut self) {
        for backend in self.counts.trial_budgets.tried(self.driver.engine().trial_budgets()) {
            self.driver.handle(Input::TrialsTaken { backend });
        }
    }

    /// The clients of the service in the present period and the one before.
    fn client_counts(&self, service: ServiceId) -> Option<ClientCounts> {
        let (prefixes, addresses) = self.counts.clients_seen.seen(service);
        Some(ClientCounts { prefixes, addresses })
    }

    fn turn_clients(&mut self) {
        let now = self.driver.clock().elapsed();
        if now >= self.clients_until {
            self.clients_until = now + CLIENTS_PERIOD;
            self.counts.clients_seen.turn();
        }
    }

    fn look_for_overflows(&mut self) {
        let now = self.driver.clock().elapsed();
        for input in self.overflows.look(&self.counts.connection_limits, now) {
            self.driver.handle(input);
        }
    }

    fn record(&mut self, record: &ExchangeRecord) {
        let (client_counts, counts) =
            (self.client_counts(ServiceId(record.service)), &mut self.counts.success_counts);
        let inputs = self.intake.record(record, client_counts, |backend| counts.take(backend));
        self.give(inputs);
    }

    fn timed_out(&mut self, found: TimedOut) {
        let TimedOut { service, backend, generation, client, failure, began_us } = found;
        let timeout = Timeout { backend, generation, client, failure, began_us };
        let (client_counts, counts) = (self.client_counts(service), &mut self.counts.success_counts);
        let inputs = self.intake.timed_out(timeout, client_counts, |backend| counts.take(backend));
        self.give(inputs);
    }

    /// Gives the engine the success counts of all backends.
    fn read_success_counts(&mut self) {
        let Some(last) = self.driver.last_id() else { return };
        for id in (0..=last.0).map(BackendId) {
            let inputs = self.intake.successes(id, self.counts.success_counts.take(id));
            self.give(inputs);
        }
    }

    fn give(&mut self, inputs: Inputs) {
        for evidence in inputs {
            if let Input::EvidenceLost { backend, lost } = &evidence.input {
                warn!(backend = backend.0, lost, "response heads were lost: the ring was full");
            }
            self.driver.handle_seen(evidence.input, evidence.seen_ns);
        }
    }
}
