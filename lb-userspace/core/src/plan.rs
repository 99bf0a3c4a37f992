//! The writes from what the maps hold to what they should hold. Their order makes every moment between two
//! writes safe.
//!
//! 1. A VIP that has to go goes first: no packet may match a service that is half removed.
//! 2. Ejections: the backend's own entry takes effect on the next SYN.
//! 3. Backends that are added or come back, and backends whose connections end in another way than before.
//! 4. Trial budgets, before the trial slots that spend them.
//! 5. The table, which contains only backends that are written by now.
//! 6. The service: its VIP never matches before its table is there.
//! 7. Removed backends, when their connections have ended and nothing refers to them any more.

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU8};

use crate::{
    config::{Mode, NoBackend, ServiceLimit, Sources},
    ids::{BackendId, Generation, ServiceId},
    io::{Admit, FlowReset, Member, Step},
};

/// The entries of one service in the maps: as they are, or as they should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    pub service: Option<Entry>,
    /// `None`: no table was ever written. Members are in the order of their ids.
    pub table: Option<Vec<Member>>,
    pub backends: BTreeMap<BackendId, Target>,
}

/// The entry of a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub vip: SocketAddr,
    pub mode: Mode,
    pub no_backend: NoBackend,
    pub evidence: bool,
    pub redispatch: bool,
    pub affinity: Option<NonZeroU8>,
    pub limit: Option<ServiceLimit>,
    pub sources: Sources,
    pub trials: Vec<BackendId>,
}

/// The entry of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub address: SocketAddr,
    pub generation: Generation,
    pub admit: Admit,
    pub flow_reset: FlowReset,
    pub count_successes: bool,
    pub redispatch: bool,
    pub max_connections: u32,
    /// Wanted: `None` leaves the budget in the map as it is. Applied: the last one written.
    pub budget: Option<Grant>,
}

/// One budget. Two of them differ by their number, however many tokens they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub number: u64,
    pub tokens: u32,
}

impl Forwarding {
    /// The writes that lead from here to `target`.
    pub fn steps_to(&self, target: &Self, id: ServiceId) -> Vec<Step> {
        let mut steps = Vec::new();

        let vip_goes = |held: &&Entry| target.service.as_ref().is_none_or(|wanted| wanted.vip != held.vip);
        let going = self.service.as_ref().filter(vip_goes);
        steps.extend(going.map(|held| Step::RemoveService { id, vip: held.vip }));

        let changed = || target.backends.iter().filter(|(id, wanted)| self.differs(**id, wanted));
        steps.extend(changed().filter(|(id, to)| self.restricts(**id, to.admit)).map(|to| backend(id, to)));
        steps.extend(changed().filter(|(id, to)| !self.restricts(**id, to.admit)).map(|to| backend(id, to)));

        for (id, wanted) in &target.backends {
            let held = self.backends.get(id).and_then(|held| held.budget);
            let Some(grant) = wanted.budget else { continue };
            if held.is_none_or(|held| held.number != grant.number) {
                steps.push(Step::Budget { id: *id, tokens: grant.tokens });
            }
        }

        // Removing the VIP may remove the table, too.
        let held = self.table.as_ref().filter(|_| going.is_none());
        if let Some(members) = target.table.as_ref().filter(|wanted| held != Some(*wanted)) {
            steps.push(Step::Table { service: id, members: members.clone() });
        }

        if let Some(entry) = target.service.as_ref().filter(|wanted| self.service.as_ref() != Some(*wanted)) {
            let Entry { vip, mode, no_backend, evidence, redispatch, affinity, limit, sources, trials } =
                entry.clone();
            steps.push(Step::Service {
                id,
                vip,
                mode,
                no_backend,
                evidence,
                redispatch,
                affinity,
                limit,
                sources,
                trials,
            });
        }

        let left = self.backends.keys().filter(|id| !target.backends.contains_key(id));
        steps.extend(left.map(|id| Step::RemoveBackend { id: *id }));
        steps
    }

    /// Notes that the maps hold a step of a plan for `target`.
    pub fn apply(&mut self, step: &Step, target: &Self) {
        match step {
            Step::RemoveService { .. } => {
                self.service = None;
                self.table = None;
            }
            Step::Service { .. } => self.service.clone_from(&target.service),
            Step::Backend {
                id,
                service: _,
                address,
                generation,
                admit,
                flow_reset,
                count_successes,
                redispatch,
                max_connections,
            } => {
                let budget = self.backends.get(id).and_then(|held| held.budget);
                let held = Target {
                    address: *address,
                    generation: *generation,
                    admit: *admit,
                    flow_reset: *flow_reset,
                    count_successes: *count_successes,
                    redispatch: *redispatch,
                    max_connections: *max_connections,
                    budget,
                };
                self.backends.insert(*id, held);
            }
            Step::RemoveBackend { id } => {
                self.backends.remove(id);
            }
            Step::Budget { id, .. } => {
                if let Some(held) = self.backends.get_mut(id) {
                    held.budget = target.backends.get(id).and_then(|wanted| wanted.budget);
                }
            }
            Step::Table { members, .. } => self.table = Some(members.clone()),
        }
    }

    /// One backend in the maps: its entry, its member of the table, whether it has a trial slot.
    pub(crate) fn place(&self, id: BackendId) -> (Option<Target>, Option<Member>, bool) {
        let entry = self.backends.get(&id).map(|target| Target { budget: None, ..*target });
        let member = self.table.iter().flatten().find(|member| member.id == id).copied();
        let in_trial_slot = self.service.as_ref().is_some_and(|service| service.trials.contains(&id));
        (entry, member, in_trial_slot)
    }

    fn differs(&self, id: BackendId, wanted: &Target) -> bool {
        self.backends
            .get(&id)
            .is_none_or(|held| Target { budget: None, ..*held } != Target { budget: None, ..*wanted })
    }

    /// Whether a backend that is in the maps gets fewer new connections than before.
    fn restricts(&self, id: BackendId, to: Admit) -> bool {
        let Some(held) = self.backends.get(&id) else { return false };
        match (held.admit, to) {
            (Admit::All, Admit::Trials | Admit::None) | (Admit::Trials, Admit::None) => true,
            (Admit::All | Admit::Trials | Admit::None, Admit::All)
            | (Admit::Trials | Admit::None, Admit::Trials)
            | (Admit::None, Admit::None) => false,
        }
    }
}

fn backend(service: ServiceId, (id, target): (&BackendId, &Target)) -> Step {
    let Target {
        address,
        generation,
        admit,
        flow_reset,
        count_successes,
        redispatch,
        max_connections,
        budget: _,
    } = *target;
    Step::Backend {
        id: *id,
        service,
        address,
        generation,
        admit,
        flow_reset,
        count_successes,
        redispatch,
        max_connections,
    }
}

#[cfg(test)]
mod tests;
