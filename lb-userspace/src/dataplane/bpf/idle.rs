//! Idle timeouts: after how much silence the daemon removes a flow, and how many flows it has removed.

use std::sync::atomic::{AtomicU64, Ordering};

use lb_common::abi::{Address, Flow, flow_state};
use lb_core::time::Millis;

use crate::dataplane::{actor::monotonic_ns, counters::ExpiredFlows};

/// For this long a Linux backend reserves the port of a connection that it closed first (`TCP_TIMEWAIT_LEN`). Until
/// then the NAT port must not carry another connection.
const TIME_WAIT: Millis = Millis::secs(60);

/// The daemon removes a flow when its backend has been silent for this long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleTimeouts {
    /// Open in at least one direction.
    pub established: Millis,
    /// Both ends have sent a FIN, and one FIN is not acknowledged.
    pub closing: Millis,
    /// Since the SYN.
    pub handshake: Millis,
}

impl Default for IdleTimeouts {
    fn default() -> Self {
        Self { established: Millis::secs(15 * 60), closing: Millis::secs(30), handshake: Millis::secs(5) }
    }
}

/// The same in ticks of [`Flow::seen`], rounded up: no flow is removed early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IdleTicks {
    pub(super) established: u32,
    closing: u32,
    handshake: u32,
    time_wait: u32,
}

/// The part of a flow's life, each with a timeout of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Handshake,
    Established,
    Closing,
    TimeWait,
}

impl Phase {
    const fn of(state: u32) -> Self {
        const BOTH: u32 = flow_state::CLIENT_FIN | flow_state::BACKEND_FIN;
        if state & flow_state::TIME_WAIT != 0 {
            Self::TimeWait
        } else if state & flow_state::ESTABLISHED == 0 {
            Self::Handshake
        } else if state & BOTH == BOTH {
            Self::Closing
        } else {
            Self::Established
        }
    }
}

impl From<IdleTimeouts> for IdleTicks {
    fn from(idle: IdleTimeouts) -> Self {
        // One more, because the first tick may have been nearly over.
        let ticks = |span: Millis| {
            let ticks = (u128::from(span.0) * 1_000_000).div_ceil(1 << 30) + 1;
            // Half of the clock's circle is the future.
            u32::try_from(ticks).unwrap_or(u32::MAX).min(i32::MAX as u32)
        };
        Self {
            established: ticks(idle.established),
            closing: ticks(idle.closing),
            handshake: ticks(idle.handshake),
            time_wait: ticks(TIME_WAIT),
        }
    }
}

impl IdleTicks {
    /// Whether a flow's timeout has passed at this time.
    pub(super) const fn is_over<A: Address>(&self, flow: &Flow<A>, now: u32) -> bool {
        let limit = match Phase::of(flow.state) {
            Phase::Handshake => self.handshake,
            Phase::Established => self.established,
            Phase::Closing => self.closing,
            Phase::TimeWait => self.time_wait,
        };
        // A flow that saw a packet after the caller read the clock has a negative age.
        now.wrapping_sub(flow.seen) as i32 >= limit as i32
    }
}

/// The time in ticks of [`Flow::seen`].
pub(super) fn now_ticks() -> u32 {
    (monotonic_ns() >> 30) as u32
}

/// Counts the flows that the daemon removes.
#[derive(Debug, Default)]
pub(super) struct ExpiredCounters {
    handshakes: AtomicU64,
    established: AtomicU64,
    closing: AtomicU64,
    rested: AtomicU64,
}

impl ExpiredCounters {
    /// `state`: of the flow when the daemon removed it.
    pub(super) fn count(&self, state: u32) {
        let counter = match Phase::of(state) {
            Phase::Handshake => &self.handshakes,
            Phase::Established => &self.established,
            Phase::Closing => &self.closing,
            Phase::TimeWait => &self.rested,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> ExpiredFlows {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ExpiredFlows {
            handshakes: of(&self.handshakes),
            established: of(&self.established),
            closing: of(&self.closing),
            rested: of(&self.rested),
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_common::abi::V4;

    use super::*;

    const TICK_NS: u64 = 1 << 30;

    fn flow(state: u32, seen: u32) -> Flow<V4> {
        Flow { state: flow_state::LIVE | state, seen, ..Flow::default() }
    }

    #[test]
    fn each_phase_has_its_time() {
        const ESTABLISHED: u32 = flow_state::ESTABLISHED;
        const ONE: u32 = ESTABLISHED | flow_state::CLIENT_FIN | flow_state::CLIENT_FIN_ACKED;
        const BOTH: u32 = ONE | flow_state::BACKEND_FIN;
        let ticks = IdleTicks::from(IdleTimeouts::default());
        for (state, seconds) in [
            (0, 5),
            (flow_state::ANSWERED, 5),
            (ESTABLISHED, 900),
            (ONE, 900),
            (BOTH, 30),
            (BOTH | flow_state::BACKEND_FIN_ACKED | flow_state::TIME_WAIT, 60),
            (flow_state::TIME_WAIT, 60),
        ] {
            let flow = flow(state, u32::MAX - 1);
            // Seen at the last moment of its tick: not before its time, and at most two ticks late.
            let at = |ns: u64| flow.seen.wrapping_add((ns / TICK_NS) as u32);
            let seen_ns = TICK_NS - 1;
            assert!(!ticks.is_over(&flow, at(seen_ns + seconds * 1_000_000_000 - 1)), "{state:#x}");
            assert!(ticks.is_over(&flow, at(seconds * 1_000_000_000 + 3 * TICK_NS)), "{state:#x}");
        }
    }

    #[test]
    fn a_flow_that_saw_a_packet_after_the_clock_was_read_is_not_idle() {
        let ticks = IdleTicks::from(IdleTimeouts::default());
        assert!(!ticks.is_over(&flow(0, 101), 100));
        let longest =
            IdleTicks::from(IdleTimeouts { established: Millis(u64::MAX), ..IdleTimeouts::default() });
        assert!(!longest.is_over(&flow(flow_state::ESTABLISHED, 0), i32::MAX as u32 - 1));
    }

    #[test]
    fn expired_flows_are_counted_by_their_phase() {
        let counters = ExpiredCounters::default();
        counters.count(flow_state::LIVE);
        counters.count(flow_state::LIVE | flow_state::TIME_WAIT);
        counters.count(flow_state::LIVE | flow_state::TIME_WAIT | flow_state::ESTABLISHED);
        counters.count(flow_state::LIVE | flow_state::ESTABLISHED);
        assert_eq!(counters.read(), ExpiredFlows { handshakes: 1, established: 1, closing: 0, rested: 2 });
    }
}
