//! Whether a reply comes by a way that leads to its backend.
//!
//! Anybody can send frames with a backend's address as their source. Such a frame changes no flow and is no
//! evidence, unless it comes by the interface and VLAN of the backend.

use lb_common::abi::{Address as _, Flow};

use super::{
    backend::backend_of,
    maps::{OWN_ADDRS, Tables},
    route::{self, Way},
};
use crate::hook::{Context, Raw};

#[inline(always)]
pub(crate) fn is_backend<F: Tables>(ctx: &Context, flow: &Flow<F::Addr>, vlan: u16) -> bool {
    let by = ctx.ingress_ifindex() as u32;
    flow.backend_ifindex == by && flow.backend_vlan == vlan
        || comes_by_new_way::<F>(ctx.ctx, flow.slot, vlan as u32) != 0
}

/// Whether the frame comes by another way to the backend: it has several, or it has changed since the connection
/// began, or since the daemon has looked. Then the flow learns that one.
// A function of its own, because it is rare and its question to the kernel needs much of the stack.
#[inline(never)]
fn comes_by_new_way<F: Tables>(ctx: *mut Raw, slot: u32, vlan: u32) -> u32 {
    let ctx = Context::new(ctx);
    let by = ctx.ingress_ifindex() as u32;
    let Some(flow) = F::flow(slot) else { return 0 };
    // SAFETY: as in `flows`: a place of a map, whose fields are valid each by itself.
    let flow = unsafe { &mut *flow };
    // SAFETY: integers; each is valid by itself while the daemon writes another.
    let own = unsafe { OWN_ADDRS.get(flow.reply.src.wide()) };
    let known = backend_of(flow).is_some_and(|of| of.ifindex == by && of.vlan as u32 == vlan)
        || own.is_some_and(|own| own.leads_by(by, vlan as u16));
    // The kernel names the device of a VLAN, which no frame comes by.
    let new = known || vlan == 0 && routes_to::<F>(&ctx, flow) == by;
    if new {
        flow.backend_ifindex = by;
        flow.backend_vlan = vlan as u16;
    }
    new as u32
}

/// The interface by which the kernel would forward a packet to the backend. 0: it would not.
#[inline(always)]
fn routes_to<F: Tables>(ctx: &Context, flow: &Flow<F::Addr>) -> u32 {
    match route::way::<F>(ctx, &flow.reply.dst, &flow.reply.src) {
        Way::Found(_, ifindex) | Way::Silent(ifindex) => ifindex,
        Way::None => 0,
    }
}
