//! The service of a fixture.

use std::{net::SocketAddr, num::NonZeroU8};

use lb_core::{
    config::{Mode, NoBackend, ServiceLimit, Sources},
    io::{BackendId, ServiceId, Step},
};

use super::{SERVICE, vip};

/// A service as a test wants it. The default is in mode `nat` and has evidence; it has no source rules, no trials and
/// no redispatch.
#[derive(Clone, Debug)]
pub struct ServiceSettings {
    pub id: ServiceId,
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

impl Default for ServiceSettings {
    fn default() -> Self {
        Self {
            id: SERVICE,
            vip: vip(),
            mode: Mode::Nat,
            no_backend: NoBackend::Reset,
            evidence: true,
            redispatch: false,
            affinity: None,
            limit: None,
            sources: Sources::default(),
            trials: Vec::new(),
        }
    }
}

impl ServiceSettings {
    pub fn with_trials(mut self, trials: &[u16]) -> Self {
        self.trials = trials.iter().map(|id| BackendId(*id)).collect();
        self
    }
}

impl From<ServiceSettings> for Step {
    fn from(settings: ServiceSettings) -> Self {
        let ServiceSettings {
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
        } = settings;
        Self::Service { id, vip, mode, no_backend, evidence, redispatch, affinity, limit, sources, trials }
    }
}
