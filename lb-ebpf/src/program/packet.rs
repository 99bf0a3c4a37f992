//! A TCP segment on its way through the program.

use lb_ebpf::{
    family::Tuple,
    frame::{Frame, LINK},
    head::{self, Ends},
    segment::Segment,
};

use super::maps::Tables;
use crate::hook::{Context, load_bytes};

/// A TCP segment that may be Shunt's.
pub(crate) struct Packet<'a, F: Tables> {
    pub(crate) ctx: &'a Context,
    /// From the link header on.
    pub(crate) frame: Frame,
    /// The VLAN in which it came. 0: none.
    pub(crate) vlan: u16,
    /// From the IP header on.
    pub(crate) ip: Frame,
    pub(crate) tuple: &'a Tuple<F::Addr>,
    pub(crate) segment: Segment,
}

/// Both ends of `N` bytes of the payload, `at` bytes from the start of the IP header, from all buffers.
#[inline(always)]
pub(crate) fn first_ends<F: Tables, const N: usize>(
    ctx: &Context,
    packet: &Packet<'_, F>,
    at: usize,
) -> Option<Ends> {
    if let Some(ends) = packet.ip.ends::<N>(at) {
        return Some(ends);
    }
    Some(head::ends(&load::<N>(ctx, at)?))
}

/// `N` bytes of the payload, `at` bytes from the start of the IP header, from all buffers.
#[inline(always)]
pub(crate) fn first_bytes<F: Tables, const N: usize>(
    ctx: &Context,
    packet: &Packet<'_, F>,
    at: usize,
) -> Option<[u8; N]> {
    if let Some(first) = packet.ip.bytes::<N>(at) {
        return Some(first);
    }
    load(ctx, at)
}

#[inline(always)]
fn load<const N: usize>(ctx: &Context, at: usize) -> Option<[u8; N]> {
    let mut first = [0; N];
    // SAFETY: `N` bytes are read into as many; beyond the frame the helper reads nothing and says so.
    let read = unsafe { load_bytes(ctx, LINK as u32 + at as u32, first.as_mut_ptr().cast(), N as u32) };
    read.then_some(first)
}
