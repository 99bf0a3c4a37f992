//! The cost of the engine: time an input in a storm, and a sweep and a snapshot of a thousand services.
//!
//! `cargo run --release --package lb-core --example cost`

use std::{
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use lb_core::{
    Engine, Settings,
    config::{Backend, Breaker, Config, Limits, Mode, NoBackend, Service, Sources},
    io::{Input, Outcome, Output},
    time::{Instant, Millis},
};

fn main() {
    const INPUTS: u64 = 60_000;
    let mut storm = Bench::new(1, 200);
    let took = best(|round| storm.flap((round - 1) * INPUTS..round * INPUTS));
    let (each, events) = (took.as_nanos() / u128::from(INPUTS), storm.events);
    println!(
        "1 service x 200 backends, flapping: {each} ns an input ({events} events of {} inputs)",
        10 * INPUTS
    );

    for (services, backends) in [(1000, 16), (1, 1000)] {
        let mut bench = Bench::new(services, backends);
        let sweep = best(|round| bench.send(Input::Tick, Instant(round * 1000)));
        let snapshot = best(|_| assert_eq!(bench.engine.snapshot(bench.now).services.len(), services));
        println!(
            "{services} services x {backends} backends: a sweep of all {sweep:?}, a snapshot {snapshot:?}"
        );
    }
}

/// The quickest of ten runs. Other programs on the machine only add time.
fn best(mut act: impl FnMut(u64)) -> Duration {
    (1..=10).map(|round| timed(|| act(round))).min().expect("ten rounds")
}

#[expect(clippy::disallowed_methods, reason = "a benchmark owns a clock")]
fn timed(act: impl FnOnce()) -> Duration {
    let start = std::time::Instant::now();
    act();
    start.elapsed()
}

struct Bench {
    engine: Engine,
    now: Instant,
    events: u64,
}

impl Bench {
    fn new(services: usize, backends: usize) -> Self {
        let backend = |service: usize, index: usize| Backend {
            name: format!("b{index}"),
            address: SocketAddr::from((
                Ipv4Addr::from(0x0a00_0000 + (service * backends + index) as u32),
                80,
            )),
            weight: 100,
            probe_address: None,
            max_connections: None,
            discovered: None,
        };
        let service = |service: usize| Service {
            name: format!("s{service}"),
            vip: SocketAddr::from((Ipv4Addr::from(0xcb00_0000 + service as u32), 80)),
            mode: Mode::Nat,
            no_backend: NoBackend::Reset,
            evidence: true,
            connections: Default::default(),
            fallback: Vec::new(),
            sources: Sources::default(),
            limits: Limits::default(),
            affinity: None,
            backends: (0..backends).map(|index| backend(service, index)).collect(),
            probe: None,
            breaker: Breaker {
                consecutive_5xx: 3,
                error_rate_threshold: 50,
                success_rate_stdev_factor: 1900,
                base_ejection_time: Millis(500),
                interval: Millis(1000),
                max_ejection_time: Millis(1500),
                ..Breaker::default()
            },
        };
        let config = Arc::new(Config { services: (0..services).map(service).collect() });
        let engine = Engine::new(Settings::default(), Instant(0));
        let mut bench = Self { engine, now: Instant(0), events: 0 };
        bench.send(Input::Config(config), Instant(0));
        bench
    }

    /// Three answers in a row of one backend after the other, each second the other half of them bad.
    fn flap(&mut self, inputs: Range<u64>) {
        let snapshot = self.engine.snapshot(self.now);
        let backends: Vec<_> =
            snapshot.services[0].backends.iter().map(|of| (of.id, of.generation)).collect();
        for input in inputs {
            // 10 000 a second.
            let now = Instant(input / 10);
            let index = (input / 3 * 7) as usize % backends.len();
            let (backend, generation) = backends[index];
            let bad = (index as u64 + now.0 / 1000).is_multiple_of(2);
            let outcome = Outcome::Status(if bad { 503 } else { 200 });
            self.send(Input::outcome(backend, generation, outcome), now);
        }
    }

    fn send(&mut self, input: Input, now: Instant) {
        self.now = now;
        self.engine.handle(input, now);
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Dataplane(plan) => {
                    self.engine.handle(Input::Applied { plan: plan.id, result: Ok(()) }, now);
                }
                Output::Event(_) => self.events += 1,
                Output::Probe(_) | Output::Confirm(_) => {}
            }
        }
    }
}
