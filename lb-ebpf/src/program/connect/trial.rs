//! Half-open backends, which get trials while their budget lasts.

use lb_common::abi::{Service, TRIAL_SLOTS, backend_flags};
use lb_ebpf::verifier::opaque;

use crate::program::{
    atomic,
    maps::{BACKENDS, TRIAL_BUDGETS},
};

/// The first half-open backend from which a trial can be taken.
#[inline(always)]
pub(super) fn trial(service: &Service, take: impl Fn(u16) -> bool) -> Option<u16> {
    for number in 0..opaque(TRIAL_SLOTS as u32) as usize {
        if number >= service.trial_len as usize {
            break;
        }
        let Some(&id) = service.trials.get(number) else { break };
        let Some(backend) = BACKENDS.get(id as u32) else { continue };
        if backend.flags & backend_flags::TRIAL != 0 && backend.link.is_resolved() && take(id) {
            return Some(id);
        }
    }
    None
}

/// Takes one trial out of a half-open backend's budget. It is exact with any number of CPUs: a CPU that finds
/// a positive count has taken one.
#[inline(always)]
pub(super) fn take_token(id: u16) -> bool {
    let Some(tokens) = TRIAL_BUDGETS.get_ptr_mut(id as u32) else { return false };
    // The read before the addition keeps a used-up count from falling further and further.
    // SAFETY: an aligned i64 of an array map, which stays where it is.
    unsafe { tokens.read_volatile() > 0 && atomic::fetch_add(tokens, -1) > 0 }
}
