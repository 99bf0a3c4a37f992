//! `shunt backend …`.

use std::time::Duration;

use anyhow::Context;
use lb_core::io::Verb;
use tokio::{
    signal::unix::{SignalKind, signal},
    time,
};

use super::{
    args::{self, Hold, Named, Take, Wait, Weight},
    exit::{Exit, Failure},
    out,
    palette::Palette,
    render,
};
use crate::control::{
    client::Client,
    model::{BackendView, Order},
};

/// The time between two requests for the state. Counting connections costs the daemon more.
const POLL: Duration = Duration::from_millis(100);
const COUNT: Duration = Duration::from_millis(500);

pub(super) async fn run(client: &Client, args: args::Backend) -> Result<Exit, Failure> {
    let (backend, order, wait) = match args {
        args::Backend::Drain(hold) => hold_order(hold, Verb::Drain),
        args::Backend::Disable(hold) => hold_order(hold, Verb::Disable),
        args::Backend::Eject(hold) => hold_order(hold, Verb::Eject),
        args::Backend::Enable(take) => take_order(take, Verb::Enable),
        args::Backend::Admit(take) => take_order(take, Verb::Admit),
        args::Backend::Weight(Weight { backend, weight, reset: _, term, wait }) => {
            (backend, order(Verb::Weight(weight), term.duration, term.reason, false), wait)
        }
    };
    let Named { service, backend } = &backend;
    let mut view = client.order(service, backend, &order).await?;
    if wait.wait {
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
        let drains = order.verb == Verb::Drain;
        let patience = wait.timeout.unwrap_or_else(|| patience(&view, drains));
        view = tokio::select! {
            reached = time::timeout(patience, reached(client, service, backend, drains)) => match reached {
                Ok(view) => view?,
                Err(_) => {
                    let view = client.backend(service, backend, drains).await?;
                    return Err(not_reached(&view, patience));
                }
            },
            _ = interrupt.recv() => return Err(interrupted(&view, order.verb)),
        };
    }
    out::print(&(render::changed(&view, &Palette::of_stdout()) + "\n"))?;
    Ok(Exit::Done)
}

/// How long to wait for an order: as long as the drain that it begins, and a margin.
fn patience(view: &BackendView, drains: bool) -> Duration {
    /// The daemon resets what is left within some seconds after the end of the drain.
    const MARGIN: Duration = Duration::from_secs(10);
    const WRITES: Duration = Duration::from_secs(30);
    match view.why.backend.drain.filter(|_| drains) {
        Some(drain) => Duration::from_millis(drain.until_ms.0.saturating_sub(view.t_ms)) + MARGIN,
        None => WRITES,
    }
}

/// The operator ended the wait. That takes nothing back.
fn interrupted(view: &BackendView, verb: Verb) -> Failure {
    let name = format!("{}/{}", view.why.service, view.why.backend.name);
    let undo = match verb {
        Verb::Drain | Verb::Disable => format!("`shunt backend enable {name}` takes it back"),
        Verb::Eject => format!("`shunt backend admit {name}` takes it back"),
        Verb::Enable => format!("`shunt backend drain {name}` drains it again"),
        Verb::Admit => format!("`shunt backend eject {name}` ejects it again"),
        Verb::Weight(Some(_)) => format!("`shunt backend weight {name} --reset` takes it back"),
        Verb::Weight(None) => format!("`shunt backend weight {name} WEIGHT` sets another weight"),
    };
    Failure::message(
        Exit::NotReached,
        format!("no longer waiting; the order to {verb} {name} stays in force"),
    )
    .remedy(undo)
}

fn hold_order(hold: Hold, verb: Verb) -> (Named, Order, Wait) {
    let Hold { backend, term, force, wait } = hold;
    (backend, order(verb, term.duration, term.reason, force), wait)
}

fn take_order(take: Take, verb: Verb) -> (Named, Order, Wait) {
    let Take { backend, reason, wait } = take;
    (backend, order(verb, None, reason, false), wait)
}

fn order(verb: Verb, duration: Option<Duration>, reason: Option<String>, force: bool) -> Order {
    let for_ms = duration.map(|duration| duration.as_millis() as u64);
    // sudo sets it. The daemon accepts it from root only.
    let on_behalf_of = std::env::var("SUDO_USER").ok();
    Order { verb, for_ms, reason, force, on_behalf_of }
}

/// Returns when the maps contain the change, and for a drain when the backend has no connection left.
async fn reached(
    client: &Client,
    service: &str,
    backend: &str,
    drains: bool,
) -> Result<BackendView, Failure> {
    loop {
        let view = client.backend(service, backend, drains).await?;
        if view.why.in_maps && (!drains || view.connections == Some(0)) {
            return Ok(view);
        }
        time::sleep(if drains && view.why.in_maps { COUNT } else { POLL }).await;
    }
}

fn not_reached(view: &BackendView, timeout: Duration) -> Failure {
    let name = format!("{}/{}", view.why.service, view.why.backend.name);
    let after = format!("the daemon accepted the order, but after {} s", timeout.as_secs_f64());
    match (&view.why.pending, view.connections) {
        (Some(pending), _) => Failure::message(
            Exit::NotReached,
            format!("{after} the maps do not contain it: {}", pending.error),
        )
        .remedy("the daemon keeps trying; `shunt status` shows when it has succeeded"),
        (None, Some(open)) if view.why.in_maps => {
            let error = format!("{after} {name} still has {open} connections");
            Failure::message(Exit::NotReached, error)
                .remedy(format!("it gets no new ones; `shunt why {name}` shows how many are left"))
        }
        (None, _) => Failure::message(Exit::NotReached, format!("{after} the maps do not contain it"))
            .remedy(format!("the daemon keeps trying; `shunt why {name}` shows the state")),
    }
}

#[cfg(test)]
mod tests {
    use lb_core::{io::FlowReset, snapshot::Drain, time::Instant};

    use super::*;
    use crate::control::fixture;

    #[test]
    fn a_drain_is_waited_for_until_it_is_over() {
        let mut view = fixture::view();
        let now = view.t_ms;
        let drain = |left| Drain {
            since_ms: Instant(now),
            until_ms: Instant(now + left),
            flow_reset: FlowReset::Never,
        };
        view.why.backend.drain = Some(drain(60_000));
        assert_eq!(patience(&view, true), Duration::from_secs(70));
        // One that was drained before has a part of it left.
        view.why.backend.drain = Some(drain(5_000));
        assert_eq!(patience(&view, true), Duration::from_secs(15));
        assert_eq!(patience(&view, false), Duration::from_secs(30));
        view.why.backend.drain = None;
        assert_eq!(patience(&view, true), Duration::from_secs(30));
    }

    #[test]
    fn an_interrupted_wait_says_that_the_order_stays() {
        let failure = interrupted(&fixture::view(), Verb::Drain);
        assert_eq!(failure.exit, Exit::NotReached);
        assert_eq!(
            failure.to_string(),
            "error: no longer waiting; the order to drain web/web-2 stays in force\n\
             help: `shunt backend enable web/web-2` takes it back"
        );
    }

    #[test]
    fn an_order_that_is_not_done_says_what_is_missing() {
        let mut view = fixture::view();
        view.connections = Some(12);
        let message = |view: &BackendView| not_reached(view, Duration::from_millis(1500)).to_string();
        assert_eq!(
            message(&view),
            "error: the daemon accepted the order, but after 1.5 s web/web-2 still has 12 connections\n\
             help: it gets no new ones; `shunt why web/web-2` shows how many are left"
        );
        view.why.pending = Some(fixture::pending());
        assert!(
            message(&view).contains("the maps do not contain it: TABLES[0]: no space left"),
            "{}",
            message(&view)
        );
        assert_eq!(not_reached(&view, Duration::ZERO).exit, Exit::NotReached);
    }
}
