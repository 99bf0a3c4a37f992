//! The deadlines of the engine.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    ids::{BackendId, ServiceId},
    time::Instant,
};

/// At one instant sweeps come first, then the rest in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deadline {
    Sweep(ServiceId),
    /// The engine tries a failed plan again.
    Retry(ServiceId),
    Probe(BackendId),
    /// A suspect is to be confirmed.
    Confirm(BackendId),
    /// An override of a service ends, a share rises, or a drain ends.
    Alarm(ServiceId),
}

#[derive(Debug, Default)]
pub(super) struct Schedule {
    queue: BTreeSet<(Instant, Deadline)>,
    at: BTreeMap<Deadline, Instant>,
}

impl Schedule {
    /// Sets, moves or removes a deadline.
    pub(super) fn set(&mut self, deadline: Deadline, at: Option<Instant>) {
        let former = match at {
            Some(at) => self.at.insert(deadline, at),
            None => self.at.remove(&deadline),
        };
        if former == at {
            return;
        }
        if let Some(former) = former {
            self.queue.remove(&(former, deadline));
        }
        self.queue.extend(at.map(|at| (at, deadline)));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes the earliest deadline that is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(Instant, Deadline)> {
        let (at, deadline) = *self.queue.first().filter(|(at, _)| *at <= now)?;
        self.set(deadline, None);
        Some((at, deadline))
    }
}
