//! Computes the map entries of a service from the states of its backends.

use lb_common::abi::QUICK_MS;

use super::{
    backend::{Backend, STEPS},
    members::{self, Members},
    service::Service,
};
use crate::{
    config::Breaker,
    ids::BackendId,
    io::{FlowReset, Member},
    plan::{Entry, Forwarding, Grant, Target},
    states::Effective,
};

/// The entries that the maps should hold for `service`.
pub(super) fn wanted(service: &Service, mirror_all: bool) -> Forwarding {
    let policy = &service.config.connections;
    let leaving = service.leaving.targets(policy);
    if service.retired {
        return Forwarding { backends: leaving.collect(), ..Forwarding::default() };
    }
    let members = Members::of(&service.backends, &service.config);
    let trials = trials(service, &members);
    let target = |backend: &Backend| Target {
        address: backend.config.address,
        generation: backend.generation,
        admit: members::admitted(backend, members.panic()),
        flow_reset: backend.drain.map_or(FlowReset::Never, |drain| drain.flow_reset(backend.on_out(policy))),
        count_successes: counts_successes(service, mirror_all) && !backend.out(),
        redispatch: policy.redispatch,
        max_connections: service.config.limits.of_backend(&backend.config),
        budget: backend.grant.filter(|_| trials.contains(&backend.id)).map(|grant| Grant {
            tokens: grant.tokens.min(service.config.breaker.half_open_trials),
            ..grant
        }),
    };
    let present = service.backends.iter().map(|backend| (backend.id, target(backend)));
    let backends = present.chain(leaving).collect();
    let entry = Entry {
        vip: service.config.vip,
        mode: service.config.mode,
        no_backend: service.config.no_backend,
        evidence: service.config.evidence,
        redispatch: policy.redispatch,
        affinity: service.config.affinity,
        limit: service.config.limits.of_service(service.backends.iter().map(|backend| &backend.config)),
        sources: service.config.sources.clone(),
        trials,
    };
    Forwarding { service: Some(entry), table: Some(table(service, &members)), backends }
}

fn table(service: &Service, members: &Members) -> Vec<Member> {
    let in_table = || members.in_table().iter().map(|index| &service.backends[*index]);
    let scale = scale(in_table());
    let mut table: Vec<Member> = in_table().map(|backend| member(backend, scale)).collect();
    table.sort_by_key(|member| member.id);
    table
}

/// The backends in trial slots. Between sweeps a slot may become free, but no other backend gets it.
fn trials(service: &Service, members: &Members) -> Vec<BackendId> {
    let no_other_serves = members.serving().is_empty();
    let in_trial_slot = |backend: &&Backend| {
        service.trial_slots.contains(&backend.id)
            && backend.effective() == Effective::Trial
            && members.panic().is_none()
            && (no_other_serves || !backend.fallback)
    };
    let mut trials: Vec<_> =
        service.backends.iter().filter(in_trial_slot).map(|backend| backend.id).collect();
    trials.sort_unstable();
    trials
}

/// Whether the program may count good responses and not mirror them. It may if no good response decides
/// anything by itself while no failure is before it.
fn counts_successes(service: &Service, mirror_all: bool) -> bool {
    !mirror_all && service.config.evidence && counts_suffice(&service.config.breaker)
}

fn counts_suffice(policy: &Breaker) -> bool {
    let slow = policy.slow_threshold.0 > 0 && policy.slow_rate_threshold > 0;
    // The program mirrors each response that takes longer than QUICK_MS.
    let late = policy.response_timeout.0 > 0 && policy.response_timeout.0 <= QUICK_MS;
    let errors_only = policy.errors.iter().all(|range| *range.start() >= 400);
    !slow && !late && errors_only
}

/// Only the relation of weights matters. If one member gets a part of its weight, all weights are multiplied,
/// unless the heaviest would then not fit.
fn scale<'a>(mut members: impl Iterator<Item = &'a Backend> + Clone) -> u64 {
    let heaviest = members.clone().map(|backend| u64::from(backend.weight())).max().unwrap_or(0);
    let fits = heaviest * STEPS <= u64::from(u16::MAX);
    if fits && members.any(|backend| backend.warming.is_some()) { STEPS } else { 1 }
}

fn member(backend: &Backend, scale: u64) -> Member {
    let weight = (u64::from(backend.weight()) * scale * backend.step() / STEPS).max(1);
    let weight = u16::try_from(weight).expect("the scale is chosen so that it fits");
    Member { id: backend.id, weight, address: backend.config.address }
}
