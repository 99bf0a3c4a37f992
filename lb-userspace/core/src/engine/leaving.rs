//! Removed backends: the configuration no longer has them, and the maps still do.
//!
//! A removed backend drains like any other. It leaves the maps when it has no connection left, or some time after they
//! reset its connections.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{backend::Backend, drain::Drain, writer::Writer};
use crate::{
    config::{Connections, OnOut},
    ids::{Adopted, BackendId, Generation},
    io::{Admit, FlowReset},
    plan::Target,
    snapshot::LeavingSnapshot,
    time::{Instant, Millis},
};

/// A backend stays in the maps for this long after they reset its connections. The reset sender finds the
/// silent connections of a backend by its entry there.
const GRACE: Millis = Millis::secs(2);

/// A backend leaves the maps after so many counts in a row without a connection. A SYN that came just before it got no
/// new ones may not be in the flow table at the first.
const EMPTY_COUNTS: u32 = 2;

/// One removed backend.
struct Removed {
    /// `None`: an earlier run removed it.
    name: Option<String>,
    address: SocketAddr,
    generation: Generation,
    drain: Drain,
    /// The breaker or the probe had taken it out before.
    had_failed: bool,
    /// When the maps were first seen to reset its connections.
    reset: Option<Instant>,
    /// Counts in a row that found no connection.
    empty: u32,
    /// Its entry may leave the maps.
    done: bool,
}

/// The removed backends of one service.
#[derive(Default)]
pub(super) struct Leaving {
    backends: BTreeMap<BackendId, Removed>,
}

impl Leaving {
    pub(super) fn is_empty(&self) -> bool {
        self.backends.is_empty()
    }

    /// Takes a backend that the configuration no longer has.
    pub(super) fn add(&mut self, backend: Backend, policy: &Connections, now: Instant) {
        let had_failed = backend.has_failed();
        let removed = Removed {
            name: Some(backend.config.name),
            address: backend.config.address,
            generation: backend.generation,
            had_failed,
            drain: backend.drain.unwrap_or(Drain::begin(policy, now)),
            reset: None,
            empty: 0,
            done: false,
        };
        self.backends.insert(backend.id, removed);
    }

    /// Takes a backend that an earlier run left in the maps.
    pub(super) fn adopt(&mut self, adopted: &Adopted, policy: &Connections, now: Instant) {
        let Adopted { id, address, generation, .. } = *adopted;
        let drain = Drain::begin(policy, now);
        let (had_failed, reset, empty, done) = (false, None, 0, false);
        let removed = Removed { name: None, address, generation, drain, had_failed, reset, empty, done };
        self.backends.insert(id, removed);
    }

    /// The entries that the maps should hold for them.
    pub(super) fn targets(&self, policy: &Connections) -> impl Iterator<Item = (BackendId, Target)> {
        let wanted = self.backends.iter().filter(|(_, removed)| !removed.done);
        wanted.map(|(id, removed)| (*id, removed.target(policy)))
    }

    /// Brings them to this moment. Returns the names of those whose drain has ended with this call.
    pub(super) fn follow(&mut self, writer: &Writer, now: Instant) -> Vec<String> {
        let mut drained = Vec::new();
        for (id, removed) in &mut self.backends {
            if removed.drain.finish(now) {
                drained.extend(removed.name.clone());
            }
            let held = writer.applied.backends.get(id);
            if held.is_some_and(|held| held.flow_reset == FlowReset::Now) {
                removed.reset.get_or_insert(now);
            }
            let had_its_time = removed.reset.is_some_and(|at| at + GRACE <= now);
            removed.done |= had_its_time || !writer.names_backend(*id);
        }
        drained
    }

    /// Those that the maps give no new connections.
    pub(super) fn unused(&self, writer: &Writer) -> impl Iterator<Item = (BackendId, Generation)> {
        let in_table = |id: &BackendId| writer.applied.table.iter().flatten().any(|member| member.id == *id);
        let unused = move |id: &BackendId| {
            let held = writer.applied.backends.get(id);
            held.is_some_and(|held| held.admit == Admit::None) && !in_table(id)
        };
        let there = self.backends.iter().filter(|(_, removed)| !removed.done);
        there.filter(move |(id, _)| unused(id)).map(|(id, removed)| (*id, removed.generation))
    }

    /// A count of the connections of one of [`unused`](Self::unused). `true`: it may leave now.
    pub(super) fn counted(&mut self, id: BackendId, generation: Generation, connections: u64) -> bool {
        let removed = self.backends.get_mut(&id).filter(|removed| removed.generation == generation);
        let Some(removed) = removed else { return false };
        removed.empty = if connections == 0 { removed.empty + 1 } else { 0 };
        let gone = !removed.done && removed.empty >= EMPTY_COUNTS;
        removed.done |= gone;
        gone
    }

    /// When [`follow`](Self::follow) has something to do next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.backends.values().filter_map(Removed::due).min()
    }

    /// A new policy holds also for drains that have begun.
    pub(super) fn adapt(&mut self, old: &Connections, new: &Connections, now: Instant) {
        self.backends.values_mut().for_each(|removed| removed.drain.adapt(old, new, now));
    }

    /// Takes out the backends that the maps no longer hold.
    pub(super) fn take_gone(&mut self, writer: &Writer) -> impl Iterator<Item = BackendId> {
        self.backends.extract_if(.., |id, _| !writer.names_backend(*id)).map(|(id, _)| id)
    }

    pub(super) fn snapshots(
        &self,
        service: &str,
        policy: &Connections,
    ) -> impl Iterator<Item = LeavingSnapshot> {
        self.backends.iter().map(|(id, removed)| LeavingSnapshot {
            service: service.to_owned(),
            name: removed.name.clone(),
            id: *id,
            generation: removed.generation,
            address: removed.address,
            drain: removed.drain.snapshot(removed.on_out(policy)),
        })
    }
}

impl Removed {
    fn on_out(&self, policy: &Connections) -> OnOut {
        if self.had_failed { policy.on_eject } else { policy.on_drain }
    }

    fn target(&self, policy: &Connections) -> Target {
        Target {
            address: self.address,
            generation: self.generation,
            admit: Admit::None,
            flow_reset: self.drain.flow_reset(self.on_out(policy)),
            count_successes: false,
            redispatch: policy.redispatch,
            // It gets no new connections.
            max_connections: 0,
            budget: None,
        }
    }

    fn due(&self) -> Option<Instant> {
        let leaves = self.reset.map(|at| at + GRACE).filter(|_| !self.done);
        self.drain.due().or(leaves)
    }
}
