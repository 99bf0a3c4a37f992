//! Sending a segment of a flow on, with the addresses of the other side.

use lb_common::{
    abi::{Backend, Flow},
    reason::Reason,
};
use lb_ebpf::translate::Translation;

use super::{
    backend::counters,
    maps::Tables,
    packet::Packet,
    verdict::{Egress, Leave},
};
use crate::hook;

/// Sends a segment on to its backend.
#[inline(always)]
pub(crate) fn to_backend<F: Tables>(
    packet: &Packet<'_, F>,
    flow: &Flow<F::Addr>,
    backend: &Backend,
) -> Result<Egress, Leave> {
    if !backend.link.is_resolved() {
        return Err(Leave::Drop(Reason::Neighbour));
    }
    let to = Translation {
        src: &flow.reply.dst,
        dst: &flow.reply.src,
        ports: flow.reply.ports().rotate_left(16),
        tcp_delta: flow.tcp_delta,
        ip_delta: flow.ip_delta,
    };
    let tcp = packet.segment.tcp as usize;
    hook::translate::<F>(packet.ctx, (&packet.frame, &packet.ip), tcp, &backend.link, &to)
        .ok_or(Reason::Malformed)?;
    if let Some(counters) = counters(flow.backend) {
        counters.packets_to += 1;
        counters.bytes_to += packet.segment.ip_len;
    }
    Ok(Egress::new(backend.ifindex, backend.vlan))
}

/// Sends a segment on to the client, by the link from which the client's own came.
#[inline(always)]
pub(crate) fn to_client<F: Tables>(packet: &Packet<'_, F>, flow: &Flow<F::Addr>) -> Result<Egress, Leave> {
    let to = Translation {
        src: &flow.client.dst,
        dst: &flow.client.src,
        ports: flow.client.ports().rotate_left(16),
        tcp_delta: !flow.tcp_delta,
        ip_delta: !flow.ip_delta,
    };
    let tcp = packet.segment.tcp as usize;
    hook::translate::<F>(packet.ctx, (&packet.frame, &packet.ip), tcp, &flow.link, &to)
        .ok_or(Reason::Malformed)?;
    if let Some(counters) = counters(flow.backend) {
        counters.packets_from += 1;
        counters.bytes_from += packet.segment.ip_len;
    }
    Ok(Egress::to_client(flow.ifindex, flow.state))
}
