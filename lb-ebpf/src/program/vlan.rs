//! One 802.1Q tag: taken off before a frame is looked at, put on before it leaves.
//!
//! So nothing else knows of tags, and a frame may come with one and leave with another, or with none. What
//! passes leaves with the bytes that it came with.

use aya_ebpf::{
    bindings::{
        xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS},
        xdp_md,
    },
    helpers::bpf_xdp_adjust_head,
    programs::XdpContext,
};
use lb_ebpf::family::{Family as _, Ipv4, Ipv6};

use super::{Verdict, frame, maps::VLANS};

/// In network order, as a frame has it.
pub(super) const ETHER_TYPE: u16 = u16::to_be(0x8100);

/// Bytes of a tag.
const TAG: i32 = 4;

/// The bits of a tag's second half, in host order, that are no id: priority and drop eligibility.
const PRIORITY: u16 = 0xf000;

/// Where the two addresses of the link header end.
const ADDRESSES: usize = 12;

/// The second half of the tag, in host order.
#[derive(Clone, Copy)]
pub(super) struct Tag(pub(super) u16);

impl Tag {
    /// Of a frame that has none: no id is 0.
    pub(super) const NONE: Self = Self(0);

    /// Which VLAN. 0: none.
    #[inline(always)]
    pub(super) const fn id(self) -> u16 {
        self.0 & !PRIORITY
    }
}

/// Takes the tag off, and gives it. [`Tag::NONE`], and nothing has changed: the frame is in a VLAN that is not
/// looked at, or holds something else than IP, such as another tag.
// A function of its own, like the other one, so that the stack of what is called in between is not theirs too.
#[inline(never)]
pub(super) fn take_off(ctx: *mut xdp_md) -> u16 {
    try_take_off(&XdpContext::new(ctx)).unwrap_or(Tag::NONE).0
}

#[inline(always)]
fn try_take_off(ctx: &XdpContext) -> Option<Tag> {
    let inside = frame(ctx);
    let tag = Tag(u16::from_be(inside.load(14)?));
    let kind = inside.load::<u16>(16)?;
    if kind != Ipv4::ETHER_TYPE && kind != Ipv6::ETHER_TYPE {
        return None;
    }
    let vlans = VLANS.get_ptr(0)?;
    // SAFETY: an index of 12 bits is inside; bytes may be read while the daemon writes them.
    if unsafe { (&raw const (*vlans).0[tag.id() as usize]).read_volatile() } == 0 {
        return None;
    }
    move_addresses(ctx, TAG).then_some(tag)
}

/// Gives a frame the tag with which it leaves. It came with `came`, if it had one.
#[inline(never)]
pub(super) fn put_on(ctx: *mut xdp_md, came: u16, verdict: u32) -> u32 {
    let (ctx, came, verdict) = (&XdpContext::new(ctx), Tag(came), Verdict(verdict));
    let action = verdict.action();
    let tag = match action {
        XDP_DROP => return action,
        XDP_PASS => came,
        _ if verdict.vlan() == 0 => return action,
        // What came without a tag has no priority.
        _ => Tag(came.0 & PRIORITY | verdict.vlan()),
    };
    if !move_addresses(ctx, -TAG) {
        return XDP_ABORTED;
    }
    let frame = frame(ctx);
    let [a, b] = ETHER_TYPE.to_ne_bytes();
    let [c, d] = tag.0.to_be_bytes();
    frame.store(ADDRESSES, u32::from_ne_bytes([a, b, c, d]));
    action
}

/// Makes a frame shorter at its head, or longer, by so many bytes behind the link addresses. False, and nothing has
/// changed, where there is no room.
#[inline(always)]
fn move_addresses(ctx: &XdpContext, by: i32) -> bool {
    let Some(addresses) = frame(ctx).bytes::<ADDRESSES>(0) else { return false };
    // SAFETY: a plain helper call; the frame is asked for anew.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, by) } != 0 {
        return false;
    }
    frame(ctx).put(0, addresses)
}
