//! Requests: what a client asks for, and since when.

use lb_common::abi::{Address, Flow, flow_state, head_state};
use lb_ebpf::{
    head::{PREFIX_BYTES, REQUEST_BYTES, Speech, hello_length, speech, speech_of_few, whole_length},
    segment::{Place, Segment},
    verifier::forget,
};

use super::head_end::{ends_head, holds_empty_line};
use crate::{
    hook::Context,
    program::{
        atomic,
        backend::counters,
        clock::{coarse_us, now_us},
        maps::Tables,
        packet::{Packet, first_bytes, first_ends},
    },
};

/// A client sent payload on a connection that is not known to be opaque.
///
/// `next`: the client's next number. With `stop_new`, the function does not note a segment that asks for
/// something new. It returns true for it.
#[inline(always)]
pub(crate) fn note_request<F: Tables>(
    ctx: &Context,
    packet: &Packet<'_, F>,
    flow: &mut Flow<F::Addr>,
    next: u32,
    stop_new: bool,
) -> bool {
    let segment = &packet.segment;
    let place = segment.place(next);
    // A segment that only repeats bytes asks for nothing new. The same holds for a keep-alive (RFC 9293
    // section 3.8.4).
    if place == Place::Before {
        return false;
    }
    // From here on the verifier sees one path.
    let beyond = forget((place == Place::Beyond) as u32, segment.seq);
    let spoken = flow.state & flow_state::SPOKEN != 0;
    if flow.backend_closes() && !is_early(flow) {
        // A backend that has sent its FIN can answer nothing any more.
        return false;
    }
    // TCP begins behind at most two extension headers. The mask gives the verifier a bound.
    let at = (segment.payload & 0x3fff) as usize;
    let mut opening = [0; 2];
    let said = if segment.payload_len >= REQUEST_BYTES as u32 {
        let Some(ends) = first_ends::<F, REQUEST_BYTES>(ctx, packet, at) else { return false };
        opening = ends;
        Some(speech(ends))
    } else if segment.payload_len >= PREFIX_BYTES as u32 {
        let Some(first) = first_bytes::<F, PREFIX_BYTES>(ctx, packet, at) else { return false };
        speech_of_few(first)
    } else {
        None
    };
    if beyond != 0 {
        // Something before it is missing. If that was a request, this one is sent before its response.
        if said == Some(Speech::Request) {
            note_pipelining(flow);
        }
        return false;
    }
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
            await_any(packet, flow, whole_length(said, hello_length(opening)));
            return false;
        }
    }
    if !spoken {
        atomic::set(&mut flow.state, flow_state::SPOKEN);
    }
    let method = opening[0] as u8;
    let whole = ends_head(ctx, packet) || method == b'P' && holds_empty_line(ctx, packet);
    let owed = if whole { head_state::OWED } else { 0 };
    let body = if method == b'P' { head_state::BODY } else { 0 };
    await_head(packet, flow, forget(owed | body, segment.seq), stop_new)
}

/// Whether a first request was sent at once.
#[inline(always)]
fn is_early<A: Address>(flow: &Flow<A>) -> bool {
    flow.state & flow_state::SPOKEN == 0 && coarse_us().wrapping_sub(flow.asked_us) <= EARLY_US
}

/// The bits of `head_state` of a request that do not depend on what it says.
#[inline(always)]
fn circumstances<F: Tables>(packet: &Packet<'_, F>, flow: &Flow<F::Addr>, first: bool) -> u32 {
    let early =
        if first && coarse_us().wrapping_sub(flow.asked_us) <= EARLY_US { head_state::EARLY } else { 0 };
    let early = forget(early, packet.segment.seq);
    let untimed = if has_space(packet, flow) { 0 } else { head_state::UNTIMED };
    forget(early | untimed, packet.segment.seq)
}

/// A request this soon after the SYN, in microseconds, was sent at once: a backend that accepts and closes
/// without waiting for it has failed.
const EARLY_US: u32 = 1_000_000;

/// Whether the client's window has space for an answer.
#[inline(always)]
fn has_space<F: Tables>(packet: &Packet<'_, F>, flow: &Flow<F::Addr>) -> bool {
    const ENOUGH: u32 = 1 << 10;
    let tcp =
        if F::FIXED { packet.ip.from(F::HEADER) } else { packet.ip.from_any(packet.segment.tcp as usize) };
    let window = u16::from_be(tcp.load(14).unwrap_or(0)) as u32;
    window << (flow.client_scale & 15) >= ENOUGH
}

/// A segment of a client that waits for a response: whether the time to the response is still only the
/// backend's, and whether the request is whole now.
#[inline(always)]
pub(crate) fn note_waiting<F: Tables>(packet: &Packet<'_, F>, flow: &mut Flow<F::Addr>, next: u32) {
    let segment = &packet.segment;
    let goes_on = segment.place(next) == Place::Next;
    let repeats = segment.payload_len > 0 && !goes_on;
    if repeats || !has_space(packet, flow) {
        flow.head |= head_state::UNTIMED;
    }
    if !goes_on {
        return;
    }
    // A response is due after the last part of the request: an upload takes its time. The program reads the
    // exact clock at most once a timer interrupt for it.
    if coarse_us().wrapping_sub(flow.asked_us) as i32 > 0 {
        flow.asked_us = now_us();
    }
    if flow.head & head_state::PART != 0 && segment.end().wrapping_sub(flow.whole_end_or_stamp) as i32 >= 0 {
        flow.head |= head_state::OWED;
    }
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
    if open && (ends_head(ctx, packet) || flow.head & head_state::BODY != 0 && holds_empty_line(ctx, packet))
    {
        flow.head |= head_state::OWED;
    }
}

/// The first payload of a client whose protocol the program does not read. `whole`: how many bytes make a
/// request to which a response is due. 0: nobody knows.
#[inline(always)]
fn await_any<F: Tables>(packet: &Packet<'_, F>, flow: &mut Flow<F::Addr>, whole: u32) {
    let segment = &packet.segment;
    if !has_all_that_was_sent(segment, flow) || flow.head & (head_state::KNOWN | head_state::SERVED) != 0 {
        return;
    }
    let kind = circumstances(packet, flow, true);
    flow.head_seq = segment.ack;
    flow.asked_seq = segment.seq;
    flow.asked_us = now_us();
    flow.whole_end_or_stamp = segment.seq.wrapping_add(whole);
    let size = if whole == 0 {
        0
    } else if whole <= segment.payload_len {
        head_state::OWED
    } else {
        head_state::PART
    };
    flow.head |= head_state::UNREAD | kind | size;
}

/// Whether the client has received all that the backend has sent, but perhaps its FIN.
#[inline(always)]
const fn has_all_that_was_sent<A: Address>(segment: &Segment, flow: &Flow<A>) -> bool {
    let missing = flow.sent_end.wrapping_sub(segment.ack);
    missing == 0 || missing == 1 && flow.backend_closes()
}

/// Notes a request, and that its response head is awaited. `kind`: the bits of `head_state` that say what it is.
/// True: `stop_new` is set, every request has its response, and this one is new. Then nothing is noted.
#[inline(always)]
fn await_head<F: Tables>(
    packet: &Packet<'_, F>,
    flow: &mut Flow<F::Addr>,
    kind: u32,
    stop_new: bool,
) -> bool {
    let segment = &packet.segment;
    if !has_all_that_was_sent(segment, flow) {
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
        // The client repeats the request with more of it, sends it in several segments, or sends another one
        // before the first is answered.
        if flow.head & head_state::WANTED != 0 {
            if is_later(segment, flow) {
                note_pipelining(flow);
            } else {
                flow.head |= kind & head_state::OWED;
            }
        }
        return false;
    }
    if stop_new && flow.head & (head_state::WANTED | head_state::PIPELINED) == 0 {
        return true;
    }
    let kind = kind | circumstances(packet, flow, flow.head & head_state::KNOWN == 0);
    flow.head_seq = segment.ack;
    flow.asked_seq = segment.seq;
    flow.asked_us = now_us();
    // The last exchange, of which a part was mirrored, ended inside its own segment. This is a new one.
    let served = if flow.head & head_state::KNOWN != 0 { head_state::SERVED } else { 0 };
    const FORMER: u32 =
        head_state::CONTINUES | head_state::OWED | head_state::BODY | head_state::UNTIMED | head_state::EARLY;
    flow.head = flow.head & !FORMER | (head_state::KNOWN | head_state::WANTED | served | kind);
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
