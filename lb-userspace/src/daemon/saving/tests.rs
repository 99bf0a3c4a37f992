use std::sync::Arc;

use lb_core::{
    config::{Backend, Breaker, Config, Limits, Mode, NoBackend, Service, Sources},
    engine::Settings,
    io::{Input, Operation, Verb},
    snapshot::OperatorState,
};

use super::*;
use crate::state;

fn engine() -> Engine {
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
        fallback: Vec::new(),
        sources: Sources::default(),
        limits: Limits::default(),
        affinity: None,
        backends: vec![backend(1), backend(2)],
        probe: None,
        breaker: Breaker::default(),
    };
    let mut engine = Engine::new(Settings::default(), Instant(0));
    engine.handle(Input::Config(Arc::new(Config { services: vec![web] })), Instant(0));
    engine
}

fn drain(engine: &mut Engine, now: Instant) {
    let operation = Operation {
        service: "web".to_owned(),
        backend: "web-1".to_owned(),
        verb: Verb::Drain,
        duration: Some(Millis::secs(600)),
        reason: None,
        actor: "alice".to_owned(),
        force: false,
    };
    engine.operate(&operation, now).expect("the other one serves");
}

#[tokio::test]
async fn a_state_that_only_ages_is_not_written_again() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("state.json");
    let (mut engine, clock) = (engine(), Clock::start());
    let mut saving = Saving::new(Keeper::start(path.clone()), false);
    saving.save(&engine, &clock);
    assert_eq!(saving.saved.as_ref().expect("known").1, Instant(0), "there is nothing to remember");

    drain(&mut engine, clock.now());
    saving.mark_dirty();
    saving.save(&engine, &clock);
    assert_eq!(saving.due(), saving.compared + INTERVAL);
    let (written, at) = saving.saved.clone().expect("written");
    assert_eq!(written.services.len(), 1);
    // Later, nothing has changed but the time that is left.
    while clock.now() == at {
        tokio::task::yield_now().await;
    }
    saving.save(&engine, &clock);
    assert_eq!(saving.saved.as_ref().expect("known").1, at);

    saving.stop(&engine, &clock).await;
    let restored = state::load(&path, clock.unix_ms()).expect("written");
    let web_1 = &restored.state.services[0].backends[0];
    let left = web_1.operator_override.as_ref().and_then(|order| order.left).expect("it has an end");
    assert_eq!((web_1.name.as_str(), web_1.operator), ("web-1", OperatorState::Draining));
    assert!((Millis::secs(590)..=Millis::secs(600)).contains(&left), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn the_first_change_after_a_quiet_second_is_written_at_once() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("state.json");
    let (mut engine, clock) = (engine(), Clock::start());
    let mut saving = Saving::new(Keeper::start(path), false);
    // A comparison without a difference delays nothing.
    saving.save(&engine, &clock);
    drain(&mut engine, clock.now());
    saving.mark_dirty();
    assert!(saving.due() <= clock.now());
    saving.save(&engine, &clock);
    let written = saving.saved.as_ref().expect("known").1;
    assert_eq!(written, saving.compared);
    // More within that second is written together, at its end.
    saving.mark_dirty();
    assert_eq!(saving.due(), written + PACE);
    // An event that a second at most, too.
    clock.sleep_until(written + PACE).await;
    saving.save(&engine, &clock);
    assert_eq!(saving.saved.as_ref().expect("known").1, written);
    saving.mark_dirty();
    assert_eq!(saving.due(), saving.compared + PACE);
    saving.stop(&engine, &clock).await;
}
