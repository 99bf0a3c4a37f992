//! The hook for tc ingress: behind the driver, where a frame has become a buffer of the stack.
//!
//! On a virtual link the kernel copies nothing for tc, as it does for XDP, and a segment may be as large as
//! the sender's stack made it (TSO, GRO). Its checksum may be unfinished: the sender's device would finish
//! it, and this program must not.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    bindings::{
        __sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC,
        xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS},
    },
    helpers::{
        bpf_l4_csum_replace, bpf_redirect, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_pull_data,
        bpf_skb_vlan_pop, bpf_skb_vlan_push,
    },
};
use lb_common::{
    abi::Link,
    checksum::{fold, replace32},
};
use lb_ebpf::{
    family::{Family, Ipv4, Ipv6},
    frame::{Frame, LINK},
    translate::Translation,
};

use crate::program::{
    action::Action,
    vlan::{Tag, is_configured},
};

pub(crate) type Raw = __sk_buff;

/// A field of the kernel's context. Volatile: otherwise the compiler may read it early and pass it between
/// functions as a number, and the verifier does not take a number for a bound of the frame.
macro_rules! field {
    ($context:ident . $name:ident) => {
        // SAFETY: the kernel vouches for what it calls the program with.
        unsafe { (&raw const (*$context.ctx).$name).read_volatile() }
    };
}

pub(crate) struct Context {
    pub(crate) ctx: *mut Raw,
}

impl Context {
    #[inline(always)]
    pub(crate) const fn new(ctx: *mut Raw) -> Self {
        Self { ctx }
    }

    #[inline(always)]
    pub(crate) fn data(&self) -> usize {
        field!(self.data) as usize
    }

    #[inline(always)]
    pub(crate) fn data_end(&self) -> usize {
        field!(self.data_end) as usize
    }

    #[inline(always)]
    pub(crate) fn ingress_ifindex(&self) -> usize {
        field!(self.ifindex) as usize
    }
}

impl EbpfContext for Context {
    fn as_ptr(&self) -> *mut c_void {
        self.ctx.cast()
    }
}

/// Whether the payload of a frame usually lies in another buffer than its headers.
pub(crate) const SPLIT: bool = true;

/// Flag of `bpf_l4_csum_replace`: the change is in the pseudo header, which an unfinished checksum already
/// contains.
const PSEUDO_HEADER: u64 = 0x10;

const ETHER_TYPE: u16 = u16::to_be(0x8100);

/// The frame from its link header on.
#[inline(always)]
pub(crate) fn frame(ctx: &Context) -> Frame {
    // SAFETY: the verifier vouches for data..data_end, and the program owns the frame.
    unsafe { Frame::new(ctx.data(), ctx.data_end()) }
}

/// The hook's own action for an action of XDP.
#[inline(always)]
pub(crate) const fn outcome(action: u32) -> i32 {
    match action {
        // Other programs at this hook have their turn.
        XDP_PASS => TC_ACT_UNSPEC,
        XDP_DROP | XDP_ABORTED => TC_ACT_SHOT,
        redirect => redirect as i32,
    }
}

/// Makes sure that the headers of every segment lie in the first buffer. Behind most drivers they do anyway.
#[inline(always)]
pub(crate) fn headers_at_hand(ctx: &Context) {
    let kind = field!(ctx.protocol);
    let ip = if kind == Ipv6::ETHER_TYPE as u32 { Ipv6::HEADER } else { Ipv4::HEADER };
    let wanted = LINK + ip + 20;
    if !frame(ctx).holds(wanted) && whole(ctx) as usize >= wanted {
        // SAFETY: a plain helper call; the bounds of the frame are read again.
        unsafe { bpf_skb_pull_data(ctx.ctx, wanted as u32) };
    }
}

/// Length of a frame, over all its buffers.
#[inline(always)]
pub(crate) fn whole(ctx: &Context) -> u32 {
    field!(ctx.len)
}

/// Copies bytes of the frame, from all its buffers.
///
/// # Safety
/// `len` bytes must be writable there.
#[inline(always)]
pub(crate) unsafe fn load_bytes(ctx: &Context, at: u32, to: *mut c_void, len: u32) -> bool {
    // SAFETY: the caller's; beyond the frame the helper reads nothing and says so.
    unsafe { bpf_skb_load_bytes(ctx.ctx.cast(), at, to, len) == 0 }
}

/// Sends a frame to this interface.
#[inline(always)]
pub(crate) fn send(_: &Context, ifindex: u32) -> u32 {
    // SAFETY: a plain helper call.
    unsafe { bpf_redirect(ifindex, 0) as u32 }
}

/// Shortens a frame to this length, if it is longer. The program does not touch the frame afterwards.
#[inline(always)]
pub(crate) fn shorten(ctx: &Context, len: u32) -> bool {
    // SAFETY: a plain helper call.
    whole(ctx) <= len || unsafe { bpf_skb_change_tail(ctx.ctx, len, 0) } == 0
}

/// Whether the TCP checksum of the frame is unfinished. The kernel does not say so, but an unfinished
/// checksum does not change with the bytes outside the pseudo header. The caller must ask again for the
/// bounds of the frame.
#[inline(always)]
pub(crate) fn is_partial(ctx: &Context, at: u32) -> bool {
    let read = || {
        let mut sum = 0u16;
        // SAFETY: two bytes are read into two.
        unsafe { load_bytes(ctx, at, (&raw mut sum).cast(), 2) }.then_some(sum)
    };
    let Some(before) = read() else { return false };
    if !add(ctx, at, 1, 0) {
        return false;
    }
    if read() == Some(before) {
        return true;
    }
    add(ctx, at, !1, 0);
    false
}

/// Adds the change of some words to the TCP checksum.
#[inline(always)]
fn add(ctx: &Context, at: u32, delta: u16, flags: u64) -> bool {
    // SAFETY: a plain helper call.
    unsafe { bpf_l4_csum_replace(ctx.ctx, at, 0, delta as u64, flags) == 0 }
}

/// Puts a word of the TCP header in the place of another, and corrects the checksum, if it covers the word. `tcp`:
/// the offset of the TCP header in the frame. The caller must not use the bounds of the frame afterwards.
#[inline(always)]
pub(crate) fn replace_word(ctx: &Context, tcp: usize, at: usize, will: u32) -> Option<()> {
    let header = frame(ctx).from(tcp);
    let was = header.load::<u32>(at)?;
    header.store(at, will);
    add(ctx, (tcp + 16) as u32, fold(replace32(was, will)), 0).then_some(())
}

/// Gives a segment its new addresses. The bounds that are passed may be out of date, and the caller must not
/// use them afterwards.
#[inline(always)]
pub(crate) fn translate<F: Family>(
    ctx: &Context,
    _: (&Frame, &Frame),
    tcp: usize,
    link: &Link,
    to: &Translation<'_, F::Addr>,
) -> Option<()> {
    let frame = frame(ctx);
    let ip = frame.from(LINK);
    let (addresses, ports) = (to.ip_delta, fold(to.tcp_delta as u64 + !to.ip_delta as u64));
    let to = Translation { src: to.src, dst: to.dst, ports: to.ports, tcp_delta: 0, ip_delta: to.ip_delta };
    lb_ebpf::translate::translate::<F>(&frame, &ip, tcp, link, &to)?;
    let at = (LINK + tcp + 16) as u32;
    (add(ctx, at, addresses, PSEUDO_HEADER) && add(ctx, at, ports, 0)).then_some(())
}

/// EtherType and tag of a frame. The kernel keeps the tag beside the frame. `None`: the program does not look
/// at this frame.
#[inline(always)]
pub(crate) fn untagged(ctx: &Context) -> Option<(u16, Tag)> {
    let (kind, noise) = (frame(ctx).load::<u16>(12)?, frame(ctx).load::<u64>(0)?);
    if field!(ctx.vlan_present) == 0 {
        return Some((kind, Tag::NONE.hidden(noise)));
    }
    let tag = Tag::new(field!(ctx.vlan_tci) as u16);
    let plain = field!(ctx.vlan_proto) == ETHER_TYPE as u32;
    (plain && is_configured(tag)).then_some((kind, tag.hidden(noise)))
}

/// Gives a frame the tag with which it leaves. `came` is the tag that it came with.
#[inline(never)]
pub(crate) fn put_on(ctx: *mut Raw, came: u32, action: Action) -> u32 {
    let (came, vlan) = (Tag::from_bits(came), action.vlan());
    let action = action.code();
    if action == XDP_DROP || action == XDP_PASS {
        return action;
    }
    let tag = came.moved_to(vlan);
    if tag.bits() == came.bits() {
        return action;
    }
    // SAFETY: a plain helper call.
    if came.is_present() && unsafe { bpf_skb_vlan_pop(ctx) } != 0 {
        return XDP_ABORTED;
    }
    // SAFETY: as above.
    if tag.is_present() && unsafe { bpf_skb_vlan_push(ctx, ETHER_TYPE, tag.control()) } != 0 {
        return XDP_ABORTED;
    }
    action
}
