//! FIN and RST: when a connection is over.
//!
//! A direction is over when its FIN was acknowledged. The connection is over when both are, or at a reset.
//!
//! Anybody can send a FIN or a reset with the tuple of a connection. So a reset counts only at the exact number
//! (RFC 5961 section 3), and a FIN only if it continues what its sender has sent. A FIN that overtakes what
//! precedes it counts once the other end acknowledges its number.

use lb_common::abi::{Address, Flow, flow_state, head_state};
use lb_ebpf::{
    frame::LINK,
    segment::{Place, Segment, flag},
    stamps::{Stamps, stamps},
};

use super::{atomic, limit, maps::Tables};
use crate::hook::{Context, Raw, frame};

/// Whether a segment of a client may end something, or acknowledge an end. Most do not.
#[inline(always)]
pub(crate) const fn closes_by_client<A: Address>(segment: &Segment, flow: &Flow<A>) -> bool {
    segment.flags & (flag::FIN | flag::RST) != 0 || flow.backend_closes()
}

/// The same of a backend.
#[inline(always)]
pub(crate) const fn closes_by_backend<A: Address>(segment: &Segment, flow: &Flow<A>) -> bool {
    segment.flags & (flag::FIN | flag::RST) != 0 || flow.client_closes()
}

/// The numbers of a segment as one: a BPF function takes five.
#[inline(always)]
pub(crate) const fn numbers(segment: &Segment) -> u64 {
    (segment.seq as u64) << 32 | segment.ack as u64
}

/// The same of its flags and the length of its payload.
#[inline(always)]
pub(crate) const fn shape(segment: &Segment) -> u64 {
    (segment.flags as u64) << 32 | segment.payload_len as u64
}

#[inline(always)]
fn segment_of(numbers: u64, shape: u64) -> Segment {
    let (seq, ack) = ((numbers >> 32) as u32, numbers as u32);
    Segment { seq, ack, flags: (shape >> 32) as u8, payload_len: shape as u32, ..Segment::default() }
}

/// Notes what a segment of a client ends, if a client that sees the connection can have sent it. Functions of their own,
/// because they are rare and the way of all other segments has few registers.
#[inline(never)]
pub(crate) fn note_from_client<F: Tables>(ctx: *mut Raw, slot: u32, numbers: u64, shape: u64) -> u32 {
    let Some(flow) = F::flow(slot) else { return 0 };
    // SAFETY: as in `flows`: a place of a map, whose fields are valid each by itself.
    let flow = unsafe { &mut *flow };
    let segment = segment_of(numbers, shape);
    if segment.is_plausible(flow.sent_end) {
        let place = segment.place(flow.client_next());
        from_client::<F>(&segment, flow, place);
        if place == Place::Next {
            flow.client_end = segment.end();
        }
        keep_stamp::<F>(ctx, flow, |stamps| stamps.value);
    } else if segment.has(flag::RST) {
        reset_by_client::<F>(&segment, flow);
    }
    0
}

/// The same of a backend. `next`: the first number that was missing.
#[inline(never)]
pub(crate) fn note_from_backend<F: Tables>(
    ctx: *mut Raw,
    slot: u32,
    numbers: u64,
    shape: u64,
    next: u32,
) -> u32 {
    let Some(flow) = F::flow(slot) else { return 0 };
    // SAFETY: as above.
    let flow = unsafe { &mut *flow };
    let segment = segment_of(numbers, shape);
    from_backend::<F>(&segment, flow, segment.place(next));
    keep_stamp::<F>(ctx, flow, |stamps| stamps.echo);
    0
}

/// Keeps the client's time stamp of the segment that has ended a connection: later the backend's stack accepts only
/// later ones for the same tuple. `of_client`: the one that is the client's.
#[inline(always)]
fn keep_stamp<F: Tables>(ctx: *mut Raw, flow: &mut Flow<F::Addr>, of_client: impl FnOnce(Stamps) -> u32) {
    if flow.state & flow_state::TIME_WAIT != 0 && flow.head & head_state::FORGOTTEN == 0 {
        let tcp = frame(&Context::new(ctx)).from(LINK + F::HEADER);
        flow.whole_end_or_stamp = stamps(&tcp).map_or(0, of_client);
    }
}

/// Notes the FIN of a client, and the acknowledgement of the backend's FIN. `place`: of the segment, before it
/// counts in `client_end`.
#[inline(always)]
fn from_client<F: Tables>(segment: &Segment, flow: &mut Flow<F::Addr>, place: Place) {
    let backend_closes = flow.backend_closes();
    if !segment.has(flag::FIN) && !backend_closes {
        return;
    }
    let mut set = 0;
    if backend_closes && segment.ack == flow.backend_syn_fin_ack {
        set |= flow_state::BACKEND_FIN | flow_state::BACKEND_FIN_ACKED;
    }
    if segment.has(flag::FIN) && flow.state & flow_state::CLIENT_FIN == 0 {
        match place {
            Place::Before => {}
            Place::Next => {
                flow.client_fin_ack = segment.end();
                set |= flow_state::CLIENT_FIN;
            }
            Place::Beyond => {
                flow.client_fin_ack = segment.end();
                flow.head |= head_state::CLIENT_FIN_BEYOND;
            }
        }
    }
    finish::<F>(flow, set, false);
}

/// Ends the connection if the number of a client's reset is exact. A client that is gone answers the backend's
/// segment, and takes its number from that.
#[inline(always)]
fn reset_by_client<F: Tables>(segment: &Segment, flow: &mut Flow<F::Addr>) {
    if segment.seq == flow.client_end || segment.seq == flow.acked {
        finish::<F>(flow, 0, true);
    }
}

/// The same for segments of a backend. A reset of a backend comes here only if its number is exact.
#[inline(always)]
fn from_backend<F: Tables>(segment: &Segment, flow: &mut Flow<F::Addr>, place: Place) {
    let ends = segment.flags & (flag::FIN | flag::RST) != 0;
    let client_closes = flow.client_closes();
    if !ends && !client_closes {
        return;
    }
    let mut set = 0;
    let knows_end = segment.has(flag::ACK) && client_closes && segment.ack == flow.client_fin_ack;
    if knows_end {
        set |= flow_state::CLIENT_FIN | flow_state::CLIENT_FIN_ACKED;
    }
    if segment.has(flag::FIN) && !flow.backend_closes() && knows_end {
        flow.head |= head_state::FORGOTTEN;
    }
    if segment.has(flag::FIN) && flow.state & flow_state::BACKEND_FIN == 0 {
        match place {
            Place::Before => {}
            Place::Next => {
                flow.backend_syn_fin_ack = segment.end();
                set |= flow_state::BACKEND_FIN;
            }
            Place::Beyond => {
                flow.backend_syn_fin_ack = segment.end();
                flow.head |= head_state::BACKEND_FIN_BEYOND;
            }
        }
    }
    finish::<F>(flow, set, segment.has(flag::RST));
}

/// Whether a reset of a backend ends the connection. Stacks also accept the number before their FIN, because a
/// backend that has sent a FIN and is gone takes the number from a segment that has not seen the FIN.
#[inline(always)]
pub(crate) const fn is_exact<A: Address>(reset: &Segment, flow: &Flow<A>) -> bool {
    reset.seq == flow.sent_end
        || flow.state & flow_state::BACKEND_FIN != 0 && reset.seq.wrapping_add(1) == flow.sent_end
}

/// Sets these bits. At a reset, or when both FINs are acknowledged, the flow goes into time-wait and its NAT
/// port rests.
#[inline(always)]
fn finish<F: Tables>(flow: &mut Flow<F::Addr>, set: u32, reset: bool) {
    const BOTH: u32 = flow_state::CLIENT_FIN_ACKED | flow_state::BACKEND_FIN_ACKED;
    if reset {
        flow.head |= head_state::FORGOTTEN;
    }
    let over = reset || (flow.state | set) & BOTH == BOTH;
    if over {
        limit::rest::<F>(flow.slot, set | flow_state::TIME_WAIT);
    } else if set & !flow.state != 0 {
        atomic::set(&mut flow.state, set);
    }
}
