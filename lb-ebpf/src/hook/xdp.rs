//! The hook for XDP: before the stack, where a frame is still the driver's buffer.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX},
    helpers::{
        bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
    },
};
pub(crate) use aya_ebpf::{bindings::xdp_md as Raw, programs::XdpContext as Context};
use lb_common::{
    abi::Link,
    checksum::{apply, fold, replace32},
};
use lb_ebpf::{
    family::{Family, Ipv4, Ipv6},
    frame::Frame,
    translate::Translation,
};

use crate::program::{
    action::Action,
    vlan::{Tag, is_configured},
};

/// Whether the payload of a frame usually lies in another buffer than its headers.
pub(crate) const SPLIT: bool = false;

/// The daemon sets it when it loads the program: send a frame back by a redirect to its own interface. A veth
/// whose peer has no XDP program leaves a frame of `XDP_TX` in the ring until something else wakes the peer
/// (drivers/net/veth.c, `veth_xdp_flush`).
#[unsafe(no_mangle)]
static TX_BY_REDIRECT: u8 = 0;

/// The frame from its link header on.
#[inline(always)]
pub(crate) fn frame(ctx: &Context) -> Frame {
    // SAFETY: the verifier vouches for data..data_end, and the program owns the frame.
    unsafe { Frame::new(ctx.data(), ctx.data_end()) }
}

/// Length of a frame, over all its buffers.
#[inline(always)]
pub(crate) fn whole(ctx: &Context) -> u32 {
    // SAFETY: a plain helper call (Linux 5.18).
    unsafe { bpf_xdp_get_buff_len(ctx.ctx) as u32 }
}

/// Copies bytes of the frame, from all its buffers.
///
/// # Safety
/// `len` bytes must be writable there.
#[inline(always)]
pub(crate) unsafe fn load_bytes(ctx: &Context, at: u32, to: *mut c_void, len: u32) -> bool {
    // SAFETY: the caller's; beyond the frame the helper reads nothing and says so.
    unsafe { bpf_xdp_load_bytes(ctx.ctx, at, to, len) == 0 }
}

/// Sends a frame to this interface.
#[inline(always)]
pub(crate) fn send(ctx: &Context, ifindex: u32) -> u32 {
    // SAFETY: a constant of the loaded program; volatile because the loader rewrites it.
    let by_redirect = unsafe { (&raw const TX_BY_REDIRECT).read_volatile() } != 0;
    if ifindex == ctx.ingress_ifindex() as u32 && !by_redirect {
        return XDP_TX;
    }
    // SAFETY: a plain helper call.
    unsafe { bpf_redirect(ifindex, 0) as u32 }
}

/// Shortens a frame to this length, if it is longer. The program does not touch the frame afterwards.
#[inline(always)]
pub(crate) fn shorten(ctx: &Context, len: u32) -> bool {
    let excess = whole(ctx) as i32 - len as i32;
    // SAFETY: a plain helper call, which lets go of what is in other buffers first.
    excess <= 0 || unsafe { bpf_xdp_adjust_tail(ctx.ctx, -excess) } == 0
}

/// Whether the TCP checksum of the frame is unfinished. Before the stack it never is.
#[inline(always)]
pub(crate) const fn is_partial(_: &Context, _: u32) -> bool {
    false
}

/// Puts a word of the TCP header in the place of another, and corrects the checksum. `tcp`: the offset of the TCP
/// header in the frame. The caller must not use the bounds of the frame afterwards.
#[inline(always)]
pub(crate) fn replace_word(ctx: &Context, tcp: usize, at: usize, will: u32) -> Option<()> {
    let tcp = frame(ctx).from(tcp);
    let (was, check) = (tcp.load::<u32>(at)?, tcp.load::<u16>(16)?);
    tcp.store(at, will);
    tcp.store(16, apply(check, fold(replace32(was, will))));
    Some(())
}

/// Gives a segment its new addresses. The caller must not use the bounds of its headers afterwards.
#[inline(always)]
pub(crate) fn translate<F: Family>(
    _: &Context,
    (frame, ip): (&Frame, &Frame),
    tcp: usize,
    link: &Link,
    to: &Translation<'_, F::Addr>,
) -> Option<()> {
    lb_ebpf::translate::translate::<F>(frame, ip, tcp, link, to)
}

/// In network order, as a frame has it.
const ETHER_TYPE: u16 = u16::to_be(0x8100);

/// Bytes of a tag.
const TAG: i32 = 4;

/// Length of the two addresses of the link header.
const ADDRESSES: usize = 12;

/// EtherType and tag of a frame. The tag is taken off. `None`: the program does not look at this frame.
#[inline(always)]
pub(crate) fn untagged(ctx: &Context) -> Option<(u16, Tag)> {
    let kind = frame(ctx).load::<u16>(12)?;
    if kind != ETHER_TYPE {
        return Some((kind, Tag::NONE));
    }
    let tag = Tag::from_bits(take_off(ctx.ctx));
    let (kind, noise) = (frame(ctx).load::<u16>(12)?, frame(ctx).load::<u64>(0)?);
    tag.is_present().then_some((kind, tag.hidden(noise)))
}

/// Takes the tag off and returns it. [`Tag::NONE`]: nothing has changed. The VLAN is not configured, or the
/// frame holds another tag or something else than IP.
// A function of its own, like `put_on`, so that the functions called in between do not share its stack.
#[inline(never)]
fn take_off(ctx: *mut Raw) -> u32 {
    try_take_off(&Context::new(ctx)).unwrap_or(Tag::NONE).bits()
}

#[inline(always)]
fn try_take_off(ctx: &Context) -> Option<Tag> {
    let inside = frame(ctx);
    let tag = Tag::new(u16::from_be(inside.load(14)?));
    let kind = inside.load::<u16>(16)?;
    if kind != Ipv4::ETHER_TYPE && kind != Ipv6::ETHER_TYPE {
        return None;
    }
    if !is_configured(tag) {
        return None;
    }
    move_addresses(ctx, TAG).then_some(tag)
}

/// Gives a frame the tag with which it leaves. `came` is the tag that it came with.
#[inline(never)]
pub(crate) fn put_on(ctx: *mut Raw, came: u32, action: Action) -> u32 {
    let (ctx, came, vlan) = (&Context::new(ctx), Tag::from_bits(came), action.vlan());
    let action = action.code();
    let tag = match action {
        XDP_DROP => return action,
        XDP_PASS => came,
        _ => came.moved_to(vlan),
    };
    if !tag.is_present() {
        return action;
    }
    if !move_addresses(ctx, -TAG) {
        return XDP_ABORTED;
    }
    let frame = frame(ctx);
    let [a, b] = ETHER_TYPE.to_ne_bytes();
    let [c, d] = tag.control().to_be_bytes();
    frame.store(ADDRESSES, u32::from_ne_bytes([a, b, c, d]));
    action
}

/// Makes a frame shorter or longer by `by` bytes, behind the link addresses. False: there is no space, and
/// nothing has changed.
#[inline(always)]
fn move_addresses(ctx: &Context, by: i32) -> bool {
    let Some(addresses) = frame(ctx).bytes::<ADDRESSES>(0) else { return false };
    // SAFETY: a plain helper call; the bounds of the frame are read again.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, by) } != 0 {
        return false;
    }
    frame(ctx).put(0, addresses)
}
