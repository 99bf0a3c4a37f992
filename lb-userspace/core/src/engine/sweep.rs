//! The end of an interval: returns, comparisons between backends, trial slots and budgets.

use super::{backend::Backend, members, service::Service};
use crate::{
    breaker::{Change, Signal, Window, sweep},
    config::Detector,
    event::EventKind,
    ids::BackendId,
    plan::Grant,
    states::Effective,
    time::{Instant, Millis},
};

impl Service {
    /// First the returns, then the detections of the interval, then the decay of the backends that were in
    /// all the time.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.next_sweep = now + self.config.breaker.interval.max(Millis(1));
        let (out, inside): (Vec<_>, Vec<_>) = (0..self.backends.len()).partition(|index| self.out(*index));
        for index in out {
            let event = self.event(EventKind::Trial, Some(index), now);
            if let Some(change) = self.swept(index, now) {
                self.changed(index, change, event);
            }
        }
        let windows: Vec<_> =
            inside.iter().map(|index| (*index, self.backends[*index].breaker.window)).collect();
        // The fallback is compared with itself, and the others with each other.
        let (fallback, others): (Vec<_>, Vec<_>) =
            windows.into_iter().partition(|(index, _)| self.backends[*index].fallback);
        for windows in [others, fallback] {
            for (index, detection) in sweep::detect(&self.config.breaker, &windows) {
                let window = &self.backends[index].breaker.window;
                // L4 failures that are split off were confirmed one by one.
                let suffices =
                    matches!(detection.detector, Detector::SuccessRateL4 | Detector::FailurePercentageL4)
                        || window.sources.suffice(self.config.breaker.min_clients, self.client_counts);
                match suffices {
                    true => self.detected(index, &detection, now),
                    false => self.held(index, &detection, now),
                }
            }
        }
        for index in inside.into_iter().filter(|index| !self.out(*index)).collect::<Vec<_>>() {
            self.swept(index, now);
            let backend = &mut self.backends[index];
            let window = backend.breaker.window;
            if window.outcomes() > 0 && window.failures + window.l4_failures + window.detections == 0 {
                backend.note = None;
            }
        }
        for backend in &mut self.backends {
            backend.breaker.window = Window::default();
        }
        self.assign_trial_slots();
        self.grant_budgets(now);
    }

    fn swept(&mut self, index: usize, now: Instant) -> Option<Change> {
        let policy = &self.config.breaker;
        // Somebody has used trials, and no outcome came of it: that is no silence of the clients.
        let silent_trials = self.backends[index].trials_taken && self.config.evidence;
        let offered = self.offered(index) && !silent_trials;
        let backend = &mut self.backends[index];
        let signal = Signal::Sweep { readmits: backend.readmits(policy), offered };
        backend.breaker.on(signal, policy, now)
    }

    /// Whether the maps gave new connections to a backend in the interval that ends.
    fn offered(&self, index: usize) -> bool {
        let id = self.backends[index].id;
        let applied = &self.writer.applied;
        let in_trial_slot = applied.service.as_ref().is_some_and(|entry| entry.trials.contains(&id));
        let in_table = applied.table.iter().flatten().any(|member| member.id == id);
        // While the service does not need its fallback, the fallback cannot be tried and does not wait for it.
        let unneeded = self.backends[index].fallback && !members::serving(&self.backends, false).is_empty();
        in_trial_slot || in_table || unneeded
    }

    /// Gives trial slots to the half-open backends that have waited longest.
    fn assign_trial_slots(&mut self) {
        let fallback = members::serving(&self.backends, false).is_empty();
        let may = |backend: &&mut Backend| {
            backend.effective() == Effective::Trial && (fallback || !backend.fallback)
        };
        let mut waiting: Vec<&mut Backend> = self.backends.iter_mut().filter(may).collect();
        waiting.sort_by_key(|backend| (backend.last_trial_slot, backend.id));
        waiting.truncate(lb_common::abi::TRIAL_SLOTS);
        for backend in &mut waiting {
            self.trial_slots_given += 1;
            backend.last_trial_slot = self.trial_slots_given;
        }
        self.trial_slots = waiting.iter().map(|backend| backend.id).collect();
        self.trial_slots.sort_unstable();
    }

    /// See [`Engine::trial_budgets`](super::Engine::trial_budgets).
    pub(super) fn trial_budgets(&self) -> impl Iterator<Item = (BackendId, u32)> {
        let waits = |backend: &&Backend| {
            self.trial_slots.contains(&backend.id)
                && !backend.trials_taken
                && !self.writer.budget_in_flight(backend.id)
        };
        let backends = if self.trial_slots.is_empty() { &[][..] } else { &self.backends[..] };
        backends.iter().filter(waits).filter_map(|backend| Some((backend.id, backend.grant?.tokens)))
    }

    fn grant_budgets(&mut self, now: Instant) {
        let policy = &self.config.breaker;
        for backend in self.backends.iter_mut().filter(|backend| self.trial_slots.contains(&backend.id)) {
            let wants = backend.breaker.wants_budget(backend.readmits(policy), policy, now);
            if wants && !self.writer.budget_in_flight(backend.id) {
                let number = backend.grant.map_or(0, |grant| grant.number) + 1;
                backend.grant = Some(Grant { number, tokens: policy.half_open_trials });
                backend.trials_taken = false;
                backend.breaker.budget_granted(now);
            }
        }
    }
}
