//! `shunt backend …`.

use std::time::Duration;

use lb_core::io::Verb;
use tokio::time;

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

/// Between two looks at whether it is reached. Counting connections costs the daemon more.
const LOOK: Duration = Duration::from_millis(100);
const COUNT: Duration = Duration::from_millis(500);

pub(super) async fn run(client: &Client, args: args::Backend) -> Result<Exit, Failure> {
    let (backend, order, wait) = match args {
        args::Backend::Drain(hold) => held(hold, Verb::Drain),
        args::Backend::Disable(hold) => held(hold, Verb::Disable),
        args::Backend::Eject(hold) => held(hold, Verb::Eject),
        args::Backend::Enable(take) => taken(take, Verb::Enable),
        args::Backend::Admit(take) => taken(take, Verb::Admit),
        args::Backend::Weight(Weight { backend, weight, reset: _, term, wait }) => {
            (backend, order(Verb::Weight(weight), term.duration, term.reason, false), wait)
        }
    };
    let Named { service, backend } = &backend;
    let mut view = client.order(service, backend, &order).await?;
    if wait.wait {
        let drains = order.verb == Verb::Drain;
        view = match time::timeout(wait.timeout, reached(client, service, backend, drains)).await {
            Ok(view) => view?,
            Err(_) => {
                let view = client.backend(service, backend, drains).await?;
                return Err(not_reached(&view, wait.timeout));
            }
        };
    }
    out::print(&(render::changed(&view, &Palette::of_stdout()) + "\n"))?;
    Ok(Exit::Done)
}

fn held(hold: Hold, verb: Verb) -> (Named, Order, Wait) {
    let Hold { backend, term, force, wait } = hold;
    (backend, order(verb, term.duration, term.reason, force), wait)
}

fn taken(take: Take, verb: Verb) -> (Named, Order, Wait) {
    let Take { backend, reason, wait } = take;
    (backend, order(verb, None, reason, false), wait)
}

fn order(verb: Verb, duration: Option<Duration>, reason: Option<String>, force: bool) -> Order {
    let for_ms = duration.map(|duration| duration.as_millis() as u64);
    // Set by sudo. The daemon believes it of root only.
    let on_behalf_of = std::env::var("SUDO_USER").ok();
    Order { verb, for_ms, reason, force, on_behalf_of }
}

/// When the maps say it; of a drained backend, when nobody is connected any more.
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
        time::sleep(if drains && view.why.in_maps { COUNT } else { LOOK }).await;
    }
}

fn not_reached(view: &BackendView, timeout: Duration) -> Failure {
    let name = format!("{}/{}", view.why.service, view.why.backend.name);
    let after = format!("it is accepted, but after {} s", timeout.as_secs_f64());
    match (&view.why.pending, view.connections) {
        (Some(pending), _) => {
            Failure::message(Exit::NotReached, format!("{after} the maps do not hold it: {}", pending.error))
                .remedy("the daemon goes on trying; `shunt status` shows when it holds")
        }
        (None, Some(open)) if view.why.in_maps => {
            let error = format!("{after} {name} still has {open} connections");
            Failure::message(Exit::NotReached, error)
                .remedy(format!("it gets no new ones; `shunt why {name}` counts those that are left"))
        }
        (None, _) => Failure::message(Exit::NotReached, format!("{after} the maps do not hold it"))
            .remedy(format!("the daemon goes on trying; `shunt why {name}` tells")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fixture;

    #[test]
    fn what_is_missing_is_told() {
        let mut view = fixture::view();
        view.connections = Some(12);
        let said = |view: &BackendView| not_reached(view, Duration::from_millis(1500)).to_string();
        assert_eq!(
            said(&view),
            "error: it is accepted, but after 1.5 s web/web-2 still has 12 connections\n\
             help: it gets no new ones; `shunt why web/web-2` counts those that are left"
        );
        view.why.pending = Some(fixture::pending());
        assert!(said(&view).contains("the maps do not hold it: TABLES[0]: no space left"), "{}", said(&view));
        assert_eq!(not_reached(&view, Duration::ZERO).exit, Exit::NotReached);
    }
}
