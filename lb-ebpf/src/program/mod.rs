//! Entry, and the one place where a decision becomes an action, a counter and a log line.

mod atomic;
mod clock;
mod connect;
mod evidence;
mod icmp;
mod maps;
mod pace;
mod source;
mod stateless;
mod table;
mod to_backend;
mod to_client;
pub(crate) mod vlan;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_log_ebpf::warn;
use lb_common::{
    abi::{
        Address as _, BackendCounters, FlowKey, Port, Service, ServiceKey, flow_state, port_flags,
        service_flags,
    },
    reason::Reason,
};
use lb_ebpf::{
    family::{Family as _, Ipv4, Ipv6, Tuple},
    frame::{Frame, host_order},
    icmp::{Errors, may_be_error},
    reset,
    segment::{Segment, plausible_client},
};

use self::{
    clock::coarse_ns,
    maps::{BACKEND_COUNTERS, DROPS, PORTS, SERVICES},
    table::Tables,
};
use crate::hook::{self, Context, Raw, send, whole};

/// Length of an Ethernet header.
pub(crate) const LINK: usize = 14;

/// How a frame leaves other than by being forwarded.
enum Leave {
    /// Not ours: the stack gets it as it came.
    Pass,
    /// Of no flow; it may be for a VIP, or from a backend, all the same.
    Unknown,
    /// The same; it had one, which is none any more, or is a handshake that has come to nothing.
    Anew,
    /// Not TCP, but perhaps about it.
    IcmpError,
    Drop(Reason),
    /// Dropped in silence: what it says is dealt with.
    Swallow,
    /// Answered by a TCP reset.
    Reset(Reason),
}

impl From<Reason> for Leave {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self::Drop(reason)
    }
}

/// By which interface a frame leaves, and in which VLAN; 0 is none. One word: of a value that holds no way the compiler moves the
/// unset parts all the same, whatever lies there, and the verifier lets it move nothing but whole words.
struct Way(u64);

impl Way {
    #[inline(always)]
    const fn new(ifindex: u32, vlan: u16) -> Self {
        Self(ifindex as u64 | (vlan as u64) << 32)
    }

    #[inline(always)]
    const fn ifindex(&self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    const fn vlan(&self) -> u16 {
        (self.0 >> 32) as u16
    }
}

/// An action of XDP, and the VLAN in which a frame leaves by it.
#[derive(Clone, Copy)]
pub(crate) struct Verdict(pub(crate) u32);

impl Verdict {
    /// Returned by the look for a flow: there is none, but there may be a VIP.
    const NO_FLOW: Self = Self(u32::MAX);
    /// The same: there is no segment, but an ICMP error may be about one.
    const ICMP_ERROR: Self = Self(u32::MAX - 1);
    /// The same: it is answered by a reset.
    const RESET: Self = Self(u32::MAX - 2);
    /// As `NO_FLOW`, but there was one.
    const ANEW: Self = Self(u32::MAX - 3);

    #[inline(always)]
    const fn new(action: u32, vlan: u16) -> Self {
        Self(action | (vlan as u32) << 16)
    }

    #[inline(always)]
    pub(crate) const fn action(self) -> u32 {
        self.0 & 0xffff
    }

    #[inline(always)]
    pub(crate) const fn vlan(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// A TCP segment that may be ours.
struct Packet<'a, F: Tables> {
    ctx: &'a Context,
    /// From the link header on.
    frame: Frame,
    /// Which it came in. 0: none.
    vlan: u16,
    /// From the IP header on.
    ip: Frame,
    tuple: &'a Tuple<F::Addr>,
    segment: Segment,
}

/// What becomes of a frame, as an action of XDP or what the hook's `send` gave.
#[inline(always)]
pub(crate) fn shunt(ctx: &Context) -> u32 {
    let Some((kind, tag)) = hook::untagged(ctx) else { return XDP_PASS };
    // Functions of their own, one after the other: together they would not find room on one stack.
    let verdict = if kind == Ipv4::ETHER_TYPE {
        let (mut verdict, ctx, vlan) = (known4(ctx.ctx), ctx.ctx, tag.id());
        if verdict == Verdict::NO_FLOW.0 || verdict == Verdict::ANEW.0 {
            verdict = fresh4(ctx, vlan, verdict);
        }
        if verdict == Verdict::NO_FLOW.0 {
            verdict = stateless4(ctx, vlan);
        }
        if verdict == Verdict::ICMP_ERROR.0 {
            verdict = icmp4(ctx, vlan);
        }
        if verdict == Verdict::RESET.0 { reset4(ctx, vlan) } else { verdict }
    } else if kind == Ipv6::ETHER_TYPE {
        let (mut verdict, ctx, vlan) = (known6(ctx.ctx), ctx.ctx, tag.id());
        if verdict == Verdict::NO_FLOW.0 || verdict == Verdict::ANEW.0 {
            verdict = fresh6(ctx, vlan, verdict);
        }
        if verdict == Verdict::NO_FLOW.0 {
            verdict = stateless6(ctx, vlan);
        }
        if verdict == Verdict::ICMP_ERROR.0 {
            verdict = icmp6(ctx, vlan);
        }
        if verdict == Verdict::RESET.0 { reset6(ctx, vlan) } else { verdict }
    } else {
        return XDP_PASS;
    };
    let verdict = Verdict(verdict);
    if tag.id() | verdict.vlan() == 0 {
        return verdict.action();
    }
    hook::put_on(ctx.ctx, tag.0, verdict.0)
}

#[inline(never)]
fn known4(ctx: *mut Raw) -> u32 {
    let (ctx, mut service) = (Context::new(ctx), 0);
    let outcome = known::<Ipv4>(&ctx, 0, &mut service);
    decide(&ctx, service, outcome).0
}

#[inline(never)]
fn known6(ctx: *mut Raw) -> u32 {
    let (ctx, mut service) = (Context::new(ctx), 0);
    let outcome = known::<Ipv6>(&ctx, 0, &mut service);
    decide(&ctx, service, outcome).0
}

#[inline(never)]
fn fresh4(ctx: *mut Raw, vlan: u16, found: u32) -> u32 {
    let anew = found == Verdict::ANEW.0;
    run::<Ipv4>(&Context::new(ctx), vlan, |ctx, vlan, service| fresh::<Ipv4>(ctx, vlan, anew, service)).0
}

#[inline(never)]
fn fresh6(ctx: *mut Raw, vlan: u16, found: u32) -> u32 {
    let anew = found == Verdict::ANEW.0;
    run::<Ipv6>(&Context::new(ctx), vlan, |ctx, vlan, service| fresh::<Ipv6>(ctx, vlan, anew, service)).0
}

#[inline(never)]
fn stateless4(ctx: *mut Raw, vlan: u16) -> u32 {
    run::<Ipv4>(&Context::new(ctx), vlan, stateless::steer::<Ipv4>).0
}

#[inline(never)]
fn stateless6(ctx: *mut Raw, vlan: u16) -> u32 {
    run::<Ipv6>(&Context::new(ctx), vlan, stateless::steer::<Ipv6>).0
}

#[inline(never)]
fn icmp4(ctx: *mut Raw, vlan: u16) -> u32 {
    run::<Ipv4>(&Context::new(ctx), vlan, icmp::steer::<Ipv4>).0
}

#[inline(never)]
fn icmp6(ctx: *mut Raw, vlan: u16) -> u32 {
    run::<Ipv6>(&Context::new(ctx), vlan, icmp::steer::<Ipv6>).0
}

#[inline(never)]
fn reset4(ctx: *mut Raw, vlan: u16) -> u32 {
    answer_with_reset::<Ipv4>(&Context::new(ctx), vlan).0
}

#[inline(never)]
fn reset6(ctx: *mut Raw, vlan: u16) -> u32 {
    answer_with_reset::<Ipv6>(&Context::new(ctx), vlan).0
}

/// Where `steer` leads: its arguments are the VLAN, and where the service is noted. The compiler may call it rather than
/// put it here, and then what it returns goes through memory: too dear for what most frames take.
#[inline(always)]
fn run<F: Tables>(
    ctx: &Context,
    vlan: u16,
    steer: impl Fn(&Context, u16, &mut u16) -> Result<Way, Leave>,
) -> Verdict {
    let mut service = 0;
    let outcome = steer(ctx, vlan, &mut service);
    decide(ctx, service, outcome)
}

/// `service`: set once a VIP or a flow has matched; before that nothing is dropped.
#[inline(always)]
fn decide(ctx: &Context, service: u16, outcome: Result<Way, Leave>) -> Verdict {
    match outcome {
        Ok(way) => Verdict::new(send(ctx, way.ifindex()), way.vlan()),
        Err(Leave::Pass) => Verdict::new(XDP_PASS, 0),
        Err(Leave::Unknown) => Verdict::NO_FLOW,
        Err(Leave::Anew) => Verdict::ANEW,
        Err(Leave::IcmpError) => Verdict::ICMP_ERROR,
        Err(Leave::Swallow) => Verdict::new(XDP_DROP, 0),
        Err(Leave::Drop(reason)) => {
            count(ctx, service, reason);
            Verdict::new(XDP_DROP, 0)
        }
        Err(Leave::Reset(reason)) => {
            count(ctx, service, reason);
            Verdict::RESET
        }
    }
}

/// A frame of a flow, in either direction.
#[inline(always)]
fn known<F: Tables + Errors>(ctx: &Context, vlan: u16, service_id: &mut u16) -> Result<Way, Leave> {
    let frame = frame(ctx);
    let ip = frame.from(LINK);
    let Some(transport) = F::transport(&ip) else {
        return Err(if may_be_error::<F>(&ip) { Leave::IcmpError } else { Leave::Pass });
    };
    let (sport, dport) = transport.ports();
    let kinds = kinds(dport).ok_or(Leave::Pass)?;
    if kinds == 0 && !may_be_kept(sport) {
        return Err(Leave::Pass);
    }
    let tuple = F::tuple_of(&ip, &transport).ok_or(Leave::Pass)?;
    let mut packet = Packet::<F> { ctx, frame, vlan, ip, tuple: &tuple, segment: Segment::default() };
    if kinds & port_flags::VIP != 0
        && let Some(flow) = table::by_client::<F>(&tuple.key)
    {
        *service_id = flow.service;
        packet.segment.fill::<F>(&ip, &tuple, || whole(ctx).wrapping_sub(LINK as u32))?;
        return to_backend::steer(ctx, &packet, flow).unwrap_or(Err(Leave::Anew));
    }
    if (kinds & port_flags::NAT != 0 || may_be_kept(tuple.key.sport))
        && let Some(flow) = table::by_reply::<F>(&tuple.key, || may_be_kept(tuple.key.sport))
        // One that is over only keeps its port from being used.
        && flow.state & flow_state::TIME_WAIT == 0
    {
        *service_id = flow.service;
        packet.segment.fill::<F>(&ip, &tuple, || whole(ctx).wrapping_sub(LINK as u32))?;
        return to_client::steer(ctx, &packet, flow);
    }
    let may_be = kinds & port_flags::VIP != 0 || may_be_kept(tuple.key.sport);
    Err(if may_be { Leave::Unknown } else { Leave::Pass })
}

/// Whether what comes from this port may be a reply of a connection that keeps its client's address.
#[inline(always)]
fn may_be_kept(source: Port) -> bool {
    kinds(source).is_some_and(|kinds| kinds & port_flags::DNAT != 0)
}

/// A frame of no flow, to a port that a VIP has. `anew`: it had one.
#[inline(always)]
fn fresh<F: Tables>(ctx: &Context, vlan: u16, anew: bool, service_id: &mut u16) -> Result<Way, Leave> {
    let frame = frame(ctx);
    let ip = frame.from(LINK);
    let tuple = F::tuple(&ip).ok_or(Leave::Pass)?;
    let Some(service) = service_of::<F>(&tuple.key) else {
        return Err(if may_be_kept(tuple.key.sport) { Leave::Unknown } else { Leave::Pass });
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
        return connect::connect(ctx, &packet, service, anew);
    }
    if service.flags & service_flags::DNAT != 0 {
        // The backend may know the connection all the same.
        return Err(Leave::Unknown);
    }
    Err(Leave::Reset(Reason::NoFlow))
}

/// The service that a segment is for.
#[inline(always)]
fn service_of<F: Tables>(key: &FlowKey<F::Addr>) -> Option<&'static Service> {
    let key = ServiceKey { addr: key.dst.wide(), port: key.dport, proto: 6, zero: 0 };
    // SAFETY: a service is replaced whole; a reader may see parts of the old and of the
    // new value, all of which are valid by themselves.
    unsafe { SERVICES.get(key) }
}

/// What frames to this port may be. 0: not ours.
#[inline(always)]
fn kinds(port: Port) -> Option<u8> {
    let ports = PORTS.get_ptr(0)?;
    let index = host_order(port.0) as usize;
    // SAFETY: an index of 16 bits is inside; bytes may be read while the daemon writes them.
    Some(unsafe { (&raw const (*ports).0).cast::<u8>().add(index).read_volatile() })
}

/// Two ports as they lie in a TCP header.
#[inline(always)]
const fn ports(source: Port, destination: Port) -> u32 {
    let [a, b] = source.0.to_ne_bytes();
    let [c, d] = destination.0.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

#[inline(always)]
pub(crate) fn frame(ctx: &Context) -> Frame {
    // SAFETY: the verifier vouches for data..data_end, and the program owns the frame.
    unsafe { Frame::new(ctx.data(), ctx.data_end()) }
}

/// Back by the way and in the VLAN that it came.
#[inline(always)]
fn answer_with_reset<F: Tables>(ctx: &Context, vlan: u16) -> Verdict {
    match turn_into_reset::<F>(ctx) {
        Some(()) => Verdict::new(send(ctx, ctx.ingress_ifindex() as u32), vlan),
        None => Verdict::new(XDP_DROP, 0),
    }
}

#[inline(always)]
fn turn_into_reset<F: Tables>(ctx: &Context) -> Option<()> {
    let frame = frame(ctx);
    let ip = frame.from(LINK);
    // Read again rather than carried here: on this path it does not matter, and on
    // the others it would fill the stack.
    let segment = Segment::read::<F>(&ip, &F::tuple(&ip)?, || whole(ctx).wrapping_sub(LINK as u32)).ok()?;
    let partial = hook::is_partial(ctx, LINK as u32 + segment.tcp + 16);
    let frame = if partial || hook::SPLIT { self::frame(ctx) } else { frame };
    let len = reset::reset::<F>(&frame, LINK, &segment, partial)?;
    hook::cut(ctx, len as u32).then_some(())
}

/// Counts a refusal. The log gets the 1st, 2nd, 4th, 8th … of each kind and CPU, so
/// that a flood of them cannot flood it.
#[inline(always)]
fn count(ctx: &Context, service: u16, reason: Reason) {
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
        Reason::SynRate => {
            warn!(
                ctx,
                "xdp: service {}: too many new connections at once ({} SYNs on this cpu)", service, seen
            )
        }
        // The daily noise of a network, and the moment of a swap: counted, no more.
        Reason::Malformed
        | Reason::Fragment
        | Reason::IpOptions
        | Reason::Ttl
        | Reason::Flags
        | Reason::NoFlow
        | Reason::Denied
        | Reason::Swapping
        | Reason::Hairpin
        | Reason::IcmpRate
        | Reason::Ejected => {}
    }
}

/// Of `LAST_SYNACK`: it has not answered yet.
const NEVER: u32 = 0;

/// The time in ticks of 2^20 ns, about milliseconds, which go round in 52 days.
#[inline(always)]
fn answer_ticks() -> u32 {
    match (coarse_ns() >> 20) as u32 {
        NEVER => 1,
        ticks => ticks,
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

/// The same number, of which the compiler knows nothing. It proves that an index is
/// inside its table and drops the check; the verifier cannot follow the proof and wants the check.
#[inline(always)]
fn opaque(index: u32) -> u64 {
    let mut index = index as u64;
    // SAFETY: a move of a register to itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) index, options(nomem, nostack, preserves_flags)) };
    index
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
