//! The end of connections: what becomes of those that a backend has when it gets no new ones.
//!
//! ```text
//!                      since                              until
//!   gets new ones ───────────▶ they go on, or end at ───────────▶ what is left is reset
//!   FlowReset::Never                  their next request                 FlowReset::Now
//!       ▲                      FlowReset::Never, FlowReset::AtRequest               │
//!       └─────────────── it serves again, or is on trial ◀─────────────┘
//! ```
//!
//! A backend that was removed goes the same way, and leaves the maps once they have had its connections reset.

use std::net::SocketAddr;

use super::{backend::Backend, forwarding, service::Service};
use crate::{
    config::{Connections, OnEject},
    event::{Event, EventKind},
    ids::{BackendId, Generation},
    io::{Admit, FlowReset},
    plan::Target,
    snapshot,
    time::{Instant, Millis},
};

/// For so long after the maps say that its connections are reset a backend stays in them: whoever resets those
/// that are silent finds them by it.
const GRACE: Millis = Millis::secs(2);

/// A backend that gets no new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) since: Instant,
    /// What is left of its connections then is reset.
    pub(super) until: Instant,
    pub(super) over: bool,
}

/// A backend that was removed and that the maps still name.
pub(super) struct Leaving {
    /// `None`: an earlier run's.
    pub(super) name: Option<String>,
    pub(super) address: SocketAddr,
    pub(super) generation: Generation,
    pub(super) ending: Ending,
    /// When the maps were first seen to have its connections reset.
    reset: Option<Instant>,
    /// Nothing is wanted of it any more.
    done: bool,
}

impl Ending {
    pub(super) fn begins(policy: &Connections, now: Instant) -> Self {
        Self { since: now, until: now + policy.drain_timeout, over: false }
    }

    /// Goes on from an earlier run, with the time that is left.
    pub(super) fn goes_on(policy: &Connections, left: Millis, now: Instant) -> Self {
        let left = left.min(policy.drain_timeout);
        let until = now + left;
        let since = Instant(until.0.saturating_sub(policy.drain_timeout.0)).min(now);
        Self { since, until, over: left == Millis(0) }
    }

    /// Another `drain_timeout` holds from its beginning.
    fn adapt(&mut self, old: &Connections, new: &Connections, now: Instant) {
        self.until = Instant(self.until.0.saturating_sub(old.drain_timeout.0)) + new.drain_timeout;
        self.over &= self.until <= now;
    }

    pub(super) fn cut(&self, policy: &Connections) -> FlowReset {
        match policy.on_eject {
            OnEject::Drain | OnEject::Reset if self.over => FlowReset::Now,
            OnEject::Drain => FlowReset::Never,
            OnEject::Reset => FlowReset::AtRequest,
        }
    }

    pub(super) fn told(&self, policy: &Connections) -> snapshot::Ending {
        snapshot::Ending { since_ms: self.since, until_ms: self.until, cut: self.cut(policy) }
    }

    /// `true`: its time is over, and was not before.
    fn follow(&mut self, now: Instant) -> bool {
        let ends = !self.over && self.until <= now;
        self.over |= ends;
        ends
    }

    fn due(&self) -> Option<Instant> {
        (!self.over).then_some(self.until)
    }
}

impl Leaving {
    pub(super) fn of(backend: Backend, policy: &Connections, now: Instant) -> (BackendId, Self) {
        let ending = backend.ending.unwrap_or(Ending::begins(policy, now));
        let leaving = Self {
            name: Some(backend.config.name),
            address: backend.config.address,
            generation: backend.generation,
            ending,
            reset: None,
            done: false,
        };
        (backend.id, leaving)
    }

    /// One that an earlier run left in the maps.
    pub(super) fn adopted(
        address: SocketAddr,
        generation: Generation,
        policy: &Connections,
        now: Instant,
    ) -> Self {
        let ending = Ending::begins(policy, now);
        Self { name: None, address, generation, ending, reset: None, done: false }
    }

    /// What the maps should say of it. `None`: nothing more.
    pub(super) fn target(&self, policy: &Connections) -> Option<Target> {
        let Self { address, generation, ending, .. } = *self;
        let target = Target {
            address,
            generation,
            admit: Admit::None,
            cut: ending.cut(policy),
            quiet: false,
            budget: None,
        };
        (!self.done).then_some(target)
    }

    fn due(&self) -> Option<Instant> {
        let leaves = self.reset.map(|at| at + GRACE).filter(|_| !self.done);
        self.ending.due().or(leaves)
    }
}

impl Service {
    /// Brings the end of connections to this moment.
    pub(super) fn follow_endings(&mut self, now: Instant) {
        let panic = self.panics();
        for index in 0..self.backends.len() {
            let policy = &self.config.connections;
            let backend = &mut self.backends[index];
            match forwarding::admitted(backend, panic) {
                Admit::All | Admit::Trials => backend.ending = None,
                Admit::None => {
                    let ending = backend.ending.get_or_insert_with(|| Ending::begins(policy, now));
                    if ending.follow(now) {
                        let event = self.event(EventKind::Drained, Some(index), now);
                        self.drained(event);
                    }
                }
            }
        }
        let mut drained = Vec::new();
        for (id, leaving) in &mut self.leaving {
            let held = self.writer.applied.backends.get(id);
            if leaving.ending.follow(now) {
                drained.extend(leaving.name.clone());
            }
            if held.is_some_and(|held| held.cut == FlowReset::Now) {
                leaving.reset.get_or_insert(now);
            }
            let had_its_time = leaving.reset.is_some_and(|at| at + GRACE <= now);
            leaving.done |= had_its_time || !self.writer.names_backend(*id);
        }
        for name in drained {
            let event = self.event(EventKind::Drained, None, now);
            self.drained(Event { backend: Some(name), ..event });
        }
    }

    /// When the next of them is due.
    pub(super) fn next_ending(&self) -> Option<Instant> {
        let present = self.backends.iter().filter_map(|backend| backend.ending?.due());
        present.chain(self.leaving.values().filter_map(Leaving::due)).min()
    }

    /// Another policy holds, also of what has begun.
    pub(super) fn adapt_endings(&mut self, old: &Connections, now: Instant) {
        let present = self.backends.iter_mut().filter_map(|backend| backend.ending.as_mut());
        let leaving = self.leaving.values_mut().map(|leaving| &mut leaving.ending);
        for ending in present.chain(leaving) {
            ending.adapt(old, &self.config.connections, now);
        }
    }

    fn drained(&mut self, event: Event) {
        self.turned(event, "draining", "reset", "drain_timeout", "breaker");
    }
}
