//! Second step: a frame of no flow, to a port that a VIP has. It may begin a connection.

use lb_common::{abi::service_flags, reason::Reason};
use lb_ebpf::{
    frame::LINK,
    segment::{Segment, plausible_client},
};

use super::{
    connect::connect,
    maps::Tables,
    packet::Packet,
    ports::{may_be_dnat_reply, service_of},
    proof, source,
    verdict::{Egress, Leave},
};
use crate::hook::{Context, frame, whole};

/// `had_flow`: the client had a flow, which has ended or is to be redispatched.
#[inline(always)]
pub(crate) fn steer<F: Tables>(
    ctx: &Context,
    vlan: u16,
    had_flow: bool,
    service_id: &mut u16,
) -> Result<Egress, Leave> {
    let frame = frame(ctx);
    let ip = frame.from(LINK);
    let tuple = F::tuple(&ip).ok_or(Leave::Pass)?;
    let Some(service) = service_of::<F>(&tuple.key) else {
        return Err(if may_be_dnat_reply(tuple.key.sport) { Leave::NoFlow } else { Leave::Pass });
    };
    *service_id = service.id;
    let mut packet = Packet::<F> { ctx, frame, vlan, ip, tuple: &tuple, segment: Segment::default() };
    packet.segment.fill::<F>(&ip, &tuple, || whole(ctx).wrapping_sub(LINK as u32))?;
    let ifindex = ctx.ingress_ifindex() as u32;
    if !plausible_client::<F>(&tuple) || source::is_forged::<F>(&tuple.key, ifindex, vlan) {
        return Err(Leave::Drop(Reason::Martian));
    }
    if packet.segment.opens() {
        let rules = service.flags & service_flags::SOURCES != 0;
        if rules && source::is_denied::<F>(&tuple.key, service) {
            return Err(Leave::Drop(Reason::Denied));
        }
        return connect(ctx, &packet, service, had_flow);
    }
    if service.flags & service_flags::LIMITED != 0 && proof::is_given::<F>(&tuple.key, &packet.segment) {
        return Err(Leave::Swallow);
    }
    if service.flags & service_flags::DNAT != 0 && !had_flow {
        // A backend may still know the connection, unless the flow says that it is over.
        return Err(Leave::NoFlow);
    }
    Err(Leave::Reset(Reason::NoFlow))
}
