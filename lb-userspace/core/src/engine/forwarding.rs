//! Who of a service gets new connections: what follows from the axes.

use super::{
    backend::{Backend, STEPS},
    service::Service,
};
use lb_common::abi::QUICK_MS;

use crate::{
    config::{Breaker, NoBackend},
    io::{Admit, FlowReset, Member},
    plan::{Entry, Forwarding, Grant, Target},
    states::{Effective, OperatorState, ProbeState},
};

impl Service {
    /// What the maps should hold.
    pub(super) fn forwarding(&self, mirror_all: bool) -> Forwarding {
        let policy = &self.config.connections;
        let leaving = self.leaving.iter().filter_map(|(id, leaving)| Some((*id, leaving.target(policy)?)));
        if self.retired {
            return Forwarding { backends: leaving.collect(), ..Forwarding::default() };
        }
        let panic = self.panics();
        let serving = self.serving();
        let alone = serving.is_empty();
        let in_table = if panic {
            self.usable()
        } else if alone {
            self.able(true)
        } else {
            serving
        };
        let scale = scale(in_table.iter().map(|index| &self.backends[*index]));
        let mut members: Vec<Member> =
            in_table.iter().map(|index| member(&self.backends[*index], scale)).collect();
        members.sort_by_key(|member| member.id);

        // Between sweeps a seat may become empty, but nobody takes it.
        let is_trial = |backend: &&Backend| backend.effective() == Effective::Trial && !panic;
        let needed = |backend: &&Backend| alone || !backend.fallback;
        let seated =
            |backend: &&Backend| self.seats.contains(&backend.id) && is_trial(backend) && needed(backend);
        let mut trials: Vec<_> = self.backends.iter().filter(seated).map(|backend| backend.id).collect();
        trials.sort_unstable();

        let quiet = !mirror_all && self.config.evidence && tells_all_by_counts(&self.config.breaker);
        let target = |backend: &Backend| Target {
            address: backend.config.address,
            generation: backend.generation,
            admit: admitted(backend, panic),
            cut: backend.ending.map_or(FlowReset::Never, |ending| ending.cut(policy)),
            quiet: quiet && !backend.out(),
            budget: backend.grant.filter(|_| trials.contains(&backend.id)).map(|grant| Grant {
                tokens: grant.tokens.min(self.config.breaker.half_open_trials),
                ..grant
            }),
        };
        let present = self.backends.iter().map(|backend| (backend.id, target(backend)));
        let backends = present.chain(leaving).collect();
        let entry = Entry {
            vip: self.config.vip,
            mode: self.config.mode,
            no_backend: self.config.no_backend,
            evidence: self.config.evidence,
            redispatch: policy.redispatch,
            sources: self.config.sources.clone(),
            trials,
        };
        Forwarding { service: Some(entry), table: Some(members), backends }
    }

    /// Those that the table is made of, as long as there is any.
    pub(super) fn serving(&self) -> Vec<usize> {
        self.able(false)
    }

    /// Of the fallback, or of the others: backends that serve and are not known to be down. One that was not
    /// probed yet is used only when nothing better is there.
    pub(super) fn able(&self, fallback: bool) -> Vec<usize> {
        let serving = |proven: &[ProbeState]| -> Vec<usize> {
            let chosen = |backend: &Backend| {
                backend.fallback == fallback
                    && backend.effective() == Effective::Serving
                    && proven.contains(&backend.health.state())
            };
            (0..self.backends.len()).filter(|index| chosen(&self.backends[*index])).collect()
        };
        let proven = serving(&[ProbeState::None, ProbeState::Up]);
        if proven.is_empty() { serving(&[ProbeState::Unknown]) } else { proven }
    }

    /// Nobody serves, or too few, and then anybody is better than nobody. The fallback is better than anybody.
    pub(super) fn panics(&self) -> bool {
        let serving = self.serving().len();
        if serving == 0 && !self.able(true).is_empty() {
            return false;
        }
        let nobody = match self.config.no_backend {
            NoBackend::Any => serving == 0,
            NoBackend::Reset | NoBackend::Drop => false,
        };
        let all = self.backends.iter().filter(|backend| !backend.fallback).count();
        let too_few = 100 * serving < usize::from(self.config.breaker.panic_threshold) * all;
        (nobody || too_few) && !self.usable().is_empty()
    }

    fn usable(&self) -> Vec<usize> {
        (0..self.backends.len()).filter(|index| usable(&self.backends[*index])).collect()
    }
}

/// Whether a good response may be counted and no more: none of them decides anything by itself, wherever no failure is
/// before it.
fn tells_all_by_counts(policy: &Breaker) -> bool {
    let slow = policy.slow_threshold.0 > 0 && policy.slow_rate_threshold > 0;
    // What takes longer than that is told all the same.
    let late = policy.response_timeout.0 > 0 && policy.response_timeout.0 <= QUICK_MS;
    let errors_only = policy.errors.iter().all(|range| *range.start() >= 400);
    !slow && !late && errors_only
}

fn usable(backend: &Backend) -> bool {
    !backend.fallback
        && backend.operator != OperatorState::Disabled
        && backend.health.state() != ProbeState::Down
}

/// What the maps should let a backend have.
pub(super) fn admitted(backend: &Backend, panic: bool) -> Admit {
    if panic && usable(backend) {
        return Admit::All;
    }
    match backend.effective() {
        Effective::Serving => Admit::All,
        Effective::Trial => Admit::Trials,
        Effective::Draining | Effective::Ejected | Effective::Down | Effective::Disabled => Admit::None,
    }
}

/// Only the relation of weights matters: where some are to be parts of themselves, all are multiplied,
/// as far as they have room for it.
fn scale<'a>(mut members: impl Iterator<Item = &'a Backend> + Clone) -> u64 {
    let heaviest = members.clone().map(|backend| u64::from(backend.weight())).max().unwrap_or(0);
    let room = heaviest * STEPS <= u64::from(u16::MAX);
    if room && members.any(|backend| backend.warming.is_some()) { STEPS } else { 1 }
}

fn member(backend: &Backend, scale: u64) -> Member {
    let weight = (u64::from(backend.weight()) * scale * backend.step() / STEPS).max(1);
    let weight = u16::try_from(weight).expect("the scale leaves room");
    Member { id: backend.id, weight, address: backend.config.address }
}
