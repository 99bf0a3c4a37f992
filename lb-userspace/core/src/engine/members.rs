//! The backends of a service that new connections can go to. All of it follows from the three axes and the path
//! of the backends, and from the policy; nothing is remembered here.

use super::backend::Backend;
use crate::{
    breaker::limits::BackendCounts,
    config::{self, NoBackend},
    io::Admit,
    states::{BreakerState, Effective, OperatorState, Panic, PathState, ProbeState},
};

/// The places of a service's backends that its table can be built from, and which of them it is built from.
pub(super) struct Members {
    serving: Vec<usize>,
    fallback: Vec<usize>,
    /// Those that are used in a panic.
    usable: Vec<usize>,
    panic: Option<Panic>,
}

impl Members {
    pub(super) fn of(backends: &[Backend], policy: &config::Service) -> Self {
        let (serving, fallback) = (serving(backends, false), serving(backends, true));
        let mut members = Self { serving, fallback, usable: Vec::new(), panic: None };
        // The first that finds a backend.
        for panic in members.causes(backends, policy) {
            let used = |index: &usize| usable(&backends[*index], panic);
            members.usable = (0..backends.len()).filter(used).collect();
            if !members.usable.is_empty() {
                members.panic = Some(panic);
                break;
            }
        }
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

    /// Too few backends serve, so the service uses others, too.
    pub(super) fn panic(&self) -> Option<Panic> {
        self.panic
    }

    /// The table is built from the fallback.
    pub(super) fn on_fallback(&self) -> bool {
        self.serving.is_empty() && !self.fallback.is_empty()
    }

    /// The places that the table is built from.
    pub(super) fn in_table(&self) -> &[usize] {
        if self.panic.is_some() {
            &self.usable
        } else if self.serving.is_empty() {
            &self.fallback
        } else {
            &self.serving
        }
    }

    /// The backends that new connections go to, of the fallback or the others, as the limits count them.
    fn counted(&self, fallback: bool) -> &[usize] {
        match (fallback, self.panic) {
            (true, _) => &self.fallback,
            (false, Some(Panic::ProbesFail)) => &self.usable,
            (false, Some(Panic::NobodyServes | Panic::FewServe) | None) => &self.serving,
        }
    }

    /// Why the service should panic. One whose fallback can serve should not.
    fn causes(&self, backends: &[Backend], policy: &config::Service) -> impl Iterator<Item = Panic> + use<> {
        let serving = self.serving.len();
        let calm = self.on_fallback();
        let nobody_serves = policy.no_backend == NoBackend::Any && serving == 0;
        let all = backends.iter().filter(|backend| !backend.fallback && reachable(backend)).count();
        let few_serve = 100 * serving < usize::from(policy.breaker.panic_threshold) * all;
        let causes = [
            (Panic::ProbesFail, probes_fail(backends, policy)),
            (Panic::NobodyServes, nobody_serves),
            (Panic::FewServe, few_serve),
        ];
        causes.into_iter().filter(move |(_, holds)| *holds && !calm).map(|(panic, _)| panic)
    }
}

/// Whether so many backends are down that it is rather what the probes depend on that has failed.
fn probes_fail(backends: &[Backend], policy: &config::Service) -> bool {
    let least = policy.probe.as_ref().map_or(0, |probe| usize::from(probe.fail_open_percent));
    let enabled = || {
        let counts = |backend: &&Backend| {
            !backend.fallback && reachable(backend) && backend.order() == OperatorState::Enabled
        };
        backends.iter().filter(counts)
    };
    let down = enabled().filter(|backend| backend.health.state() == ProbeState::Down).count();
    least > 0 && down > 0 && 100 * down >= least * enabled().count()
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
pub(super) fn counts(
    backends: &[Backend],
    policy: &config::Service,
    fallback: bool,
    without: Option<usize>,
) -> BackendCounts {
    let members = Members::of(backends, policy);
    let serving = members.counted(fallback);
    let group = || backends.iter().filter(|backend| backend.fallback == fallback && reachable(backend));
    BackendCounts {
        backends: group().count() as u32,
        out: group().filter(|backend| backend.out()).count() as u32,
        serving: serving.len() as u32,
        left: serving.iter().filter(|serving| Some(**serving) != without).count() as u32,
    }
}

/// The new connections that the maps should let a backend have.
pub(super) fn admitted(backend: &Backend, panic: Option<Panic>) -> Admit {
    if panic.is_some_and(|panic| usable(backend, panic)) {
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

/// Whether a panic uses a backend. One that has nothing to do with probes believes them.
fn usable(backend: &Backend, panic: Panic) -> bool {
    let fits = match panic {
        Panic::ProbesFail => {
            backend.order() == OperatorState::Enabled && backend.breaker.state() == BreakerState::Closed
        }
        Panic::NobodyServes | Panic::FewServe => {
            backend.order() != OperatorState::Disabled && backend.health.state() != ProbeState::Down
        }
    };
    fits && !backend.fallback && reachable(backend)
}
