//! The backend of a new connection.

use lb_common::{
    NO_BACKEND, SLOT_TRIES,
    abi::{Backend, Service, TRIAL_SLOTS, backend_flags},
    hash::{rehash, slot},
    reason::Reason,
};
use lb_ebpf::verifier::opaque;

use crate::program::{
    atomic,
    maps::{BACKENDS, TABLES, TRIAL_BUDGETS},
};

pub(crate) struct Choice {
    pub(crate) id: u16,
    pub(crate) backend: &'static Backend,
    pub(crate) trial: bool,
}

/// Half-open backends first, while their trial budget lasts. Then the table. `moved`: the backend that a
/// redispatched handshake continues with. `retry`: this handshake has taken its token already.
#[inline(always)]
pub(crate) fn choose(service: &Service, hash: u64, moved: u16, retry: bool) -> Result<Choice, Reason> {
    if moved != NO_BACKEND
        && let Some(backend) = BACKENDS.get(moved as u32)
    {
        return Ok(Choice { id: moved, backend, trial: false });
    }
    for number in 0..opaque(TRIAL_SLOTS as u32) as usize {
        if retry || number >= service.trial_len as usize {
            break;
        }
        let Some(&id) = service.trials.get(number) else { break };
        let Some(backend) = BACKENDS.get(id as u32) else { continue };
        if backend.flags & backend_flags::TRIAL != 0 && backend.link.is_resolved() && take_token(id) {
            return Ok(Choice { id, backend, trial: true });
        }
    }
    let table = TABLES.get_value(service.id as u32, &0).ok_or(Reason::NoBackend)?;
    let mut hash = hash;
    let mut reason = Reason::Swapping;
    for _ in 0..opaque(SLOT_TRIES) {
        let id = *table.get(opaque(slot(hash)) as usize).ok_or(Reason::NoBackend)?;
        if id == NO_BACKEND {
            return Err(Reason::NoBackend);
        }
        let backend = BACKENDS.get(id as u32).ok_or(Reason::NoBackend)?;
        if backend.flags & backend_flags::ADMIT != 0 {
            if backend.link.is_resolved() {
                return Ok(Choice { id, backend, trial: false });
            }
            reason = Reason::Neighbour;
        }
        hash = rehash(hash);
    }
    Err(reason)
}

/// Takes one trial out of a half-open backend's budget. It is exact with any number of CPUs: a CPU that finds
/// a positive count has taken one.
#[inline(always)]
fn take_token(id: u16) -> bool {
    let Some(tokens) = TRIAL_BUDGETS.get_ptr_mut(id as u32) else { return false };
    // The read before the addition keeps a used-up count from falling further and further.
    // SAFETY: an aligned i64 of an array map, which stays where it is.
    unsafe { tokens.read_volatile() > 0 && atomic::fetch_add(tokens, -1) > 0 }
}
