//! Whether a frame is for this node, by the MAC address that it is sent to.
//!
//! A switch floods, a port is mirrored, an interface is promiscuous: then frames for another station come by. They
//! are its own to answer, and so are broadcasts and multicasts.

use lb_common::abi::{Link, OwnMac, UsualMacs};
use lb_ebpf::{frame::Frame, verifier::opaque};

use super::maps::OWN_MACS;
use crate::hook::{Context, Raw, frame};

/// The daemon writes it, together with `OWN_MACS`. A static costs less than a map.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.usual_macs")]
static mut USUAL_MACS: UsualMacs = UsualMacs::NONE;

/// Whether the frame is for this node.
#[inline(always)]
pub(crate) fn is_ours(ctx: &Context, frame: &Frame) -> bool {
    is_usual(frame, ctx.ingress_ifindex() as u32) || usual_of(ctx.ctx) != 0
}

#[inline(always)]
fn is_usual(frame: &Frame, ifindex: u32) -> bool {
    let at = opaque(ifindex) as usize & (UsualMacs::COUNT - 1);
    // SAFETY: inside, by the line above; a word that the daemon may write meanwhile.
    let usual = unsafe { (&raw const USUAL_MACS.0).cast::<u64>().add(at).read_volatile() };
    frame.load::<u64>(0).is_some_and(|first| UsualMacs::entry(first, ifindex) == usual)
}

/// The usual address of the frame's interface, as eight bytes of which the last two are 0. 0: the frame is not for
/// this node.
// A function of its own, because it is rare and the stack of its callers is full.
#[inline(never)]
fn usual_of(ctx: *mut Raw) -> u64 {
    let ctx = Context::new(ctx);
    let Some(mac) = frame(&ctx).bytes::<6>(0) else { return 0 };
    // SAFETY: bytes; each is valid by itself while the daemon writes another.
    let usual = unsafe { OWN_MACS.get(OwnMac::new(ctx.ingress_ifindex() as u32, mac)) };
    usual.map_or(0, |usual| u64::from_ne_bytes(*usual))
}

/// The link of the way back to the sender of a frame: to its address, from the usual one of the interface.
#[inline(always)]
pub(crate) fn link_back(ctx: &Context, frame: &Frame) -> Option<Link> {
    let [a, b] = frame.load::<u16>(10)?.to_ne_bytes();
    let to = frame.load::<u32>(6)?;
    let (first, last) = if is_usual(frame, ctx.ingress_ifindex() as u32) {
        (frame.load::<u16>(0)?, frame.load::<u32>(2)?)
    } else {
        let [c, d, e, f, g, h, ..] = usual_of(ctx.ctx).to_ne_bytes();
        (u16::from_ne_bytes([c, d]), u32::from_ne_bytes([e, f, g, h]))
    };
    let [c, d] = first.to_ne_bytes();
    Some(Link([to, u32::from_ne_bytes([a, b, c, d]), last]))
}
