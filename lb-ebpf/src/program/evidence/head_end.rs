//! Whether a segment holds the end of a request's head.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_loop;
use lb_ebpf::{
    frame::LINK,
    head::{STRIDE, WINDOW, has_empty_line},
    verifier::{opaque, opaque_pointer},
};

use crate::{
    hook::{self, Context, Raw, frame},
    program::{maps::Tables, packet::Packet},
};

/// Beyond this offset a helper reads: the verifier needs a bound.
const NEAR: u32 = 0x3fff;

/// Whether a segment ends with the empty line that ends a head.
#[inline(always)]
pub(crate) fn ends_head<F: Tables>(ctx: &Context, packet: &Packet<'_, F>) -> bool {
    const EMPTY_LINE: [u8; 4] = *b"\r\n\r\n";
    let segment = &packet.segment;
    if segment.payload_len < 4 {
        return false;
    }
    let at = segment.payload + segment.payload_len - 4;
    if at <= NEAR
        && let Some(last) = packet.ip.bytes::<4>((opaque(at) & NEAR as u64) as usize)
    {
        return last == EMPTY_LINE;
    }
    let mut last = [0; 4];
    // SAFETY: four bytes are read into four; beyond the frame the helper reads nothing and says so.
    let read = unsafe { hook::load_bytes(ctx, LINK as u32 + at, last.as_mut_ptr().cast(), 4) };
    read && last == EMPTY_LINE
}

/// The most bytes of a segment that are looked through. Heads with a body behind them are shorter.
const MOST: u32 = 4096;

/// Whether the empty line is anywhere in the first [`MOST`] bytes of a segment: a body may follow it.
#[inline(always)]
pub(crate) fn holds_empty_line<F: Tables>(ctx: &Context, packet: &Packet<'_, F>) -> bool {
    let segment = &packet.segment;
    look_through(ctx.ctx, LINK as u32 + segment.payload, segment.payload_len) != 0
}

/// The search: its state between two turns.
#[repr(C)]
struct Search {
    ctx: *mut Raw,
    /// Where the payload begins in the frame.
    from: u32,
    /// The last place at which a turn can look.
    last: u32,
    found: u32,
}

// A function of its own, because the stack of its caller is full.
#[inline(never)]
fn look_through(ctx: *mut Raw, from: u32, length: u32) -> u32 {
    let length = if length < MOST { length } else { MOST };
    if length < WINDOW as u32 {
        return 0;
    }
    let mut search = Search { ctx: opaque_pointer(ctx), from, last: length - WINDOW as u32, found: 0 };
    let turns = search.last / STRIDE + 2;
    // SAFETY: the callback has the type that the kernel calls, and the search outlives the loop.
    unsafe { bpf_loop(turns, look as *mut c_void, (&raw mut search).cast(), 0) };
    // SAFETY: written by the callback, of which the compiler does not know.
    unsafe { (&raw const search.found).read_volatile() }
}

/// One turn. 1 ends the search.
unsafe extern "C" fn look(turn: u32, search: *mut Search) -> i64 {
    // SAFETY: the kernel hands over what `look_through` gave it.
    let search = unsafe { &mut *search };
    let ctx = Context::new(search.ctx);
    let offset = turn.wrapping_mul(STRIDE);
    // The last turn looks at bytes that the one before has seen, rather than beyond the end.
    let at = search.from + if offset < search.last { offset } else { search.last };
    let near =
        if at <= NEAR { frame(&ctx).bytes::<WINDOW>((opaque(at) & NEAR as u64) as usize) } else { None };
    let bytes = near.unwrap_or_else(|| {
        let mut bytes = [0; WINDOW];
        // SAFETY: as many bytes are read as there is space; beyond the frame the helper reads nothing.
        unsafe { hook::load_bytes(&ctx, at, bytes.as_mut_ptr().cast(), WINDOW as u32) };
        bytes
    });
    search.found = has_empty_line(bytes) as u32;
    (search.found != 0 || offset >= search.last) as i64
}
