//! Backend → client: a segment of a backend that has a flow.

use lb_common::{
    abi::{Address, Backend, Flow, backend_flags, flow_state, head_state},
    reason::Reason,
};
use lb_ebpf::{
    segment::{Segment, flag},
    syn::agreed_scale,
};

use super::{
    atomic,
    backend::{backend_of, note_alive},
    clock::{coarse_ns, coarse_us, ticks},
    closing, evidence, flows, forward,
    maps::Tables,
    narrow, origin,
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
    if !origin::is_backend::<F>(ctx, flow, packet.vlan) {
        return Err(Leave::Drop(Reason::Martian));
    }
    if flow.state & flow_state::ESTABLISHED == 0 {
        return handshake(packet, flow);
    }
    if is_plain(segment, flow) {
        note_life(flow);
        note_numbers::<F>(segment, flow);
        note_unread(segment, flow);
        return forward::to_client(packet, flow);
    }
    let counts = segment.flags & (flag::SYN | flag::RST) == 0 || rare::<F>(segment, flow);
    let before = flow.sent_end;
    if counts {
        note_life(flow);
        note_numbers::<F>(segment, flow);
        if flow.head & head_state::AWAITED != 0 {
            evidence::note_answer(ctx, packet, flow);
        }
        if flow.head & head_state::AWAITED == 0 {
            note_unread(segment, flow);
        }
    }
    if flow.head & head_state::NARROW != 0 {
        if F::ROUTERS_FRAGMENT {
            // The number of the segment: it differs between segments that are under way together.
            F::allow_fragments(&packet.ip, (segment.seq ^ segment.seq >> 16) as u16);
        } else if let Some(mtu) = narrow::confirmed(segment, flow) {
            return narrow::end(packet, flow, mtu);
        }
    }
    if counts && closing::closes_by_backend(segment, flow) {
        note_closing::<F>(packet, flow, before);
    }
    forward::to_client(packet, flow)
}

/// Whether a segment neither opens nor closes anything, on a flow that waits for nothing. Most segments are plain.
#[inline(always)]
const fn is_plain<A: Address>(segment: &Segment, flow: &Flow<A>) -> bool {
    const HEAD: u32 = head_state::AWAITED | head_state::NARROW | head_state::CLIENT_FIN_BEYOND;
    let flags = (segment.flags & (flag::SYN | flag::RST | flag::FIN)) as u32;
    flow.state & flow_state::CLIENT_FIN | flow.head & HEAD | flags == 0
}

/// On a connection that the program does not read, each payload of the backend answers everything before it.
#[inline(always)]
fn note_unread<A: Address>(segment: &Segment, flow: &mut Flow<A>) {
    let unread = flow.state & (flow_state::EVIDENCE | flow_state::OPAQUE) != flow_state::EVIDENCE;
    if unread && segment.payload_len > 0 {
        flow.asked_seq = flow.client_next();
    }
}

/// Notes that the backend has sent something.
#[inline(always)]
fn note_life<A: Address>(flow: &mut Flow<A>) {
    let now = ticks(coarse_ns());
    if flow.seen != now {
        flow.seen = now;
    }
}

/// Notes what the backend has sent and acknowledged.
#[inline(always)]
fn note_numbers<F: Tables>(segment: &Segment, flow: &mut Flow<F::Addr>) {
    // An acknowledgement that overtakes data moves nothing.
    let end = segment.end();
    if end != segment.seq && end.wrapping_sub(flow.sent_end) as i32 > 0 {
        flow.sent_end = end;
    }
    if segment.has(flag::ACK) && segment.ack.wrapping_sub(flow.acked) as i32 > 0 {
        flow.acked = segment.ack;
    }
}

/// Notes what a segment ends. `next`: the backend's first number that was missing before it.
#[inline(always)]
fn note_closing<F: Tables>(packet: &Packet<'_, F>, flow: &Flow<F::Addr>, next: u32) {
    let (numbers, shape) = (closing::numbers(&packet.segment), closing::shape(&packet.segment));
    closing::note_from_backend::<F>(packet.ctx.ctx, flow.slot, numbers, shape, next);
}

/// A SYN or a reset on an established connection: whether it counts like any other segment.
#[inline(always)]
fn rare<F: Tables>(segment: &Segment, flow: &mut Flow<F::Addr>) -> bool {
    if segment.has(flag::RST) {
        return closing::is_exact(segment, flow);
    }
    if segment.has(flag::ACK) && flow.head & head_state::SYN_AGAIN != 0 {
        // The backend has lost the connection, and accepts the client's new one.
        const BEFORE: u32 = flow_state::SPOKEN
            | flow_state::OPAQUE
            | flow_state::CLIENT_FIN
            | flow_state::CLIENT_FIN_ACKED
            | flow_state::BACKEND_FIN
            | flow_state::BACKEND_FIN_ACKED;
        atomic::clear(&mut flow.state, BEFORE);
        flow.head = 0;
        flow.asked_us = coarse_us();
        begin::<F>(segment, flow);
    }
    false
}

/// Takes the numbers of both ends from a SYN-ACK.
#[inline(always)]
fn begin<F: Tables>(syn_ack: &Segment, flow: &mut Flow<F::Addr>) {
    flow.backend_syn_fin_ack = syn_ack.seq.wrapping_add(1);
    flow.head_seq = flow.backend_syn_fin_ack;
    flow.sent_end = syn_ack.end();
    flow.client_end = syn_ack.ack;
    flow.asked_seq = syn_ack.ack;
    flow.acked = syn_ack.ack;
}

#[inline(always)]
fn handshake<F: Tables>(packet: &Packet<'_, F>, flow: &mut Flow<F::Addr>) -> Result<Egress, Leave> {
    let segment = &packet.segment;
    let mut ends = false;
    if segment.has(flag::SYN) && segment.has(flag::ACK) {
        // Repeated, it says nothing new: the backend may have sent more since.
        if flow.state & flow_state::ANSWERED == 0 || segment.seq.wrapping_add(1) != flow.head_seq {
            atomic::clear(&mut flow.state, flow_state::BACKEND_FIN);
            flow.head &= !head_state::BACKEND_FIN_BEYOND;
            begin::<F>(segment, flow);
        }
        let tcp = if F::FIXED { packet.ip.from(F::HEADER) } else { packet.ip.from_any(segment.tcp as usize) };
        flow.client_scale = agreed_scale(&tcp, segment.payload - segment.tcp, flow.client_scale);
        flow.head &= !head_state::CONNECTING;
        atomic::set(&mut flow.state, flow_state::ANSWERED);
        note_alive(flow.backend);
    } else if segment.has(flag::RST) {
        let refuses = segment.has(flag::ACK) && segment.ack == flow.asked_seq;
        evidence::note_refusal(segment, flow);
        let redispatches = |of: &Backend| of.flags & backend_flags::REDISPATCH != 0;
        if refuses && flow.state & flow_state::ANSWERED == 0 && backend_of(flow).is_some_and(redispatches) {
            // The client does not learn of it: its next SYN goes to another backend.
            atomic::set(&mut flow.state, flow_state::REFUSED);
            return Err(Leave::Swallow);
        }
        ends =
            if flow.state & flow_state::ANSWERED == 0 { refuses } else { closing::is_exact(segment, flow) };
    } else if flow.state & flow_state::ANSWERED != 0 && !segment.has(flag::SYN) {
        // A backend may speak, and close, before the client's acknowledgement has passed (RFC 7413).
        let before = flow.sent_end;
        note_numbers::<F>(segment, flow);
        if segment.has(flag::FIN) {
            note_closing::<F>(packet, flow, before);
        }
    }
    let egress = forward::to_client(packet, flow)?;
    if ends {
        flows::release::<F>(flow);
    }
    Ok(egress)
}
