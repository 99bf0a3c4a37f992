//! Requests: what a client asks for, and since when.

use lb_common::abi::{Address, Flow, flow_state, head_state};
use lb_ebpf::{
    frame::LINK,
    head::{PREFIX_BYTES, REQUEST_BYTES, Speech, is_whole, record_length, speech, speech_of_few},
    segment::Segment,
    verifier::opaque,
};

use crate::{
    hook::{self, Context},
    program::{
        atomic,
        backend::counters,
        clock::{coarse_us, now_us},
        maps::Tables,
        packet::{Packet, first_bytes},
    },
};

/// A client sent payload on a connection that is not known to be opaque.
///
/// With `stop_new`, the function does not note a segment that asks for something new. It returns true for it.
#[inline(always)]
pub(crate) fn note_request<F: Tables>(
    ctx: &Context,
    packet: &Packet<'_, F>,
    flow: &mut Flow<F::Addr>,
    stop_new: bool,
) -> bool {
    let segment = &packet.segment;
    // A segment that only repeats bytes asks for nothing new. The same holds for a keep-alive (RFC 9293
    // section 3.8.4).
    if segment.end().wrapping_sub(flow.client_end) as i32 <= 0 {
        return false;
    }
    if flow.head & head_state::AWAITED != 0 {
        // A response is due after the last part of the request: an upload takes its time. The program reads
        // the exact clock at most once a timer interrupt for it.
        if coarse_us().wrapping_sub(flow.asked_us) as i32 > 0 {
            flow.asked_us = now_us();
        }
    }
    let spoken = flow.state & flow_state::SPOKEN != 0;
    // TCP begins behind at most two extension headers. The mask gives the verifier a bound.
    let at = (segment.payload & 0x3fff) as usize;
    let (mut method, mut record) = (0, u16::MAX);
    let said = if segment.payload_len >= REQUEST_BYTES as u32 {
        let Some(first) = first_bytes::<F, REQUEST_BYTES>(ctx, packet, at) else { return false };
        (method, record) = (first[0], record_length(first));
        Some(speech(first))
    } else if segment.payload_len >= PREFIX_BYTES as u32 {
        let Some(first) = first_bytes::<F, PREFIX_BYTES>(ctx, packet, at) else { return false };
        speech_of_few(first)
    } else {
        None
    };
    // The client has asked for nothing before, in any protocol.
    if stop_new && !spoken {
        return true;
    }
    match said {
        Some(Speech::Request) => {}
        Some(Speech::Tls | Speech::Other) if spoken => {
            note_more(ctx, packet, flow);
            return false;
        }
        // Too short to decide. Before the response it is a part of the request, and afterwards the beginning
        // of another one.
        None if unanswered(segment, flow) => {
            note_more(ctx, packet, flow);
            return false;
        }
        None => {}
        Some(said @ (Speech::Http2 | Speech::Tls | Speech::Other)) => {
            atomic::set(&mut flow.state, flow_state::OPAQUE);
            if let Some(counters) = counters(flow.backend) {
                counters.opaque += 1;
            }
            await_any(segment, flow, is_whole(said, record, segment.payload_len));
            return false;
        }
    }
    if !spoken {
        atomic::set(&mut flow.state, flow_state::SPOKEN);
    }
    // A request with a body need not end like a head.
    let whole = method == b'P' || ends_head(ctx, packet);
    await_head(segment, flow, whole, stop_new)
}

/// Whether a request is under way, and its client has not seen a byte of the response.
#[inline(always)]
const fn unanswered<A: Address>(segment: &Segment, flow: &Flow<A>) -> bool {
    let under_way = flow.head & (head_state::WANTED | head_state::CONTINUES) == head_state::WANTED;
    under_way && segment.ack == flow.head_seq
}

/// More of a request: its body, or the rest of its head.
#[inline(always)]
fn note_more<F: Tables>(ctx: &Context, packet: &Packet<'_, F>, flow: &mut Flow<F::Addr>) {
    let open = flow.head & (head_state::WANTED | head_state::OWED) == head_state::WANTED;
    if open && ends_head(ctx, packet) {
        flow.head |= head_state::OWED;
    }
}

/// Whether a segment ends with the empty line that ends a head.
#[inline(always)]
fn ends_head<F: Tables>(ctx: &Context, packet: &Packet<'_, F>) -> bool {
    const EMPTY_LINE: [u8; 4] = *b"\r\n\r\n";
    /// Beyond this offset the helper reads: the verifier needs a bound.
    const NEAR: u32 = 0x3fff;
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

/// The first payload of a client whose protocol the program does not read. For TLS and HTTP/2 it knows
/// whether a response is due.
#[inline(always)]
fn await_any<A: Address>(segment: &Segment, flow: &mut Flow<A>, whole: bool) {
    if segment.ack != flow.sent_end || flow.head & (head_state::KNOWN | head_state::SERVED) != 0 {
        return;
    }
    flow.head_seq = segment.ack;
    flow.asked_seq = segment.seq;
    flow.asked_us = now_us();
    flow.head |= head_state::UNREAD | if whole { head_state::OWED } else { 0 };
}

/// Notes a request, and that its response head is awaited. True: `stop_new` is set, every request has its
/// response, and this one is new. Then nothing is noted.
#[inline(always)]
fn await_head<A: Address>(segment: &Segment, flow: &mut Flow<A>, whole: bool, stop_new: bool) -> bool {
    if segment.ack != flow.sent_end {
        // The client has not received all that the backend has sent: it asks again before the response is
        // complete. The program cannot know where the next head begins, and a client that makes up its
        // numbers must not choose the bytes that are taken for a head.
        if is_later(segment, flow) {
            note_pipelining(flow);
        }
        return false;
    }
    let known = flow.head & head_state::KNOWN != 0 && segment.ack == flow.head_seq;
    if known && flow.head & head_state::CONTINUES == 0 {
        // The client repeats the request, sends it in several segments, or sends another one before the first
        // is answered.
        if flow.head & head_state::WANTED != 0 && is_later(segment, flow) {
            note_pipelining(flow);
        }
        return false;
    }
    if stop_new && flow.head & (head_state::WANTED | head_state::PIPELINED) == 0 {
        return true;
    }
    flow.head_seq = segment.ack;
    flow.asked_seq = segment.seq;
    flow.asked_us = now_us();
    // The last exchange, of which a part was mirrored, ended inside its own segment. This is a new one.
    let served = if flow.head & head_state::KNOWN != 0 { head_state::SERVED } else { 0 };
    let owed = if whole { head_state::OWED } else { 0 };
    flow.head = flow.head & !(head_state::CONTINUES | head_state::OWED)
        | (head_state::KNOWN | head_state::WANTED | served | owed);
    false
}

/// Whether the segment is later than the request that is answered now.
#[inline(always)]
const fn is_later<A: Address>(segment: &Segment, flow: &Flow<A>) -> bool {
    flow.head & head_state::KNOWN != 0 && segment.seq.wrapping_sub(flow.asked_seq) as i32 > 0
}

#[inline(always)]
fn note_pipelining<A: Address>(flow: &mut Flow<A>) {
    if flow.head & head_state::PIPELINED != 0 {
        return;
    }
    flow.head |= head_state::PIPELINED;
    if let Some(counters) = counters(flow.backend) {
        counters.pipelined += 1;
    }
}
