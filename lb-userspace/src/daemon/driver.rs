//! Drives the engine: gives it its inputs, records them, and carries its outputs to the edges.

use std::collections::BTreeMap;

use lb_core::{
    engine::{Engine, Refused},
    io::{BackendId, Input, Operation, Output},
    snapshot::Snapshot,
    time::Instant,
};
use tokio::sync::watch;
use tracing::{debug, warn};

use super::{clock::Clock, event_lines::EventLines, reaction::ReactionTimes, saving::Saving};
use crate::{
    control::{EventLog, model::Reactions},
    dataplane::{actor, bpf::Limits},
    journal::Recorder,
    probe::Prober,
    state::Discovered,
};

/// The edges that inputs and outputs of the engine go to.
pub(super) struct Edges {
    pub(super) dataplane: actor::Handle,
    pub(super) prober: Prober,
    pub(super) recorder: Recorder,
    pub(super) events: EventLog,
    pub(super) saving: Saving,
    /// For the timeout scanner: how long each service lets an exchange take.
    pub(super) limits: watch::Sender<Limits>,
}

pub(super) struct Driver {
    engine: Engine,
    clock: Clock,
    edges: Edges,
    lines: EventLines,
    reactions: ReactionTimes,
    /// The highest id that any backend has had.
    last_id: Option<BackendId>,
    /// When the confirmations that are under way began, in nanoseconds of `CLOCK_MONOTONIC`.
    confirming: BTreeMap<BackendId, u64>,
}

impl Driver {
    pub(super) fn new(engine: Engine, clock: Clock, edges: Edges) -> Self {
        let (lines, reactions) = (EventLines::default(), ReactionTimes::default());
        Self { engine, clock, edges, lines, reactions, last_id: None, confirming: BTreeMap::new() }
    }

    pub(super) fn handle(&mut self, input: Input) {
        self.handle_seen(input, None);
    }

    /// `seen_ns`: when the XDP program saw the segment that caused the input.
    pub(super) fn handle_seen(&mut self, input: Input, seen_ns: Option<u64>) {
        let now = self.now();
        let is_config = matches!(input, Input::Config(_));
        let config = self.edges.recorder.input(&input, now);
        self.engine.handle(input, now);
        if let Some(config) = config {
            self.edges.recorder.configured(&config, &self.engine.snapshot(now), now);
        }
        if is_config {
            self.edges.limits.send_replace(self.engine.timeouts());
        }
        self.carry_out(seen_ns);
    }

    /// The end of a confirmation. Returns when it began, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) fn confirmation_ended(&mut self, backend: BackendId) -> Option<u64> {
        self.confirming.remove(&backend)
    }

    /// An operator's order.
    pub(super) fn operate(&mut self, operation: &Operation) -> Result<(), Refused> {
        let now = self.now();
        let done = self.engine.operate(operation, now);
        // An order about nobody has changed nothing, and a replay could not place it.
        if !matches!(done, Err(Refused::NoService { .. } | Refused::NoBackend { .. })) {
            self.edges.recorder.operation(operation, now);
        }
        self.carry_out(None);
        done
    }

    /// The dataplane has finished a plan, or has failed at one of its steps.
    pub(super) fn applied(&mut self, report: actor::Report) {
        self.reactions.applied(&report);
        if let Err(failure) = &report.result {
            warn!(plan = report.plan, step = failure.index, error = failure.error, "map write failed");
        }
        self.handle(Input::Applied { plan: report.plan, result: report.result });
    }

    /// Carries each output of the engine to its edge.
    fn carry_out(&mut self, seen_ns: Option<u64>) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Dataplane(plan) => {
                    debug!(plan = plan.id, service = plan.service.0, steps = plan.steps.len(), "plan");
                    self.last_id = self.last_id.max(plan.highest());
                    if let Some(seen_ns) = seen_ns {
                        self.reactions.caused(plan.id, seen_ns);
                    }
                    self.edges.dataplane.apply(plan);
                }
                Output::Probe(request) => self.edges.prober.start(request),
                Output::Confirm(request) => {
                    self.confirming.insert(request.backend, actor::monotonic_ns());
                    self.edges.prober.confirm(request);
                }
                Output::Event(event) => {
                    self.edges.saving.mark_dirty();
                    self.lines.log(&event);
                    self.edges.events.push(*event);
                }
            }
        }
    }

    /// Writes the state file, if anything has changed.
    pub(super) fn save(&mut self) {
        self.edges.saving.save(&self.engine, &self.clock);
    }

    /// The state file holds these sets of discovery from now on.
    pub(super) fn remember(&mut self, discovered: Vec<Discovered>) {
        self.edges.saving.remember(discovered);
    }

    /// When [`save`](Self::save) is to be called next.
    pub(super) fn save_due(&self) -> Instant {
        self.edges.saving.due()
    }

    /// Writes the state file and the rest of the recording.
    pub(super) async fn stop(self) {
        self.edges.saving.stop(&self.engine, &self.clock).await;
        self.edges.recorder.finish();
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn edges(&self) -> &Edges {
        &self.edges
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.engine.snapshot(self.now())
    }

    /// How long ejections took, once there was one.
    pub(super) fn reactions(&self) -> Option<Reactions> {
        self.reactions.total()
    }

    pub(super) fn last_id(&self) -> Option<BackendId> {
        self.last_id
    }
}
