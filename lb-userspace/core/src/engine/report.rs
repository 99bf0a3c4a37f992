//! The snapshot of the engine: its state in words and numbers, for people.

use std::collections::BTreeMap;

use super::{
    Engine,
    backend::{Backend, Note, Override, STEPS},
    members::{self, Members},
    service::Service,
};
use crate::{
    codes::{BackendReason, OverrideCode},
    ids::BackendId,
    outcome::ProbeResult,
    probe,
    snapshot::{self, BackendSnapshot, LeavingSnapshot, ServiceSnapshot, Snapshot},
    states::{Effective, OperatorState, Panic, ProbeState},
    time::{Instant, span},
};

impl Engine {
    /// Everything at `now`.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        // A removed service is shown only while the maps cannot be written.
        let stuck =
            self.services.values().filter(|service| service.retired && service.writer.failing.is_some());
        Snapshot {
            t_ms: now,
            config_generation: self.config_generation,
            services: self.active().chain(stuck).map(|service| service.snapshot(now)).collect(),
            leaving: self.services.values().flat_map(Service::leaving_snapshots).collect(),
        }
    }
}

/// A service as a whole.
pub(super) struct View {
    members: Members,
    /// Weights in the table that is in force, and their sum.
    weights: BTreeMap<BackendId, u64>,
    total_weight: u64,
}

impl Backend {
    fn overrides(&self) -> Vec<snapshot::Override> {
        let shown = |code, what, order: &Override| {
            let Override { actor, reason, since, until } = order.clone();
            snapshot::Override { code, what, actor, reason, since_ms: since, until_ms: until }
        };
        let code = match self.operator {
            OperatorState::Enabled => None,
            OperatorState::Draining => Some(OverrideCode::Draining),
            OperatorState::Disabled => Some(OverrideCode::Disabled),
        };
        let state = code.zip(self.operator_override.as_ref());
        let state = state.map(|(code, order)| shown(code, code.to_string(), order));
        let weight = self.weight.as_ref();
        let weight =
            weight.map(|(weight, order)| shown(OverrideCode::Weight, format!("weight {weight}"), order));
        state.into_iter().chain(weight).collect()
    }
}

impl Service {
    fn snapshot(&self, now: Instant) -> ServiceSnapshot {
        let view = self.view();
        ServiceSnapshot {
            name: self.config.name.clone(),
            id: self.id,
            vip: self.config.vip,
            panic: view.members.panic(),
            fallback: view.members.on_fallback(),
            pending: self.writer.failing.clone(),
            backends: (0..self.backends.len())
                .map(|index| self.backend_snapshot(index, &view, now))
                .collect(),
        }
    }

    fn leaving_snapshots(&self) -> impl Iterator<Item = LeavingSnapshot> {
        self.leaving.snapshots(&self.config.name, &self.config.connections)
    }

    /// The facts that the snapshots of all its backends share.
    pub(super) fn view(&self) -> View {
        let members = self.writer.applied.table.iter().flatten();
        let weights: BTreeMap<_, _> = members.map(|member| (member.id, u64::from(member.weight))).collect();
        View {
            members: Members::of(&self.backends, &self.config),
            total_weight: weights.values().sum(),
            weights,
        }
    }

    pub(super) fn backend_snapshot(&self, index: usize, view: &View, now: Instant) -> BackendSnapshot {
        let backend = &self.backends[index];
        let weight = view.weights.get(&backend.id).copied().unwrap_or(0);
        let (reason_code, reason) = self.reason(index, view, now).unzip();
        BackendSnapshot {
            name: backend.config.name.clone(),
            id: backend.id,
            generation: backend.generation,
            address: backend.config.address,
            fallback: backend.fallback,
            effective: backend.effective(),
            operator: backend.operator,
            discovery: backend.config.discovered.as_ref().map(|of| of.standing),
            identity: backend.config.identity().map(str::to_owned),
            path: backend.path,
            probe: backend.health.state(),
            breaker: backend.breaker.state(),
            reason,
            reason_code,
            since_ms: backend.breaker.since(),
            ejection: backend.breaker.ejection(),
            until_ms: backend.breaker.until(),
            returns_ms: backend.breaker.until().map(|until| self.first_sweep(until)),
            weight: backend.weight(),
            overrides: backend.overrides(),
            share: (weight * 10_000).checked_div(view.total_weight).unwrap_or(0) as u32,
            weight_percent: if weight == 0 { 0 } else { (backend.step() * 100 / STEPS) as u32 },
            run_5xx: backend.tally.run_5xx,
            responses: backend.responses,
            last_probe: backend.health.last().map(ToString::to_string),
            last_probe_code: backend.health.last().map(ProbeResult::code),
            drain: backend.drain.map(|drain| drain.snapshot(backend.on_out(&self.config.connections))),
        }
    }

    /// `None`: it simply serves.
    fn reason(&self, index: usize, view: &View, now: Instant) -> Option<(BackendReason, String)> {
        let backend = &self.backends[index];
        let reason = match backend.effective() {
            Effective::Serving => self.why_serving(index, view, now),
            Effective::Trial => Some(self.why_trial(backend)),
            Effective::Ejected => Some(self.why_ejected(backend, now)),
            Effective::Down => Some(match (backend.health.last(), &self.config.probe) {
                (Some(result), Some(policy)) if !probe::passes(policy, result) => {
                    (BackendReason::ProbeFails, format!("its probe fails: {result}"))
                }
                (Some(_) | None, Some(_) | None) => {
                    let says = "its probe has not yet passed often enough".to_owned();
                    (BackendReason::ProbeBelowRise, says)
                }
            }),
            Effective::Unreachable => Some((BackendReason::Unreachable, backend.path.message().to_owned())),
            Effective::Draining if backend.operator == OperatorState::Enabled => {
                let says = "draining: no new connections, by discovery".to_owned();
                Some((BackendReason::DiscoveryDrains, says))
            }
            Effective::Disabled if backend.operator == OperatorState::Enabled => {
                Some((BackendReason::DiscoveryOut, "out: no connections, by discovery".to_owned()))
            }
            Effective::Draining => {
                let by = self.override_source(index, now);
                Some((BackendReason::Draining, format!("draining: no new connections, by {by}")))
            }
            Effective::Disabled => {
                Some((BackendReason::Disabled, format!("disabled by {}", self.override_source(index, now))))
            }
        };
        let panic = view.members.panic().filter(|_| view.weights.contains_key(&backend.id));
        match (reason, &self.writer.failing) {
            (Some((code, reason)), _) if panic.is_some() => {
                let why = panic.map(|panic| self.why_panic(panic, view)).unwrap_or_default();
                Some((code, format!("used all the same, because {why}; {reason}")))
            }
            (Some((code, reason)), Some(pending)) => {
                Some((code, format!("{reason}; the maps are behind: {}", pending.error)))
            }
            (None, Some(pending)) => {
                Some((BackendReason::MapsBehind, format!("the maps are behind: {}", pending.error)))
            }
            (reason, None) => reason,
        }
    }

    fn why_panic(&self, panic: Panic, view: &View) -> String {
        let counted = |backend: &&Backend| !backend.fallback && members::reachable(backend);
        let regular = || self.backends.iter().filter(counted);
        let all = regular().count();
        match panic {
            Panic::NobodyServes => "nobody serves and no_backend is any".to_owned(),
            Panic::FewServe => {
                let serving = view.members.serving().len();
                let least = self.config.breaker.panic_threshold;
                format!("{serving} of {all} serve and panic_threshold is {least}")
            }
            Panic::ProbesFail => {
                let down = regular().filter(|backend| backend.health.state() == ProbeState::Down).count();
                let least = self.config.probe.as_ref().map_or(0, |probe| probe.fail_open_percent);
                format!("{down} of {all} are down at once and fail_open_percent is {least}")
            }
        }
    }

    /// The actor of an override, the reason, and the time that is left.
    fn override_source(&self, index: usize, now: Instant) -> String {
        let Some(order) = &self.backends[index].operator_override else { return "the operator".to_owned() };
        let mut words = order.actor.clone();
        if let Some(reason) = &order.reason {
            words += &format!(" ({reason})");
        }
        if let Some(until) = order.until {
            words += &format!(", {} left", span(until - now));
        }
        words
    }

    fn why_serving(&self, index: usize, view: &View, now: Instant) -> Option<(BackendReason, String)> {
        let backend = &self.backends[index];
        let members = &view.members;
        let serving = if backend.fallback { members.fallback() } else { members.serving() };
        let waits = backend.health.state() == ProbeState::Unknown && !serving.contains(&index);
        let ago = |at: Instant| span(now - at);
        let (code, says) = match &backend.note {
            Some(Note::Refused { refusal, what, at }) => {
                (refusal.into(), format!("{refusal}; {what} refused {} ago", ago(*at)))
            }
            Some(Note::Suspected { what, at }) => {
                (BackendReason::Suspected, format!("suspected {} ago: {what}", ago(*at)))
            }
            Some(Note::Unenforced { code, why, what, at }) => {
                (*code, format!("kept because {why}; {what} {} ago", ago(*at)))
            }
            Some(Note::Ejected { .. }) | None => {
                let (code, says) = match (backend.health.state(), waits) {
                    (ProbeState::Unknown, true) => (
                        BackendReason::NotProbedUnused,
                        "not probed yet: gets nothing while others are known to be up",
                    ),
                    (ProbeState::Unknown, false) => (
                        BackendReason::NotProbedUsed,
                        "not probed yet: used because nobody is known to be up",
                    ),
                    (ProbeState::None | ProbeState::Up | ProbeState::Down, true | false) => {
                        match (backend.fallback, members.serving().is_empty()) {
                            (false, _) => return None,
                            (true, true) => (
                                BackendReason::FallbackUsed,
                                "a fallback: used because none of the others serves",
                            ),
                            (true, false) => (
                                BackendReason::FallbackUnused,
                                "a fallback: gets nothing while one of the others serves",
                            ),
                        }
                    }
                };
                (code, says.to_owned())
            }
        };
        Some((code, says))
    }

    fn why_trial(&self, backend: &Backend) -> (BackendReason, String) {
        let policy = &self.config.breaker;
        let good = backend.breaker.trial().map_or(0, |trial| trial.good);
        let mut reason =
            format!("half-open: {good} of {} good outcomes in a row", policy.half_open_successes);
        let code = if self.trial_slots.contains(&backend.id) {
            reason += &format!(", at most {} new connections a sweep", policy.half_open_trials);
            BackendReason::HalfOpen
        } else {
            reason += ", waiting for a trial slot";
            BackendReason::HalfOpenWaits
        };
        if let Some(Note::Refused { refusal, .. }) = &backend.note {
            reason += &format!("; {refusal}");
        }
        (code, reason)
    }

    fn why_ejected(&self, backend: &Backend, now: Instant) -> (BackendReason, String) {
        let what = match &backend.note {
            Some(Note::Ejected { what }) => what.as_str(),
            Some(Note::Refused { .. } | Note::Suspected { .. } | Note::Unenforced { .. }) | None => {
                "an earlier detection"
            }
        };
        let number = backend.breaker.ejection();
        let (code, end) = match backend.breaker.until() {
            Some(until) if now < until => {
                (BackendReason::Ejected, format!(", {} left", span(self.first_sweep(until) - now)))
            }
            Some(_) if !backend.readmits(&self.config.breaker) => {
                (BackendReason::EjectedProbeNotUp, ", over, but its probe is not up".to_owned())
            }
            Some(_) | None => (BackendReason::EjectedTimeOver, ", over at the next sweep".to_owned()),
        };
        let ago = span(now - backend.breaker.since());
        (code, format!("ejected {ago} ago for {what}, ejection {number}{end}"))
    }
}
