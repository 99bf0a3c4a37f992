//! FIN and RST: when a connection is over.
//!
//! A direction is over when its FIN was acknowledged. The connection is over when both are, or at a reset.

use lb_common::abi::{Address, Flow, flow_state};
use lb_ebpf::segment::{Segment, flag};

use super::atomic;

/// Notes FIN and RST of a client, and the acknowledgement of the backend's FIN.
#[inline(always)]
pub(crate) fn from_client<A: Address>(segment: &Segment, flow: &mut Flow<A>) {
    let ends = segment.flags & (flag::FIN | flag::RST) != 0;
    if !ends && flow.state & flow_state::BACKEND_FIN == 0 {
        return;
    }
    let mut set = 0;
    if segment.has(flag::ACK)
        && flow.state & flow_state::BACKEND_FIN != 0
        && segment.ack == flow.backend_syn_fin_ack
    {
        set |= flow_state::BACKEND_FIN_ACKED;
    }
    if segment.has(flag::FIN) {
        flow.client_fin_ack = segment.end();
        set |= flow_state::CLIENT_FIN;
    }
    finish(flow, set, segment.has(flag::RST));
}

/// The same for segments of a backend.
#[inline(always)]
pub(crate) fn from_backend<A: Address>(segment: &Segment, flow: &mut Flow<A>) {
    let ends = segment.flags & (flag::FIN | flag::RST) != 0;
    if !ends && flow.state & flow_state::CLIENT_FIN == 0 {
        return;
    }
    let mut set = 0;
    if segment.has(flag::ACK)
        && flow.state & flow_state::CLIENT_FIN != 0
        && segment.ack == flow.client_fin_ack
    {
        set |= flow_state::CLIENT_FIN_ACKED;
    }
    if segment.has(flag::FIN) {
        flow.backend_syn_fin_ack = segment.end();
        set |= flow_state::BACKEND_FIN;
    }
    finish(flow, set, segment.has(flag::RST));
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
