//! Runs an engine for a while: sweeps, answers, ejections and returns at each of the first backends, map
//! writes that fail now and then, and the same configuration once more.

use std::sync::Arc;

use lb_core::{
    Engine, Settings,
    config::Config,
    io::{Context, Input, L4Failure, Outcome, Output, ProbeResult, StepFailure},
    snapshot::BreakerState,
    state::State,
    time::{Instant, Millis},
};

/// Enough for an ejection and a return; a fuzzer runs this thousands of times a second.
const ROUNDS: u64 = 12;
/// Backends of each service that are given outcomes.
const FED: usize = 3;

pub(crate) struct Drive {
    engine: Engine,
    config: Arc<Config>,
    now: Instant,
    plans: u64,
}

impl Drive {
    pub(crate) fn new(config: Config, restored: Option<State>) -> Self {
        let engine = Engine::new(Settings { seed: 1, restored, ..Settings::default() }, Instant(0));
        Self { engine, config: Arc::new(config), now: Instant(0), plans: 0 }
    }

    pub(crate) fn run(mut self) -> Engine {
        self.send(Input::Config(Arc::clone(&self.config)));
        for round in 0..ROUNDS {
            self.feed(round);
            // Longer each time, so that sweeps, alarms and ejections all come to pass.
            let next = self.engine.next_deadline().unwrap_or(self.now);
            self.now = next.max(self.now + Millis(1 << round));
            self.send(Input::Tick);
            self.check();
        }
        self.send(Input::Config(Arc::clone(&self.config)));
        self.engine
    }

    fn feed(&mut self, round: u64) {
        let outcome = match round % 6 {
            0 | 1 | 5 => Outcome::Status(503),
            2 => Outcome::Failure(L4Failure::Reset),
            3 => Outcome::Opaque,
            _ => Outcome::Status(200),
        };
        let services = self.engine.snapshot(self.now).services;
        for of in services.iter().flat_map(|service| service.backends.iter().take(FED)) {
            let (backend, generation) = (of.id, of.generation);
            for _ in 0..6 {
                let ttfb = Some(std::time::Duration::from_millis(round * 100));
                self.send(Input::Outcome {
                    backend,
                    generation,
                    outcome,
                    ttfb,
                    client: None,
                    context: Context::default(),
                });
            }
            let result = ProbeResult::Status(if round % 5 == 4 { 500 } else { 200 });
            self.send(Input::Probe { backend, generation, result });
        }
    }

    fn send(&mut self, input: Input) {
        self.engine.handle(input, self.now);
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Dataplane(plan) => {
                    self.plans += 1;
                    let failure = StepFailure { index: plan.steps.len() / 2, error: "no memory".to_owned() };
                    let result = if self.plans.is_multiple_of(3) { Err(failure) } else { Ok(()) };
                    self.engine.handle(Input::Applied { plan: plan.id, result }, self.now);
                }
                Output::Probe(_) | Output::Confirm(_) | Output::Event(_) => {}
            }
        }
    }

    fn check(&self) {
        for backend in self.engine.snapshot(self.now).services.iter().flat_map(|service| &service.backends) {
            assert_eq!(backend.until_ms.is_some(), backend.breaker == BreakerState::Open, "an end");
        }
    }
}
