//! Backend → client.

use lb_common::{
    abi::{Address, Flow, flow_state, head_state},
    reason::Reason,
};
use lb_ebpf::{
    segment::{Segment, flag},
    translate::Translation,
};

use super::{
    Leave, Packet, Way, answer_ticks, atomic, coarse_ns, counters, evidence, hook,
    hook::Context,
    maps::LAST_SYNACK,
    ports,
    table::{self, Tables},
    ticks,
    to_backend::finish,
};

/// A segment of a backend that has a flow which is not over.
#[inline(always)]
pub(super) fn steer<F: Tables>(
    ctx: &Context,
    packet: &Packet<'_, F>,
    flow: &mut Flow<F::Addr>,
) -> Result<Way, Leave> {
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
    // On a connection that the program does not read, each answer is one to everything before it.
    let unread = flow.state & (flow_state::EVIDENCE | flow_state::OPAQUE) != flow_state::EVIDENCE;
    if unread && segment.payload_len > 0 && flow.head & head_state::AWAITED == 0 {
        flow.asked_seq = flow.client_end;
    }
    let way = forward(packet, flow)?;
    closing(segment, flow);
    Ok(way)
}

/// The backend takes connections now: a handshake that has to go elsewhere finds it.
#[inline(always)]
fn note_alive(backend: u16) {
    let Some(answered) = LAST_SYNACK.get_ptr_mut(backend as u32) else { return };
    // SAFETY: a word of a map; whoever writes last is right enough.
    unsafe { answered.write_volatile(answer_ticks()) };
}

#[inline(always)]
fn handshake<F: Tables>(packet: &Packet<'_, F>, flow: &mut Flow<F::Addr>) -> Result<Way, Leave> {
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
            // The client is not told: its next SYN goes elsewhere.
            atomic::set(&mut flow.state, flow_state::REFUSED);
            return Err(Leave::Swallow);
        }
    }
    let way = forward(packet, flow)?;
    if segment.has(flag::RST) {
        table::release::<F>(flow);
    }
    Ok(way)
}

/// As for the client, the other way round.
#[inline(always)]
fn closing<A: Address>(segment: &Segment, flow: &mut Flow<A>) {
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

/// Sends a segment on to the client, by the way the client's own came.
#[inline(always)]
fn forward<F: Tables>(packet: &Packet<'_, F>, flow: &Flow<F::Addr>) -> Result<Way, Leave> {
    let to = Translation {
        src: &flow.client.dst,
        dst: &flow.client.src,
        ports: ports(flow.client.dport, flow.client.sport),
        tcp_delta: !flow.tcp_delta,
        ip_delta: !flow.ip_delta,
    };
    let tcp = packet.segment.tcp as usize;
    hook::translate::<F>(packet.ctx, (&packet.frame, &packet.ip), tcp, &flow.link, &to)
        .ok_or(Reason::Malformed)?;
    if let Some(counters) = counters(flow.backend) {
        counters.packets_from += 1;
        counters.bytes_from += packet.segment.ip_len as u64;
    }
    Ok(Way::new(flow.ifindex, flow_state::vlan(flow.state)))
}
