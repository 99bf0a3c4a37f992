//! Whether a backend that does not answer this SYN has failed.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_loop;
use lb_common::abi::{Address, Flow, head_state};
use lb_ebpf::{
    frame::LINK,
    syn,
    verifier::{opaque, opaque_pointer},
};

use crate::{
    hook::{self, Context, Raw, frame},
    program::maps::Tables,
};

/// Notes whether a backend that does not answer this SYN has failed. The result stands in the flow: for a
/// returned value the verifier would follow every path of the caller again.
#[inline(never)]
pub(crate) fn check_syn<F: Tables>(ctx: *mut Raw, place: u32, headers: u32, ip_len: u32) -> u32 {
    // Hides where the context comes from. Otherwise the compiler would pass the frame's bounds as numbers.
    let ctx = opaque_pointer(ctx);
    let mut ip = frame(&Context::new(ctx)).from(LINK);
    let hide = |number| opaque(number) as u32;
    if !syn::is_sound::<F>(&ip, headers, ip_len, false, hide) {
        if !hook::is_partial(&Context::new(ctx), (LINK + F::HEADER) as u32 + 16) {
            return 0;
        }
        ip = frame(&Context::new(ctx)).from(LINK);
        if !syn::is_sound::<F>(&ip, headers, ip_len, true, hide) {
            return 0;
        }
    }
    let Some(flow) = F::flow(place) else { return 0 };
    // SAFETY: a place of the map that is the new connection's alone.
    let flow = unsafe { &mut *flow };
    let tcp = ip.from(F::HEADER);
    if syn::is_linux(&tcp, headers.wrapping_sub(F::HEADER as u32)) {
        flow.head = head_state::CONNECTING;
        flow.client_scale = tcp.load(syn::LINUX_SCALE).unwrap_or(0);
        // Of other stacks it is not known: then numbers alone decide about a port that rests.
        flow.whole_end_or_stamp = tcp.load(syn::LINUX_STAMP).map_or(0, u32::from_be);
        return 0;
    }
    *option_at(flow) = syn::FIRST_OPTION;
    let mut walk = Walk::<F::Addr> { ctx, flow, length: headers.wrapping_sub(F::HEADER as u32) };
    // SAFETY: the callback has the type that the kernel calls, and what it works on outlives the loop.
    unsafe { bpf_loop(syn::MOST_OPTIONS, option::<F> as *mut c_void, (&raw mut walk).cast(), 0) };
    0
}

/// The walk over the options of a SYN: its state between two turns.
#[repr(C)]
struct Walk<A: Address> {
    ctx: *mut Raw,
    flow: *mut Flow<A>,
    length: u32,
}

/// Considers one option. 1 ends the walk.
unsafe extern "C" fn option<F: Tables>(_: u32, walk: *mut Walk<F::Addr>) -> i64 {
    // SAFETY: the kernel hands over what `check_syn` gave it.
    let (ctx, flow, length) = unsafe { ((*walk).ctx, &mut *(*walk).flow, (*walk).length) };
    let ip = frame(&Context::new(ctx)).from(LINK);
    if let Some(scale) = syn::scale_in(&ip.from(F::HEADER), *option_at(flow)) {
        flow.client_scale = scale;
    }
    let next = syn::next_option(&ip.from(F::HEADER), *option_at(flow), length);
    *option_at(flow) = next;
    if next == syn::ALL_KNOWN {
        flow.head = head_state::CONNECTING;
    }
    (next >= syn::ALL_KNOWN) as i64
}

/// The offset of the next option, in a field that a new flow does not use yet. It lies in the map, because
/// there the verifier knows nothing of it. Otherwise the verifier would go through every offset.
#[inline(always)]
const fn option_at<A: Address>(flow: &mut Flow<A>) -> &mut u32 {
    &mut flow.client_fin_ack
}
