//! The choice of a backend as one number, because a BPF function returns one register.

use lb_common::{abi::Backend, reason::Reason};
use lb_ebpf::verifier::opaque;

use crate::program::{maps::BACKENDS, verdict::Leave};

/// Set beside the backend's id: the connection is a trial.
pub(super) const TRIAL: u32 = 1 << 16;

/// Set beside the backend with which a redispatched handshake continues: it has taken its token already.
pub(super) const RETRY: u32 = 1 << 16;

/// From this number on there is no backend. The last byte is a [`Reason`].
pub(super) const NONE: u32 = 1 << 17;

/// Set beside [`NONE`]: the SYN is answered by a reset, or by a challenge. Otherwise it is dropped.
pub(super) const RESET: u32 = 1 << 18;
pub(super) const CHALLENGE: u32 = 1 << 19;

pub(super) const fn none(reason: Reason) -> u32 {
    NONE | reason as u32
}

pub(super) struct Choice {
    pub(super) id: u16,
    pub(super) backend: &'static Backend,
    /// 1: it is a trial. No `bool`, because the verifier would follow both.
    pub(super) trial: u32,
}

#[inline(always)]
pub(super) fn choice_of(chosen: u32) -> Result<Choice, Leave> {
    if chosen >= NONE {
        let reason = Reason::from_number(chosen as u8).unwrap_or(Reason::NoBackend);
        return Err(if chosen & RESET != 0 {
            Leave::Reset(reason)
        } else if chosen & CHALLENGE != 0 {
            Leave::Challenge(reason)
        } else {
            Leave::Drop(reason)
        });
    }
    let id = chosen as u16;
    let backend = BACKENDS.get(id as u32).ok_or(Leave::Drop(Reason::NoBackend))?;
    Ok(Choice { id, backend, trial: opaque(chosen / TRIAL & 1) as u32 })
}
