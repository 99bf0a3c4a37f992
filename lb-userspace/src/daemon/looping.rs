//! The loop: takes the earliest of an input and a deadline, has the engine decide,
//! and carries its outputs to the edges.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use lb_common::abi::ExchangeRecord;
use lb_core::{
    engine::Engine,
    event::{Event, EventKind},
    io::{BackendId, Input, Outcome, Output},
    time::Instant,
};
use tokio::{
    io::unix::AsyncFd,
    runtime::Handle,
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};
use tracing::{debug, error, info, warn};

use super::{clock::Clock, counted::Counted, lag::Lag, reload::Configured, saving::Saving, status::Facts};
use crate::{
    control::{
        EventLog, Request,
        model::{Problem, ProblemKind, Reloaded},
    },
    dataplane::{
        actor,
        bpf::{EvidenceRing, Limits, SuccessCounts, TimedOut},
    },
    evidence::{self, Heads, Late},
    journal::Recorder,
    probe::Prober,
};

/// Heads that are read before anything else gets its turn.
const BATCH: usize = 4096;

/// Where inputs come from.
pub(super) struct Sources {
    pub(super) heads: AsyncFd<EvidenceRing>,
    pub(super) reports: mpsc::Receiver<actor::Report>,
    pub(super) inputs: mpsc::Receiver<Input>,
    pub(super) asked: mpsc::Receiver<Request>,
    pub(super) overdue: mpsc::Receiver<TimedOut>,
}

/// What the loop keeps for itself, besides the engine's state.
pub(super) struct Own {
    pub(super) facts: Facts,
    pub(super) configured: Configured,
    pub(super) saving: Saving,
    /// Good responses that are not in the ring.
    pub(super) goods: SuccessCounts,
    /// For how long exchanges may take, to whoever looks for those that take longer.
    pub(super) limits: watch::Sender<Limits>,
    /// Where to do what takes long: not on the loop's thread.
    pub(super) tasks: Handle,
}

pub(super) struct Loop {
    pub(super) engine: Engine,
    pub(super) clock: Clock,
    pub(super) dataplane: actor::Handle,
    prober: Prober,
    pub(super) recorder: Recorder,
    pub(super) events: EventLog,
    pub(super) own: Own,
    pub(super) lag: Lag,
    /// When the turn under way began to do something.
    begun: Option<Duration>,
    heads: Heads,
    timed_out: Late,
    /// Plans under way that a response head caused: when that head was seen.
    caused: BTreeMap<u64, u64>,
    losses: Losses,
    refusals: Refusals,
    counted: Counted,
    /// The highest id that any backend has had.
    last_id: Option<BackendId>,
    look: tokio::time::Interval,
}

impl Loop {
    pub(super) fn new(
        engine: Engine,
        clock: Clock,
        dataplane: actor::Handle,
        prober: Prober,
        recorder: Recorder,
        events: EventLog,
        own: Own,
    ) -> Self {
        let mut look = interval(evidence::next_look(0));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            engine,
            clock,
            dataplane,
            prober,
            recorder,
            events,
            own,
            lag: Lag::default(),
            begun: None,
            heads: Heads::new(),
            timed_out: Late::new(),
            caused: BTreeMap::new(),
            losses: Losses::default(),
            refusals: Refusals::default(),
            counted: Counted::default(),
            last_id: None,
            look,
        }
    }

    /// Waits for the next thing to happen and deals with it. May be dropped while it waits.
    pub(super) async fn turn(&mut self, sources: &mut Sources) {
        let deadline = self.engine.next_deadline();
        let save = self.own.saving.due();
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
            Some(report) = sources.reports.recv() => {
                self.begin();
                self.applied(report);
            }
            () = sleep => {
                self.begin();
                self.late(deadline);
                self.handle(Input::Tick);
            }
            Some(input) = sources.inputs.recv() => {
                self.begin();
                self.handle(input);
            }
            Some(request) = sources.asked.recv() => {
                self.begin();
                self.count_goods();
                self.answer(request);
            }
            Some(overdue) = sources.overdue.recv() => {
                self.begin();
                self.overdue(overdue);
            }
            () = clock.sleep_until(save) => {
                self.begin();
                self.own.saving.save(&self.engine, &self.clock);
            }
            ready = sources.heads.readable_mut() => {
                self.begun = Some(clock.elapsed());
                match ready {
                    Ok(mut ready) => {
                        if self.read_heads(ready.get_inner_mut()) < BATCH {
                            ready.clear_ready();
                        }
                    }
                    Err(error) => error!(%error, "the ring of response heads cannot be watched"),
                }
            }
            _ = self.look.tick() => {
                self.begin();
                self.count_goods();
                match self.read_heads(sources.heads.get_mut()) {
                    // Good news wakes nobody, so the rest would otherwise wait for the next look, and the ring fill.
                    BATCH => self.look.reset_immediately(),
                    read => self.look.reset_after(evidence::next_look(read)),
                }
            }
        }
        if let Some(begun) = self.begun.take() {
            let at = self.clock.elapsed();
            self.lag.note(at.saturating_sub(begun), at);
        }
    }

    /// From here on the others wait.
    fn begin(&mut self) {
        self.begun = Some(self.clock.elapsed());
    }

    /// The deadline is dealt with only now.
    fn late(&mut self, deadline: Option<Instant>) {
        let at = self.clock.elapsed();
        if let Some(deadline) = deadline {
            self.lag.note(at.saturating_sub(Duration::from_millis(deadline.0)), at);
        }
    }

    /// Gives the engine the configuration that holds.
    pub(super) fn configure(&mut self) {
        self.handle(Input::Config(Arc::new(self.own.configured.core().clone())));
    }

    /// SIGHUP: there is nobody to answer, but the log.
    pub(super) fn hang_up(&mut self) {
        if let Err(Problem { error, .. }) = self.reload(false) {
            error!("not reloaded, nothing changes: {error}");
        }
    }

    /// What can change without a restart: services and everything below them.
    pub(super) fn reload(&mut self, dry_run: bool) -> Result<Reloaded, Problem> {
        let file = self.own.configured.read()?;
        self.engine.fits(&file.core).map_err(|exhausted| Problem {
            kind: ProblemKind::InvalidConfig,
            error: exhausted.to_string(),
            remedy: "the maps have no room for it beside the present configuration; nothing has changed"
                .to_owned(),
        })?;
        let changes = self.own.configured.differences(&file);
        let needs_restart = self.own.configured.needs_restart(&file);
        if !dry_run {
            self.own.facts.configured(&file.core);
            self.own.configured.take(file);
            self.prober.forget_trusted();
            self.configure();
            if !needs_restart.is_empty() {
                warn!(keys = needs_restart.join(", "), "changed, and in force with a restart only");
            }
            info!(changes = changes.len(), path = %self.own.configured.path().display(), "reloaded");
        }
        let config_generation = self.snapshot().config_generation;
        Ok(Reloaded { config_generation, changes, needs_restart, dry_run })
    }

    pub(super) async fn stop(self) {
        self.own.saving.stop(&self.engine, &self.clock).await;
        self.recorder.finish();
    }

    pub(super) fn handle(&mut self, input: Input) {
        self.handle_caused(input, None);
    }

    fn handle_caused(&mut self, input: Input, seen_ns: Option<u64>) {
        let now = self.clock.now();
        let configures = matches!(input, Input::Config(_));
        let configured = self.recorder.input(&input, now);
        self.engine.handle(input, now);
        if let Some(config) = configured {
            self.recorder.configured(&config, &self.engine.snapshot(now), now);
        }
        if configures {
            self.own.limits.send_replace(self.engine.timeouts());
        }
        self.carry_out(seen_ns);
    }

    /// Takes the engine's outputs to whom they are for.
    pub(super) fn carry_out(&mut self, seen_ns: Option<u64>) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Dataplane(plan) => {
                    debug!(plan = plan.id, service = plan.service.0, steps = plan.steps.len(), "plan");
                    self.last_id = self.last_id.max(plan.highest());
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

    fn tell(&mut self, event: Event) {
        self.own.saving.stir();
        let sentence = event.sentence();
        let (seq, reason) = (event.seq, event.reason.as_str());
        match event.kind {
            EventKind::Refused => match self.refusals.count(&event) {
                Some(1) => warn!(seq, reason, "{}: {sentence}", event.kind),
                Some(count) => warn!(seq, reason, count, "{}, again: {sentence}", event.kind),
                None => debug!(seq, reason, "{}: {sentence}", event.kind),
            },
            EventKind::Eject | EventKind::Fallback | EventKind::Dataplane => {
                warn!(seq, reason, "{}: {sentence}", event.kind);
            }
            EventKind::Trial
            | EventKind::Readmit
            | EventKind::Probe
            | EventKind::Operator
            | EventKind::Weight
            | EventKind::Membership
            | EventKind::Drained => info!(seq, reason, "{}: {sentence}", event.kind),
        }
        if event.kind != EventKind::Refused {
            self.refusals.decided(&event);
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
            self.own.facts.reacted(first, last);
        }
        if let Err(failure) = &report.result {
            warn!(plan = report.plan, step = failure.index, error = failure.error, "map write failed");
        }
        self.handle(Input::Applied { plan: report.plan, result: report.result });
    }

    /// Reads what the ring holds, a batch at most: how many that were.
    fn read_heads(&mut self, ring: &mut EvidenceRing) -> usize {
        for read in 0..BATCH {
            let Some(record) = ring.pop() else { return read };
            // First what is missing, so that nothing is decided as if it were not.
            if let Some(lost) = self.losses.before(&record) {
                let backend = BackendId(record.backend);
                warn!(backend = backend.0, lost, "response heads were lost: the ring was full");
                self.handle(Input::EvidenceLost { backend, lost });
            }
            let Some(reading) = self.heads.read(&record) else { continue };
            // What came before it, as far as rates count it.
            self.count_goods_of(reading.backend);
            if !self.timed_out.ended(&reading) {
                continue;
            }
            let input = Input::Outcome {
                backend: reading.backend,
                generation: reading.generation,
                outcome: reading.outcome,
                ttfb: (reading.since_request_ns > 0).then(|| Duration::from_nanos(reading.since_request_ns)),
                client: Some(reading.client),
            };
            self.handle_caused(input, Some(reading.at_ns));
            if Counted::is_late(reading.since_request_ns) {
                self.counted.late(reading.backend, reading.generation);
            }
        }
        BATCH
    }

    /// The good responses that nobody had to be told of.
    fn count_goods(&mut self) {
        let Some(last) = self.last_id else { return };
        for id in 0..=last.0 {
            self.count_goods_of(BackendId(id));
        }
    }

    fn count_goods_of(&mut self, backend: BackendId) {
        let count = self.own.goods.take(backend);
        for input in self.counted.inputs(backend, count).into_iter().flatten() {
            self.handle(input);
        }
    }

    /// An exchange that waits too long.
    fn overdue(&mut self, overdue: TimedOut) {
        let TimedOut { backend, generation, client, failure, began_us } = overdue;
        if !self.timed_out.overdue(client, backend, began_us) {
            return;
        }
        self.count_goods_of(backend);
        let outcome = Outcome::Failure(failure);
        self.handle(Input::Outcome { backend, generation, outcome, ttfb: None, client: Some(client) });
        self.counted.late(backend, generation);
    }

    pub(super) fn snapshot(&self) -> lb_core::snapshot::Snapshot {
        self.engine.snapshot(self.now())
    }

    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }
}

/// Refusals of each backend since anything else was decided about it. One that is kept by the floor is
/// refused every few responses: `events` has them all, the log the 1st, 2nd, 4th, 8th …
#[derive(Debug, Default)]
struct Refusals(BTreeMap<(String, Option<String>), u64>);

impl Refusals {
    /// The number of this one, if the log is to have it.
    fn count(&mut self, event: &Event) -> Option<u64> {
        let count = self.0.entry((event.service.clone(), event.backend.clone())).or_default();
        *count += 1;
        count.is_power_of_two().then_some(*count)
    }

    fn decided(&mut self, event: &Event) {
        self.0.remove(&(event.service.clone(), event.backend.clone()));
    }
}

/// How many heads each CPU has said to have lost of each backend.
#[derive(Debug, Default)]
struct Losses(BTreeMap<(u16, u32), u32>);

impl Losses {
    /// Heads that were lost between the record before of that backend and CPU and this one. What was lost
    /// before the first is not counted: it may have been an earlier run's.
    fn before(&mut self, record: &ExchangeRecord) -> Option<u64> {
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
    fn the_log_has_ever_fewer_of_the_same_refusals() {
        let mut refusals = Refusals::default();
        let event = crate::control::fixture::event(1, "web");
        let told: Vec<u64> = (0..20).filter_map(|_| refusals.count(&event)).collect();
        assert_eq!(told, [1, 2, 4, 8, 16]);
        assert_eq!(refusals.count(&crate::control::fixture::event(1, "api")), Some(1), "another service");
        refusals.decided(&event);
        assert_eq!(refusals.count(&event), Some(1));
    }

    #[test]
    fn losses_are_counted_once_for_each_backend_and_cpu() {
        // SAFETY: a `ExchangeRecord` is made of integers.
        let mut record: ExchangeRecord = unsafe { std::mem::zeroed() };
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
