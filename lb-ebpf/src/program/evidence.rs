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
use lb_common::abi::{Flow, FlowKey, HEAD_BYTES, HeadRecord, flow_state, head_flags, head_state};
use lb_ebpf::{
    frame::Frame,
    head::{REQUEST_BYTES, STATUS_BYTES, Speech, is_interim, speech},
    segment::Segment,
};

use super::{
    atomic, counters,
    maps::{EVENTS, FLOWS},
};

const NO_WAKEUP: u64 = 1;
const FORCE_WAKEUP: u64 = 2;

/// A client sent payload on a connection that is not known to be opaque.
#[inline(always)]
pub(super) fn note_request(frame: &Frame, key: &FlowKey, segment: &Segment, flow: &mut Flow) {
    // At most 14 + 20 + 60; the mask tells the verifier.
    let at = (segment.payload & 0x7f) as usize;
    if segment.payload_len >= REQUEST_BYTES as u32 {
        let Some(first) = frame.bytes::<REQUEST_BYTES>(at) else { return };
        match speech(first) {
            Speech::Request => {}
            Speech::Other if flow.state & flow_state::SPOKEN != 0 => return,
            Speech::Http2 | Speech::Other => {
                atomic::set(&mut flow.state, flow_state::OPAQUE);
                if let Some(counters) = counters(flow.backend) {
                    counters.opaque += 1;
                }
                return;
            }
        }
    }
    if flow.state & flow_state::SPOKEN == 0 {
        atomic::set(&mut flow.state, flow_state::SPOKEN);
    }
    let Some(back) = FLOWS.get_ptr_mut(&flow.to.reversed()) else { return };
    // SAFETY: map values stay mapped while the program runs; the fields are words, each valid
    // by itself. The reply direction may write `head` at the same time only if a response is
    // under way, and then nothing is wanted here.
    let back = unsafe { &mut *back };
    if back.to == key.reversed() {
        want(segment, back);
    }
}

/// A request asks for the head of its response.
#[inline(always)]
fn want(segment: &Segment, back: &mut Flow) {
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
    back.head = (back.head | head_state::KNOWN | head_state::WANTED) & !head_state::CONTINUES;
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

/// Mirrors the response head that begins in this segment, if it does.
#[inline(always)]
pub(super) fn mirror_head(ctx: &XdpContext, segment: &Segment, flow: &mut Flow) {
    let skip = flow.head_seq.wrapping_sub(segment.seq);
    if skip >= segment.payload_len {
        return;
    }
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
    if flow.state & flow_state::TRIAL != 0 {
        flags |= head_flags::TRIAL;
    }
    if unfinished {
        flags |= head_flags::UNFINISHED;
        flow.head_seq = segment.seq.wrapping_add(segment.payload_len);
        flow.head |= head_state::CONTINUES;
    } else {
        flow.head &= !(head_state::WANTED | head_state::CONTINUES);
    }
    // SAFETY: plain helper call and writes into the record that is still ours.
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
        (*record).len = len as u16;
        (*record).generation = flow.generation;
        (*record).flags = flags;
    }
    counters.heads += 1;
    // Errors are told at once; good news waits for the daemon's next look. Anything that
    // does not read as 1xx to 3xx may be one.
    let urgent = unfinished || status[0] >= b'4' || status[0] < b'1';
    entry.submit(if urgent { FORCE_WAKEUP } else { NO_WAKEUP });
}
