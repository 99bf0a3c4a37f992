//! Evidence: which segment of a backend holds the start of a response.
//!
//! Without pipelining the next response begins exactly at the acknowledgement number
//! of the request's segment: everything before it the client has. So the request
//! leaves that number with the flow (`head_seq`), and the one segment that covers it is
//! mirrored. A retransmitted request carries the same number and asks for nothing new; a
//! retransmitted response finds nothing wanted.

use aya_ebpf::{
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_xdp_load_bytes},
    programs::XdpContext,
};
use lb_common::abi::{
    BackendCounters, Flow, FlowKey, HEAD_BYTES, HeadRecord, flow_state, head_flags, head_state, ttfb_bucket,
};
use lb_ebpf::{
    frame::Frame,
    head::{PREFIX_BYTES, REQUEST_BYTES, STATUS_BYTES, Speech, is_interim, is_whole, speech, speech_of_few},
    segment::{Segment, flag},
};

use super::{
    atomic, counters,
    maps::{EVENTS, FLOWS},
    opaque,
};

const NO_WAKEUP: u64 = 1;
const FORCE_WAKEUP: u64 = 2;

/// A client sent payload on a connection that is not known to be opaque.
#[inline(always)]
pub(super) fn note_request(
    ctx: &XdpContext,
    frame: &Frame,
    key: &FlowKey,
    segment: &Segment,
    flow: &mut Flow,
) {
    // What repeats bytes asks for nothing new; a keep-alive does no more (RFC 9293 section 3.8.4).
    if segment.end().wrapping_sub(flow.sent_end) as i32 <= 0 {
        return;
    }
    flow.sent_end = segment.end();
    let Some(back) = back_of(key, flow) else { return };
    if back.head & head_state::AWAITED != 0 {
        // An answer is due once the last of the request has come: an upload takes its time.
        back.request_us = now_us();
    }
    let spoken = flow.state & flow_state::SPOKEN != 0;
    // At most 14 + 20 + 60; the mask tells the verifier.
    let at = (segment.payload & 0x7f) as usize;
    let mut method = 0;
    let said = if segment.payload_len >= REQUEST_BYTES as u32 {
        let Some(first) = frame.bytes::<REQUEST_BYTES>(at) else { return };
        method = first[0];
        Some(speech(first))
    } else if segment.payload_len >= PREFIX_BYTES as u32 {
        let Some(first) = frame.bytes::<PREFIX_BYTES>(at) else { return };
        speech_of_few(first)
    } else {
        None
    };
    match said {
        Some(Speech::Request) => {}
        Some(Speech::Tls { .. } | Speech::Other) if spoken => return go_on(ctx, segment, back),
        // Too short to tell. Before anything was answered it is a part of the request, afterwards the
        // beginning of another one.
        None if unanswered(segment, back) => return go_on(ctx, segment, back),
        None => {}
        Some(said @ (Speech::Http2 | Speech::Tls { .. } | Speech::Other)) => {
            atomic::set(&mut flow.state, flow_state::OPAQUE);
            if let Some(counters) = counters(flow.backend) {
                counters.opaque += 1;
            }
            return await_any(segment, back, is_whole(said, segment.payload_len));
        }
    }
    if !spoken {
        atomic::set(&mut flow.state, flow_state::SPOKEN);
    }
    if flow.state & flow_state::FIN_SEEN != 0 {
        back.head |= head_state::CLOSED;
    }
    // What has a body may not end like a head.
    let whole = method == b'P' || ends_head(ctx, segment);
    want(segment, back, whole);
}

/// Whether a request is under way of whose answer the client has not seen a byte.
#[inline(always)]
const fn unanswered(segment: &Segment, back: &Flow) -> bool {
    let under_way = back.head & (head_state::WANTED | head_state::CONTINUES) == head_state::WANTED;
    under_way && segment.ack == back.head_seq
}

/// More of a request: its body, or the rest of its head.
#[inline(always)]
fn go_on(ctx: &XdpContext, segment: &Segment, back: &mut Flow) {
    let open = back.head & (head_state::WANTED | head_state::OWED) == head_state::WANTED;
    if open && ends_head(ctx, segment) {
        back.head |= head_state::OWED;
    }
}

/// Whether a segment ends with the empty line that ends a head.
#[inline(always)]
fn ends_head(ctx: &XdpContext, segment: &Segment) -> bool {
    let mut last = 0u32;
    if segment.payload_len < 4 {
        return false;
    }
    let at = segment.payload + segment.payload_len - 4;
    // SAFETY: four bytes are read into four; beyond the frame the helper reads nothing and says so.
    let read = unsafe { bpf_xdp_load_bytes(ctx.ctx, at, (&raw mut last).cast(), 4) };
    read == 0 && last == u32::from_ne_bytes(*b"\r\n\r\n")
}

/// The entry of the other direction.
#[inline(always)]
fn back_of(key: &FlowKey, flow: &Flow) -> Option<&'static mut Flow> {
    let back = FLOWS.get_ptr_mut(&flow.to.reversed())?;
    // SAFETY: map values stay mapped while the program runs; the fields are words, each valid
    // by itself. The reply direction may write `head` at the same time only if a response is
    // under way, and then nothing is wanted here.
    let back = unsafe { &mut *back };
    (back.to == key.reversed()).then_some(back)
}

/// The first word of a client whose language we do not read. Of TLS and HTTP/2 it is known that it is
/// owed an answer.
#[inline(always)]
fn await_any(segment: &Segment, back: &mut Flow, whole: bool) {
    if segment.ack != back.sent_end || back.head & (head_state::KNOWN | head_state::SERVED) != 0 {
        return;
    }
    back.head_seq = segment.ack;
    back.request_seq = segment.seq;
    back.request_us = now_us();
    back.head |= head_state::UNREAD | if whole { head_state::OWED } else { 0 };
}

/// A request asks for the head of its response.
#[inline(always)]
fn want(segment: &Segment, back: &mut Flow, whole: bool) {
    if segment.ack != back.sent_end {
        // The client has not got all that the backend has sent: it does not wait for the
        // response before it asks again. Where the next head will be is anybody's guess; and a
        // client that makes its numbers up must not choose what is taken for a head.
        if is_later(segment, back) {
            pipelines(back);
        }
        return;
    }
    let known = back.head & head_state::KNOWN != 0 && segment.ack == back.head_seq;
    if known && back.head & head_state::CONTINUES == 0 {
        // The request comes again, or in several segments, or another one before the first is answered.
        if back.head & head_state::WANTED != 0 && is_later(segment, back) {
            pipelines(back);
        }
        return;
    }
    back.head_seq = segment.ack;
    back.request_seq = segment.seq;
    back.request_us = now_us();
    // What was mirrored of an exchange before ended inside its own segment: this is a new one.
    let served = if back.head & head_state::KNOWN != 0 { head_state::SERVED } else { 0 };
    let owed = if whole { head_state::OWED } else { 0 };
    back.head = back.head & !(head_state::CONTINUES | head_state::OWED)
        | (head_state::KNOWN | head_state::WANTED | served | owed);
}

/// Whether it is not the request that is answered now, sent again.
#[inline(always)]
const fn is_later(segment: &Segment, back: &Flow) -> bool {
    back.head & head_state::KNOWN != 0 && segment.seq.wrapping_sub(back.request_seq) as i32 > 0
}

#[inline(always)]
fn pipelines(back: &mut Flow) {
    if back.head & head_state::PIPELINED != 0 {
        return;
    }
    back.head |= head_state::PIPELINED;
    if let Some(counters) = counters(back.backend) {
        counters.pipelined += 1;
    }
}

#[inline(always)]
fn now_us() -> u32 {
    // SAFETY: a plain helper call.
    (unsafe { bpf_ktime_get_ns() } / 1000) as u32
}

/// A segment of a backend that owes an answer.
#[inline(always)]
pub(super) fn note_answer(ctx: &XdpContext, segment: &Segment, flow: &mut Flow) {
    if segment.payload_len > 0 {
        // Where the head begins in it. Without a head that is read, any byte answers.
        let skip = flow.head_seq.wrapping_sub(segment.seq);
        if skip < segment.payload_len {
            if flow.head & head_state::WANTED != 0 {
                mirror_head(ctx, segment, flow, skip);
            } else {
                flow.head = (flow.head & !head_state::UNREAD) | head_state::SERVED;
                tell(flow, head_flags::ANSWERED, NO_WAKEUP);
            }
        }
    }
    if segment.has(flag::FIN) || segment.has(flag::RST) {
        note_end(segment, flow);
    }
}

/// The backend closes or resets the connection. If it owes an answer and has not begun with it, it has
/// failed.
///
/// Not its failure: the request is not whole, and it has waited for the rest; the client has closed before, and
/// waits no longer; or a kept connection is closed for being idle, and the next request
/// crosses that on its way. What closes it then does not acknowledge the request, and the reset that answers
/// the request follows it. A backend that closes a connection before its first request has no such excuse.
#[inline(always)]
fn note_end(segment: &Segment, flow: &mut Flow) {
    let client_closed = flow.state & flow_state::FIN_SEEN != 0;
    let owes = flow.head & head_state::AWAITED != 0
        && flow.head & (head_state::OWED | head_state::CONTINUES) == head_state::OWED;
    let got_request = segment.ack.wrapping_sub(flow.request_seq) as i32 > 0;
    if segment.has(flag::RST) {
        let crossed = flow.head & (head_state::CLOSED | head_state::SERVED)
            == (head_state::CLOSED | head_state::SERVED);
        let crossed = crossed || (segment.has(flag::ACK) && !got_request);
        if owes && !client_closed && !crossed {
            flow.head &= !head_state::AWAITED;
            tell(flow, head_flags::RESET, FORCE_WAKEUP);
        }
        return;
    }
    flow.head |= head_state::CLOSED;
    // Where a byte of the answer is missing, it was sent and is still on its way.
    let nothing_sent = segment.seq.wrapping_add(segment.payload_len) == flow.head_seq;
    if owes && !client_closed && nothing_sent && got_request {
        flow.head &= !head_state::AWAITED;
        tell(flow, head_flags::NO_RESPONSE, FORCE_WAKEUP);
    }
}

/// A reset in answer to a SYN.
#[inline(always)]
pub(super) fn note_refusal(segment: &Segment, embryo: &mut Flow) {
    let answers = segment.has(flag::ACK) && segment.ack == embryo.request_seq;
    if answers && embryo.head & head_state::CONNECTING != 0 {
        embryo.head &= !head_state::CONNECTING;
        tell(embryo, head_flags::REFUSED, FORCE_WAKEUP);
    }
}

/// What became of an exchange without a head that could be read.
#[inline(always)]
fn tell(flow: &Flow, what: u32, wakeup: u64) {
    let Some(counters) = counters(flow.backend) else { return };
    let Some(mut entry) = EVENTS.reserve_untyped::<HeadRecord>(0) else {
        counters.heads_lost += 1;
        return;
    };
    // SAFETY: the record is ours until it is submitted.
    let since_us = unsafe { describe(entry.as_mut_ptr(), flow, counters, 0, what) };
    if what == head_flags::ANSWERED {
        count_ttfb(counters, since_us);
    }
    entry.submit(wakeup);
}

/// Fills everything but the bytes. Gives the microseconds since the request.
///
/// # Safety
/// `record` is reserved and not yet submitted.
#[inline(always)]
unsafe fn describe(
    record: *mut HeadRecord,
    flow: &Flow,
    counters: &BackendCounters,
    len: u16,
    what: u32,
) -> u32 {
    let trial = if flow.state & flow_state::TRIAL != 0 { head_flags::TRIAL } else { 0 };
    // SAFETY: plain helper calls, and writes into what the caller has reserved.
    unsafe {
        let now = bpf_ktime_get_ns();
        (*record).at_ns = now;
        let since_us = ((now / 1000) as u32).wrapping_sub(flow.request_us);
        (*record).since_request_ns = since_us as u64 * 1000;
        (*record).cpu = bpf_get_smp_processor_id();
        (*record).lost = counters.heads_lost as u32;
        (*record).client = flow.to.dst;
        (*record).client_port = flow.to.dport;
        (*record).service = flow.service;
        (*record).backend = flow.backend;
        (*record).len = len;
        (*record).generation = flow.generation;
        (*record).flags = what | trial;
        since_us
    }
}

#[inline(always)]
fn count_ttfb(counters: &mut BackendCounters, us: u32) {
    if let Some(count) = counters.ttfb.get_mut(opaque(ttfb_bucket(us) as u32) as usize) {
        *count += 1;
    }
}

/// Nothing that the client says from now on is a request.
#[inline(always)]
fn leave_http(flow: &Flow) {
    if let Some(forth) = FLOWS.get_ptr_mut(&flow.to.reversed()) {
        // SAFETY: map values stay mapped while the program runs; the bit is set atomically.
        atomic::set(unsafe { &mut (*forth).state }, flow_state::OPAQUE);
    }
}

/// Mirrors the response head that begins `skip` bytes into this segment.
#[inline(always)]
fn mirror_head(ctx: &XdpContext, segment: &Segment, flow: &mut Flow, skip: u32) {
    let Some(counters) = counters(flow.backend) else { return };
    let Some(mut entry) = EVENTS.reserve_untyped::<HeadRecord>(0) else {
        counters.heads_lost += 1;
        flow.head &= !(head_state::WANTED | head_state::CONTINUES);
        return;
    };
    let record = entry.as_mut_ptr();
    let left = segment.payload_len - skip;
    // At least 1, as `skip` is smaller than the length; the verifier is told by the shape.
    let mut len = left & 0xffff;
    if len > HEAD_BYTES as u32 {
        len = HEAD_BYTES as u32;
    }
    if len == 0 {
        entry.discard(NO_WAKEUP);
        return;
    }
    // SAFETY: the record is ours until it is submitted; `len` bytes fit into `data`.
    let status = unsafe {
        let data = &raw mut (*record).data;
        if bpf_xdp_load_bytes(ctx.ctx, segment.payload + skip, data.cast(), len) != 0 {
            entry.discard(NO_WAKEUP);
            return;
        }
        let data = data.cast::<u8>();
        [*data.add(9), *data.add(10), *data.add(11)]
    };
    let unfinished = len < STATUS_BYTES || is_interim(status[0], [status[1], status[2]]);
    let mut flags = 0;
    if flow.head & head_state::CONTINUES != 0 {
        flags |= head_flags::CONTINUES;
    }
    if flow.head & head_state::PIPELINED != 0 {
        flags |= head_flags::PIPELINED;
    }
    if unfinished {
        flags |= head_flags::UNFINISHED;
        flow.head_seq = segment.seq.wrapping_add(segment.payload_len);
        flow.head |= head_state::CONTINUES;
    } else {
        flow.head &= !(head_state::WANTED | head_state::CONTINUES);
        if status == *b"101" {
            // What follows is another protocol.
            leave_http(flow);
        }
    }
    // SAFETY: the record is still ours.
    let since_us = unsafe { describe(record, flow, counters, len as u16, flags) };
    if !unfinished {
        count_ttfb(counters, since_us);
    }
    counters.heads += 1;
    // Errors are told at once; good news waits for the daemon's next look. Anything that
    // does not read as 1xx to 3xx may be one.
    let urgent = unfinished || status[0] >= b'4' || status[0] < b'1';
    entry.submit(if urgent { FORCE_WAKEUP } else { NO_WAKEUP });
}
