//! FIN and RST: when a connection is over.
//!
//! A direction is over when its FIN was acknowledged. The connection is over when both are, or at a reset.
//!
//! Anybody can send a FIN or a reset with the tuple of a connection. So a reset counts only at the exact number
//! (RFC 5961 section 3), and a FIN only if it continues what its sender has sent. A FIN that overtakes what
//! precedes it counts once the other end acknowledges its number.

use lb_common::abi::{Address, Flow, flow_state, head_state};
use lb_ebpf::segment::{Place, Segment, flag};

use super::atomic;

/// Notes the FIN of a client, and the acknowledgement of the backend's FIN. `place`: of the segment, before it
/// counts in `client_end`.
#[inline(always)]
pub(crate) fn from_client<A: Address>(segment: &Segment, flow: &mut Flow<A>, place: Place) {
    let backend_closes = flow.backend_closes();
    if !segment.has(flag::FIN) && !backend_closes {
        return;
    }
    let mut set = 0;
    if backend_closes && segment.ack == flow.backend_syn_fin_ack {
        set |= flow_state::BACKEND_FIN | flow_state::BACKEND_FIN_ACKED;
    }
    if segment.has(flag::FIN) && flow.state & flow_state::CLIENT_FIN == 0 {
        match place {
            Place::Before => {}
            Place::Next => {
                flow.client_fin_ack = segment.end();
                set |= flow_state::CLIENT_FIN;
            }
            Place::Beyond => {
                flow.client_fin_ack = segment.end();
                flow.head |= head_state::CLIENT_FIN_BEYOND;
            }
        }
    }
    finish(flow, set, false);
}

/// Ends the connection if the number of a client's reset is exact. A client that is gone answers the backend's
/// segment, and takes its number from that.
#[inline(always)]
pub(crate) fn reset_by_client<A: Address>(segment: &Segment, flow: &mut Flow<A>) {
    if segment.seq == flow.client_end || segment.seq == flow.acked {
        finish(flow, 0, true);
    }
}

/// The same for segments of a backend. A reset of a backend comes here only if its number is exact.
#[inline(always)]
pub(crate) fn from_backend<A: Address>(segment: &Segment, flow: &mut Flow<A>, place: Place) {
    let ends = segment.flags & (flag::FIN | flag::RST) != 0;
    let client_closes = flow.client_closes();
    if !ends && !client_closes {
        return;
    }
    let mut set = 0;
    if segment.has(flag::ACK) && client_closes && segment.ack == flow.client_fin_ack {
        set |= flow_state::CLIENT_FIN | flow_state::CLIENT_FIN_ACKED;
    }
    if segment.has(flag::FIN) && flow.state & flow_state::BACKEND_FIN == 0 {
        match place {
            Place::Before => {}
            Place::Next => {
                flow.backend_syn_fin_ack = segment.end();
                set |= flow_state::BACKEND_FIN;
            }
            Place::Beyond => {
                flow.backend_syn_fin_ack = segment.end();
                flow.head |= head_state::BACKEND_FIN_BEYOND;
            }
        }
    }
    finish(flow, set, segment.has(flag::RST));
}

/// Whether a reset of a backend ends the connection. Stacks also accept the number before their FIN, because a
/// backend that has sent a FIN and is gone takes the number from a segment that has not seen the FIN.
#[inline(always)]
pub(crate) const fn is_exact<A: Address>(reset: &Segment, flow: &Flow<A>) -> bool {
    reset.seq == flow.sent_end
        || flow.state & flow_state::BACKEND_FIN != 0 && reset.seq.wrapping_add(1) == flow.sent_end
}

/// Sets these bits. At a reset, or when both FINs are acknowledged, the flow goes into time-wait and its NAT
/// port rests.
#[inline(always)]
fn finish<A: Address>(flow: &mut Flow<A>, set: u32, reset: bool) {
    const BOTH: u32 = flow_state::CLIENT_FIN_ACKED | flow_state::BACKEND_FIN_ACKED;
    let over = reset || (flow.state | set) & BOTH == BOTH;
    let set = if over { set | flow_state::TIME_WAIT } else { set };
    if set & !flow.state != 0 {
        atomic::set(&mut flow.state, set);
    }
}
