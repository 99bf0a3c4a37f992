//! Last step: a frame that is answered by a reset, back by the interface and in the VLAN that it came.

use aya_ebpf::bindings::xdp_action::XDP_DROP;
use lb_ebpf::{frame::LINK, reset, segment::Segment};

use super::{action::Action, maps::Tables};
use crate::hook::{self, Context, frame, send, whole};

#[inline(always)]
pub(crate) fn answer_with_reset<F: Tables>(ctx: &Context, vlan: u16) -> Action {
    match turn_into_reset::<F>(ctx) {
        Some(()) => Action::new(send(ctx, ctx.ingress_ifindex() as u32), vlan),
        None => Action::new(XDP_DROP, 0),
    }
}

#[inline(always)]
fn turn_into_reset<F: Tables>(ctx: &Context) -> Option<()> {
    let frame = frame(ctx);
    let ip = frame.from(LINK);
    // Read again instead of passed on: this path is rare, and on the others the segment would fill the stack.
    let segment = Segment::read::<F>(&ip, &F::tuple(&ip)?, || whole(ctx).wrapping_sub(LINK as u32)).ok()?;
    let partial = hook::is_partial(ctx, LINK as u32 + segment.tcp + 16);
    let frame = if partial || hook::SPLIT { hook::frame(ctx) } else { frame };
    let len = reset::reset::<F>(&frame, LINK, &segment, partial)?;
    hook::shorten(ctx, len as u32).then_some(())
}
