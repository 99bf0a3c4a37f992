//! Brings a service to the present moment before its maps are written: whether its fallback is in use, whether
//! it panics, and which drains are over.

use super::{
    drain::Drain,
    members::{self, Members},
    service::Service,
};
use crate::{
    codes::EventReason,
    event::{Event, EventKind},
    io::Admit,
    states::Panic,
    time::Instant,
};

const USED: &str = "used";
const UNUSED: &str = "unused";

/// Records what follows from the states of the backends at `now`.
pub(super) fn follow(service: &mut Service, now: Instant) {
    let members = Members::of(&service.backends, &service.config);
    follow_fallback(service, &members, now);
    follow_panic(service, &members, now);
    follow_drains(service, &members, now);
}

/// When [`follow`] has something to do next.
pub(super) fn due(service: &Service) -> Option<Instant> {
    let present = service.backends.iter().filter_map(|backend| backend.drain?.due());
    present.chain(service.leaving.due()).min()
}

/// Reports that the fallback comes into use, or that its use is over.
fn follow_fallback(service: &mut Service, members: &Members, now: Instant) {
    let used = !service.retired && members.on_fallback();
    if used == service.fallback_used {
        return;
    }
    service.fallback_used = used;
    let (from, to, reason) = match (used, members.serving().is_empty()) {
        (true, _) => (UNUSED, USED, EventReason::NobodyServes),
        (false, false) => (USED, UNUSED, EventReason::OthersServe),
        (false, true) => (USED, UNUSED, EventReason::FallbackOut),
    };
    let actor = last_actor(service);
    let event = service.event(EventKind::Fallback, None, now);
    service.report(event, from, to, reason, &actor);
}

/// Reports that a panic begins, changes or ends.
fn follow_panic(service: &mut Service, members: &Members, now: Instant) {
    const CALM: &str = "calm";
    let panic = members.panic().filter(|_| !service.retired);
    if panic == service.panic {
        return;
    }
    let words = |panic: Option<Panic>| panic.map_or(CALM.to_owned(), |panic| panic.to_string());
    let (from, to) = (words(std::mem::replace(&mut service.panic, panic)), words(panic));
    let reason = panic.map_or(EventReason::EnoughServe, EventReason::from);
    let actor = last_actor(service);
    let event = service.event(EventKind::Panic, None, now);
    service.report(event, from, to, reason, &actor);
}

/// The actor of the last decision, which has caused what follows from it.
fn last_actor(service: &Service) -> String {
    service.decided.last().map_or("config".to_owned(), |event| event.actor.clone())
}

fn follow_drains(service: &mut Service, members: &Members, now: Instant) {
    for index in 0..service.backends.len() {
        let policy = &service.config.connections;
        let backend = &mut service.backends[index];
        match members::admitted(backend, members.panic()) {
            Admit::All | Admit::Trials => backend.drain = None,
            Admit::None => {
                let drain = backend.drain.get_or_insert_with(|| Drain::begin(policy, now));
                if drain.finish(now) {
                    let event = service.event(EventKind::Drained, Some(index), now);
                    report_drained(service, event);
                }
            }
        }
    }
    for name in service.leaving.follow(&service.writer, now) {
        let event = service.event(EventKind::Drained, None, now);
        report_drained(service, Event { backend: Some(name), ..event });
    }
}

fn report_drained(service: &mut Service, event: Event) {
    service.report(event, "draining", "reset", EventReason::DrainTimeout, "breaker");
}
