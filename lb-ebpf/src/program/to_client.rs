//! Backend → client.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    abi::{Flow, flow_state, head_state},
    reason::Reason,
};
use lb_ebpf::{
    frame::Frame,
    segment::{Segment, Tuple, flag},
    translate::translate,
};

use super::{
    Leave, atomic, coarse_ns, counters, evidence, forget,
    maps::{EMBRYOS, FLOWS},
    ticks,
    to_backend::closing,
};

/// A frame to a port of the NAT range: a reply if a flow says so, else the host's own.
#[inline(always)]
pub(super) fn steer(frame: &Frame, tuple: &Tuple, service: &mut u16, ctx: &XdpContext) -> Result<u32, Leave> {
    if let Some(flow) = FLOWS.get_ptr_mut(&tuple.key) {
        // SAFETY: map values stay mapped while the program runs. Another CPU may write
        // the same entry; fields are words, and each is valid by itself.
        let flow = unsafe { &mut *flow };
        if flow.state & flow_state::TO_CLIENT == 0 {
            return Err(Leave::Pass);
        }
        *service = flow.service;
        let segment = Segment::read(frame, tuple)?;
        let now = ticks(coarse_ns());
        if flow.seen != now {
            flow.seen = now;
        }
        if segment.end().wrapping_sub(flow.sent_end) as i32 > 0 {
            flow.sent_end = segment.end();
        }
        if flow.head & head_state::AWAITED != 0 {
            evidence::note_answer(ctx, &segment, flow);
        }
        let result = forward(frame, &segment, flow);
        // Last: it may give the entries back, and another CPU fills them at once.
        closing(&tuple.key, &segment, flow);
        return result;
    }
    let Some(embryo) = EMBRYOS.get_ptr_mut(&tuple.key) else { return Err(Leave::Pass) };
    // SAFETY: as above.
    let embryo = unsafe { &mut *embryo };
    // One that is over only keeps its port from being used.
    if embryo.state & (flow_state::TO_CLIENT | flow_state::OVER) != flow_state::TO_CLIENT {
        return Err(Leave::Pass);
    }
    *service = embryo.service;
    let segment = Segment::read(frame, tuple)?;
    let client = embryo.to.reversed();
    if segment.has(flag::SYN) && segment.has(flag::ACK) {
        if let Some(forth) = EMBRYOS.get_ptr_mut(&client) {
            // SAFETY: as above; this is the entry of the other direction.
            let forth = unsafe { &mut *forth };
            if forth.to == tuple.key.reversed() {
                forth.fin_ack = segment.seq.wrapping_add(1);
                atomic::set(&mut forth.state, flow_state::ANSWERED);
            }
        }
        embryo.sent_end = segment.end();
        embryo.head &= !head_state::CONNECTING;
    } else if segment.has(flag::RST) {
        evidence::note_refusal(&segment, embryo);
    }
    let result = forward(frame, &segment, embryo);
    if segment.has(flag::RST) {
        forget(&tuple.key, &embryo.to);
    }
    result
}

/// Sends a segment on to the client, by the way the client's own came.
#[inline(always)]
fn forward(frame: &Frame, segment: &Segment, flow: &Flow) -> Result<u32, Leave> {
    translate(frame, flow, &flow.link).ok_or(Reason::Malformed)?;
    if let Some(counters) = counters(flow.backend) {
        counters.packets_from += 1;
        counters.bytes_from += segment.ip_len as u64;
    }
    Ok(flow.ifindex)
}
