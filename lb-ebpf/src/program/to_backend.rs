//! Client → VIP.

use lb_common::{
    abi::{Address, Backend, Flow, backend_flags, flow_state},
    reason::Reason,
};
use lb_ebpf::{
    segment::{Segment, flag},
    translate::Translation,
};

use super::{
    Leave, Packet, Way, atomic,
    clock::coarse_us,
    counters, evidence, hook,
    hook::Context,
    maps::BACKENDS,
    ports,
    table::{self, Tables},
};

/// A segment of a client that has a flow. `None`: the flow is none any more, and the segment may begin another.
#[inline(always)]
pub(super) fn steer<F: Tables>(
    ctx: &Context,
    packet: &Packet<'_, F>,
    flow: &mut Flow<F::Addr>,
) -> Option<Result<Way, Leave>> {
    let segment = &packet.segment;
    let state = flow.state;
    let backend = if state & flow_state::TIME_WAIT == 0 { backend_of(flow) } else { None };
    let Some(backend) = backend else {
        // What is over rests, unless the client begins anew.
        if segment.opens() || state & flow_state::TIME_WAIT == 0 {
            table::release::<F>(flow);
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
            table::release::<F>(flow);
            return None;
        }
    }
    if is_cut(ctx, packet, flow, backend) {
        return Some(Err(Leave::Reset(Reason::Ejected)));
    }
    // What is not sent on ends nothing.
    let way = match forward(packet, flow, backend) {
        Ok(way) => way,
        Err(leave) => return Some(Err(leave)),
    };
    if segment.end().wrapping_sub(flow.client_end) as i32 > 0 {
        flow.client_end = segment.end();
    }
    closing(segment, flow);
    Some(Ok(way))
}

/// Notes what the client asks for, unless its connection ends here: then it is told so instead, and the backend
/// never sees the segment. Its resets reach the backend all the same.
#[inline(always)]
fn is_cut<F: Tables>(
    ctx: &Context,
    packet: &Packet<'_, F>,
    flow: &mut Flow<F::Addr>,
    backend: &Backend,
) -> bool {
    let segment = &packet.segment;
    let cuts = backend.flags & (backend_flags::RESET_NOW | backend_flags::RESET_AT_REQUEST);
    let was_cut = flow.state & flow_state::CLIENT_RESET != 0;
    let ends = (was_cut || cuts & backend_flags::RESET_NOW != 0) && !segment.has(flag::RST)
        || segment.payload_len > 0
            && flow.state & (flow_state::EVIDENCE | flow_state::OPAQUE) == flow_state::EVIDENCE
            && evidence::note_request(ctx, packet, flow, cuts != 0);
    if ends && !was_cut {
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
) -> Option<Result<Way, Leave>> {
    if packet.segment.opens() {
        if !admits(backend, flow) {
            // A client that repeats its SYN is steered anew when its backend has left since:
            // after an ejection no connection begins there.
            table::release::<F>(flow);
            return None;
        }
        if is_forsaken(flow) {
            // `connect` finds it, and avoids its backend.
            return None;
        }
    }
    let way = match forward(packet, flow, backend) {
        Ok(way) => way,
        Err(leave) => return Some(Err(leave)),
    };
    if packet.segment.has(flag::RST) {
        table::release::<F>(flow);
    }
    Some(Ok(way))
}

/// Whether the SYN that comes again is to try another backend.
#[inline(always)]
fn is_forsaken<A: Address>(flow: &Flow<A>) -> bool {
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

/// The backend a flow belongs to, unless its id has changed hands since.
#[inline(always)]
pub(super) fn backend_of<A: Address>(flow: &Flow<A>) -> Option<&'static Backend> {
    BACKENDS.get(flow.backend as u32).filter(|backend| backend.generation == flow.generation)
}

/// Keeps track of FIN and RST of a client, and ends a connection that is over.
///
/// A direction is over when its FIN was acknowledged; the connection is when both are.
#[inline(always)]
fn closing<A: Address>(segment: &Segment, flow: &mut Flow<A>) {
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

/// Sets what is new. At a reset, or when both FINs are acknowledged, the connection is over, and its NAT port rests.
#[inline(always)]
pub(super) fn finish<A: Address>(flow: &mut Flow<A>, set: u32, reset: bool) {
    const BOTH: u32 = flow_state::CLIENT_FIN_ACKED | flow_state::BACKEND_FIN_ACKED;
    let over = reset || (flow.state | set) & BOTH == BOTH;
    let set = if over { set | flow_state::TIME_WAIT } else { set };
    if set & !flow.state != 0 {
        atomic::set(&mut flow.state, set);
    }
}

/// Sends a segment on to its backend.
#[inline(always)]
pub(super) fn forward<F: Tables>(
    packet: &Packet<'_, F>,
    flow: &Flow<F::Addr>,
    backend: &Backend,
) -> Result<Way, Leave> {
    if !backend.link.is_resolved() {
        return Err(Leave::Drop(Reason::Neighbour));
    }
    let to = Translation {
        src: &flow.reply.dst,
        dst: &flow.reply.src,
        ports: ports(flow.reply.dport, flow.reply.sport),
        tcp_delta: flow.tcp_delta,
        ip_delta: flow.ip_delta,
    };
    let tcp = packet.segment.tcp as usize;
    hook::translate::<F>(packet.ctx, (&packet.frame, &packet.ip), tcp, &backend.link, &to)
        .ok_or(Reason::Malformed)?;
    if let Some(counters) = counters(flow.backend) {
        counters.packets_to += 1;
        counters.bytes_to += packet.segment.ip_len as u64;
    }
    Ok(Way::new(backend.ifindex, backend.vlan))
}
