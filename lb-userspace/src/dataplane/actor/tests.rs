use std::{collections::VecDeque, sync::Arc};

use lb_core::{
    config::{Backend, Breaker, Config, Mode, NoBackend, Service, Sources},
    engine::{Engine, Settings},
    event::EventKind,
    io::{Input, Output, Step},
    time::Instant,
};

use super::*;
use crate::dataplane::memory::Memory;

fn config() -> Config {
    let backend = |n: u8| Backend {
        name: format!("web-{n}"),
        address: ([10, 0, 0, n], 80).into(),
        weight: 100,
        probe_address: None,
        max_connections: None,
        discovered: None,
    };
    let web = Service {
        name: "web".to_owned(),
        vip: ([203, 0, 113, 10], 80).into(),
        mode: Mode::Nat,
        no_backend: NoBackend::Reset,
        evidence: true,
        connections: Default::default(),
        limits: Default::default(),
        affinity: None,
        fallback: Vec::new(),
        sources: Sources::default(),
        backends: vec![backend(1), backend(2)],
        probe: None,
        breaker: Breaker::default(),
    };
    Config { services: vec![web] }
}

/// Plans to the thread, everything else collected.
fn drain(engine: &mut Engine, handle: &Handle) -> Vec<EventKind> {
    let mut events = Vec::new();
    while let Some(output) = engine.poll_output() {
        match output {
            Output::Dataplane(plan) => handle.apply(plan),
            Output::Event(event) => events.push(event.kind),
            Output::Probe(_) | Output::Confirm(_) => panic!("no probe is configured"),
        }
    }
    events
}

#[tokio::test]
async fn a_write_that_fails_is_reported_retried_and_announced_only_when_it_holds() {
    // The second write of the first plan fails.
    let script = VecDeque::from([None, Some("out of memory".to_owned())]);
    let (handle, mut reports) =
        spawn(Memory { script, ..Memory::default() }).expect("a thread can be started");
    let mut engine = Engine::new(Settings::default(), Instant(0));
    engine.handle(Input::Config(Arc::new(config())), Instant(0));
    assert_eq!(drain(&mut engine, &handle), [], "nothing is announced before it is in force");

    let report = reports.recv().await.expect("a report");
    let failure = report.result.clone().expect_err("the script says so");
    assert_eq!(failure.index, 1);
    assert!(failure.error.contains("out of memory"), "{}", failure.error);
    engine.handle(Input::Applied { plan: report.plan, result: report.result }, Instant(5));
    assert_eq!(drain(&mut engine, &handle), [EventKind::Dataplane]);
    let pending = engine.snapshot(Instant(5)).services[0].pending.clone().expect("status shows it");
    assert!(pending.error.contains("out of memory"));

    let retry = engine.next_deadline().expect("it will be tried again");
    assert_eq!(retry, pending.next_try_ms);
    engine.handle(Input::Tick, retry);
    drain(&mut engine, &handle);
    let report = reports.recv().await.expect("a report");
    assert_eq!(report.result, Ok(()));
    engine.handle(Input::Applied { plan: report.plan, result: report.result }, retry);
    let events = drain(&mut engine, &handle);
    assert!(events.contains(&EventKind::Membership) && events.contains(&EventKind::Dataplane), "{events:?}");
    assert_eq!(engine.snapshot(retry).services[0].pending, None);
}

#[tokio::test]
async fn steps_are_carried_out_in_order_and_stop_at_the_first_failure() {
    let script = VecDeque::from([None, Some("no".to_owned())]);
    let mut memory = Memory { script, ..Memory::default() };
    let step = |id| Step::RemoveBackend { id: BackendId(id) };
    let plan = Plan { id: 7, service: lb_core::io::ServiceId(0), steps: vec![step(1), step(2), step(3)] };
    let report = carry_out(&mut memory, &plan);
    assert_eq!(memory.done, [step(1)]);
    assert_eq!(report.result.expect_err("the script says so").index, 1);
    assert!(report.first_ns > 0 && report.last_ns >= report.first_ns);
}
