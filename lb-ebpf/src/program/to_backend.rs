//! Client → VIP: a segment of a client that has a flow.

use lb_common::{
    abi::{Address, Backend, Flow, backend_flags, flow_state, head_state},
    reason::Reason,
};
use lb_ebpf::segment::{Place, Segment, flag};

use super::{
    atomic,
    backend::{backend_of, counters},
    clients,
    clock::{coarse_ns, coarse_us, ticks},
    closing, crowd, evidence, flows, forward, limit,
    maps::Tables,
    packet::Packet,
    proof,
    verdict::{Egress, Leave},
    way,
};
use crate::hook::Context;

/// `None`: the flow has ended, and the segment may begin another.
#[inline(always)]
pub(crate) fn steer<F: Tables>(
    ctx: &Context,
    packet: &Packet<'_, F>,
    flow: &mut Flow<F::Addr>,
) -> Option<Result<Egress, Leave>> {
    let segment = &packet.segment;
    way::follow(packet, flow);
    let state = flow.state;
    let backend = if state & flow_state::TIME_WAIT == 0 { backend_of(flow) } else { None };
    let Some(backend) = backend else {
        // A flow in time-wait rests, unless the client begins again. In mode `dnat` one whose backend is gone rests too,
        // for as long as its client goes on: without a flow, another backend would get the segments.
        let time_wait = state & flow_state::TIME_WAIT != 0;
        if segment.opens() || !time_wait && !flow.is_preserved() {
            flows::release::<F>(flow);
        } else if !time_wait || way::is_of_client(segment, flow) {
            flow.seen = ticks(coarse_ns());
            limit::rest::<F>(flow.slot, flow_state::TIME_WAIT);
        }
        return None;
    };
    if is_plain(segment, flow, backend) {
        return Some(forward::to_backend(packet, flow, backend));
    }
    if state & flow_state::ESTABLISHED == 0 {
        if crowd::refuses::<F>(&flow.client, flow.backend) {
            return Some(Err(Leave::Drop(Reason::SourceShare)));
        }
        if !completes::<F>(segment, flow) {
            return handshake(packet, flow, backend);
        }
    }
    if segment.opens() {
        const CLOSES: u32 = flow_state::CLIENT_FIN | flow_state::BACKEND_FIN | flow_state::CLIENT_RESET;
        if state & CLOSES != 0 {
            flows::release::<F>(flow);
            return None;
        }
        // The backend answers a SYN on a living connection (RFC 5961 section 4), as long as it may get new
        // connections: it may have lost the connection and accept. Otherwise the program answers for it: anybody
        // can send a SYN, and only a client that really begins again sends the right reset then.
        if backend.flags & backend_flags::ADMIT == 0 {
            return Some(Err(Leave::Challenge(Reason::Ejected)));
        }
        flow.head |= head_state::SYN_AGAIN;
    }
    let next = flow.client_next();
    if is_reset(ctx, packet, flow, backend, next) {
        return Some(Err(Leave::Reset(Reason::Ejected)));
    }
    // A segment that is not forwarded closes nothing.
    if !backend.link.is_resolved() {
        return Some(Err(Leave::Drop(Reason::Neighbour)));
    }
    if closing::closes_by_client(segment, flow) {
        let (numbers, shape) = (closing::numbers(segment), closing::shape(segment));
        closing::note_from_client::<F>(ctx.ctx, flow.slot, numbers, shape);
    } else if segment.payload_len > 0
        && segment.is_plausible(flow.sent_end)
        && segment.place(next) == Place::Next
    {
        flow.client_end = segment.end();
    }
    Some(forward::to_backend(packet, flow, backend))
}

/// Whether a segment of an established flow only acknowledges, and nothing waits for that. Most segments are plain.
#[inline(always)]
const fn is_plain<A: Address>(segment: &Segment, flow: &Flow<A>, backend: &Backend) -> bool {
    const STATE: u32 = flow_state::ESTABLISHED | flow_state::CLIENT_RESET | flow_state::BACKEND_FIN;
    const HEAD: u32 = head_state::AWAITED | head_state::BACKEND_FIN_BEYOND;
    let flags = (segment.flags & (flag::SYN | flag::RST | flag::FIN)) as u32;
    let resets = (backend.flags & backend_flags::RESET_NOW) as u32;
    let differs = flow.state & STATE ^ flow_state::ESTABLISHED;
    differs | flow.head & HEAD | flags | resets | segment.payload_len == 0
}

/// Notes the client's request, unless its connection is reset here. Then the client gets a reset, and the
/// backend never sees the segment. Resets of the client still reach the backend. `next`: the client's next
/// number.
#[inline(always)]
fn is_reset<F: Tables>(
    ctx: &Context,
    packet: &Packet<'_, F>,
    flow: &mut Flow<F::Addr>,
    backend: &Backend,
    next: u32,
) -> bool {
    let segment = &packet.segment;
    if flow.head & head_state::AWAITED != 0 && segment.is_plausible(flow.sent_end) {
        evidence::note_waiting(packet, flow, next);
    }
    let at_once = flow.state & flow_state::CLIENT_RESET | (backend.flags & backend_flags::RESET_NOW) as u32;
    let resets = backend.flags & (backend_flags::RESET_NOW | backend_flags::RESET_AT_REQUEST);
    let ends = at_once != 0 && !segment.has(flag::RST)
        || segment.payload_len > 0
            && flow.state & (flow_state::EVIDENCE | flow_state::OPAQUE) == flow_state::EVIDENCE
            && segment.is_plausible(flow.sent_end)
            && evidence::note_request(ctx, packet, flow, next, resets != 0);
    if ends {
        note_reset::<F>(flow.slot);
    }
    ends
}

/// Counts the reset of a connection once.
// A function of its own, because it is rare and the way of all other segments has few registers.
#[inline(never)]
fn note_reset<F: Tables>(slot: u32) -> u32 {
    let Some(flow) = F::flow(slot) else { return 0 };
    // SAFETY: as in `flows`: a place of a map, whose fields are valid each by itself.
    let flow = unsafe { &mut *flow };
    let before = atomic::fetch_set(&mut flow.state, flow_state::CLIENT_RESET);
    if before & flow_state::CLIENT_RESET == 0
        && let Some(counters) = counters(flow.backend)
    {
        counters.resets += 1;
    }
    0
}

/// Completes the handshake if this segment acknowledges the backend's SYN-ACK, or more of what the backend has sent: it
/// may answer early data, and an acknowledgement may be lost (RFC 7413).
#[inline(always)]
fn completes<F: Tables>(segment: &Segment, flow: &mut Flow<F::Addr>) -> bool {
    let from = flow.head_seq;
    let completes = flow.state & flow_state::ANSWERED != 0
        && segment.has(flag::ACK)
        && !segment.has(flag::RST)
        && segment.ack.wrapping_sub(from) <= flow.sent_end.wrapping_sub(from);
    if !completes {
        return false;
    }
    let before = atomic::fetch_set(&mut flow.state, flow_state::ESTABLISHED);
    if before & flow_state::ESTABLISHED == 0
        && let Some(counters) = counters(flow.backend)
    {
        counters.established += 1;
        clients::note(flow.service, &flow.client.src);
        if before & flow_state::COUNTED != 0 {
            complete::<F>(flow.slot);
        }
    }
    true
}

/// A handshake that counts in a limit is complete: its client has proven its address.
// A function of its own, because most services have no limit.
#[inline(never)]
fn complete<F: Tables>(slot: u32) -> u32 {
    let Some(flow) = F::flow(slot) else { return 0 };
    // SAFETY: as in `flows`: a place of a map, whose fields are valid each by itself.
    let flow = unsafe { &*flow };
    limit::complete(flow);
    proof::note::<F>(&flow.client.src);
    0
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
            // The client repeats its SYN, and the backend accepts no new connections since: after an ejection
            // no connection begins there. The client gets another backend.
            flows::release::<F>(flow);
            return None;
        }
        if is_abandoned(backend, flow) {
            // `connect` finds the flow, and avoids its backend.
            return None;
        }
    }
    let egress = match forward::to_backend(packet, flow, backend) {
        Ok(egress) => egress,
        Err(leave) => return Some(Err(leave)),
    };
    if packet.segment.has(flag::RST) && packet.segment.seq == flow.client_end {
        flows::release::<F>(flow);
    }
    Some(Ok(egress))
}

/// Whether a repeated SYN is to try another backend.
#[inline(always)]
fn is_abandoned<A: Address>(backend: &Backend, flow: &Flow<A>) -> bool {
    /// Stacks repeat a SYN after a second (RFC 6298). A client that is sooner has not waited.
    const PATIENCE_US: u32 = 700_000;
    let state = flow.state;
    if backend.flags & backend_flags::REDISPATCH == 0 || state & flow_state::ANSWERED != 0 {
        return false;
    }
    state & flow_state::REFUSED != 0 || coarse_us().wrapping_sub(flow.asked_us) > PATIENCE_US
}

/// Whether a half-open handshake may still complete at this backend.
#[inline(always)]
const fn admits<A: Address>(backend: &Backend, flow: &Flow<A>) -> bool {
    backend.flags & backend_flags::ADMIT != 0
        || backend.flags & backend_flags::TRIAL != 0 && flow.state & flow_state::TRIAL != 0
}
