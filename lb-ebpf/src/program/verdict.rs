//! How a frame leaves, and the one place where that becomes an action, a counter and a log line.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use lb_common::{abi::flow_state, reason::Reason};

use super::action::Action;
use crate::{
    drops::count,
    hook::{Context, send},
};

/// How a frame leaves a step other than by being forwarded.
pub(crate) enum Leave {
    /// The frame is not Shunt's. The stack gets it as it came.
    Pass,
    /// The frame belongs to no flow. It may be for a VIP or from a backend.
    NoFlow,
    /// As `NoFlow`, but the client had a flow: it has ended, or it is a handshake to redispatch.
    FlowEnded,
    /// The frame is no TCP segment. It may be an ICMP error about one.
    IcmpError,
    /// The program drops the frame and counts the reason.
    Drop(Reason),
    /// The program drops the frame and counts nothing: it has acted on what the frame says.
    Swallow,
    /// The program counts the reason and answers with a TCP reset.
    Reset(Reason),
    /// The same with an acknowledgement of what the flow knows (RFC 5961 section 4).
    Challenge(Reason),
}

impl From<Reason> for Leave {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self::Drop(reason)
    }
}

/// The interface by which a frame leaves, and above it the VLAN where [`Action`] has it. 0: no VLAN.
///
/// It is one word. Of an `Err` the compiler moves the unset parts of the value too, and the verifier lets it
/// move unset memory only in whole words.
pub(crate) struct Egress(u64);

impl Egress {
    #[inline(always)]
    pub(crate) const fn new(ifindex: u32, vlan: u16) -> Self {
        Self(ifindex as u64 | (vlan as u64) << 48)
    }

    /// To the client of a flow. `state`: `flow_state`, which has the VLAN where it is needed.
    #[inline(always)]
    pub(crate) const fn to_client(ifindex: u32, state: u32) -> Self {
        const { assert!(flow_state::VLAN == 16) };
        Self(ifindex as u64 | ((state & 0xfff << flow_state::VLAN) as u64) << 32)
    }

    #[inline(always)]
    const fn ifindex(&self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    const fn leaving_by(&self, code: u32) -> Action {
        Action::from_bits((self.0 >> 32) as u32 | code)
    }
}

/// The decision of one step of the ladder about a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The frame leaves by this action.
    Leaves(Action),
    /// There is no flow. The frame may be for a VIP, or from a backend.
    NoFlow,
    /// As `NoFlow`, but there was a flow.
    FlowEnded,
    /// There is no segment. The frame may be an ICMP error about one.
    IcmpError,
    /// The frame is answered by a reset.
    Reset,
    /// The frame is answered by a challenge ACK.
    Challenge,
}

/// A [`Verdict`] as one number. The steps are functions of their own, and a BPF function returns one
/// register.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Code(u32);

impl Code {
    /// From this number on a code is no action.
    const FIRST: u32 = Self::CHALLENGE;
    const CHALLENGE: u32 = u32::MAX - 4;
    const NO_FLOW: u32 = u32::MAX - 3;
    const FLOW_ENDED: u32 = u32::MAX - 2;
    const ICMP_ERROR: u32 = u32::MAX - 1;
    const RESET: u32 = u32::MAX;

    #[inline(always)]
    pub(crate) const fn verdict(self) -> Verdict {
        // One comparison for most frames.
        if self.0 < Self::FIRST {
            return Verdict::Leaves(Action::from_bits(self.0));
        }
        match self.0 {
            Self::NO_FLOW => Verdict::NoFlow,
            Self::FLOW_ENDED => Verdict::FlowEnded,
            Self::ICMP_ERROR => Verdict::IcmpError,
            Self::CHALLENGE => Verdict::Challenge,
            _ => Verdict::Reset,
        }
    }
}

impl Verdict {
    #[inline(always)]
    pub(crate) const fn code(self) -> Code {
        Code(match self {
            Self::Leaves(action) => action.bits(),
            Self::NoFlow => Code::NO_FLOW,
            Self::FlowEnded => Code::FLOW_ENDED,
            Self::IcmpError => Code::ICMP_ERROR,
            Self::Reset => Code::RESET,
            Self::Challenge => Code::CHALLENGE,
        })
    }
}

/// Turns how a frame leaves a step into a verdict. Here the program sends, counts and logs.
///
/// `service`: set once a VIP or a flow has matched. Before that the program drops nothing.
#[inline(always)]
pub(crate) fn decide(ctx: &Context, service: u16, outcome: Result<Egress, Leave>) -> Verdict {
    match outcome {
        Ok(egress) => Verdict::Leaves(egress.leaving_by(send(ctx, egress.ifindex()))),
        Err(Leave::Pass) => Verdict::Leaves(Action::new(XDP_PASS, 0)),
        Err(Leave::NoFlow) => Verdict::NoFlow,
        Err(Leave::FlowEnded) => Verdict::FlowEnded,
        Err(Leave::IcmpError) => Verdict::IcmpError,
        Err(Leave::Swallow) => Verdict::Leaves(Action::new(XDP_DROP, 0)),
        Err(Leave::Drop(reason)) => {
            count(ctx, service, reason);
            Verdict::Leaves(Action::new(XDP_DROP, 0))
        }
        Err(Leave::Reset(reason)) => {
            count(ctx, service, reason);
            Verdict::Reset
        }
        Err(Leave::Challenge(reason)) => {
            count(ctx, service, reason);
            Verdict::Challenge
        }
    }
}
