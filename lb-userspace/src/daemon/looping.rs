//! The loop: takes the earliest of an input and a deadline, has the engine decide,
//! and carries its outputs to the edges.

use std::{collections::BTreeMap, time::Duration};

use lb_common::abi::HeadRecord;
use lb_core::{
    config::Config,
    engine::{Engine, Exhausted},
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
    pub(super) prober: Prober,
    events: EventLog,
    pub(super) facts: Facts,
    heads: Heads,
    /// Plans under way that a response head caused: when that head was seen.
    caused: BTreeMap<u64, u64>,
    losses: Losses,
    look: tokio::time::Interval,
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
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            engine,
            clock,
            dataplane,
            prober,
            events,
            facts,
            heads: Heads::new(),
            caused: BTreeMap::new(),
            losses: Losses::default(),
            look,
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
            // The heads come last: under a flood of them there are always more, and everything
            // else must still get its turn.
            biased;
            Some(report) = sources.reports.recv() => self.applied(report),
            () = sleep => self.handle(Input::Tick),
            Some(input) = sources.inputs.recv() => self.handle(input),
            Some(request) = sources.asked.recv() => self.answer(request),
            ready = sources.heads.readable_mut() => match ready {
                Ok(mut ready) => {
                    if self.read_heads(ready.get_inner_mut()) {
                        ready.clear_ready();
                    }
                }
                Err(error) => error!(%error, "the ring of response heads cannot be watched"),
            },
            _ = self.look.tick() => {
                self.read_heads(sources.heads.get_mut());
            }
        }
    }

    pub(super) fn fits(&self, config: &Config) -> Result<(), Exhausted> {
        self.engine.fits(config)
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
            // First what is missing, so that nothing is decided as if it were not.
            if let Some(lost) = self.losses.before(&record) {
                let backend = BackendId(record.backend);
                warn!(backend = backend.0, lost, "response heads were lost: the ring was full");
                self.handle(Input::EvidenceLost { backend, lost });
            }
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
}

/// How many heads each CPU has said to have lost of each backend.
#[derive(Debug, Default)]
struct Losses(BTreeMap<(u16, u32), u32>);

impl Losses {
    /// Heads that were lost between the record before of that backend and CPU and this one. What was lost
    /// before the first is not counted: it may have been an earlier run's.
    fn before(&mut self, record: &HeadRecord) -> Option<u64> {
        let known = self.0.insert((record.backend, record.cpu), record.lost).unwrap_or(record.lost);
        match record.lost.wrapping_sub(known) {
            0 => None,
            lost => Some(lost.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_counted_once_for_each_backend_and_cpu() {
        // SAFETY: a `HeadRecord` is made of integers.
        let mut record: HeadRecord = unsafe { std::mem::zeroed() };
        let mut losses = Losses::default();
        let mut see = |backend, cpu, lost| {
            (record.backend, record.cpu, record.lost) = (backend, cpu, lost);
            losses.before(&record)
        };
        assert_eq!(see(1, 0, 5), None, "an earlier run's");
        assert_eq!(see(1, 0, 5), None);
        assert_eq!(see(1, 0, 7), Some(2));
        assert_eq!(see(1, 1, 0), None);
        assert_eq!(see(1, 1, 1), Some(1));
        assert_eq!(see(2, 0, 0), None);
        assert_eq!(see(1, 0, 7), None);
    }
}
