//! First step: a frame of a flow, in either direction.

use lb_common::abi::{flow_state, port_flags};
use lb_ebpf::{
    frame::LINK,
    icmp::{Errors, may_be_error},
    segment::Segment,
};

use super::{
    flows, mac,
    maps::Tables,
    packet::Packet,
    ports::{kinds, may_be_dnat_reply},
    to_backend, to_client,
    verdict::{Egress, Leave},
};
use crate::hook::{Context, frame, whole};

#[inline(always)]
pub(crate) fn steer<F: Tables + Errors>(
    ctx: &Context,
    vlan: u16,
    service_id: &mut u16,
) -> Result<Egress, Leave> {
    let frame = frame(ctx);
    let ip = frame.from(LINK);
    let Some(transport) = F::transport(&ip) else {
        return Err(if may_be_error::<F>(&ip) { Leave::IcmpError } else { Leave::Pass });
    };
    let (sport, dport) = transport.ports();
    let kinds = kinds(dport).ok_or(Leave::Pass)?;
    if kinds == 0 && !may_be_dnat_reply(sport) {
        return Err(Leave::Pass);
    }
    if !mac::is_ours(ctx, &frame) {
        return Err(Leave::Pass);
    }
    let tuple = F::tuple_of(&ip, &transport).ok_or(Leave::Pass)?;
    let mut packet = Packet::<F> { ctx, frame, vlan, ip, tuple: &tuple, segment: Segment::default() };
    if kinds & port_flags::VIP != 0
        && let Some(flow) = flows::by_client::<F>(&tuple.key)
    {
        *service_id = flow.service;
        packet.segment.fill::<F>(&ip, &tuple, || whole(ctx).wrapping_sub(LINK as u32))?;
        return to_backend::steer(ctx, &packet, flow).unwrap_or(Err(Leave::FlowEnded));
    }
    if (kinds & port_flags::NAT != 0 || may_be_dnat_reply(tuple.key.sport))
        && let Some(flow) = flows::by_reply::<F>(&tuple.key, || may_be_dnat_reply(tuple.key.sport))
        // A flow in time-wait only reserves its port.
        && flow.state & flow_state::TIME_WAIT == 0
    {
        *service_id = flow.service;
        packet.segment.fill::<F>(&ip, &tuple, || whole(ctx).wrapping_sub(LINK as u32))?;
        return to_client::steer(ctx, &packet, flow);
    }
    let may_be = kinds & port_flags::VIP != 0 || may_be_dnat_reply(tuple.key.sport);
    Err(if may_be { Leave::NoFlow } else { Leave::Pass })
}
