//! Orders and reloads, and one backend in depth.

use std::{num::NonZeroU16, sync::Mutex};

use lb_core::io::Verb;

use super::*;
use crate::control::model::{Change, ChangeCode, Order, ProblemKind, Reloaded};

static OPERATED: Mutex<Vec<Operation>> = Mutex::new(Vec::new());

/// Plays the loop: `web/web-1` accepts orders, the floor protects `api/api-1`, and there are no others.
pub(super) fn answer(request: Request) {
    match request {
        Request::Status(_) => unreachable!("answered before"),
        Request::Backend { service, backend, connections, answer } => {
            let view = match (service.as_str(), backend.as_str()) {
                ("web", "web-1") => {
                    let mut view = fixture::view();
                    view.connections = connections.then_some(7);
                    Some(Ok(Box::new(view)))
                }
                ("web", "unread") => Some(Err(Problem {
                    kind: ProblemKind::Unavailable,
                    error: "cannot read the maps".to_owned(),
                    remedy: "be root".to_owned(),
                })),
                (_, _) => None,
            };
            drop(answer.send(view));
        }
        Request::Operate(operation, answer) => {
            let Operation { service, backend, .. } = operation.clone();
            let done = match (service.as_str(), backend.as_str()) {
                ("web", "web-1" | "unread") => Ok(()),
                ("api", "api-1") => {
                    Err(Refused::Floor { service, backend, serving: 1, left: 0, backends: 1, min: 1 })
                }
                ("web" | "api", _) => Err(Refused::NoBackend { service, backend }),
                (_, _) => Err(Refused::NoService { service }),
            };
            OPERATED.lock().expect("no test panics with it").push(operation);
            drop(answer.send(done));
        }
        Request::Explain { answer, .. } => drop(answer.send(None)),
        Request::Reload { dry_run, force, answer } => {
            let (changes, needs_restart) = (vec![added(force)], Vec::new());
            let hazards = Vec::new();
            drop(answer.send(Ok(Reloaded {
                config_generation: 3,
                changes,
                needs_restart,
                hazards,
                dry_run,
            })));
        }
    }
}

fn added(force: bool) -> Change {
    Change { code: ChangeCode::BackendAdded, says: format!("web/web-9: added, force {force}") }
}

fn order(verb: Verb) -> Order {
    Order { verb, for_ms: None, reason: None, force: false, on_behalf_of: None }
}

async fn refused(daemon: &Daemon, service: &str, backend: &str, order: &Order) -> (u16, ProblemKind, String) {
    match daemon.client().order(service, backend, order).await.expect_err("refused") {
        ClientError::Refused { status, problem } => (status, problem.kind, problem.remedy),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn an_order_reaches_the_engine_with_the_user_s_name() {
    let daemon = daemon(4);
    let weight = Verb::Weight(NonZeroU16::new(7));
    let asked = Order {
        for_ms: Some(60_000),
        reason: Some("a test of orders".to_owned()),
        force: true,
        ..order(weight)
    };
    let view = daemon.client().order("web", "web-1", &asked).await.expect("200");
    assert_eq!(view, fixture::view());
    let all = OPERATED.lock().expect("no test panics with it").clone();
    let is_its = |operation: &&Operation| operation.reason.as_deref() == Some("a test of orders");
    let done = all.iter().find(is_its).expect("carried out");
    let own = nix::unistd::User::from_uid(nix::unistd::geteuid()).expect("known").expect("known").name;
    assert_eq!((done.verb, done.force, done.actor.as_str()), (weight, true, own.as_str()));
    assert_eq!(done.duration, Some(lb_core::time::Millis(60_000)));
}

#[tokio::test]
async fn an_order_is_carried_out_when_the_maps_cannot_be_read() {
    let daemon = daemon(4);
    let read = daemon.client().backend("web", "unread", false).await.expect_err("no maps");
    assert_eq!((read.to_string().as_str(), read.remedy().as_str()), ("cannot read the maps", "be root"));
    let (status, kind, remedy) = refused(&daemon, "web", "unread", &order(Verb::Drain)).await;
    assert_eq!((status, kind), (503, ProblemKind::Unavailable));
    assert_eq!(remedy, "the order was carried out; be root");
}

#[tokio::test]
async fn an_unknown_name_is_answered_with_the_names_that_exist() {
    let daemon = daemon(16);
    let drain = order(Verb::Drain);
    let (status, kind, remedy) = refused(&daemon, "wbe", "web-1", &drain).await;
    assert_eq!((status, kind), (404, ProblemKind::UnknownService));
    assert_eq!(remedy, "did you mean `web`?");
    let (status, kind, remedy) = refused(&daemon, "web", "wbe-2", &drain).await;
    assert_eq!((status, kind), (404, ProblemKind::UnknownBackend));
    assert_eq!(remedy, "did you mean `web-2`?");
    let (_, _, remedy) = refused(&daemon, "web", "mail", &drain).await;
    assert_eq!(remedy, "its backends are web-1, web-2, web-3, web-4");

    for (service, backend, expected) in
        [("web", "nope", "its backends are"), ("nope", "web-1", "the services are")]
    {
        let error = daemon.client().backend(service, backend, false).await.expect_err("unknown");
        assert!(error.remedy().starts_with(expected), "{}", error.remedy());
    }
    let error = daemon.client().explain(([10, 0, 0, 1], 5).into(), "nope").await.expect_err("unknown");
    assert_eq!(error.remedy(), "the services are web, api");
}

#[tokio::test]
async fn the_floor_says_what_force_would_do() {
    let daemon = daemon(4);
    let (status, kind, remedy) = refused(&daemon, "api", "api-1", &order(Verb::Disable)).await;
    assert_eq!((status, kind), (409, ProblemKind::Floor));
    assert!(remedy.contains("use `--force`: then no backend would serve"), "{remedy}");
}

#[tokio::test]
async fn contradictory_orders_are_refused() {
    let daemon = daemon(4);
    let wrong = [
        Order { for_ms: Some(1), ..order(Verb::Enable) },
        Order { for_ms: Some(1), ..order(Verb::Weight(None)) },
        Order { for_ms: Some(0), ..order(Verb::Drain) },
        Order { for_ms: Some(u64::MAX), ..order(Verb::Drain) },
        Order { reason: Some("x".repeat(201)), ..order(Verb::Drain) },
        Order { reason: Some("deploy\nEJECT  web/web-2 by root".to_owned()), ..order(Verb::Drain) },
        Order { reason: Some("a \u{202e}tcejer".to_owned()), ..order(Verb::Weight(None)) },
    ];
    for order in wrong {
        let (status, kind, _) = refused(&daemon, "web", "web-1", &order).await;
        assert_eq!((status, kind), (400, ProblemKind::BadRequest), "{order:?}");
    }
}

#[tokio::test]
async fn one_backend_makes_the_round_trip() {
    let daemon = daemon(4);
    assert_eq!(daemon.client().backend("web", "web-1", false).await.expect("200"), fixture::view());
    let counted = daemon.client().backend("web", "web-1", true).await.expect("200");
    assert_eq!(counted.connections, Some(7));
}

#[tokio::test]
async fn a_reload_says_what_it_changed() {
    let daemon = daemon(4);
    for (dry_run, force) in [(true, false), (false, false), (true, true), (false, true)] {
        let reloaded = daemon.client().reload(dry_run, force).await.expect("200");
        let changes = [added(force)];
        assert_eq!((reloaded.dry_run, reloaded.changes.as_slice()), (dry_run, changes.as_slice()));
    }
}
