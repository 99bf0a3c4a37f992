//! How much of a half-open backend's trial budget is left, and the tokens that come back.
//!
//! A SYN takes a token, and anybody can send a SYN. A client that does not complete its handshake is no trial: the
//! timeout scanner gives its token back, for another client.

use std::{
    collections::BTreeSet,
    mem,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use lb_common::abi::{Address, Flow, flow_state, head_state};
use lb_core::io::BackendId;

use super::mapped::Mapped;

/// A client acknowledges the SYN-ACK within its round trip. On a bad road it may need the third one, which a stack sends
/// after three seconds (RFC 6298). A client that is slower still goes on, beside the budget.
const PATIENCE_US: u32 = 3_500_000;

/// Works on `TRIAL_BUDGETS` in this process's memory, without a system call.
#[derive(Debug)]
pub struct TrialBudgets {
    left: Mapped<i64>,
    returned: Mutex<BTreeSet<BackendId>>,
}

impl TrialBudgets {
    pub(super) const fn new(left: Mapped<i64>) -> Self {
        Self { left, returned: Mutex::new(BTreeSet::new()) }
    }

    /// The new connections that a half-open backend may still get. It may be a little below 0: CPUs that took a
    /// token at the same moment and found none.
    pub fn left(&self, backend: BackendId) -> i64 {
        self.left.read(backend.0.into())
    }

    /// Gives a token back. The budget may have been renewed since it was taken: then it has one more than it was given.
    pub(super) fn give_back(&self, backend: BackendId) {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).insert(backend);
        // SAFETY: an aligned word of the mapping.
        unsafe { AtomicI64::from_ptr(self.left.at(backend.0.into())) }.fetch_add(1, Ordering::Relaxed);
    }

    /// Of these backends with the budgets that they were given: those from which a token was taken. A budget to which
    /// a token has come back since the last call looks fuller than it was.
    pub fn tried(&self, given: impl Iterator<Item = (BackendId, u32)>) -> Vec<BackendId> {
        let returned = mem::take(&mut *self.returned.lock().unwrap_or_else(PoisonError::into_inner));
        given
            .filter(|(backend, had)| returned.contains(backend) || self.left(*backend) < i64::from(*had))
            .map(|(backend, _)| backend)
            .collect()
    }
}

/// Whether a flow has taken a token for a client that does not answer its backend, or whose SYN no backend answers. A
/// backend that does not answer a sound SYN has failed the trial instead.
pub(super) const fn is_no_trial<A: Address>(flow: &Flow<A>, now_us: u32) -> bool {
    const TAKEN: u32 = flow_state::TRIAL;
    const DECIDED: u32 = flow_state::ESTABLISHED | flow_state::REFUSED | flow_state::TIME_WAIT;
    let age = now_us.wrapping_sub(flow.asked_us);
    let unsound = flow.state & flow_state::EVIDENCE != 0 && flow.head & head_state::CONNECTING == 0;
    flow.state & (TAKEN | DECIDED) == TAKEN
        && (flow.state & flow_state::ANSWERED != 0 || unsound)
        && age >= PATIENCE_US
        && age < u32::MAX / 2
}
