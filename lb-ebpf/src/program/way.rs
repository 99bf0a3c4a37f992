//! The way back to a client: the link, interface and VLAN by which its segments come.
//!
//! It moves when a gateway fails over or another uplink takes its place. The flow follows a segment of the client whose
//! numbers show that its sender sees the connection. Otherwise a stranger could divert it.

use lb_common::abi::{Address, Flow, flow_state};
use lb_ebpf::{
    frame::Frame,
    segment::{Segment, is_of_peer},
    verifier::opaque,
};

use super::{atomic, mac, maps::Tables, packet::Packet};
use crate::hook::{Context, Raw, frame};

/// Lets the flow follow a segment of its client.
#[inline(always)]
pub(crate) fn follow<F: Tables>(packet: &Packet<'_, F>, flow: &Flow<F::Addr>) {
    let ifindex = packet.ctx.ingress_ifindex() as u32;
    if !is_known(&packet.frame, ifindex, packet.vlan, flow) && is_of_client(&packet.segment, flow) {
        learn::<F>(packet.ctx.ctx, flow.slot, packet.vlan as u32);
    }
}

/// Whether the numbers of a segment show that its sender sees the connection. Before the backend has answered, the flow
/// has no number of the backend, and only a SYN can show it.
#[inline(always)]
pub(crate) const fn is_of_client<A: Address>(segment: &Segment, flow: &Flow<A>) -> bool {
    (segment.opens() || flow.state & flow_state::ANSWERED != 0)
        && is_of_peer(segment, flow.client_end, flow.client_next(), flow.sent_end)
}

/// Whether a frame comes by the way that the flow knows. The node's own address does not matter.
#[inline(always)]
fn is_known<A: Address>(frame: &Frame, ifindex: u32, vlan: u16, flow: &Flow<A>) -> bool {
    let [a, b, ..] = flow.link.0[1].to_ne_bytes();
    // The program has read past the link header, so it is there.
    let (first, last) = (frame.load::<u32>(6).unwrap_or(0), frame.load::<u16>(10).unwrap_or(0));
    let differs = first ^ flow.link.0[0]
        | (last ^ u16::from_ne_bytes([a, b])) as u32
        | ifindex ^ flow.ifindex
        | (vlan ^ flow_state::vlan(flow.state)) as u32;
    differs == 0
}

/// How often another CPU may change the state meanwhile.
const TRIES: u32 = 4;

/// The flow learns the way of the present frame. If its place has another flow by now, that one learns its own again
/// from the next segment of its client.
// A function of its own, because it is rare.
#[inline(never)]
fn learn<F: Tables>(ctx: *mut Raw, slot: u32, vlan: u32) -> u32 {
    let ctx = Context::new(ctx);
    let (Some(flow), Some(link)) = (F::flow(slot), mac::link_back(&ctx, &frame(&ctx))) else { return 0 };
    // SAFETY: as in `flows`: a place of a map, whose fields are valid each by itself.
    let flow = unsafe { &mut *flow };
    flow.link = link;
    flow.ifindex = ctx.ingress_ifindex() as u32;
    for _ in 0..opaque(TRIES) {
        // SAFETY: a word of a map that others may write.
        let state = unsafe { (&raw const flow.state).read_volatile() };
        let moved = flow_state::in_vlan(state, vlan as u16);
        // SAFETY: as above.
        if state & flow_state::LIVE == 0 || unsafe { atomic::replace32(&raw mut flow.state, state, moved) } {
            break;
        }
    }
    0
}
