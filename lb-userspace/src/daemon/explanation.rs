//! The backend that the maps give a client, with names in place of ids.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_core::{
    io::BackendId,
    snapshot::{LeavingSnapshot, ServiceSnapshot},
    time::Instant,
};

use crate::{
    control::model::{By, Choice, Explanation, KnownConnection, Stage, TrialSlot, Way},
    dataplane::steering,
};

pub(super) fn explanation(
    client: SocketAddr,
    now: Instant,
    service: &ServiceSnapshot,
    leaving: &[LeavingSnapshot],
    steering: &steering::Steering,
) -> Explanation {
    let names: BTreeMap<BackendId, &str> =
        service.backends.iter().map(|backend| (backend.id, backend.name.as_str())).collect();
    let name = |id: BackendId| {
        let former = || {
            let of = leaving.iter().find(|of| of.id == id).and_then(|of| of.name.as_deref());
            of.map_or_else(|| format!("(id {id}, no longer configured)"), |name| format!("{name} (removed)"))
        };
        names.get(&id).map_or_else(former, |name| (*name).to_owned())
    };
    let drain = |id: BackendId| {
        let present = service.backends.iter().find(|of| of.id == id).and_then(|of| of.drain);
        present.or_else(|| leaving.iter().find(|of| of.id == id).map(|of| of.drain))
    };
    let choice = |choice: steering::Choice| {
        let (by, tries, reason) = match choice {
            steering::Choice::Pinned(_) => (By::Connection, None, None),
            steering::Choice::Trial(_) => (By::Trial, None, None),
            steering::Choice::Table { tries, .. } => (By::Table, Some(tries), None),
            steering::Choice::Nobody(reason) => (By::None, None, Some(reason.name().to_owned())),
        };
        Choice { by, backend: choice.backend().map(name), tries, reason }
    };
    let steering::Steering { hash, slot, in_slot, pinned, trial_slots, only_by, choice: chosen, without } =
        steering;
    let connection = |pinned: &steering::Pinned| KnownConnection {
        stage: match pinned.stage {
            steering::Stage::Flow => Stage::Established,
            steering::Stage::Handshake => Stage::Handshake,
        },
        backend: name(pinned.backend),
        valid: pinned.alive,
        trial: pinned.trial,
        closing: pinned.closing,
        nat: pinned.nat,
        address: pinned.address,
        takes_syn: pinned.takes_syn,
        drain: drain(pinned.backend),
    };
    let trial_slot = |slot: &steering::TrialSlot| TrialSlot {
        backend: name(slot.backend),
        trials_left: slot.left,
        available: slot.takes,
    };
    Explanation {
        service: service.name.clone(),
        vip: service.vip,
        client,
        t_ms: now,
        fallback: service.fallback,
        hash: format!("{hash:#018x}"),
        slot: *slot,
        slot_backend: in_slot.map(name),
        connection: pinned.as_ref().map(connection),
        only_by: only_by.map(way),
        trial_slots: trial_slots.iter().map(trial_slot).collect(),
        choice: choice(*chosen),
        if_removed: without.map(choice),
    }
}

fn way(of: steering::Way) -> Way {
    // The interface may have gone since.
    let name = nix::net::if_::if_indextoname(of.ifindex).ok();
    let interface =
        name.map_or_else(|| format!("interface {}", of.ifindex), |name| name.to_string_lossy().into_owned());
    Way { interface, vlan: (of.vlan != 0).then_some(of.vlan) }
}
