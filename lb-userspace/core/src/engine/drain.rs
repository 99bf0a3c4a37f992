//! The drain of one backend: its connections, while it gets no new ones.
//!
//! ```text
//!                          since                          until
//!   gets new connections ───────▶ its flows go on, or ───────▶ the flows that are left
//!   FlowReset::Never              end at the next request      are reset
//!       ▲                         Never, AtRequest             FlowReset::Now
//!       └──────────── it serves again, or is on trial ◀────────────┘
//! ```

use crate::{
    config::{Connections, OnOut},
    io::FlowReset,
    snapshot,
    time::{Instant, Millis},
};

/// A backend that gets no new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Drain {
    pub(super) since: Instant,
    /// The connections that are left then are reset.
    pub(super) until: Instant,
    pub(super) over: bool,
}

impl Drain {
    pub(super) fn begin(policy: &Connections, now: Instant) -> Self {
        Self { since: now, until: now + policy.drain_timeout, over: false }
    }

    /// Continues the drain of an earlier run with the time that is left.
    pub(super) fn resume(policy: &Connections, left: Millis, now: Instant) -> Self {
        let left = left.min(policy.drain_timeout);
        let until = now + left;
        let since = Instant(until.0.saturating_sub(policy.drain_timeout.0)).min(now);
        Self { since, until, over: left == Millis(0) }
    }

    /// A new `drain_timeout` counts from the beginning of the drain.
    pub(super) fn adapt(&mut self, old: &Connections, new: &Connections, now: Instant) {
        self.until = Instant(self.until.0.saturating_sub(old.drain_timeout.0)) + new.drain_timeout;
        self.over &= self.until <= now;
    }

    pub(super) fn flow_reset(&self, on_out: OnOut) -> FlowReset {
        match on_out {
            OnOut::Drain | OnOut::Reset if self.over => FlowReset::Now,
            OnOut::Drain => FlowReset::Never,
            OnOut::Reset => FlowReset::AtRequest,
        }
    }

    pub(super) fn snapshot(&self, on_out: OnOut) -> snapshot::Drain {
        snapshot::Drain { since_ms: self.since, until_ms: self.until, flow_reset: self.flow_reset(on_out) }
    }

    /// `true`: the drain is over since this call.
    pub(super) fn finish(&mut self, now: Instant) -> bool {
        let ends = !self.over && self.until <= now;
        self.over |= ends;
        ends
    }

    pub(super) fn due(&self) -> Option<Instant> {
        (!self.over).then_some(self.until)
    }
}
