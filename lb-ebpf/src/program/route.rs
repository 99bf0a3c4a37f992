//! The kernel's routes: by which interface it would forward a packet.

use aya_ebpf::helpers::bpf_fib_lookup;
use lb_common::abi::{Address as _, Link};

use super::maps::Tables;
use crate::hook::Context;

/// `struct bpf_fib_lookup` of the kernel (linux/bpf.h), both question and answer.
#[repr(C)]
struct Lookup {
    family: u8,
    protocol: u8,
    ports: [u16; 2],
    length: u16,
    ifindex: u32,
    flow: u32,
    src: [u32; 4],
    dst: [u32; 4],
    vlan: [u16; 2],
    from: [u8; 6],
    to: [u8; 6],
}
const _: () = assert!(size_of::<Lookup>() == 64);

/// The way that the kernel would forward a packet from `src` to `dst` that comes by the frame's interface.
pub(crate) enum Way {
    Found(Link, u32),
    /// By this interface, but the next hop does not answer.
    Silent(u32),
    /// The kernel would not forward it.
    None,
}

#[inline(always)]
pub(crate) fn way<F: Tables>(ctx: &Context, src: &F::Addr, dst: &F::Addr) -> Way {
    const FOUND: i32 = 0;
    const NO_NEIGHBOUR: i32 = 7;
    let v4 = size_of::<F::Addr>() == 4;
    let words = |address: &F::Addr| {
        let wide = address.wide();
        if v4 { [wide.v4_word(), 0, 0, 0] } else { wide.0 }
    };
    let mut lookup = Lookup {
        family: if v4 { 2 } else { 10 },
        protocol: 6,
        ports: [0; 2],
        length: 0,
        ifindex: ctx.ingress_ifindex() as u32,
        flow: 0,
        src: words(src),
        dst: words(dst),
        vlan: [0; 2],
        from: [0; 6],
        to: [0; 6],
    };
    // SAFETY: the kernel reads and writes as many bytes as it is given.
    let answer =
        unsafe { bpf_fib_lookup(ctx.ctx.cast(), (&raw mut lookup).cast(), size_of::<Lookup>() as i32, 0) };
    // SAFETY: written by the kernel, of which the compiler does not know.
    let lookup = unsafe { (&raw const lookup).read_volatile() };
    match answer as i32 {
        FOUND => Way::Found(Link::new(lookup.to, lookup.from), lookup.ifindex),
        NO_NEIGHBOUR => Way::Silent(lookup.ifindex),
        _ => Way::None,
    }
}
