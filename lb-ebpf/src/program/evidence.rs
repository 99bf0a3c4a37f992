//! Evidence: which segment of a backend holds the start of a response.
//!
//! Without pipelining the next response begins exactly at the acknowledgement number
//! of the request's segment: everything before it the client has. So the request
//! leaves that number with the flow (`head_seq`), and the one segment that covers it is
//! mirrored. A retransmitted request carries the same number and asks for nothing new; a
//! retransmitted response finds nothing wanted.

use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use lb_common::{
    MAX_BACKENDS,
    abi::{
        Address, BackendCounters, ExchangeKind, ExchangeRecord, Flow, HEAD_BYTES, QUICK_MS, flow_state,
        head_state, mirror_mode, record_flags, ttfb_bucket,
    },
};
use lb_ebpf::{
    head::{
        PREFIX_BYTES, REQUEST_BYTES, STATUS_BYTES, Speech, is_interim, is_success, is_whole, record_length,
        speech, speech_of_few,
    },
    segment::{Segment, flag},
};

use super::{
    LINK, Packet, atomic,
    clock::{coarse_us, interrupt},
    counters, hook,
    hook::Context,
    maps::{EVIDENCE, MIRROR_MODES, SUCCESS_COUNTS},
    opaque,
    table::Tables,
};

const NO_WAKEUP: u64 = 1;
const FORCE_WAKEUP: u64 = 2;

/// A client sent payload on a connection that is not known to be opaque.
///
/// With `cut`, a segment that asks for something new is not noted. True: it is such a one.
#[inline(always)]
pub(super) fn note_request<F: Tables>(
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
            go_on(ctx, packet, flow);
            return false;
        }
        // Too short to tell. Before anything was answered it is a part of the request, afterwards the
        // beginning of another one.
        None if unanswered(segment, flow) => {
            go_on(ctx, packet, flow);
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
    want(segment, flow, whole, cut)
}

/// Bytes of the payload, `at` behind the IP header's start, in whichever buffer they are.
#[inline(always)]
fn first_bytes<F: Tables, const N: usize>(
    ctx: &Context,
    packet: &Packet<'_, F>,
    at: usize,
) -> Option<[u8; N]> {
    if let Some(first) = packet.ip.bytes::<N>(at) {
        return Some(first);
    }
    let mut first = [0; N];
    // SAFETY: `N` bytes are read into as many; beyond the frame the helper reads nothing and says so.
    let read = unsafe { hook::load_bytes(ctx, LINK as u32 + at as u32, first.as_mut_ptr().cast(), N as u32) };
    read.then_some(first)
}

/// Whether a request is under way of whose answer the client has not seen a byte.
#[inline(always)]
const fn unanswered<A: Address>(segment: &Segment, flow: &Flow<A>) -> bool {
    let under_way = flow.head & (head_state::WANTED | head_state::CONTINUES) == head_state::WANTED;
    under_way && segment.ack == flow.head_seq
}

/// More of a request: its body, or the rest of its head.
#[inline(always)]
fn go_on<F: Tables>(ctx: &Context, packet: &Packet<'_, F>, flow: &mut Flow<F::Addr>) {
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
fn want<A: Address>(segment: &Segment, flow: &mut Flow<A>, whole: bool, cut: bool) -> bool {
    if segment.ack != flow.sent_end {
        // The client has not got all that the backend has sent: it does not wait for the
        // response before it asks again. Where the next head will be is anybody's guess; and a
        // client that makes its numbers up must not choose what is taken for a head.
        if is_later(segment, flow) {
            pipelines(flow);
        }
        return false;
    }
    let known = flow.head & head_state::KNOWN != 0 && segment.ack == flow.head_seq;
    if known && flow.head & head_state::CONTINUES == 0 {
        // The request comes again, or in several segments, or another one before the first is answered.
        if flow.head & head_state::WANTED != 0 && is_later(segment, flow) {
            pipelines(flow);
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
fn pipelines<A: Address>(flow: &mut Flow<A>) {
    if flow.head & head_state::PIPELINED != 0 {
        return;
    }
    flow.head |= head_state::PIPELINED;
    if let Some(counters) = counters(flow.backend) {
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
pub(super) fn note_answer<F: Tables>(ctx: &Context, packet: &Packet<'_, F>, flow: &mut Flow<F::Addr>) {
    let segment = &packet.segment;
    if segment.payload_len > 0 {
        // Where the head begins in it. Without a head that is read, any byte answers.
        let skip = flow.head_seq.wrapping_sub(segment.seq);
        if skip < segment.payload_len {
            if skip == 0 && is_counted(ctx, packet, flow) {
                flow.head &= !head_state::WANTED;
            } else if flow.head & head_state::WANTED != 0 {
                mirror_head(ctx, LINK as u32 + segment.payload + skip, segment, flow, skip);
            } else {
                flow.head = (flow.head & !head_state::UNREAD) | head_state::SERVED;
                tell(flow, ExchangeKind::Answered, NO_WAKEUP);
            }
        }
    }
    if segment.has(flag::FIN) || segment.has(flag::RST) {
        note_end(segment, flow);
    }
}

/// Counts the response that begins with this segment, if it is a good one that nobody waits to be told of.
#[inline(always)]
fn is_counted<F: Tables>(ctx: &Context, packet: &Packet<'_, F>, flow: &Flow<F::Addr>) -> bool {
    const PLAIN: u32 = head_state::WANTED;
    const KINDS: u32 = head_state::WANTED | head_state::CONTINUES | head_state::PIPELINED;
    if flow.head & KINDS != PLAIN || flow.state & flow_state::TRIAL != 0 {
        return false;
    }
    let Some(tell) = MIRROR_MODES.get_ptr(flow.backend as u32) else { return false };
    // SAFETY: an aligned word of an array map.
    if unsafe { tell.read_volatile() } != mirror_mode::NONE {
        return false;
    }
    // Behind at most two extension headers; the mask tells the verifier. What is seldom in another buffer is mirrored then.
    let at = (packet.segment.payload & 0x3fff) as usize;
    const FIRST: usize = STATUS_BYTES as usize;
    let first =
        if hook::SPLIT { first_bytes::<F, FIRST>(ctx, packet, at) } else { packet.ip.bytes::<FIRST>(at) };
    let Some(first) = first else { return false };
    if packet.segment.payload_len < STATUS_BYTES || !is_success(first) {
        return false;
    }
    let Some(goods) = SUCCESS_COUNTS.get_ptr_mut(cpu()) else { return false };
    let Some(counters) = counters(flow.backend) else { return false };
    if !is_quick(flow) {
        return false;
    }
    time(counters, flow);
    counters.heads += 1;
    const MASK: u64 = MAX_BACKENDS as u64 - 1;
    const _: () = assert!(MAX_BACKENDS.is_power_of_two());
    // SAFETY: this CPU's own, and the index is inside. The daemon reads it meanwhile.
    unsafe {
        let count =
            (&raw mut (*goods).0).cast::<u64>().add((opaque(flow.backend as u32) as u64 & MASK) as usize);
        count.write_volatile(count.read_volatile() + 1);
    }
    true
}

/// Whether the response that begins now came soon after its request. In doubt it did not: this clock may be late.
#[inline(always)]
fn is_quick<A: Address>(flow: &Flow<A>) -> bool {
    /// More than between two timer interrupts.
    const LATE_MS: i32 = 16;
    let us = coarse_us().wrapping_sub(flow.asked_us) as i32;
    us < (QUICK_MS as i32 - LATE_MS) * 1000
}

/// Counts the response that begins now by its time to first byte. The exact clock costs more than all else of a response, so
/// it is read once a timer interrupt, for those as well that came since: one by one unless there are hundreds a second.
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

/// What is told of a backend changes what is told of it next.
#[inline(always)]
fn tell_next(backend: u16, from: u32, to: u32) {
    let Some(tell) = MIRROR_MODES.get_ptr_mut(backend as u32) else { return };
    // SAFETY: an aligned word of an array map. Of two CPUs at once either may be later: so are their responses.
    unsafe {
        if tell.read_volatile() == from {
            tell.write_volatile(to);
        }
    }
}

#[inline(always)]
fn cpu() -> u32 {
    // SAFETY: a plain helper call.
    unsafe { bpf_get_smp_processor_id() }
}

/// The backend closes or resets the connection. If it owes an answer and has not begun with it, it has
/// failed.
///
/// Not its failure: the request is not whole, and it has waited for the rest; the client has closed before, and
/// waits no longer; or a kept connection is closed for being idle, and the next request
/// crosses that on its way. What closes it then does not acknowledge the request, and the reset that answers
/// the request follows it. A backend that closes a connection before its first request has no such excuse.
#[inline(always)]
fn note_end<A: Address>(segment: &Segment, flow: &mut Flow<A>) {
    let client_closed = flow.state & flow_state::CLIENT_FIN != 0;
    let owes = flow.head & head_state::AWAITED != 0
        && flow.head & (head_state::OWED | head_state::CONTINUES) == head_state::OWED;
    let got_request = segment.ack.wrapping_sub(flow.asked_seq) as i32 > 0;
    if segment.has(flag::RST) {
        let backend_closed = flow.state & flow_state::BACKEND_FIN != 0;
        let crossed = backend_closed && flow.head & head_state::SERVED != 0;
        let crossed = crossed || (segment.has(flag::ACK) && !got_request);
        if owes && !client_closed && !crossed {
            flow.head &= !head_state::AWAITED;
            tell(flow, ExchangeKind::Reset, FORCE_WAKEUP);
        }
        return;
    }
    // Where a byte of the answer is missing, it was sent and is still on its way.
    let nothing_sent = segment.seq.wrapping_add(segment.payload_len) == flow.head_seq;
    if owes && !client_closed && nothing_sent && got_request {
        flow.head &= !head_state::AWAITED;
        tell(flow, ExchangeKind::NoResponse, FORCE_WAKEUP);
    }
}

/// A reset in answer to a SYN.
#[inline(always)]
pub(super) fn note_refusal<A: Address>(segment: &Segment, embryo: &mut Flow<A>) {
    let answers = segment.has(flag::ACK) && segment.ack == embryo.asked_seq;
    if answers && embryo.head & head_state::CONNECTING != 0 {
        embryo.head &= !head_state::CONNECTING;
        tell(embryo, ExchangeKind::ConnectRefused, FORCE_WAKEUP);
    }
}

/// The client begins to ask anew, and the backend has not answered at all.
#[inline(always)]
pub(super) fn note_silence<A: Address>(embryo: &mut Flow<A>) {
    if embryo.head & head_state::CONNECTING != 0 {
        embryo.head &= !head_state::CONNECTING;
        tell(embryo, ExchangeKind::ConnectTimeout, FORCE_WAKEUP);
    }
}

/// What became of an exchange without a head that could be read.
#[inline(always)]
fn tell<A: Address>(flow: &Flow<A>, kind: ExchangeKind, wakeup: u64) {
    if kind != ExchangeKind::Answered {
        tell_next(flow.backend, mirror_mode::NONE, mirror_mode::NEXT);
    }
    let Some(counters) = counters(flow.backend) else { return };
    let Some(mut entry) = EVIDENCE.reserve_untyped::<ExchangeRecord>(0) else {
        counters.heads_lost += 1;
        return;
    };
    // SAFETY: the record is ours until it is submitted.
    let since_us = unsafe { describe(entry.as_mut_ptr(), flow, counters, 0, kind, 0) };
    if kind == ExchangeKind::Answered {
        count_ttfb(counters, since_us);
    }
    entry.submit(wakeup);
}

/// Fills everything but the bytes. Gives the microseconds since the request.
///
/// # Safety
/// `record` is reserved and not yet submitted.
#[inline(always)]
unsafe fn describe<A: Address>(
    record: *mut ExchangeRecord,
    flow: &Flow<A>,
    counters: &BackendCounters,
    len: u16,
    kind: ExchangeKind,
    flags: u16,
) -> u32 {
    let trial = if flow.state & flow_state::TRIAL != 0 { record_flags::TRIAL } else { 0 };
    // SAFETY: plain helper calls, and writes into what the caller has reserved.
    unsafe {
        let now = bpf_ktime_get_ns();
        (*record).at_ns = now;
        let since_us = ((now / 1000) as u32).wrapping_sub(flow.asked_us);
        (*record).since_request_ns = since_us as u64 * 1000;
        (*record).cpu = cpu();
        (*record).lost = counters.heads_lost as u32;
        (*record).client = flow.client.src.wide();
        (*record).client_port = flow.client.sport;
        (*record).service = flow.service;
        (*record).backend = flow.backend;
        (*record).len = len;
        (*record).generation = flow.generation;
        (*record).kind = kind as u16;
        (*record).flags = flags | trial;
        since_us
    }
}

#[inline(always)]
fn count_ttfb(counters: &mut BackendCounters, us: u32) {
    if let Some(count) = counters.ttfb.get_mut(opaque(ttfb_bucket(us) as u32) as usize) {
        *count += 1;
    }
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
    // At least 1, as `skip` is smaller than the length, and at most all; the verifier is told by arithmetic: of a
    // number that was put aside on the stack Linux 6.1 does not learn from a look at its copy.
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
    let mut flags = 0;
    if flow.head & head_state::CONTINUES != 0 {
        flags |= record_flags::CONTINUES;
    }
    if flow.head & head_state::PIPELINED != 0 {
        flags |= record_flags::PIPELINED;
    }
    if unfinished {
        flags |= record_flags::UNFINISHED;
        flow.head_seq = segment.seq.wrapping_add(segment.payload_len);
        flow.head |= head_state::CONTINUES;
    } else {
        flow.head &= !(head_state::WANTED | head_state::CONTINUES);
        if status == *b"101" {
            // What follows is another protocol: nothing that the client says from now on is a request.
            atomic::set(&mut flow.state, flow_state::OPAQUE);
        }
    }
    // SAFETY: the record is still ours.
    let since_us = unsafe { describe(record, flow, counters, len as u16, ExchangeKind::Head, flags) };
    if !unfinished {
        count_ttfb(counters, since_us);
    }
    counters.heads += 1;
    // Errors are told at once; good news waits for the daemon's next look. Anything that
    // does not read as 1xx to 3xx may be one.
    let urgent = unfinished || status[0] >= b'4' || status[0] < b'1';
    if urgent {
        tell_next(flow.backend, mirror_mode::NONE, mirror_mode::NEXT);
    } else if status[0] == b'2' {
        tell_next(flow.backend, mirror_mode::NEXT, mirror_mode::NONE);
    }
    entry.submit(if urgent { FORCE_WAKEUP } else { NO_WAKEUP });
}
