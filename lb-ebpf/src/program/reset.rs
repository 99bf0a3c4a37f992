//! Last step: a frame that the program answers, back by the interface and in the VLAN that it came.

use aya_ebpf::bindings::xdp_action::XDP_DROP;
use lb_common::abi::FlowKey;
use lb_ebpf::{
    frame::LINK,
    reset::{Answer, answer},
    segment::Segment,
};

use super::{action::Action, flows, maps::Tables, proof};
use crate::hook::{self, Context, frame, send, whole};

#[inline(always)]
pub(crate) fn answer_with_reset<F: Tables>(ctx: &Context, vlan: u16) -> Action {
    sent(ctx, vlan, turn_into::<F>(ctx, |segment, _| Answer::reset(segment)))
}

/// Answers the SYN of a client that has a flow with the numbers of the flow. Without a flow the client is to prove its
/// address.
#[inline(always)]
pub(crate) fn challenge<F: Tables>(ctx: &Context, vlan: u16) -> Action {
    sent(
        ctx,
        vlan,
        turn_into::<F>(ctx, |_, key| {
            Some(match flows::by_client::<F>(key) {
                Some(flow) => Answer::challenge(flow.sent_end, flow.client_next()),
                None => Answer::challenge(0, proof::number::<F>(key)),
            })
        }),
    )
}

#[inline(always)]
fn sent(ctx: &Context, vlan: u16, turned: Option<()>) -> Action {
    match turned {
        Some(()) => Action::new(send(ctx, ctx.ingress_ifindex() as u32), vlan),
        None => Action::new(XDP_DROP, 0),
    }
}

#[inline(always)]
fn turn_into<F: Tables>(
    ctx: &Context,
    by: impl FnOnce(&Segment, &FlowKey<F::Addr>) -> Option<Answer>,
) -> Option<()> {
    let frame = frame(ctx);
    let ip = frame.from(LINK);
    // Read again instead of passed on: this path is rare, and on the others the segment would fill the stack.
    let tuple = F::tuple(&ip)?;
    let segment = Segment::read::<F>(&ip, &tuple, || whole(ctx).wrapping_sub(LINK as u32)).ok()?;
    let by = by(&segment, &tuple.key)?;
    let partial = hook::is_partial(ctx, LINK as u32 + segment.tcp + 16);
    let frame = if partial || hook::SPLIT { hook::frame(ctx) } else { frame };
    let len = answer::<F>(&frame, LINK, &segment, partial, &by)?;
    hook::shorten(ctx, len as u32).then_some(())
}
