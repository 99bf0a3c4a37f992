//! Backend → client: a segment of a backend that has a flow.

use lb_common::abi::{Flow, flow_state, head_state};
use lb_ebpf::segment::flag;

use super::{
    atomic,
    backend::note_alive,
    clock::{coarse_ns, ticks},
    closing, evidence, flows, forward,
    maps::Tables,
    narrow,
    packet::Packet,
    verdict::{Egress, Leave},
};
use crate::hook::Context;

/// The flow is not in time-wait.
#[inline(always)]
pub(crate) fn steer<F: Tables>(
    ctx: &Context,
    packet: &Packet<'_, F>,
    flow: &mut Flow<F::Addr>,
) -> Result<Egress, Leave> {
    let segment = &packet.segment;
    if flow.state & flow_state::ESTABLISHED == 0 {
        return handshake(packet, flow);
    }
    let now = ticks(coarse_ns());
    if flow.seen != now {
        flow.seen = now;
    }
    if segment.end().wrapping_sub(flow.sent_end) as i32 > 0 {
        flow.sent_end = segment.end();
    }
    if flow.head & head_state::AWAITED != 0 {
        evidence::note_answer(ctx, packet, flow);
    }
    // On a connection that the program does not read, each payload of the backend answers everything before
    // it.
    let unread = flow.state & (flow_state::EVIDENCE | flow_state::OPAQUE) != flow_state::EVIDENCE;
    if unread && segment.payload_len > 0 && flow.head & head_state::AWAITED == 0 {
        flow.asked_seq = flow.client_end;
    }
    if flow.head & head_state::NARROW != 0 {
        if F::ROUTERS_FRAGMENT {
            // The number of the segment: it differs between segments that are under way together.
            F::allow_fragments(&packet.ip, (segment.seq ^ segment.seq >> 16) as u16);
        } else if let Some(mtu) = narrow::confirmed(segment, flow) {
            return narrow::end(packet, flow, mtu);
        }
    }
    let egress = forward::to_client(packet, flow)?;
    closing::from_backend(segment, flow);
    Ok(egress)
}

#[inline(always)]
fn handshake<F: Tables>(packet: &Packet<'_, F>, flow: &mut Flow<F::Addr>) -> Result<Egress, Leave> {
    let segment = &packet.segment;
    if segment.has(flag::SYN) && segment.has(flag::ACK) {
        flow.backend_syn_fin_ack = segment.seq.wrapping_add(1);
        flow.sent_end = segment.end();
        flow.head &= !head_state::CONNECTING;
        atomic::set(&mut flow.state, flow_state::ANSWERED);
        note_alive(flow.backend);
    } else if segment.has(flag::RST) {
        let refuses = segment.has(flag::ACK) && segment.ack == flow.asked_seq;
        evidence::note_refusal(segment, flow);
        if refuses && flow.state & (flow_state::REDISPATCH | flow_state::ANSWERED) == flow_state::REDISPATCH {
            // The client does not learn of it: its next SYN goes to another backend.
            atomic::set(&mut flow.state, flow_state::REFUSED);
            return Err(Leave::Swallow);
        }
    }
    let egress = forward::to_client(packet, flow)?;
    if segment.has(flag::RST) {
        flows::release::<F>(flow);
    }
    Ok(egress)
}
