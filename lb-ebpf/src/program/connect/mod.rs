//! A new connection: which backend, which NAT port.

mod choose;
mod limited;
mod nat_port;
mod redispatch;
mod result;
mod syn;
mod trial;

use lb_common::{
    NO_BACKEND,
    abi::{Service, flow_state, service_flags},
    reason::Reason,
};
use lb_ebpf::{translate::deltas, verifier::opaque};

use self::{
    choose::choose,
    nat_port::{ITSELF, PRESERVED, aim_first, preserve, reserve},
    result::{Choice, choice_of},
    syn::check_syn,
};
use super::{
    atomic,
    backend::counters,
    clock::{coarse_ns, coarse_us, ticks},
    crowd, flows, forward, limit, mac,
    maps::Tables,
    narrow, pace,
    packet::Packet,
    verdict::{Egress, Leave},
};
use crate::hook::Context;

/// `had_flow`: the client had a flow, which may be a handshake that its backend did not answer.
#[inline(always)]
pub(crate) fn connect<F: Tables>(
    ctx: &Context,
    packet: &Packet<'_, F>,
    service: &Service,
    had_flow: bool,
) -> Result<Egress, Leave> {
    let key = &packet.tuple.key;
    if !pace::admits() {
        return Err(Leave::Drop(Reason::SynRate));
    }
    if crowd::refuses::<F>(key, NO_BACKEND) {
        return Err(Leave::Drop(Reason::SourceShare));
    }
    let Choice { id, backend, trial } = choice_of(choose::<F>(key, service, had_flow))?;
    let counted = bits(service.flags, service_flags::LIMITED, flow_state::COUNTED);
    let now = coarse_ns();
    let mut place = flows::claim::<F>(key);
    if place == flows::NOWHERE {
        place = flows::claim_taken::<F>(key, now);
    }
    if place == flows::NOWHERE {
        limit::end(limit::who(id, service.id), backend.generation, counted);
        return Err(Leave::Drop(Reason::TableFull));
    }
    let place = place as u32;
    let flow = F::flow(place).ok_or(Reason::TableFull)?;
    // SAFETY: the place is ours, and nobody finds it before its state says so.
    let flow = unsafe { &mut *flow };
    flow.client = *key;
    flow.slot = place;
    flow.seen = ticks(now);
    flow.asked_us = coarse_us();
    flow.backend = id;
    flow.service = service.id;
    flow.generation = backend.generation;
    flow.ifindex = ctx.ingress_ifindex() as u32;
    // The program has read past the link header, so it is there.
    flow.link = mac::link_back(ctx, &packet.frame).unwrap_or_default();
    flow.head = 0;
    flow.head_seq = 0;
    flow.sent_end = 0;
    flow.client_end = packet.segment.end();
    flow.asked_seq = packet.segment.end();
    flow.acked = packet.segment.end();
    flow.backend_ifindex = backend.ifindex;
    flow.backend_vlan = backend.vlan;
    flow.client_scale = 0;
    flow.whole_end_or_stamp = 0;
    flow.backend_syn_fin_ack = 0;
    let preserved = service.flags & service_flags::DNAT != 0;
    if !preserved {
        aim_first::<F>(flow, backend);
        flows::prefetch::<F>(&flow.reply);
    }
    let watched = service.flags & service_flags::EVIDENCE != 0;
    if watched {
        // During this work the set of replies comes from memory.
        check_syn::<F>(ctx.ctx, place, packet.segment.payload, packet.segment.ip_len as u32);
    }
    flow.client_fin_ack = 0;
    let reserved = if preserved {
        match preserve::<F>(place, id) {
            PRESERVED => Ok(()),
            ITSELF => Err(Reason::Hairpin),
            _ => Err(Reason::NatPorts),
        }
    } else {
        reserve::<F>(flow)
    };
    if let Err(reason) = reserved {
        step_back::<F>(place, counted);
        return Err(if reason == Reason::Hairpin { Leave::Reset(reason) } else { Leave::Drop(reason) });
    }
    (flow.tcp_delta, flow.ip_delta) = deltas(&flow.client, &flow.reply);
    let state = flow_state::LIVE
        | counted
        | trial * flow_state::TRIAL
        | bits(service.flags, service_flags::EVIDENCE, flow_state::EVIDENCE)
        | (packet.vlan as u32) << flow_state::VLAN
        | flow_state::incarnation(now);
    // SAFETY: a word of a map.
    unsafe { atomic::publish(&raw mut flow.state, state) };
    if let Some(counters) = counters(id) {
        counters.connections += 1;
        counters.trials += trial as u64;
    }
    if !preserved && narrow::is_in_use() {
        narrow::lower::<F>(ctx.ctx, &flow.client.src, packet.segment.tcp);
    }
    forward::to_backend(packet, flow, backend)
}

/// Frees the place of a connection that finds no NAT port, and counts it off.
// A function of its own, so that its caller need not keep what the flow has already.
#[inline(never)]
fn step_back<F: Tables>(place: u32, counted: u32) -> u32 {
    if let Some(flow) = F::flow(place) {
        // SAFETY: a place of the map that is the new connection's alone.
        limit::ended(unsafe { &*flow }, counted);
    }
    flows::free_place::<F>(place);
    0
}

/// `to` if the flag is there, otherwise 0. It has no branch, because the verifier would follow both sides from there on.
#[inline(always)]
fn bits(flags: u16, flag: u16, to: u32) -> u32 {
    opaque((flags as u32 / flag as u32 & 1) * to) as u32
}
