//! The backend of a new connection.

use lb_common::{
    NO_BACKEND, SLOT_TRIES,
    abi::{FlowKey, Service, backend_flags, service_flags},
    hash::{rehash, slot},
    reason::Reason,
};
use lb_ebpf::verifier::opaque;

use super::{
    limited,
    redispatch::{REFUSED, end_abandoned, other_backend},
    result::{CHALLENGE, NONE, RESET, RETRY, TRIAL, none},
    trial::{take_token, trial},
};
use crate::program::{
    affinity::service_hash,
    maps::{BACKENDS, TABLES, Tables},
};

/// Chooses a backend: its id and [`TRIAL`], or [`NONE`] and how the SYN leaves. `had_flow`: the client had a flow, which may
/// be a handshake that its backend did not answer.
// A function of its own, so that the verifier follows its caller once and not for each way to a backend.
#[inline(never)]
pub(super) fn choose<F: Tables>(key: &FlowKey<F::Addr>, service: &Service, had_flow: bool) -> u32 {
    let hash = service_hash::<F>(service, key);
    let mut moved = NO_BACKEND as u32;
    if had_flow && service.flags & service_flags::REDISPATCH != 0 {
        let abandoned = end_abandoned::<F>(key);
        if abandoned as u16 != NO_BACKEND {
            moved = other_backend(service.id, hash, abandoned as u16) & 0xffff;
            if moved as u16 == NO_BACKEND && abandoned & REFUSED != 0 {
                // No other backend is there. The client learns so at once instead of waiting.
                return none(Reason::NoBackend) | RESET;
            }
            moved |= RETRY;
        }
    }
    let chosen = if service.flags & service_flags::LIMITED != 0 {
        limited::choose::<F>(key, service, hash, moved)
    } else {
        of_service(service, hash, moved)
    };
    if chosen < NONE {
        return chosen;
    }
    let dropped = if chosen == none(Reason::NoBackend) {
        service_flags::NO_BACKEND_DROP
    } else if chosen == none(Reason::Full) {
        service_flags::OVERFLOW_DROP
    } else if chosen == none(Reason::Unproven) {
        return chosen | CHALLENGE;
    } else {
        return chosen;
    };
    if service.flags & dropped == 0 { chosen | RESET } else { chosen }
}

/// Half-open backends first, while their trial budget lasts. Then the table. `moved`: the backend that a redispatched
/// handshake continues with, and [`RETRY`].
// A function of its own, so that the verifier follows it once for both families.
#[inline(never)]
fn of_service(service: &Service, hash: u64, moved: u32) -> u32 {
    if moved as u16 != NO_BACKEND {
        return moved as u16 as u32;
    }
    if moved & RETRY == 0
        && let Some(id) = trial(service, take_token)
    {
        return id as u32 | TRIAL;
    }
    let Some(table) = TABLES.get_value(service.id as u32, &0) else { return none(Reason::NoBackend) };
    let mut hash = hash;
    let mut reason = Reason::Swapping;
    for _ in 0..opaque(SLOT_TRIES) {
        let Some(&id) = table.get(opaque(slot(hash)) as usize) else { return none(Reason::NoBackend) };
        if id == NO_BACKEND {
            return none(Reason::NoBackend);
        }
        let Some(backend) = BACKENDS.get(id as u32) else { return none(Reason::NoBackend) };
        if backend.flags & backend_flags::ADMIT != 0 {
            if backend.link.is_resolved() {
                return id as u32;
            }
            reason = Reason::Neighbour;
        }
        hash = rehash(hash);
    }
    none(reason)
}
