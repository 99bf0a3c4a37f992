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
/// With `cut`, a segment that asks for something new is not noted. True: it is such a one.
#[inline(always)]
pub(crate) fn note_request<F: Tables>(
    ctx: &Context,
    packet: &Packet<'_, F>,
    flow: &mut Flow<F::Addr>,
    cut: bool,
) -> bool {
    let segment = &packet.segment;
    // What repeats bytes asks for nothing new; a keep-alive does no more (RFC 9293 section 3.8.4).
    if segment.end().wrapping_sub(flow.client_end) as i32 <= 0 {
        return false;
    }
    if flow.head & head_state::AWAITED != 0 {
        // An answer is due once the last of the request has come: an upload takes its time. The exact clock is not read more
        // than once a timer interrupt for it.
        if coarse_us().wrapping_sub(flow.asked_us) as i32 > 0 {
            flow.asked_us = now_us();
        }
    }
    let spoken = flow.state & flow_state::SPOKEN != 0;
    // Behind at most two extension headers; the mask tells the verifier.
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
    // Nothing was asked before, in whatever language.
    if cut && !spoken {
        return true;
    }
    match said {
        Some(Speech::Request) => {}
        Some(Speech::Tls | Speech::Other) if spoken => {
            note_more(ctx, packet, flow);
            return false;
        }
        // Too short to tell. Before anything was answered it is a part of the request, afterwards the
        // beginning of another one.
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
    // What has a body may not end like a head.
    let whole = method == b'P' || ends_head(ctx, packet);
    await_head(segment, flow, whole, cut)
}

/// Whether a request is under way of whose answer the client has not seen a byte.
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
    /// Further on the helper reads: the verifier wants a bound.
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

/// The first word of a client whose language we do not read. Of TLS and HTTP/2 it is known that it is
/// owed an answer.
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

/// A request asks for the head of its response. True: not with `cut`, because nothing was asked before that is
/// not answered.
#[inline(always)]
fn await_head<A: Address>(segment: &Segment, flow: &mut Flow<A>, whole: bool, cut: bool) -> bool {
    if segment.ack != flow.sent_end {
        // The client has not got all that the backend has sent: it does not wait for the
        // response before it asks again. Where the next head will be is anybody's guess; and a
        // client that makes its numbers up must not choose what is taken for a head.
        if is_later(segment, flow) {
            note_pipelining(flow);
        }
        return false;
    }
    let known = flow.head & head_state::KNOWN != 0 && segment.ack == flow.head_seq;
    if known && flow.head & head_state::CONTINUES == 0 {
        // The request comes again, or in several segments, or another one before the first is answered.
        if flow.head & head_state::WANTED != 0 && is_later(segment, flow) {
            note_pipelining(flow);
        }
        return false;
    }
    if cut && flow.head & (head_state::WANTED | head_state::PIPELINED) == 0 {
        return true;
    }
    flow.head_seq = segment.ack;
    flow.asked_seq = segment.seq;
    flow.asked_us = now_us();
    // What was mirrored of an exchange before ended inside its own segment: this is a new one.
    let served = if flow.head & head_state::KNOWN != 0 { head_state::SERVED } else { 0 };
    let owed = if whole { head_state::OWED } else { 0 };
    flow.head = flow.head & !(head_state::CONTINUES | head_state::OWED)
        | (head_state::KNOWN | head_state::WANTED | served | owed);
    false
}

/// Whether it is not the request that is answered now, sent again.
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
