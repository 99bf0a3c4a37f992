//! Records of the ring `EVIDENCE`, and which good responses become one.

use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use lb_common::abi::{
    Address, BackendCounters, ExchangeKind, ExchangeRecord, Flow, LATE_MS, flow_state, head_state,
    mirror_mode, record_flags, ttfb_bucket,
};
use lb_ebpf::verifier::opaque;

use crate::program::{
    backend::counters,
    maps::{EVIDENCE, MIRROR_MODES},
};

pub(crate) const NO_WAKEUP: u64 = 1;
pub(crate) const FORCE_WAKEUP: u64 = 2;

/// Writes a record of an exchange without a response head.
#[inline(always)]
pub(crate) fn submit<A: Address>(flow: &Flow<A>, kind: ExchangeKind, wakeup: u64) {
    if kind != ExchangeKind::Answered {
        set_mirror_mode(flow.backend, mirror_mode::NONE, mirror_mode::NEXT);
    }
    let Some(counters) = counters(flow.backend) else { return };
    let Some(mut entry) = EVIDENCE.reserve_untyped::<ExchangeRecord>(0) else {
        counters.heads_lost += 1;
        return;
    };
    // SAFETY: the record is ours until it is submitted.
    let since_us = unsafe { describe(entry.as_mut_ptr(), flow, counters, 0, kind, 0) };
    if kind == ExchangeKind::Answered {
        count_ttfb(counters, flow, since_us);
    }
    entry.submit(wakeup);
}

/// Fills in everything but the bytes of the head. Returns the microseconds since the request.
///
/// # Safety
/// `record` is reserved and not yet submitted.
#[inline(always)]
pub(crate) unsafe fn describe<A: Address>(
    record: *mut ExchangeRecord,
    flow: &Flow<A>,
    counters: &BackendCounters,
    len: u16,
    kind: ExchangeKind,
    flags: u16,
) -> u32 {
    let trial = if flow.state & flow_state::TRIAL != 0 { record_flags::TRIAL } else { 0 };
    let timed = flow.head & head_state::UNTIMED == 0;
    let ends = kind as u16 == ExchangeKind::Reset as u16 || kind as u16 == ExchangeKind::NoResponse as u16;
    // SAFETY: plain helper calls, and writes into what the caller has reserved.
    unsafe {
        let now = bpf_ktime_get_ns();
        (*record).at_ns = now;
        let since_us = ((now / 1000) as u32).wrapping_sub(flow.asked_us);
        let late = if ends && since_us as u64 > LATE_MS * 1000 { record_flags::LATE } else { 0 };
        (*record).since_request_ns = if timed { since_us as u64 * 1000 } else { 0 };
        (*record).cpu = cpu();
        (*record).lost = counters.heads_lost as u32;
        (*record).client = flow.client.src.wide();
        (*record).client_port = flow.client.sport;
        (*record).service = flow.service;
        (*record).backend = flow.backend;
        (*record).len = len;
        (*record).generation = flow.generation;
        (*record).kind = kind as u16;
        (*record).flags = flags | trial | late;
        since_us
    }
}

#[inline(always)]
pub(crate) fn count_ttfb<A: Address>(counters: &mut BackendCounters, flow: &Flow<A>, us: u32) {
    if flow.head & head_state::UNTIMED != 0 {
        return;
    }
    if let Some(count) = counters.ttfb.get_mut(opaque(ttfb_bucket(us) as u32) as usize) {
        *count += 1;
    }
}

/// Changes which good responses of the backend are mirrored next.
#[inline(always)]
pub(crate) fn set_mirror_mode(backend: u16, from: u32, to: u32) {
    let Some(mode) = MIRROR_MODES.get_ptr_mut(backend as u32) else { return };
    // SAFETY: an aligned word of an array map. Of two CPUs at once either may be later: so are their
    // responses.
    unsafe {
        if mode.read_volatile() == from {
            mode.write_volatile(to);
        }
    }
}

#[inline(always)]
pub(crate) fn cpu() -> u32 {
    // SAFETY: a plain helper call.
    unsafe { bpf_get_smp_processor_id() }
}
