//! Clients behind a path with a smaller MTU, in mode `nat`.
//!
//! To a backend all clients have the NAT address, and a stack remembers the path MTU of an address. If the program
//! passed "packet too big" on, one client could make the segments of all small. In IPv4 the program lets routers
//! fragment the segments of that flow. In IPv6 no router does, so the client must ask for smaller segments: the
//! program resets its connection, and lowers the segment size that its later SYNs offer.
//!
//! A report alone ends no connection, because its number may be guessed. The program waits until the backend sends the
//! reported byte again: then the client has not got it.

use lb_common::{
    abi::{Address, Flow, flow_state},
    hash::keyed_address_hash,
};
use lb_ebpf::{frame::LINK, reset::reset_about, segment::Segment, syn, verifier::opaque_pointer};

use super::{
    backend::counters,
    flows::key,
    limit,
    maps::{NARROW_CLIENTS, NARROW_PLACES, NARROW_REPORTS, Tables},
    packet::Packet,
    verdict::{Egress, Leave},
};
use crate::hook::{self, Context, Raw, frame};

/// The bits of an entry that are the MTU. The others are those of the client's hash, or of the report.
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
    NARROW_CLIENTS.get_ptr_mut(hash as u32 & (NARROW_PLACES - 1))
}

/// The report of a flow, as one word: sequence number, number of the flow, MTU.
#[inline(always)]
const fn report(slot: u32, seq: u32, mtu: u64) -> u64 {
    (seq as u64) << 32 | ((slot >> NARROW_PLACES.ilog2()) as u64) << 16 | mtu
}

/// A router has reported this MTU, and the number of the segment that it did not send on.
#[inline(always)]
pub(crate) fn note_report<A: Address>(flow: &Flow<A>, mtu: u32, seq: u32) {
    let Some(place) = NARROW_REPORTS.get_ptr_mut(flow.slot & (NARROW_PLACES - 1)) else { return };
    let mtu = if mtu as u64 > MTU { MTU } else { mtu as u64 };
    // SAFETY: an aligned word of a map; of two flows with one place the later one has it.
    unsafe { place.write_volatile(report(flow.slot, seq, mtu)) };
}

/// The MTU, if this segment of a backend is the reported one.
#[inline(always)]
pub(crate) fn confirmed<A: Address>(segment: &Segment, flow: &Flow<A>) -> Option<u64> {
    let place = NARROW_REPORTS.get_ptr(flow.slot & (NARROW_PLACES - 1))?;
    // SAFETY: an aligned word of a map.
    let found = unsafe { place.read_volatile() };
    let (seq, mtu) = ((found >> 32) as u32, found & MTU);
    let again = seq.wrapping_sub(segment.seq) < segment.payload_len;
    (again && found == report(flow.slot, seq, mtu) && segment.ip_len > mtu).then_some(mtu)
}

/// Turns a segment of a backend into a reset to its client, remembers the client, and ends the flow. The backend's next
/// segment has no flow, and the host answers it with a reset.
#[inline(always)]
pub(crate) fn end<F: Tables>(
    packet: &Packet<'_, F>,
    flow: &mut Flow<F::Addr>,
    mtu: u64,
) -> Result<Egress, Leave> {
    let hash = hash::<F>(&flow.client.src);
    if let Some(entry) = entry(hash) {
        // SAFETY: aligned words; of two clients with one entry the later one has it.
        unsafe {
            entry.write_volatile(hash & !MTU | mtu);
            (&raw mut IN_USE).write_volatile(1);
        }
    }
    let to = flow.client.reversed();
    let len = reset_about::<F>(&packet.frame, &flow.link, &to, packet.segment.seq).ok_or(Leave::Pass)?;
    let egress = Egress::to_client(flow.ifindex, flow.state);
    limit::rest::<F>(flow.slot, flow_state::TIME_WAIT);
    if let Some(counters) = counters(flow.backend) {
        counters.resets += 1;
    }
    if hook::shorten(packet.ctx, len as u32) { Ok(egress) } else { Err(Leave::Swallow) }
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
