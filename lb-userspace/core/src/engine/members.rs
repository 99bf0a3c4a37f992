//! The backends of a service that new connections can go to. All of it follows from the three axes and the path
//! of the backends, and from the policy; nothing is remembered here.

use super::backend::Backend;
use crate::{
    breaker::limits::BackendCounts,
    config::{self, NoBackend},
    io::Admit,
    states::{Effective, OperatorState, PathState, ProbeState},
};

/// The places of a service's backends that its table can be built from, and which of them it is built from.
pub(super) struct Members {
    serving: Vec<usize>,
    fallback: Vec<usize>,
    /// All that may be used in a panic.
    usable: Vec<usize>,
    panic: bool,
}

impl Members {
    pub(super) fn of(backends: &[Backend], policy: &config::Service) -> Self {
        let (serving, fallback) = (serving(backends, false), serving(backends, true));
        let usable = (0..backends.len()).filter(|index| usable(&backends[*index])).collect::<Vec<_>>();
        let mut members = Self { serving, fallback, usable, panic: false };
        members.panic = members.too_few(backends, policy);
        members
    }

    /// Backends that serve and are no fallback.
    pub(super) fn serving(&self) -> &[usize] {
        &self.serving
    }

    /// Fallback backends that could serve.
    pub(super) fn fallback(&self) -> &[usize] {
        &self.fallback
    }

    /// Too few backends serve, so the service uses all that may be used.
    pub(super) fn panic(&self) -> bool {
        self.panic
    }

    /// The table is built from the fallback.
    pub(super) fn on_fallback(&self) -> bool {
        self.serving.is_empty() && !self.fallback.is_empty()
    }

    /// The places that the table is built from.
    pub(super) fn in_table(&self) -> &[usize] {
        if self.panic {
            &self.usable
        } else if self.serving.is_empty() {
            &self.fallback
        } else {
            &self.serving
        }
    }

    /// A service with a fallback that can serve does not panic.
    fn too_few(&self, backends: &[Backend], policy: &config::Service) -> bool {
        let serving = self.serving.len();
        if self.on_fallback() {
            return false;
        }
        let none_serves = match policy.no_backend {
            NoBackend::Any => serving == 0,
            NoBackend::Reset | NoBackend::Drop => false,
        };
        let all = backends.iter().filter(|backend| !backend.fallback && reachable(backend)).count();
        let below_threshold = 100 * serving < usize::from(policy.breaker.panic_threshold) * all;
        (none_serves || below_threshold) && !self.usable.is_empty()
    }
}

/// The backends of the fallback, or the others, that serve and are not known to be down. A backend that was
/// not probed yet counts only if none is proven.
pub(super) fn serving(backends: &[Backend], fallback: bool) -> Vec<usize> {
    let serving = |states: &[ProbeState]| -> Vec<usize> {
        let chosen = |backend: &Backend| {
            backend.fallback == fallback
                && backend.effective() == Effective::Serving
                && states.contains(&backend.health.state())
        };
        (0..backends.len()).filter(|index| chosen(&backends[*index])).collect()
    };
    let proven = serving(&[ProbeState::None, ProbeState::Up]);
    if proven.is_empty() { serving(&[ProbeState::Unknown]) } else { proven }
}

/// Counts the backends of the fallback, or the others: the two groups do not count for each other. A backend that
/// the packet path cannot reach counts for nothing.
pub(super) fn counts(backends: &[Backend], fallback: bool, without: Option<usize>) -> BackendCounts {
    let serving = serving(backends, fallback);
    let group = || backends.iter().filter(|backend| backend.fallback == fallback && reachable(backend));
    BackendCounts {
        backends: group().count() as u32,
        out: group().filter(|backend| backend.out()).count() as u32,
        serving: serving.len() as u32,
        left: serving.iter().filter(|serving| Some(**serving) != without).count() as u32,
    }
}

/// The new connections that the maps should let a backend have.
pub(super) fn admitted(backend: &Backend, panic: bool) -> Admit {
    if panic && usable(backend) {
        return Admit::All;
    }
    match backend.effective() {
        Effective::Serving => Admit::All,
        Effective::Trial => Admit::Trials,
        Effective::Draining
        | Effective::Ejected
        | Effective::Down
        | Effective::Unreachable
        | Effective::Disabled => Admit::None,
    }
}

pub(super) fn reachable(backend: &Backend) -> bool {
    backend.path == PathState::Ok
}

fn usable(backend: &Backend) -> bool {
    !backend.fallback
        && reachable(backend)
        && backend.operator != OperatorState::Disabled
        && backend.health.state() != ProbeState::Down
}
