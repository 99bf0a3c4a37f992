//! Evidence: which segment of a backend holds the start of a response.
//!
//! Without pipelining the next response begins exactly at the acknowledgement number
//! of the request's segment: everything before it the client has. So the request
//! leaves that number with the flow (`head_seq`), and the one segment that covers it is
//! mirrored. A retransmitted request carries the same number and asks for nothing new; a
//! retransmitted response finds nothing wanted.

use aya_ebpf::{
    helpers::{bpf_ktime_get_ns, bpf_xdp_load_bytes},
    programs::XdpContext,
};
use lb_common::abi::{Flow, HEAD_BYTES, HeadRecord, flow_state, head_flags};
use lb_ebpf::{
    frame::Frame,
    head::{REQUEST_BYTES, STATUS_BYTES, Speech, is_interim, speech},
    segment::Segment,
};

use super::{
    counters,
    maps::{EVENTS, FLOWS},
};

const NO_WAKEUP: u64 = 1;
const FORCE_WAKEUP: u64 = 2;

/// A client sent payload on a connection that is not known to be opaque.
#[inline(always)]
pub(super) fn note_request(frame: &Frame, segment: &Segment, flow: &mut Flow) {
    // At most 14 + 20 + 60; the mask tells the verifier.
    let at = (segment.payload & 0x7f) as usize;
    if segment.payload_len >= REQUEST_BYTES as u32 {
        let Some(first) = frame.bytes::<REQUEST_BYTES>(at) else { return };
        match speech(first) {
            Speech::Request => {}
            Speech::Other if flow.state & flow_state::SPOKEN != 0 => return,
            Speech::Http2 | Speech::Other => {
                flow.state |= flow_state::OPAQUE;
                if let Some(counters) = counters(flow.backend) {
                    counters.opaque += 1;
                }
                return;
            }
        }
    }
    flow.state |= flow_state::SPOKEN;
    let Some(back) = FLOWS.get_ptr_mut(&flow.to.reversed()) else { return };
    // SAFETY: map values stay mapped while the program runs; the fields are words, each
    // valid by itself, and a client's segments of one flow arrive on one CPU.
    want(segment, unsafe { &mut *back });
}

#[inline(always)]
fn want(segment: &Segment, back: &mut Flow) {
    let ahead = segment.ack.wrapping_sub(back.head_seq) as i32;
    if back.state & flow_state::HEAD_KNOWN != 0 && ahead <= 0 {
        // The number is known already: the request is a retransmission, or comes in
        // several segments, or another one is sent before the first is answered.
        if ahead == 0 && back.state & flow_state::HEAD_WANTED != 0 {
            if back.state & flow_state::HEAD_CONTINUES != 0 {
                // The exchange before ended inside its own segment; this is a new one.
                back.state &= !flow_state::HEAD_CONTINUES;
                // SAFETY: a plain helper call.
                back.request_ns = unsafe { bpf_ktime_get_ns() };
                back.request_seq = segment.seq;
            } else if segment.seq.wrapping_sub(back.request_seq) as i32 > 0
                && back.state & flow_state::PIPELINED == 0
            {
                back.state |= flow_state::PIPELINED;
                if let Some(counters) = counters(back.backend) {
                    counters.pipelined += 1;
                }
            }
        }
        return;
    }
    back.head_seq = segment.ack;
    back.request_seq = segment.seq;
    // SAFETY: a plain helper call.
    back.request_ns = unsafe { bpf_ktime_get_ns() };
    back.state =
        (back.state | flow_state::HEAD_KNOWN | flow_state::HEAD_WANTED) & !flow_state::HEAD_CONTINUES;
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
        flow.state &= !(flow_state::HEAD_WANTED | flow_state::HEAD_CONTINUES);
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
    if flow.state & flow_state::HEAD_CONTINUES != 0 {
        flags |= head_flags::CONTINUES;
    }
    if flow.state & flow_state::PIPELINED != 0 {
        flags |= head_flags::PIPELINED;
    }
    if flow.state & flow_state::TRIAL != 0 {
        flags |= head_flags::TRIAL;
    }
    if unfinished {
        flags |= head_flags::UNFINISHED;
        flow.head_seq = segment.seq.wrapping_add(segment.payload_len);
        flow.state |= flow_state::HEAD_CONTINUES;
    } else {
        flow.state &= !(flow_state::HEAD_WANTED | flow_state::HEAD_CONTINUES);
    }
    // SAFETY: plain helper call and writes into the record that is still ours.
    unsafe {
        let now = bpf_ktime_get_ns();
        (*record).at_ns = now;
        (*record).since_request_ns = now - flow.request_ns;
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
