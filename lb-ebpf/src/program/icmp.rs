//! ICMP errors about a connection go to the end that can act on them. An error about a frame to a client goes
//! to the backend, and an error about a frame to a backend goes to the client. The most important are
//! "fragmentation needed" and "packet too big": without them a transfer stalls where a path has a smaller
//! MTU.

use lb_common::{
    abi::{Flow, flow_state, head_state, port_flags},
    reason::Reason,
};
use lb_ebpf::{
    family::Tuple,
    frame::{Frame, LINK},
    icmp::{Errors, Readdressed, path_mtu, quoted, quoted_seq, readdress},
    segment::MOST_IN_FLIGHT,
    verifier::opaque,
};

use super::{
    atomic,
    backend::backend_of,
    clock::coarse_ns,
    flows, mac,
    maps::{CONFIG, ICMP_CLOCKS, Tables},
    narrow,
    ports::{kinds, may_be_dnat_reply},
    verdict::{Egress, Leave},
};
use crate::hook::{Context, frame};

/// The rate of errors that pass, for one service: one in this many nanoseconds, that is 100 in a second.
const EVERY_NS: u64 = 10_000_000;

/// How many errors may pass at once, after a time without any.
const BURST: u64 = 1000;

/// How often another CPU may be faster.
const TRIES: u32 = 4;

/// An ICMP error. If the tuple that it quotes has no flow, the frame is not Shunt's.
#[inline(always)]
pub(crate) fn steer<F: Tables + Errors>(
    ctx: &Context,
    _: u16,
    service_id: &mut u16,
) -> Result<Egress, Leave> {
    let frame = frame(ctx);
    let ip = frame.from(LINK);
    let tuple = quoted::<F>(&ip).ok_or(Leave::Pass)?;
    if !mac::is_ours(ctx, &frame) {
        return Err(Leave::Pass);
    }
    // The tuple of the answer to the quoted segment.
    let answer = tuple.key.reversed();
    let source = kinds(tuple.key.sport).ok_or(Leave::Pass)?;
    if source & port_flags::VIP != 0
        && let Some(flow) = flows::by_client::<F>(&answer)
        && flow.state & flow_state::TIME_WAIT == 0
    {
        *service_id = flow.service;
        let mtu = mtu::<F>(&ip)?;
        let seq = in_flight::<F>(&ip, &tuple, flow)?;
        admit::<F>(flow.service, &ip)?;
        let backend = backend_of(flow).ok_or(Leave::Pass)?;
        if !backend.link.is_resolved() {
            return Err(Leave::Drop(Reason::Neighbour));
        }
        let preserved = flow.is_preserved();
        if let Some(mtu) = mtu
            && !preserved
        {
            // It stays here, because to the backend all clients have this address.
            if !F::ROUTERS_FRAGMENT {
                narrow::note_report(flow, mtu, seq);
            }
            flow.head |= head_state::NARROW;
            return Err(Leave::Swallow);
        }
        // In mode `nat` a backend needs no route to any address but the NAT address, also not to a router.
        let router = F::load(&ip, F::SRC).ok_or(Leave::Pass)?;
        let src = if preserved { router } else { flow.reply.dst };
        let to = Readdressed { src: &src, quoted: &flow.reply };
        readdress::<F>(&frame, &ip, &tuple, &backend.link, &to).ok_or(Leave::Pass)?;
        return Ok(Egress::new(backend.ifindex, backend.vlan));
    }
    let preserved = may_be_dnat_reply(tuple.key.dport);
    if (source & port_flags::NAT != 0 || preserved)
        && let Some(flow) = flows::by_reply::<F>(&answer, || preserved)
        && flow.state & flow_state::TIME_WAIT == 0
    {
        *service_id = flow.service;
        mtu::<F>(&ip)?;
        admit::<F>(flow.service, &ip)?;
        // The client knows only the VIP.
        let about = flow.client;
        let to = Readdressed { src: &about.dst, quoted: &about };
        readdress::<F>(&frame, &ip, &tuple, &flow.link, &to).ok_or(Leave::Pass)?;
        return Ok(Egress::to_client(flow.ifindex, flow.state));
    }
    Err(Leave::Pass)
}

/// The path MTU that an error reports, if it reports one that can be.
#[inline(always)]
fn mtu<F: Tables + Errors>(ip: &Frame) -> Result<Option<u32>, Leave> {
    let Some(mtu) = path_mtu::<F>(ip) else { return Ok(None) };
    let least = CONFIG.get(0).map_or(0, |config| F::min_path_mtu(config) as u32);
    if mtu < least { Err(Leave::Drop(Reason::PathMtu)) } else { Ok(Some(mtu)) }
}

/// The number of the quoted segment, if the backend can have it in flight (RFC 5927). The program does not know what
/// the client has acknowledged.
#[inline(always)]
fn in_flight<F: Tables + Errors>(
    ip: &Frame,
    tuple: &Tuple<F::Addr>,
    flow: &Flow<F::Addr>,
) -> Result<u32, Leave> {
    let stray = Leave::Drop(Reason::IcmpStray);
    let Some(seq) = quoted_seq::<F>(ip, tuple) else { return Err(stray) };
    if flow.state & flow_state::ANSWERED == 0 || flow.sent_end.wrapping_sub(seq) > MOST_IN_FLIGHT {
        return Err(stray);
    }
    Ok(seq)
}

/// The checks come before the first write.
#[inline(always)]
fn admit<F: Errors>(service: u16, ip: &Frame) -> Result<(), Leave> {
    if ip.load::<u8>(F::TTL).ok_or(Leave::Pass)? <= 1 {
        return Err(Leave::Drop(Reason::Ttl));
    }
    if !take(service) {
        return Err(Leave::Drop(Reason::IcmpRate));
    }
    Ok(())
}

/// Takes one error out of a service's rate, on any CPU. The clock of a service shows when the next error
/// would be due if they came evenly. It may be ahead of time by the burst.
#[inline(always)]
fn take(service: u16) -> bool {
    let Some(clock) = ICMP_CLOCKS.get_ptr_mut(service as u32) else { return false };
    let now = coarse_ns();
    for _ in 0..opaque(TRIES) {
        // SAFETY: an aligned word of an array map that others may write.
        let stands = unsafe { clock.read_volatile() };
        let from = if stands > now { stands } else { now };
        if from - now > (BURST - 1) * EVERY_NS {
            return false;
        }
        // SAFETY: as above.
        if unsafe { atomic::replace64(clock, stands, from + EVERY_NS) } {
            return true;
        }
    }
    false
}
