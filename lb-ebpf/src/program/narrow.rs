//! Clients behind a path with a smaller MTU, in mode `nat`.
//!
//! To a backend all clients have the NAT address, and a stack remembers the path MTU of an address. If the program
//! passed "packet too big" on, one client could make the segments of all small. In IPv4 the program lets routers
//! fragment the segments of that flow. In IPv6 no router does, so the client must ask for smaller segments: the
//! program resets its connection, and lowers the segment size that its later SYNs offer.

use lb_common::{
    abi::{Address as _, Flow},
    hash::keyed_address_hash,
};
use lb_ebpf::{
    family::Family as _,
    frame::{Frame, LINK},
    reset::reset_about,
    syn,
    verifier::opaque_pointer,
};

use super::{
    atomic,
    backend::counters,
    flows::key,
    maps::{NARROW_CLIENTS, Tables},
};
use crate::hook::{self, Context, Raw, frame};

/// The bits of an entry that are the MTU. The others are those of the client's hash.
const MTU: u64 = 0xffff;

/// Whether `NARROW_CLIENTS` has an entry. As long as it has none, no SYN is looked up.
static mut IN_USE: u32 = 0;

#[inline(always)]
fn hash<F: Tables>(client: &F::Addr) -> u64 {
    keyed_address_hash(client, key(2))
}

#[inline(always)]
fn entry(hash: u64) -> Option<*mut u64> {
    // Other bits than those that are compared.
    NARROW_CLIENTS.get_ptr_mut(hash as u32 & 0xfff)
}

/// A client whose path has this MTU. Returns the length of the reset that the frame has become. The reset is to the
/// client, whose stack has everything before `seq`. The backend's next segment has no flow, and the host answers it
/// with a reset.
#[inline(always)]
pub(crate) fn end<F: Tables>(frame: &Frame, flow: &mut Flow<F::Addr>, mtu: u32, seq: u32) -> Option<usize> {
    let hash = hash::<F>(&flow.client.src);
    let mtu = if mtu as u64 > MTU { MTU } else { mtu as u64 };
    if let Some(entry) = entry(hash) {
        // SAFETY: aligned words; of two clients with one entry the later one has it.
        unsafe {
            entry.write_volatile(hash & !MTU | mtu);
            (&raw mut IN_USE).write_volatile(1);
        }
    }
    let len = reset_about::<F>(frame, &flow.link, &flow.client.reversed(), seq)?;
    atomic::set(&mut flow.state, lb_common::abi::flow_state::TIME_WAIT);
    if let Some(counters) = counters(flow.backend) {
        counters.resets += 1;
    }
    Some(len)
}

/// Whether a client may be one of these.
#[inline(always)]
pub(crate) fn is_in_use() -> bool {
    // SAFETY: an aligned word that all CPUs read and write.
    unsafe { (&raw const IN_USE).read_volatile() != 0 }
}

/// Lowers the segment size that the SYN of such a client offers, if it is the first option, as all known stacks have it.
/// The caller must not use the bounds of the frame afterwards.
// A function of its own, to spare the stack of its caller.
#[inline(never)]
pub(crate) fn lower<F: Tables>(ctx: *mut Raw, client: &F::Addr, tcp: u32) -> u32 {
    let hash = hash::<F>(client);
    let Some(entry) = entry(hash) else { return 0 };
    // SAFETY: an aligned word of a map.
    let entry = unsafe { entry.read_volatile() };
    if (entry ^ hash) & !MTU != 0 || tcp as usize != F::HEADER {
        return 0;
    }
    // Hides where the context comes from. Otherwise the compiler would pass the frame's bounds as numbers.
    let ctx = Context::new(opaque_pointer(ctx));
    let header = frame(&ctx).from(LINK + F::HEADER);
    let most = ((entry & MTU) as u32).saturating_sub(F::HEADER as u32 + 20);
    if let Some(word) = syn::lower_size(&header, most) {
        hook::replace_word(&ctx, LINK + F::HEADER, syn::FIRST_OPTION as usize, word);
    }
    0
}
