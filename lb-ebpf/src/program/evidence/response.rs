//! Responses: which segment begins one, and how an exchange ends without one.

use lb_common::{
    MAX_BACKENDS,
    abi::{
        Address, BackendCounters, ExchangeKind, ExchangeRecord, Flow, HEAD_BYTES, QUICK_MS, flow_state,
        head_state, mirror_mode, record_flags, ttfb_bucket,
    },
};
use lb_ebpf::{
    frame::LINK,
    head::{STATUS_BYTES, is_interim, is_success},
    segment::{Segment, flag},
    verifier::opaque,
};

use super::record::{FORCE_WAKEUP, NO_WAKEUP, count_ttfb, cpu, describe, set_mirror_mode, submit};
use crate::{
    hook::{self, Context},
    program::{
        atomic,
        backend::counters,
        clock::{coarse_us, interrupt, now_us},
        maps::{EVIDENCE, MIRROR_MODES, SUCCESS_COUNTS, Tables},
        packet::{Packet, first_ends},
    },
};

/// A segment of a backend whose response is awaited.
#[inline(always)]
pub(crate) fn note_answer<F: Tables>(ctx: &Context, packet: &Packet<'_, F>, flow: &mut Flow<F::Addr>) {
    let segment = &packet.segment;
    if segment.payload_len > 0 {
        // Where the head begins in the segment. On a connection that is not read, any byte is a response.
        let skip = flow.head_seq.wrapping_sub(segment.seq);
        if skip < segment.payload_len {
            if skip == 0 && count_success(ctx, packet, flow) {
                flow.head &= !head_state::WANTED;
            } else if flow.head & head_state::WANTED != 0 {
                mirror_head(ctx, LINK as u32 + segment.payload + skip, segment, flow, skip);
            } else {
                flow.head = (flow.head & !head_state::UNREAD) | head_state::SERVED;
                submit(flow, ExchangeKind::Answered, NO_WAKEUP);
            }
        }
    }
    if segment.has(flag::FIN) || segment.has(flag::RST) {
        note_end(segment, flow);
    }
}

/// Counts the response that begins with this segment instead of mirroring it, if it is good and the daemon
/// waits for no record.
#[inline(always)]
fn count_success<F: Tables>(ctx: &Context, packet: &Packet<'_, F>, flow: &Flow<F::Addr>) -> bool {
    const PLAIN: u32 = head_state::WANTED;
    const KINDS: u32 = head_state::WANTED | head_state::CONTINUES | head_state::PIPELINED;
    if flow.head & KINDS != PLAIN || flow.state & flow_state::TRIAL != 0 {
        return false;
    }
    let Some(mode) = MIRROR_MODES.get_ptr(flow.backend as u32) else { return false };
    // SAFETY: an aligned word of an array map.
    if unsafe { mode.read_volatile() } != mirror_mode::NONE {
        return false;
    }
    // TCP begins behind at most two extension headers. The mask gives the verifier a bound. A payload in
    // another buffer is rare with XDP, and is mirrored.
    let at = (packet.segment.payload & 0x3fff) as usize;
    const FIRST: usize = STATUS_BYTES as usize;
    let first =
        if hook::SPLIT { first_ends::<F, FIRST>(ctx, packet, at) } else { packet.ip.ends::<FIRST>(at) };
    let Some(first) = first else { return false };
    if packet.segment.payload_len < STATUS_BYTES || !is_success(first) {
        return false;
    }
    let Some(counts) = SUCCESS_COUNTS.get_ptr_mut(cpu()) else { return false };
    let Some(counters) = counters(flow.backend) else { return false };
    // An exchange that the client has delayed has no time.
    if flow.head & head_state::UNTIMED == 0 {
        if !is_quick(flow) {
            return false;
        }
        time(counters, flow);
    }
    counters.heads += 1;
    const MASK: u64 = MAX_BACKENDS as u64 - 1;
    const _: () = assert!(MAX_BACKENDS.is_power_of_two());
    // SAFETY: this CPU's own, and the index is inside. The daemon reads it meanwhile.
    unsafe {
        let count =
            (&raw mut (*counts).0).cast::<u64>().add((opaque(flow.backend as u32) as u64 & MASK) as usize);
        count.write_volatile(count.read_volatile() + 1);
    }
    true
}

/// Whether the response that begins now came soon after its request. In doubt it did not: the coarse clock
/// may be late.
#[inline(always)]
fn is_quick<A: Address>(flow: &Flow<A>) -> bool {
    /// Longer than the time between two timer interrupts.
    const LATE_MS: i32 = 16;
    let us = coarse_us().wrapping_sub(flow.asked_us) as i32;
    us < (QUICK_MS as i32 - LATE_MS) * 1000
}

/// Counts the response that begins now by its time to first byte. The exact clock costs more than all other
/// work on a response. So the program reads it once a timer interrupt, and counts the responses since the
/// last reading with the same time. Below some hundred responses a second each one has its own time.
#[inline(always)]
fn time<A: Address>(counters: &mut BackendCounters, flow: &Flow<A>) {
    let now = interrupt();
    counters.untimed += 1;
    if counters.timed_at == now {
        return;
    }
    counters.timed_at = now;
    let us = now_us().wrapping_sub(flow.asked_us);
    if let Some(count) = counters.ttfb.get_mut(opaque(ttfb_bucket(us) as u32) as usize) {
        *count += counters.untimed as u64;
    }
    counters.untimed = 0;
}

/// Mirrors the response head that begins `skip` bytes into this segment, `at` in the frame.
#[inline(always)]
fn mirror_head<A: Address>(ctx: &Context, at: u32, segment: &Segment, flow: &mut Flow<A>, skip: u32) {
    let Some(counters) = counters(flow.backend) else { return };
    let Some(mut entry) = EVIDENCE.reserve_untyped::<ExchangeRecord>(0) else {
        counters.heads_lost += 1;
        flow.head &= !(head_state::WANTED | head_state::CONTINUES);
        return;
    };
    let record = entry.as_mut_ptr();
    // At least 1, because `skip` is smaller than the length, and at most all. Arithmetic gives the verifier
    // the bound: Linux 6.1 learns nothing about a number on the stack from a comparison of its copy.
    const MOST: u32 = HEAD_BYTES as u32 - 1;
    const _: () = assert!(HEAD_BYTES.is_power_of_two());
    let beyond_first = (segment.payload_len - skip).wrapping_sub(1);
    let beyond_first = if beyond_first > MOST { MOST } else { beyond_first };
    let len = (opaque(beyond_first) as u32 & MOST) + 1;
    // SAFETY: the record is ours until it is submitted; `len` bytes fit into `data`.
    let status = unsafe {
        let data = &raw mut (*record).data;
        if !hook::load_bytes(ctx, at, data.cast(), len) {
            entry.discard(NO_WAKEUP);
            return;
        }
        let data = data.cast::<u8>();
        [*data.add(9), *data.add(10), *data.add(11)]
    };
    let unfinished = len < STATUS_BYTES || is_interim(status[0], [status[1], status[2]]);
    let end = segment.seq.wrapping_add(segment.payload_len);
    if unfinished && end != flow.sent_end {
        // The rest of it has passed before: nobody has looked at that.
        entry.discard(NO_WAKEUP);
        counters.heads_lost += 1;
        flow.head &= !(head_state::WANTED | head_state::CONTINUES);
        return;
    }
    let mut flags = 0;
    if flow.head & head_state::CONTINUES != 0 {
        flags |= record_flags::CONTINUES;
    }
    if flow.head & head_state::PIPELINED != 0 {
        flags |= record_flags::PIPELINED;
    }
    if unfinished {
        flags |= record_flags::UNFINISHED;
        flow.head_seq = end;
        flow.head |= head_state::CONTINUES;
    } else {
        flow.head &= !(head_state::WANTED | head_state::CONTINUES);
        if status == *b"101" {
            // Another protocol follows. From now on no payload of the client is a request.
            atomic::set(&mut flow.state, flow_state::OPAQUE);
        }
    }
    // SAFETY: the record is still ours.
    let since_us = unsafe { describe(record, flow, counters, len as u16, ExchangeKind::Head, flags) };
    if !unfinished {
        count_ttfb(counters, flow, since_us);
    }
    counters.heads += 1;
    // The program wakes the daemon for a failure. Good responses wait for the daemon's next read. A status
    // that does not read as 1xx to 3xx may be a failure.
    let urgent = unfinished || status[0] >= b'4' || status[0] < b'1';
    if urgent {
        set_mirror_mode(flow.backend, mirror_mode::NONE, mirror_mode::NEXT);
    } else if status[0] == b'2' {
        set_mirror_mode(flow.backend, mirror_mode::NEXT, mirror_mode::NONE);
    }
    entry.submit(if urgent { FORCE_WAKEUP } else { NO_WAKEUP });
}

/// The backend closes or resets the connection. If a response is due and has not begun, the backend has
/// failed.
///
/// It has not failed if its stack does not have the whole request, or if the client has closed before. When it
/// has sent a FIN before the request reached it, it can answer nothing: it closes a connection that was idle.
/// Only a backend that closes at once after the connection has begun has failed its first request.
#[inline(always)]
fn note_end<A: Address>(segment: &Segment, flow: &mut Flow<A>) {
    let owes = flow.head & head_state::AWAITED != 0
        && flow.head & (head_state::OWED | head_state::CONTINUES) == head_state::OWED;
    if !owes || flow.client_closes() {
        return;
    }
    let has_request = flow.backend_has_all();
    let at_once = flow.head & head_state::EARLY != 0
        && coarse_us().wrapping_sub(flow.asked_us) as i32 <= AT_ONCE_US as i32;
    if segment.has(flag::RST) {
        if if flow.backend_closes() { at_once } else { has_request } {
            flow.head &= !head_state::AWAITED;
            submit(flow, ExchangeKind::Reset, FORCE_WAKEUP);
        }
        return;
    }
    // If a byte of the response is missing, the backend sent it and it is still on its way.
    if segment.seq.wrapping_add(segment.payload_len) != flow.head_seq {
        return;
    }
    if has_request {
        flow.head &= !head_state::AWAITED;
        submit(flow, ExchangeKind::NoResponse, FORCE_WAKEUP);
    } else if !at_once {
        flow.head &= !head_state::AWAITED;
    }
}

/// How long after the first request a backend has closed at once, in microseconds.
const AT_ONCE_US: u32 = 1_000_000;

/// The backend answers a SYN with a reset.
#[inline(always)]
pub(crate) fn note_refusal<A: Address>(segment: &Segment, handshake: &mut Flow<A>) {
    let answers = segment.has(flag::ACK) && segment.ack == handshake.asked_seq;
    if answers && handshake.head & head_state::CONNECTING != 0 {
        handshake.head &= !head_state::CONNECTING;
        submit(handshake, ExchangeKind::ConnectRefused, FORCE_WAKEUP);
    }
}

/// The client sends its SYN again, and the backend has not answered.
#[inline(always)]
pub(crate) fn note_silence<A: Address>(handshake: &mut Flow<A>) {
    if handshake.head & head_state::CONNECTING != 0 {
        handshake.head &= !head_state::CONNECTING;
        submit(handshake, ExchangeKind::ConnectTimeout, FORCE_WAKEUP);
    }
}
