//! Entries: the recorder gives them to the thread that writes.

use std::{net::SocketAddr, num::NonZeroU16, time::Duration};

use lb_core::{
    config::{Config, Service},
    io::{BackendId, Context, Generation, Operation, Outcome, ProbeResult},
    snapshot::{PathState, Snapshot},
};

use super::line::Member;

/// Something to be written.
#[derive(Debug)]
pub(super) enum Entry {
    Members(Vec<Membership>),
    Outcome {
        backend: BackendId,
        generation: Generation,
        outcome: Outcome,
        ttfb: Option<Duration>,
        client: Option<SocketAddr>,
        context: Context,
    },
    Confirmation {
        backend: BackendId,
        generation: Generation,
        result: ProbeResult,
        syn_answered: bool,
    },
    TrialsTaken {
        backend: BackendId,
    },
    Probe {
        backend: BackendId,
        generation: Generation,
        result: ProbeResult,
    },
    Path {
        backend: BackendId,
        generation: Generation,
        path: PathState,
    },
    Operation(Operation),
    SuccessCounts {
        backend: BackendId,
        count: u64,
    },
    EvidenceLost {
        backend: BackendId,
        lost: u64,
    },
    /// So many entries found the queue full.
    Gap(u64),
}

/// The backends of one service, with their names and with the engine's ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Membership {
    pub(super) service: String,
    pub(super) members: Vec<Member>,
    pub(super) ids: Vec<(BackendId, Generation)>,
}

/// The backends of all services, after the engine took a configuration.
pub(super) fn memberships(config: &Config, snapshot: &Snapshot) -> Vec<Membership> {
    let of_service = |service: &Service| {
        let known = snapshot.services.iter().find(|known| known.name == service.name)?;
        let with_id = service.everyone().enumerate().filter_map(|(place, backend)| {
            let known = known.backends.iter().find(|known| known.name == backend.name)?;
            let weight = NonZeroU16::new(backend.weight)?;
            let fallback = place >= service.backends.len();
            let member = Member {
                name: backend.name.clone(),
                address: backend.address,
                weight,
                fallback,
                discovery: backend.discovered.as_ref().map(|of| of.standing),
                id: backend.identity().map(str::to_owned),
            };
            Some((member, (known.id, known.generation)))
        });
        let (members, ids) = with_id.unzip();
        Some(Membership { service: service.name.clone(), members, ids })
    };
    config.services.iter().filter_map(of_service).collect()
}
