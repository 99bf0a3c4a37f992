//! Connections of `dnat` services without a flow: the flow table was lost, or the connection was silent for
//! too long.
//!
//! The program changes nothing but the destination, so the segment alone shows both ways: towards the backend
//! by the client's slot in the Maglev table, and back by the one VIP of the backend that answers. The program
//! stores nothing, so a flood of such segments takes no place, and no segment of them is evidence.

use lb_common::{
    NO_BACKEND,
    abi::{Address as _, Backend, FlowKey, Link, Service, ServiceKey},
    hash::slot,
    reason::Reason,
};
use lb_ebpf::{
    frame::LINK,
    segment::Segment,
    translate::{Translation, deltas},
    verifier::opaque,
};

use super::{
    affinity::service_hash,
    backend::counters,
    maps::{BACKENDS, REVERSE_NAT, SERVICES, TABLES, Tables},
    packet::Packet,
    route::{self, Way},
    verdict::{Egress, Leave},
};
use crate::hook::{self, Context, frame, whole};

/// A segment without a flow that begins no connection, to a `dnat` VIP or from a port of its backends.
#[inline(always)]
pub(crate) fn steer<F: Tables>(ctx: &Context, vlan: u16, service_id: &mut u16) -> Result<Egress, Leave> {
    let frame = frame(ctx);
    let ip = frame.from(LINK);
    let tuple = F::tuple(&ip).ok_or(Leave::Pass)?;
    let key = &tuple.key;
    let mut packet = Packet::<F> { ctx, frame, vlan, ip, tuple: &tuple, segment: Segment::default() };
    let vip = ServiceKey { addr: key.dst.wide(), port: key.dport, proto: 6, zero: 0 };
    // SAFETY: see `fresh`.
    if let Some(service) = unsafe { SERVICES.get(&vip) } {
        *service_id = service.id;
        packet.segment.fill::<F>(&ip, &tuple, || whole(ctx).wrapping_sub(LINK as u32))?;
        return to_backend(&packet, service, &vip);
    }
    let backend = ServiceKey { addr: key.src.wide(), port: key.sport, proto: 6, zero: 0 };
    // SAFETY: see `fresh`.
    let known = unsafe { REVERSE_NAT.get(&backend) }.ok_or(Leave::Pass)?;
    // Before the program counts or drops anything: a frame for this host is not Shunt's.
    let way = route::way::<F>(ctx, &F::Addr::narrow(&known.vip), &tuple.key.dst);
    let (hop, ifindex) = match way {
        Way::Found(link, ifindex) => (link, ifindex),
        Way::Silent(_) => {
            *service_id = known.service;
            return Err(Leave::Drop(Reason::Neighbour));
        }
        // The stack gets the frame: above all the replies to the host's own connections to its backends.
        Way::None => return Err(Leave::Pass),
    };
    *service_id = known.service;
    packet.segment.fill::<F>(&ip, &tuple, || whole(ctx).wrapping_sub(LINK as u32))?;
    let to = FlowKey { src: F::Addr::narrow(&known.vip), dst: key.dst, sport: known.port, dport: key.dport };
    rewrite(&packet, &to, &hop)?;
    if let Some(counters) = counters(known.backend) {
        counters.packets_from += 1;
        counters.bytes_from += packet.segment.ip_len;
    }
    // A route by the device of a VLAN names that device, and XDP cannot send by it.
    Ok(Egress::new(ifindex, 0))
}

#[inline(always)]
fn to_backend<F: Tables>(
    packet: &Packet<'_, F>,
    service: &Service,
    vip: &ServiceKey,
) -> Result<Egress, Leave> {
    let key = &packet.tuple.key;
    let (id, backend) = of_slot::<F>(service, key).ok_or(Leave::Reset(Reason::NoFlow))?;
    let address = ServiceKey { addr: backend.addr, port: backend.port, proto: 6, zero: 0 };
    // SAFETY: see `fresh`.
    let back = unsafe { REVERSE_NAT.get(&address) };
    // If two services share a backend, its replies could be of either.
    if !back.is_some_and(|back| back.vip == vip.addr && back.port == vip.port) {
        return Err(Leave::Reset(Reason::NoFlow));
    }
    let to =
        FlowKey { src: key.src, dst: F::Addr::narrow(&backend.addr), sport: key.sport, dport: backend.port };
    if to.src == to.dst {
        return Err(Leave::Reset(Reason::Hairpin));
    }
    if !backend.link.is_resolved() {
        return Err(Leave::Drop(Reason::Neighbour));
    }
    rewrite(packet, &to, &backend.link)?;
    if let Some(counters) = counters(id) {
        counters.packets_to += 1;
        counters.bytes_to += packet.segment.ip_len;
    }
    Ok(Egress::new(backend.ifindex, backend.vlan))
}

/// The backend of the client's slot, even if it gets no new connections: this connection is not new.
#[inline(always)]
fn of_slot<F: Tables>(service: &Service, key: &FlowKey<F::Addr>) -> Option<(u16, &'static Backend)> {
    let table = TABLES.get_value(service.id as u32, &0)?;
    let id = *table.get(opaque(slot(service_hash::<F>(service, key))) as usize)?;
    if id == NO_BACKEND {
        return None;
    }
    Some((id, BACKENDS.get(id as u32)?))
}

#[inline(always)]
fn rewrite<F: Tables>(packet: &Packet<'_, F>, to: &FlowKey<F::Addr>, link: &Link) -> Result<(), Reason> {
    let (tcp_delta, ip_delta) = deltas(&packet.tuple.key, to);
    let to = Translation { src: &to.src, dst: &to.dst, ports: to.ports(), tcp_delta, ip_delta };
    let tcp = packet.segment.tcp as usize;
    hook::translate::<F>(packet.ctx, (&packet.frame, &packet.ip), tcp, link, &to).ok_or(Reason::Malformed)
}
