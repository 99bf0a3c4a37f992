//! ICMP errors about a connection go to the end that can act on them. An error about a frame to a client goes
//! to the backend, and an error about a frame to a backend goes to the client. The most important are
//! "fragmentation needed" and "packet too big": without them a transfer stalls where a path has a smaller
//! MTU.

use lb_common::{
    abi::{flow_state, port_flags},
    reason::Reason,
};
use lb_ebpf::{
    frame::{Frame, LINK},
    icmp::{Errors, Readdressed, quoted, readdress},
    verifier::opaque,
};

use super::{
    atomic,
    backend::backend_of,
    clock::coarse_ns,
    flows,
    maps::{ICMP_CLOCKS, Tables},
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
    // The tuple of the answer to the quoted segment.
    let answer = tuple.key.reversed();
    let source = kinds(tuple.key.sport).ok_or(Leave::Pass)?;
    if source & port_flags::VIP != 0
        && let Some(flow) = flows::by_client::<F>(&answer)
        && flow.state & flow_state::TIME_WAIT == 0
    {
        *service_id = flow.service;
        admit::<F>(flow.service, &ip)?;
        let backend = backend_of(flow).ok_or(Leave::Pass)?;
        if !backend.link.is_resolved() {
            return Err(Leave::Drop(Reason::Neighbour));
        }
        // In mode `nat` a backend needs no route to any address but the NAT address, also not to a router.
        let preserved = flow.reply.dst == flow.client.src;
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
        admit::<F>(flow.service, &ip)?;
        // The client knows only the VIP.
        let about = flow.client;
        let to = Readdressed { src: &about.dst, quoted: &about };
        readdress::<F>(&frame, &ip, &tuple, &flow.link, &to).ok_or(Leave::Pass)?;
        return Ok(Egress::new(flow.ifindex, flow_state::vlan(flow.state)));
    }
    Err(Leave::Pass)
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
