//! The loop: takes the earliest of an input and a deadline, has the engine decide,
//! and carries its outputs to the edges.

use std::{collections::BTreeMap, time::Duration};

use lb_core::{
    engine::Engine,
    event::{Event, EventKind},
    io::{BackendId, Input, Output},
    time::Instant,
};
use tokio::{
    io::unix::AsyncFd,
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tracing::{debug, error, info, warn};

use super::{clock::Clock, status::Facts};
use crate::{
    control::{EventLog, Request},
    dataplane::{actor, bpf::HeadRing, chain},
    mirror::Heads,
    probe::Prober,
};

/// Good news of the ring waits this long at most; failures wake us at once.
const LOOK: Duration = Duration::from_millis(20);

/// How often the kernel's counters are asked for lost heads.
const COUNT: Duration = Duration::from_secs(1);

/// Heads that are read before anything else gets its turn.
const BATCH: usize = 4096;

/// Where inputs come from.
pub(super) struct Sources {
    pub(super) heads: AsyncFd<HeadRing>,
    pub(super) reports: mpsc::Receiver<actor::Report>,
    pub(super) inputs: mpsc::Receiver<Input>,
    pub(super) asked: mpsc::Receiver<Request>,
}

pub(super) struct Loop {
    engine: Engine,
    clock: Clock,
    dataplane: actor::Handle,
    prober: Prober,
    events: EventLog,
    pub(super) facts: Facts,
    heads: Heads,
    /// Plans under way that a response head caused: when that head was seen.
    caused: BTreeMap<u64, u64>,
    lost: BTreeMap<BackendId, u64>,
    look: tokio::time::Interval,
    count: tokio::time::Interval,
    counted: mpsc::Receiver<Vec<(BackendId, u64)>>,
    counts: mpsc::Sender<Vec<(BackendId, u64)>>,
}

impl Loop {
    pub(super) fn new(
        engine: Engine,
        clock: Clock,
        dataplane: actor::Handle,
        prober: Prober,
        events: EventLog,
        facts: Facts,
    ) -> Self {
        let ticks = |every| {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        // One count is asked for at a time.
        let (counts, counted) = mpsc::channel(1);
        Self {
            engine,
            clock,
            dataplane,
            prober,
            events,
            facts,
            heads: Heads::new(),
            caused: BTreeMap::new(),
            lost: BTreeMap::new(),
            look: ticks(LOOK),
            count: ticks(COUNT),
            counted,
            counts,
        }
    }

    /// Waits for the next thing to happen and deals with it. May be dropped while it waits.
    pub(super) async fn turn(&mut self, sources: &mut Sources) {
        let deadline = self.engine.next_deadline();
        let clock = self.clock;
        let sleep = async move {
            match deadline {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(report) = sources.reports.recv() => self.applied(report),
            ready = sources.heads.readable_mut() => match ready {
                Ok(mut ready) => {
                    if self.read_heads(ready.get_inner_mut()) {
                        ready.clear_ready();
                    }
                }
                Err(error) => error!(%error, "the ring of response heads cannot be watched"),
            },
            Some(input) = sources.inputs.recv() => self.handle(input),
            () = sleep => self.handle(Input::Tick),
            Some(request) = sources.asked.recv() => self.answer(request),
            _ = self.look.tick() => {
                self.read_heads(sources.heads.get_mut());
            }
            Some(lost) = self.counted.recv() => self.account_losses(lost),
            _ = self.count.tick() => self.ask_for_losses(),
        }
    }

    pub(super) fn handle(&mut self, input: Input) {
        self.handle_caused(input, None);
    }

    fn handle_caused(&mut self, input: Input, seen_ns: Option<u64>) {
        self.engine.handle(input, self.clock.now());
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Dataplane(plan) => {
                    debug!(plan = plan.id, service = plan.service.0, steps = plan.steps.len(), "plan");
                    if let Some(seen_ns) = seen_ns {
                        self.caused.insert(plan.id, seen_ns);
                    }
                    self.dataplane.apply(plan);
                }
                Output::Probe(request) => self.prober.start(request),
                Output::Event(event) => self.tell(*event),
            }
        }
    }

    fn tell(&self, event: Event) {
        let sentence = event.sentence();
        let (seq, reason) = (event.seq, event.reason.as_str());
        match event.kind {
            EventKind::Eject | EventKind::Refused | EventKind::Dataplane => {
                warn!(seq, reason, "{}: {sentence}", event.kind);
            }
            EventKind::Trial
            | EventKind::Readmit
            | EventKind::Probe
            | EventKind::Operator
            | EventKind::Weight
            | EventKind::Membership => info!(seq, reason, "{}: {sentence}", event.kind),
        }
        self.events.push(event);
    }

    fn applied(&mut self, report: actor::Report) {
        let seen_ns = self.caused.remove(&report.plan);
        if let (Some(seen_ns), true, Ok(())) = (seen_ns, report.ejects, &report.result) {
            let (first, last) = (report.first_ns - seen_ns, report.last_ns - seen_ns);
            info!(
                to_first_write_us = first / 1000,
                to_swap_us = last / 1000,
                "ejection in force: time since the deciding response was seen"
            );
            self.facts.reacted(first, last);
        }
        if let Err(failure) = &report.result {
            warn!(plan = report.plan, step = failure.index, error = failure.error, "map write failed");
        }
        self.handle(Input::Applied { plan: report.plan, result: report.result });
    }

    /// Reads what the ring holds. False: there is more.
    fn read_heads(&mut self, ring: &mut HeadRing) -> bool {
        for _ in 0..BATCH {
            let Some(record) = ring.pop() else { return true };
            let Some(reading) = self.heads.read(&record) else { continue };
            let input = Input::Outcome {
                backend: reading.backend,
                generation: reading.generation,
                outcome: reading.outcome,
                ttfb: (reading.since_request_ns > 0).then(|| Duration::from_nanos(reading.since_request_ns)),
                client: Some(reading.client),
            };
            self.handle_caused(input, Some(reading.at_ns));
        }
        false
    }

    fn answer(&self, request: Request) {
        match request {
            Request::Status(answer) => {
                let (facts, dataplane) = (self.facts.clone(), self.dataplane.clone());
                let (snapshot, clock, seq) = (self.snapshot(), self.clock, self.events.last_seq());
                // The counters are read by the dataplane's thread, which may be waiting for the kernel.
                tokio::spawn(async move {
                    let counters = match dataplane.counters().await {
                        Some(Ok(counters)) => counters,
                        Some(Err(error)) => return warn!(error = chain(&error), "cannot read the counters"),
                        None => return,
                    };
                    // Whoever asked may have gone.
                    let _ = answer.send(facts.status(snapshot, &counters, &clock, seq));
                });
            }
        }
    }

    fn snapshot(&self) -> lb_core::snapshot::Snapshot {
        self.engine.snapshot(self.now())
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn ask_for_losses(&self) {
        let (dataplane, counts) = (self.dataplane.clone(), self.counts.clone());
        tokio::spawn(async move {
            if let Some(Ok(counters)) = dataplane.counters().await {
                let lost = counters.backends.iter().map(|(id, count)| (*id, count.heads_lost)).collect();
                // Full: the last count has not been looked at yet; the next one has it all.
                let _ = counts.try_send(lost);
            }
        });
    }

    fn account_losses(&mut self, totals: Vec<(BackendId, u64)>) {
        for (backend, total) in totals {
            let before = self.lost.insert(backend, total).unwrap_or(total);
            if total > before {
                let lost = total - before;
                warn!(backend = backend.0, lost, "response heads were lost: the ring was full");
                self.handle(Input::EvidenceLost { backend, lost });
            }
        }
    }
}
