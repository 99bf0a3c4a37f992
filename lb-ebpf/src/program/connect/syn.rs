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

/// Notes whether a backend that does not answer this SYN has failed. Not by what it returns: the verifier would go
/// through all that follows for each answer.
#[inline(never)]
pub(crate) fn look_at_syn<F: Tables>(ctx: *mut Raw, place: u32, headers: u32, ip_len: u32) -> u32 {
    // As if the context came from elsewhere: the compiler would pass the frame's bounds as numbers.
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
    // SAFETY: a place of the map that is the new connection's alone. Between turns the place of the option is kept in
    // the map, of which the verifier knows nothing: else it would go through every place that it can have.
    let flow = unsafe { &mut *flow };
    if syn::is_linux(&ip.from(F::HEADER), headers.wrapping_sub(F::HEADER as u32)) {
        flow.head = head_state::CONNECTING;
        return 0;
    }
    flow.client_fin_ack = syn::FIRST_OPTION;
    let mut look = Look::<F::Addr> { ctx, flow, length: headers.wrapping_sub(F::HEADER as u32) };
    // SAFETY: the callback has the type that the kernel calls, and what it works on outlives the loop.
    unsafe { bpf_loop(syn::MOST_OPTIONS, option::<F> as *mut c_void, (&raw mut look).cast(), 0) };
    0
}

/// A look at the options of a SYN: what goes from one turn to the next.
#[repr(C)]
struct Look<A: Address> {
    ctx: *mut Raw,
    flow: *mut Flow<A>,
    length: u32,
}

/// One option is looked at.
unsafe extern "C" fn option<F: Tables>(_: u32, look: *mut Look<F::Addr>) -> i64 {
    // SAFETY: the kernel hands over what `look_at_syn` gave it.
    let (ctx, flow, length) = unsafe { ((*look).ctx, &mut *(*look).flow, (*look).length) };
    let ip = frame(&Context::new(ctx)).from(LINK);
    let next = syn::next_option(&ip.from(F::HEADER), flow.client_fin_ack, length);
    flow.client_fin_ack = next;
    if next == syn::ALL_KNOWN {
        flow.head = head_state::CONNECTING;
    }
    (next >= syn::ALL_KNOWN) as i64
}
