//! Entry, and the one place where a decision becomes an action, a counter and a log line.

mod atomic;
mod connect;
mod evidence;
mod maps;
mod to_backend;
mod to_client;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
    helpers::{bpf_ktime_get_coarse_ns, bpf_redirect, bpf_xdp_adjust_tail},
    macros::xdp,
    programs::XdpContext,
};
use aya_log_ebpf::warn;
use lb_common::{
    abi::{BackendCounters, FlowKey, ServiceKey},
    reason::Reason,
};
use lb_ebpf::{
    frame::Frame,
    reset::{self, MIN_FRAME},
    segment::{Segment, Tuple},
};

use self::maps::{BACKEND_COUNTERS, CONFIG, DROPS, EMBRYOS, FLOWS, SERVICES};

/// Set by the daemon when it loads the program: answer on the interface a frame came from by
/// a redirect to it. A veth whose peer has no XDP program of its own leaves a frame of
/// `XDP_TX` in the ring until something else wakes the peer (drivers/net/veth.c, `veth_xdp_flush`).
#[unsafe(no_mangle)]
static TX_BY_REDIRECT: u8 = 0;

/// How a frame leaves other than by being forwarded.
enum Leave {
    /// Not ours: the stack gets it as it came.
    Pass,
    Drop(Reason),
    /// Answered by a TCP reset.
    Reset(Reason),
}

impl From<Reason> for Leave {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self::Drop(reason)
    }
}

#[xdp]
fn shunt(ctx: XdpContext) -> u32 {
    // Set once a VIP or a flow has matched; before that nothing is dropped.
    let mut service = 0;
    match steer(&ctx, &mut service) {
        // Translated; the number is the interface it leaves by.
        Ok(ifindex) => send(&ctx, ifindex),
        Err(Leave::Pass) => XDP_PASS,
        Err(Leave::Drop(reason)) => {
            count(&ctx, service, reason);
            XDP_DROP
        }
        Err(Leave::Reset(reason)) => {
            count(&ctx, service, reason);
            answer_with_reset(&ctx).unwrap_or(XDP_DROP)
        }
    }
}

#[inline(always)]
fn steer(ctx: &XdpContext, service_id: &mut u16) -> Result<u32, Leave> {
    let frame = frame(ctx);
    let tuple = Tuple::read(&frame).ok_or(Leave::Pass)?;
    let key = ServiceKey { addr: tuple.key.dst, port: tuple.key.dport, proto: 6, zero: 0 };
    // SAFETY: a service is replaced whole; a reader may see parts of the old and of the
    // new value, all of which are valid by themselves.
    if let Some(service) = unsafe { SERVICES.get(&key) } {
        *service_id = service.id;
        return to_backend::steer(ctx, &frame, &tuple, service);
    }
    // Replies come to a port of the NAT range. Looking at the range first spares
    // everything else on this host a flow look-up.
    let config = CONFIG.get(0).ok_or(Leave::Pass)?;
    let port = tuple.key.dport.host();
    if port < config.nat_first || port > config.nat_last {
        return Err(Leave::Pass);
    }
    to_client::steer(&frame, &tuple, service_id, ctx)
}

#[inline(always)]
fn frame(ctx: &XdpContext) -> Frame {
    // SAFETY: the verifier vouches for data..data_end, and the program owns the frame.
    unsafe { Frame::new(ctx.data(), ctx.data_end()) }
}

#[inline(always)]
fn send(ctx: &XdpContext, ifindex: u32) -> u32 {
    // SAFETY: a constant of the loaded program; volatile because the loader rewrites it.
    let by_redirect = unsafe { (&raw const TX_BY_REDIRECT).read_volatile() } != 0;
    if ifindex == ctx.ingress_ifindex() as u32 && !by_redirect {
        return XDP_TX;
    }
    // SAFETY: a plain helper call.
    unsafe { bpf_redirect(ifindex, 0) as u32 }
}

#[inline(always)]
fn answer_with_reset(ctx: &XdpContext) -> Option<u32> {
    let frame = frame(ctx);
    // Read again rather than carried here: on this path it does not matter, and on
    // the others it would fill the stack.
    let segment = Segment::read(&frame, &Tuple::read(&frame)?).ok()?;
    reset::reset(&frame, &segment)?;
    let excess = frame.len() as i32 - MIN_FRAME as i32;
    // SAFETY: a plain helper call; the frame is not touched afterwards.
    if excess > 0 && unsafe { bpf_xdp_adjust_tail(ctx.ctx, -excess) } != 0 {
        return None;
    }
    Some(send(ctx, ctx.ingress_ifindex() as u32))
}

/// Counts a refusal. The log gets the 1st, 2nd, 4th, 8th … of each kind and CPU, so
/// that a flood of them cannot flood it.
#[inline(always)]
fn count(ctx: &XdpContext, service: u16, reason: Reason) {
    let index = service as u32 * Reason::COUNT as u32 + reason as u32;
    let Some(counter) = DROPS.get_ptr_mut(index) else { return };
    // SAFETY: this CPU's own slot; XDP programs on one CPU do not interrupt each other.
    let seen = unsafe {
        *counter += 1;
        *counter
    };
    if seen & (seen - 1) != 0 {
        return;
    }
    match reason {
        Reason::NoBackend => {
            warn!(ctx, "xdp: service {}: no backend may serve ({} SYNs on this cpu)", service, seen)
        }
        Reason::NatPorts => {
            warn!(ctx, "xdp: service {}: no NAT port is free ({} SYNs on this cpu)", service, seen)
        }
        Reason::Neighbour => {
            warn!(ctx, "xdp: service {}: next hop unknown ({} frames on this cpu)", service, seen)
        }
        Reason::TableFull => {
            warn!(ctx, "xdp: service {}: the flow table is full ({} on this cpu)", service, seen)
        }
        Reason::Martian => {
            warn!(ctx, "xdp: service {}: impossible source ({} frames on this cpu)", service, seen)
        }
        // The daily noise of a network, and the moment of a swap: counted, no more.
        Reason::Malformed
        | Reason::Fragment
        | Reason::IpOptions
        | Reason::Ttl
        | Reason::Flags
        | Reason::NoFlow
        | Reason::Swapping => {}
    }
}

/// This CPU's counters of a backend.
#[inline(always)]
fn counters(backend: u16) -> Option<&'static mut BackendCounters> {
    let counters = BACKEND_COUNTERS.get_ptr_mut(backend as u32)?;
    // SAFETY: this CPU's own slot, see `count`; no second reference to it is alive
    // where this is called.
    Some(unsafe { &mut *counters })
}

/// Forgets a connection, wherever it stands. `to` is where the entry of `key` leads.
#[inline(always)]
fn forget(key: &FlowKey, to: &FlowKey) {
    let other = to.reversed();
    let back = key.reversed();
    // The two halves are evicted one by one, and the port of a half may be another's by now.
    // An entry that is not there is as good as removed.
    // SAFETY: words are read, each valid whoever writes it.
    if unsafe { FLOWS.get(&other) }.is_some_and(|flow| flow.to == back) {
        let _ = FLOWS.remove(&other);
    }
    // SAFETY: as above.
    if unsafe { EMBRYOS.get(&other) }.is_some_and(|flow| flow.to == back) {
        let _ = EMBRYOS.remove(&other);
    }
    let _ = FLOWS.remove(key);
    let _ = EMBRYOS.remove(key);
}

/// The same number, of which the compiler knows nothing. It proves that an index is
/// inside its table and drops the check; the verifier cannot follow the proof and wants the check.
#[inline(always)]
fn opaque(index: u32) -> u64 {
    let mut index = index as u64;
    // SAFETY: a move of a register to itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) index, options(nomem, nostack, preserves_flags)) };
    index
}

/// The time as the last timer interrupt left it: cheap, and some milliseconds old.
#[inline(always)]
fn coarse_ns() -> u64 {
    // SAFETY: a plain helper call (Linux 5.11).
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// In ticks of 2^30 ns, about seconds.
#[inline(always)]
const fn ticks(ns: u64) -> u32 {
    (ns >> 30) as u32
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
