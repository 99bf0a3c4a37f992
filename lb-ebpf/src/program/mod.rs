//! The program behind both hooks: a ladder of steps. The first step that decides about a frame ends it.
//!
//! ```text
//!   known ──no flow──► fresh ──no connection──► stateless ──► icmp ──► reset
//! ```

pub(crate) mod action;
mod affinity;
mod atomic;
mod backend;
mod clients;
mod clock;
mod closing;
mod connect;
mod crowd;
mod evidence;
mod flows;
mod forward;
mod fresh;
mod icmp;
mod known;
mod limit;
mod mac;
pub(crate) mod maps;
mod narrow;
mod origin;
mod pace;
mod packet;
mod ports;
mod proof;
mod reset;
mod route;
mod source;
mod stateless;
mod to_backend;
mod to_client;
mod verdict;
pub(crate) mod vlan;
mod waiting;
mod way;

use aya_ebpf::bindings::xdp_action::XDP_PASS;
use lb_ebpf::{
    family::{Family as _, Ipv4, Ipv6},
    icmp::Errors,
};

use self::{
    action::Action,
    maps::Tables,
    verdict::{Code, Egress, Leave, Verdict, decide},
};
use crate::hook::{self, Context, Raw};

/// The fate of a frame: an action of XDP, or the result of the hook's `send`.
#[inline(always)]
pub(crate) fn shunt(ctx: &Context) -> u32 {
    let Some((kind, tag)) = hook::untagged(ctx) else { return XDP_PASS };
    let action = if kind == Ipv4::ETHER_TYPE {
        ladder::<Ipv4>(ctx.ctx, tag.id())
    } else if kind == Ipv6::ETHER_TYPE {
        ladder::<Ipv6>(ctx.ctx, tag.id())
    } else {
        return XDP_PASS;
    };
    if tag.bits() | action.vlan() as u32 == 0 {
        return action.code();
    }
    hook::put_on(ctx.ctx, tag.bits(), action)
}

/// The steps are functions of their own, one after the other: one stack has no space for them together.
#[inline(always)]
fn ladder<F: Tables + Errors>(ctx: *mut Raw, vlan: u16) -> Action {
    let mut code = known::<F>(ctx, vlan);
    // Most frames end here.
    if let Verdict::Leaves(action) = code.verdict() {
        return action;
    }
    if let Verdict::NoFlow | Verdict::FlowEnded = code.verdict() {
        code = fresh::<F>(ctx, vlan, code);
    }
    if code.verdict() == Verdict::NoFlow {
        code = stateless::<F>(ctx, vlan);
    }
    if code.verdict() == Verdict::IcmpError {
        code = icmp::<F>(ctx, vlan);
    }
    match code.verdict() {
        Verdict::Leaves(action) => action,
        Verdict::Reset => reset::<F>(ctx, vlan),
        Verdict::Challenge => challenge::<F>(ctx, vlan),
        // No step is left, and none has claimed the frame.
        Verdict::NoFlow | Verdict::FlowEnded | Verdict::IcmpError => Action::new(XDP_PASS, 0),
    }
}

#[inline(never)]
fn known<F: Tables + Errors>(ctx: *mut Raw, vlan: u16) -> Code {
    let (ctx, mut service) = (Context::new(ctx), 0);
    let outcome = known::steer::<F>(&ctx, vlan, &mut service);
    decide(&ctx, service, outcome).code()
}

#[inline(never)]
fn fresh<F: Tables>(ctx: *mut Raw, vlan: u16, before: Code) -> Code {
    let had_flow = before.verdict() == Verdict::FlowEnded;
    step(&Context::new(ctx), vlan, |ctx, vlan, service| fresh::steer::<F>(ctx, vlan, had_flow, service))
}

#[inline(never)]
fn stateless<F: Tables>(ctx: *mut Raw, vlan: u16) -> Code {
    step(&Context::new(ctx), vlan, stateless::steer::<F>)
}

#[inline(never)]
fn icmp<F: Tables + Errors>(ctx: *mut Raw, vlan: u16) -> Code {
    step(&Context::new(ctx), vlan, icmp::steer::<F>)
}

#[inline(never)]
fn reset<F: Tables>(ctx: *mut Raw, vlan: u16) -> Action {
    reset::answer_with_reset::<F>(&Context::new(ctx), vlan)
}

#[inline(never)]
fn challenge<F: Tables>(ctx: *mut Raw, vlan: u16) -> Action {
    reset::challenge::<F>(&Context::new(ctx), vlan)
}

/// Runs a step. `steer` gets the VLAN of the frame, and notes the service.
///
/// The compiler may call `steer` instead of inlining it, and then its result goes through memory. That is too
/// slow for `known`, which most frames take, so `known` does not use this function.
#[inline(always)]
fn step(ctx: &Context, vlan: u16, steer: impl Fn(&Context, u16, &mut u16) -> Result<Egress, Leave>) -> Code {
    let mut service = 0;
    let outcome = steer(ctx, vlan, &mut service);
    decide(ctx, service, outcome).code()
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
