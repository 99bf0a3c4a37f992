//! Client → VIP.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    abi::{Backend, Flow, FlowKey, Service, backend_flags, flow_state, service_flags},
    reason::Reason,
};
use lb_ebpf::{
    frame::Frame,
    segment::{Segment, Tuple, flag, plausible_client},
    translate::translate,
};

use super::{
    Leave, atomic, connect, counters, evidence, forget,
    maps::{BACKENDS, EMBRYOS, FLOWS},
};

const ANY: u64 = 0;

/// What is known of a client's tuple.
enum Known {
    /// It has a flow: this one.
    Flow(*mut Flow),
    /// The segment belongs to a handshake and was dealt with.
    Done(Result<u32, Leave>),
    Nothing,
}

#[inline(always)]
pub(super) fn steer(ctx: &XdpContext, frame: &Frame, tuple: &Tuple, service: &Service) -> Result<u32, Leave> {
    let segment = Segment::read(frame, tuple)?;
    if !plausible_client(&tuple.key) {
        return Err(Leave::Drop(Reason::Martian));
    }
    let known = match FLOWS.get_ptr_mut(&tuple.key) {
        Some(flow) => Known::Flow(flow),
        None => match EMBRYOS.get_ptr_mut(&tuple.key) {
            // SAFETY: map values stay mapped while the program runs. Another CPU may write
            // the same entry; fields are words, and each is valid by itself.
            Some(embryo) => handshake(frame, &tuple.key, &segment, unsafe { &mut *embryo }),
            None => Known::Nothing,
        },
    };
    match known {
        Known::Flow(flow) => {
            // SAFETY: as above.
            let flow = unsafe { &mut *flow };
            let closes = flow.state & (flow_state::FIN_SEEN | flow_state::FIN_ACKED) != 0;
            match backend_of(flow) {
                // A SYN on a living connection is for its backend to answer (RFC 5961 section 4), as long
                // as that may have new ones: it may have forgotten the connection and accept.
                Some(backend)
                    if !segment.opens() || (!closes && backend.flags & backend_flags::ADMIT != 0) =>
                {
                    return established(ctx, frame, &tuple.key, &segment, service, flow, backend);
                }
                // Its backend is gone, or the client begins anew.
                _ => forget(&tuple.key, &flow.to),
            }
        }
        Known::Done(result) => return result,
        Known::Nothing => {}
    }
    if segment.opens() {
        return connect::connect(ctx, frame, tuple, &segment, service);
    }
    Err(Leave::Reset(Reason::NoFlow))
}

#[inline(always)]
fn established(
    ctx: &XdpContext,
    frame: &Frame,
    key: &FlowKey,
    segment: &Segment,
    service: &Service,
    flow: &mut Flow,
    backend: &Backend,
) -> Result<u32, Leave> {
    if service.flags & service_flags::EVIDENCE != 0
        && segment.payload_len > 0
        && flow.state & flow_state::OPAQUE == 0
    {
        evidence::note_request(ctx, frame, key, segment, flow);
    }
    let result = forward(frame, segment, flow, backend);
    // Last: it may give the entries back, and another CPU fills them at once.
    closing(key, segment, flow);
    result
}

/// A connection whose client has not yet acknowledged the backend's SYN-ACK.
#[inline(always)]
fn handshake(frame: &Frame, key: &FlowKey, segment: &Segment, embryo: &mut Flow) -> Known {
    let backend = match backend_of(embryo) {
        // A client that repeats its SYN is steered anew when its backend has left since:
        // after an ejection no connection begins there.
        Some(backend) if !segment.opens() || admits(backend, embryo) => backend,
        _ => {
            forget(key, &embryo.to);
            return Known::Nothing;
        }
    };
    let completes = embryo.state & flow_state::ANSWERED != 0
        && segment.has(flag::ACK)
        && !segment.has(flag::RST)
        && segment.ack == embryo.fin_ack;
    if completes {
        return match promote(key, embryo) {
            Ok(flow) => Known::Flow(flow),
            Err(reason) => Known::Done(Err(Leave::Drop(reason))),
        };
    }
    let result = forward(frame, segment, embryo, backend);
    if segment.has(flag::RST) {
        forget(key, &embryo.to);
    }
    Known::Done(result)
}

/// Whether a handshake under way may still begin there.
#[inline(always)]
const fn admits(backend: &Backend, embryo: &Flow) -> bool {
    backend.flags & backend_flags::ADMIT != 0
        || backend.flags & backend_flags::TRIAL != 0 && embryo.state & flow_state::TRIAL != 0
}

/// Moves a connection from the embryos to the flows.
#[inline(always)]
fn promote(key: &FlowKey, embryo: &Flow) -> Result<*mut Flow, Reason> {
    let other = embryo.to.reversed();
    // SAFETY: read only, and copied by the kernel before anything else happens.
    let back =
        unsafe { EMBRYOS.get(&other) }.filter(|back| back.to == key.reversed()).ok_or(Reason::TableFull)?;
    FLOWS.insert(&other, back, ANY).map_err(|_| Reason::TableFull)?;
    FLOWS.insert(key, embryo, ANY).map_err(|_| Reason::TableFull)?;
    if let Some(counters) = counters(embryo.backend) {
        counters.established += 1;
    }
    let _ = EMBRYOS.remove(key);
    let _ = EMBRYOS.remove(&other);
    FLOWS.get_ptr_mut(key).ok_or(Reason::TableFull)
}

/// The backend a flow belongs to, unless its id has changed hands since.
#[inline(always)]
pub(super) fn backend_of(flow: &Flow) -> Option<&'static Backend> {
    BACKENDS.get(flow.backend as u32).filter(|backend| backend.generation == flow.generation)
}

/// Keeps track of FIN and RST, and forgets a connection that is over.
///
/// A direction is over when its FIN was acknowledged; the connection is when both are. The
/// entries must not be used afterwards.
#[inline(always)]
pub(super) fn closing(key: &FlowKey, segment: &Segment, flow: &mut Flow) {
    if segment.has(flag::ACK) && flow.state & flow_state::FIN_SEEN != 0 && segment.ack == flow.fin_ack {
        atomic::set(&mut flow.state, flow_state::FIN_ACKED);
    }
    let reset = segment.has(flag::RST);
    if !reset && !segment.has(flag::FIN) && flow.state & flow_state::FIN_ACKED == 0 {
        return;
    }
    let other_key = flow.to.reversed();
    let Some(other) = FLOWS.get_ptr_mut(&other_key) else { return };
    // SAFETY: as in `steer`; this is the entry of the other direction.
    let other = unsafe { &mut *other };
    if other.to != key.reversed() {
        // That half was evicted, and its place is another connection's.
        return;
    }
    if segment.has(flag::FIN) {
        other.fin_ack = segment.end();
        atomic::set(&mut other.state, flow_state::FIN_SEEN);
    }
    if reset || flow.state & other.state & flow_state::FIN_ACKED != 0 {
        // Its NAT port rests among the embryos. Full: then less long.
        if flow.state & flow_state::TO_CLIENT != 0 {
            atomic::set(&mut flow.state, flow_state::OVER);
            let _ = EMBRYOS.insert(key, &*flow, ANY);
        } else {
            atomic::set(&mut other.state, flow_state::OVER);
            let _ = EMBRYOS.insert(&other_key, &*other, ANY);
        }
        let _ = FLOWS.remove(key);
        let _ = FLOWS.remove(&other_key);
    }
}

/// Sends a segment on to its backend.
#[inline(always)]
pub(super) fn forward(
    frame: &Frame,
    segment: &Segment,
    flow: &Flow,
    backend: &Backend,
) -> Result<u32, Leave> {
    if !backend.link.is_resolved() {
        return Err(Leave::Drop(Reason::Neighbour));
    }
    translate(frame, flow, &backend.link).ok_or(Reason::Malformed)?;
    if let Some(counters) = counters(flow.backend) {
        counters.packets_to += 1;
        counters.bytes_to += segment.ip_len as u64;
    }
    Ok(backend.ifindex)
}
