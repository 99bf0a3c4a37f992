//! Who of a service gets new connections: what follows from the axes.

use super::{backend::Backend, service::Service};
use crate::{
    config::NoBackend,
    io::{Admit, Member},
    plan::{Entry, Forwarding, Grant, Target},
    snapshot::{Effective, OperatorState, ProbeState},
};

impl Service {
    /// What the maps should hold.
    pub(super) fn forwarding(&self) -> Forwarding {
        if self.retired {
            return Forwarding::default();
        }
        let panic = self.panics();
        let in_table = if panic { self.usable() } else { self.serving() };
        let mut members: Vec<Member> =
            in_table.into_iter().map(|index| member(&self.backends[index])).collect();
        members.sort_by_key(|member| member.id);

        // Between sweeps a seat may become empty, but nobody takes it.
        let is_trial = |backend: &&Backend| backend.effective() == Effective::Trial && !panic;
        let seated = |backend: &&Backend| self.seats.contains(&backend.id) && is_trial(backend);
        let mut trials: Vec<_> = self.backends.iter().filter(seated).map(|backend| backend.id).collect();
        trials.sort_unstable();

        let target = |backend: &Backend| Target {
            address: backend.config.address,
            generation: backend.generation,
            admit: if panic && usable(backend) { Admit::All } else { admit(backend.effective()) },
            budget: backend.grant.filter(|_| trials.contains(&backend.id)).map(|grant| Grant {
                tokens: grant.tokens.min(self.config.breaker.half_open_trials),
                ..grant
            }),
        };
        let backends = self.backends.iter().map(|backend| (backend.id, target(backend))).collect();
        let entry = Entry {
            vip: self.config.vip,
            mode: self.config.mode,
            no_backend: self.config.no_backend,
            evidence: self.config.evidence,
            trials,
        };
        Forwarding { service: Some(entry), table: Some(members), backends }
    }

    /// Those that the table is made of, as long as there is any: backends that serve and are not known
    /// to be down. One that was not probed yet is used only when nothing better is there.
    pub(super) fn serving(&self) -> Vec<usize> {
        let serving = |proven: &[ProbeState]| -> Vec<usize> {
            let chosen = |backend: &Backend| {
                backend.effective() == Effective::Serving && proven.contains(&backend.health.state())
            };
            (0..self.backends.len()).filter(|index| chosen(&self.backends[*index])).collect()
        };
        let proven = serving(&[ProbeState::None, ProbeState::Up]);
        if proven.is_empty() { serving(&[ProbeState::Unknown]) } else { proven }
    }

    /// Nobody serves, and then anybody is better than nobody.
    pub(super) fn panics(&self) -> bool {
        match self.config.no_backend {
            NoBackend::Any => self.serving().is_empty() && !self.usable().is_empty(),
            NoBackend::Reset | NoBackend::Drop => false,
        }
    }

    fn usable(&self) -> Vec<usize> {
        (0..self.backends.len()).filter(|index| usable(&self.backends[*index])).collect()
    }
}

fn usable(backend: &Backend) -> bool {
    backend.operator != OperatorState::Disabled && backend.health.state() != ProbeState::Down
}

fn admit(effective: Effective) -> Admit {
    match effective {
        Effective::Serving => Admit::All,
        Effective::Trial => Admit::Trials,
        Effective::Draining | Effective::Ejected | Effective::Down | Effective::Disabled => Admit::None,
    }
}

fn member(backend: &Backend) -> Member {
    Member { id: backend.id, weight: backend.weight(), address: backend.config.address }
}
