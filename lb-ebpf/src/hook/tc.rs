//! Attached at tc ingress: behind the driver, where a frame has become the stack's buffer.
//!
//! On a virtual link nothing has to be copied for that, as it has for XDP, and a segment may be as large as the sender's stack
//! made it (TSO, GRO). Its checksum may be unfinished then: the device would finish it, and this program must not.

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
use lb_common::{abi::Link, checksum::fold};
use lb_ebpf::{
    family::{Family, Ipv4, Ipv6},
    frame::{Frame, LINK},
    translate::Translation,
};

use crate::program::{
    action::Action,
    vlan::{Tag, is_looked_at},
};

pub(crate) type Raw = __sk_buff;

/// A field of the kernel's. Volatile: else the compiler may read it early and hand it from function to function as a number,
/// which for the verifier is none of a frame's bounds.
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

/// Whether what follows a frame's headers is usually elsewhere than they are.
pub(crate) const SPLIT: bool = true;

/// Flag of `bpf_l4_csum_replace`: what changes is of the pseudo header, which an unfinished checksum has in it already.
const PSEUDO_HEADER: u64 = 0x10;

const ETHER_TYPE: u16 = u16::to_be(0x8100);

/// The frame from its link header on.
#[inline(always)]
pub(crate) fn frame(ctx: &Context) -> Frame {
    // SAFETY: the verifier vouches for data..data_end, and the program owns the frame.
    unsafe { Frame::new(ctx.data(), ctx.data_end()) }
}

/// The hook's own word for an action of XDP.
#[inline(always)]
pub(crate) const fn outcome(action: u32) -> i32 {
    match action {
        // Others at this hook have their turn.
        XDP_PASS => TC_ACT_UNSPEC,
        XDP_DROP | XDP_ABORTED => TC_ACT_SHOT,
        redirect => redirect as i32,
    }
}

/// Sees to it that what every segment has lies in the first buffer, as it does anyway behind most drivers.
#[inline(always)]
pub(crate) fn headers_at_hand(ctx: &Context) {
    let kind = field!(ctx.protocol);
    let ip = if kind == Ipv6::ETHER_TYPE as u32 { Ipv6::HEADER } else { Ipv4::HEADER };
    let wanted = LINK + ip + 20;
    if !frame(ctx).holds(wanted) && whole(ctx) as usize >= wanted {
        // SAFETY: a plain helper call; the frame is asked for anew.
        unsafe { bpf_skb_pull_data(ctx.ctx, wanted as u32) };
    }
}

/// Length of a frame with what is not in its first buffer.
#[inline(always)]
pub(crate) fn whole(ctx: &Context) -> u32 {
    field!(ctx.len)
}

/// Copies bytes of the frame, in whichever buffer they are.
///
/// # Safety
/// `len` bytes must be writable there.
#[inline(always)]
pub(crate) unsafe fn load_bytes(ctx: &Context, at: u32, to: *mut c_void, len: u32) -> bool {
    // SAFETY: the caller's; beyond the frame the helper reads nothing and says so.
    unsafe { bpf_skb_load_bytes(ctx.ctx.cast(), at, to, len) == 0 }
}

/// What takes a frame to this interface.
#[inline(always)]
pub(crate) fn send(_: &Context, ifindex: u32) -> u32 {
    // SAFETY: a plain helper call.
    unsafe { bpf_redirect(ifindex, 0) as u32 }
}

/// Cuts a frame to this length, if it is longer. It is not touched afterwards.
#[inline(always)]
pub(crate) fn shorten(ctx: &Context, len: u32) -> bool {
    // SAFETY: a plain helper call.
    whole(ctx) <= len || unsafe { bpf_skb_change_tail(ctx.ctx, len, 0) } == 0
}

/// Whether somebody is still to finish the TCP checksum that is there. The kernel does not tell, but what it does tells:
/// such a checksum does not change with what is not of the pseudo header. Where the headers are must be asked for anew.
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

/// Adds to the TCP checksum what changed words add to their sum.
#[inline(always)]
fn add(ctx: &Context, at: u32, delta: u16, flags: u64) -> bool {
    // SAFETY: a plain helper call.
    unsafe { bpf_l4_csum_replace(ctx.ctx, at, 0, delta as u64, flags) == 0 }
}

/// Gives a segment its new addresses. Where its headers are may not be used afterwards; those that are given may be
/// out of date by now.
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

/// What a frame holds, and its tag, which the kernel keeps beside it. `None`: nothing that is looked at.
#[inline(always)]
pub(crate) fn untagged(ctx: &Context) -> Option<(u16, Tag)> {
    let kind = frame(ctx).load::<u16>(12)?;
    if field!(ctx.vlan_present) == 0 {
        return Some((kind, Tag::NONE));
    }
    let tag = Tag(field!(ctx.vlan_tci) as u16);
    let plain = field!(ctx.vlan_proto) == ETHER_TYPE as u32;
    (plain && tag.id() != 0 && is_looked_at(tag)).then_some((kind, tag))
}

/// Gives a frame the tag with which it leaves. It came with `came`, if it had one.
#[inline(never)]
pub(crate) fn put_on(ctx: *mut Raw, came: u16, action: Action) -> u32 {
    let (came, vlan) = (Tag(came), action.vlan());
    let action = action.code();
    if action == XDP_DROP || action == XDP_PASS {
        return action;
    }
    // SAFETY: a plain helper call.
    if came.id() != 0 && unsafe { bpf_skb_vlan_pop(ctx) } != 0 {
        return XDP_ABORTED;
    }
    let tag = came.moved_to(vlan);
    // SAFETY: as above.
    if vlan != 0 && unsafe { bpf_skb_vlan_push(ctx, ETHER_TYPE, tag.0) } != 0 {
        return XDP_ABORTED;
    }
    action
}
