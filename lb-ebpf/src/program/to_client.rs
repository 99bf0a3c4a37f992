//! Backend → client.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    abi::{Address, Flow, flow_state, head_state},
    reason::Reason,
};
use lb_ebpf::{
    segment::{Segment, flag},
    translate::{Translation, translate},
};

use super::{
    Leave, Packet, Way, atomic, coarse_ns, counters, evidence, ports,
    table::{self, Tables},
    ticks,
    to_backend::finish,
};

/// A segment of a backend that has a flow which is not over.
#[inline(always)]
pub(super) fn steer<F: Tables>(
    ctx: &XdpContext,
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
        evidence::note_answer(ctx, packet.link_len, segment, flow);
    }
    let way = forward(packet, flow)?;
    closing(segment, flow);
    Ok(way)
}

#[inline(always)]
fn handshake<F: Tables>(packet: &Packet<'_, F>, flow: &mut Flow<F::Addr>) -> Result<Way, Leave> {
    let segment = &packet.segment;
    if segment.has(flag::SYN) && segment.has(flag::ACK) {
        flow.backend_ack = segment.seq.wrapping_add(1);
        flow.sent_end = segment.end();
        flow.head &= !head_state::CONNECTING;
        atomic::set(&mut flow.state, flow_state::ANSWERED);
    } else if segment.has(flag::RST) {
        evidence::note_refusal(segment, flow);
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
    if segment.has(flag::ACK) && flow.state & flow_state::CLIENT_FIN != 0 && segment.ack == flow.client_ack {
        set |= flow_state::CLIENT_FIN_ACKED;
    }
    if segment.has(flag::FIN) {
        flow.backend_ack = segment.end();
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
    translate::<F>(&packet.frame, &packet.ip, tcp, &flow.link, &to).ok_or(Reason::Malformed)?;
    if let Some(counters) = counters(flow.backend) {
        counters.packets_from += 1;
        counters.bytes_from += packet.segment.ip_len as u64;
    }
    Ok(Way { ifindex: flow.ifindex, vlan: flow_state::vlan(flow.state) })
}
