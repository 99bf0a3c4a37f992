//! Client → VIP: a segment of a client that has a flow.

use lb_common::{
    abi::{Address, Backend, Flow, backend_flags, flow_state},
    reason::Reason,
};
use lb_ebpf::segment::{Segment, flag};

use super::{
    atomic,
    backend::{backend_of, counters},
    clock::coarse_us,
    closing, evidence, flows, forward,
    maps::Tables,
    packet::Packet,
    verdict::{Egress, Leave},
};
use crate::hook::Context;

/// A segment of a client that has a flow. `None`: the flow is none any more, and the segment may begin another.
#[inline(always)]
pub(crate) fn steer<F: Tables>(
    ctx: &Context,
    packet: &Packet<'_, F>,
    flow: &mut Flow<F::Addr>,
) -> Option<Result<Egress, Leave>> {
    let segment = &packet.segment;
    let state = flow.state;
    let backend = if state & flow_state::TIME_WAIT == 0 { backend_of(flow) } else { None };
    let Some(backend) = backend else {
        // What is over rests, unless the client begins anew.
        if segment.opens() || state & flow_state::TIME_WAIT == 0 {
            flows::release::<F>(flow);
        }
        return None;
    };
    if state & flow_state::ESTABLISHED == 0 && !completes(segment, flow) {
        return handshake(packet, flow, backend);
    }
    if segment.opens() {
        // A SYN on a living connection is for its backend to answer (RFC 5961 section 4), as long
        // as that may have new ones: it may have forgotten the connection and accept.
        const CLOSES: u32 = flow_state::CLIENT_FIN | flow_state::BACKEND_FIN | flow_state::CLIENT_RESET;
        if state & CLOSES != 0 || backend.flags & backend_flags::ADMIT == 0 {
            flows::release::<F>(flow);
            return None;
        }
    }
    if is_reset(ctx, packet, flow, backend) {
        return Some(Err(Leave::Reset(Reason::Ejected)));
    }
    // What is not sent on ends nothing.
    let way = match forward::to_backend(packet, flow, backend) {
        Ok(way) => way,
        Err(leave) => return Some(Err(leave)),
    };
    if segment.end().wrapping_sub(flow.client_end) as i32 > 0 {
        flow.client_end = segment.end();
    }
    closing::from_client(segment, flow);
    Some(Ok(way))
}

/// Notes what the client asks for, unless its connection ends here: then it is told so instead, and the backend
/// never sees the segment. Its resets reach the backend all the same.
#[inline(always)]
fn is_reset<F: Tables>(
    ctx: &Context,
    packet: &Packet<'_, F>,
    flow: &mut Flow<F::Addr>,
    backend: &Backend,
) -> bool {
    let segment = &packet.segment;
    let resets = backend.flags & (backend_flags::RESET_NOW | backend_flags::RESET_AT_REQUEST);
    let was_reset = flow.state & flow_state::CLIENT_RESET != 0;
    let ends = (was_reset || resets & backend_flags::RESET_NOW != 0) && !segment.has(flag::RST)
        || segment.payload_len > 0
            && flow.state & (flow_state::EVIDENCE | flow_state::OPAQUE) == flow_state::EVIDENCE
            && evidence::note_request(ctx, packet, flow, resets != 0);
    if ends && !was_reset {
        let before = atomic::fetch_set(&mut flow.state, flow_state::CLIENT_RESET);
        if before & flow_state::CLIENT_RESET == 0
            && let Some(counters) = counters(flow.backend)
        {
            counters.resets += 1;
        }
    }
    ends
}

/// Ends the handshake if this is the segment that does: it acknowledges the backend's SYN-ACK.
#[inline(always)]
fn completes<A: Address>(segment: &Segment, flow: &mut Flow<A>) -> bool {
    let completes = flow.state & flow_state::ANSWERED != 0
        && segment.has(flag::ACK)
        && !segment.has(flag::RST)
        && segment.ack == flow.backend_syn_fin_ack;
    if !completes {
        return false;
    }
    let before = atomic::fetch_set(&mut flow.state, flow_state::ESTABLISHED);
    if before & flow_state::ESTABLISHED == 0
        && let Some(counters) = counters(flow.backend)
    {
        counters.established += 1;
    }
    true
}

/// Any other segment of a client that has not yet acknowledged the backend's SYN-ACK.
#[inline(always)]
fn handshake<F: Tables>(
    packet: &Packet<'_, F>,
    flow: &mut Flow<F::Addr>,
    backend: &Backend,
) -> Option<Result<Egress, Leave>> {
    if packet.segment.opens() {
        if !admits(backend, flow) {
            // A client that repeats its SYN is steered anew when its backend has left since:
            // after an ejection no connection begins there.
            flows::release::<F>(flow);
            return None;
        }
        if is_abandoned(flow) {
            // `connect` finds it, and avoids its backend.
            return None;
        }
    }
    let way = match forward::to_backend(packet, flow, backend) {
        Ok(way) => way,
        Err(leave) => return Some(Err(leave)),
    };
    if packet.segment.has(flag::RST) {
        flows::release::<F>(flow);
    }
    Some(Ok(way))
}

/// Whether the SYN that comes again is to try another backend.
#[inline(always)]
fn is_abandoned<A: Address>(flow: &Flow<A>) -> bool {
    /// Stacks repeat a SYN after a second (RFC 6298); what comes sooner is not a client that has waited.
    const PATIENCE_US: u32 = 700_000;
    let state = flow.state;
    if state & flow_state::REDISPATCH == 0 || state & flow_state::ANSWERED != 0 {
        return false;
    }
    state & flow_state::REFUSED != 0 || coarse_us().wrapping_sub(flow.asked_us) > PATIENCE_US
}

/// Whether a handshake under way may still begin there.
#[inline(always)]
const fn admits<A: Address>(backend: &Backend, flow: &Flow<A>) -> bool {
    backend.flags & backend_flags::ADMIT != 0
        || backend.flags & backend_flags::TRIAL != 0 && flow.state & flow_state::TRIAL != 0
}
