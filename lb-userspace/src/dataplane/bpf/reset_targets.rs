//! The backends whose connections the reset sender resets, and the next hops of all. The thread that writes the maps
//! updates them.

use std::{
    collections::BTreeMap,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use lb_common::abi::{Backend, Link, backend_flags};
use lb_core::io::{BackendId, Generation};

use crate::dataplane::counters::ResetCounts;

/// If so many scans in a row find no connection of a backend, the reset sender leaves it alone, because it gets no new
/// ones. One scan could miss the connection of a SYN that the program handled while the maps were written.
const ENOUGH_SCANS: u8 = 2;

/// Backends whose connections are reset, each with its next hop. The dataplane updates it, and the reset sender reads it.
#[derive(Debug, Default)]
pub(super) struct ResetTargets {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    hops: BTreeMap<BackendId, Hop>,
    targets: BTreeMap<BackendId, Target>,
    counts: BTreeMap<BackendId, ResetCounts>,
    closed: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) generation: Generation,
    pub(super) flows: ResetFlows,
    pub(super) ifindex: u32,
    pub(super) link: Link,
    pub(super) vlan: u16,
    /// How many scans in a row have found none of its connections.
    empty_scans: u8,
}

/// How frames reach a backend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hop {
    pub(super) generation: Generation,
    pub(super) ifindex: u32,
    pub(super) link: Link,
    pub(super) vlan: u16,
}

/// Which connections of a backend are reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResetFlows {
    All,
    /// Those without a pending request.
    Idle,
    /// The backend serves again. Only the connections whose client the program has reset before: the backend still has
    /// its half of them.
    ClientReset,
}

impl ResetTargets {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `value`: the backend's new entry in the map.
    pub(super) fn update(&self, id: BackendId, value: &Backend) {
        let reset_flags = value.flags & (backend_flags::RESET_NOW | backend_flags::RESET_AT_REQUEST);
        let mut state = self.state();
        let generation = Generation(value.generation);
        if generation.0 == 0 {
            state.hops.remove(&id);
        } else {
            let Backend { ifindex, link, vlan, .. } = *value;
            state.hops.insert(id, Hop { generation, ifindex, link, vlan });
        }
        let was_target = state.targets.get(&id).is_some_and(|target| target.generation == generation);
        if generation.0 == 0 || reset_flags == 0 && !was_target {
            state.targets.remove(&id);
            return;
        }
        let flows = match reset_flags {
            0 => ResetFlows::ClientReset,
            reset_flags if reset_flags & backend_flags::RESET_NOW != 0 => ResetFlows::All,
            _ => ResetFlows::Idle,
        };
        let target = Target {
            generation,
            flows,
            ifindex: value.ifindex,
            link: value.link,
            vlan: value.vlan,
            empty_scans: 0,
        };
        state.targets.insert(id, target);
        self.changed.notify_all();
    }

    /// Another backend gets this id.
    pub(super) fn zero_counts(&self, id: BackendId) {
        self.state().counts.remove(&id);
    }

    /// How many connections of a backend were reset.
    pub(super) fn counts(&self, id: BackendId) -> ResetCounts {
        self.state().counts.get(&id).copied().unwrap_or_default()
    }

    /// The dataplane is gone: the thread ends.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    /// The next hops of all backends now.
    pub(super) fn hops(&self) -> BTreeMap<BackendId, Hop> {
        self.state().hops.clone()
    }

    /// The targets now.
    pub(super) fn current(&self) -> BTreeMap<BackendId, Target> {
        self.state().targets.clone()
    }

    /// Waits until there are targets. `None`: the dataplane is gone.
    pub(super) fn wait(&self) -> Option<BTreeMap<BackendId, Target>> {
        let state = self
            .changed
            .wait_while(self.state(), |state| !state.closed && state.targets.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        (!state.closed).then(|| state.targets.clone())
    }

    /// Whether a target is as it was when the scan began. A backend that serves again meanwhile has new connections.
    pub(super) fn is_current(&self, id: BackendId, target: &Target) -> bool {
        let state = self.state();
        let now = state.targets.get(&id);
        now.is_some_and(|now| (now.generation, now.flows) == (target.generation, target.flows))
    }

    /// Takes in the results of a scan.
    pub(super) fn record(
        &self,
        targets: &BTreeMap<BackendId, Target>,
        found: &BTreeMap<BackendId, ScanResult>,
    ) {
        let mut state = self.state();
        for (id, scanned) in targets {
            let found = found.get(id).copied().unwrap_or_default();
            if found.resets != ResetCounts::default() {
                let total = state.counts.entry(*id).or_default();
                total.idle += found.resets.idle;
                total.drained += found.resets.drained;
            }
            let Some(target) =
                state.targets.get_mut(id).filter(|target| target.generation == scanned.generation)
            else {
                continue;
            };
            target.empty_scans = if found.living > 0 { 0 } else { target.empty_scans + 1 };
            if target.empty_scans >= ENOUGH_SCANS {
                state.targets.remove(id);
            }
        }
    }
}

/// Connections of one backend, in one scan.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ScanResult {
    /// Before the scan.
    pub(super) living: u64,
    pub(super) resets: ResetCounts,
}
