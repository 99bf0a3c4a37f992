//! A new connection: which backend, which NAT port.

use aya_ebpf::{helpers::bpf_get_prandom_u32, programs::XdpContext};
use lb_common::{
    NO_BACKEND, SLOT_TRIES,
    abi::{
        Backend, Flow, FlowKey, IDLE_TICKS, Link, Port, Service, ServiceKey, TRIAL_SEATS, backend_flags,
        flow_state, head_state, service_flags,
    },
    hash::{flow_hash, rehash, slot},
    reason::Reason,
};
use lb_ebpf::{
    frame::Frame,
    segment::{Segment, Tuple},
    translate::deltas,
};

use super::{
    Leave, atomic, coarse_ns, counters, forget,
    maps::{BACKENDS, CONFIG, EMBRYOS, FLOWS, SCRATCH, SERVICES, TABLES, TRIAL},
    opaque, ticks,
    to_backend::{backend_of, forward},
};

const ANY: u64 = 0;
const NO_EXIST: u64 = 1;

/// How many NAT ports are tried, all but the first at random. With half of the range taken, one SYN in
/// 65 536 finds none; its client tries again with other ports.
const PORT_TRIES: u32 = 16;

/// From this try on a port is taken although it rests after a connection that is over.
const TIRED_FROM: u32 = 8;

struct Choice {
    id: u16,
    backend: &'static Backend,
    trial: bool,
}

#[inline(always)]
pub(super) fn connect(
    ctx: &XdpContext,
    frame: &Frame,
    tuple: &Tuple,
    segment: &Segment,
    service: &Service,
) -> Result<u32, Leave> {
    let hash = flow_hash(&tuple.key);
    let choice = match choose(service, hash) {
        Ok(choice) => choice,
        Err(Reason::NoBackend) if service.flags & service_flags::NO_BACKEND_DROP == 0 => {
            return Err(Leave::Reset(Reason::NoBackend));
        }
        Err(reason) => return Err(Leave::Drop(reason)),
    };
    let Choice { id, backend, trial } = choice;
    let trial_bit = if trial { flow_state::TRIAL } else { 0 };
    let back = SCRATCH.get_ptr_mut(0).ok_or(Reason::TableFull)?;
    // SAFETY: this CPU's own, and XDP programs on one CPU do not interrupt each other.
    let back = unsafe { &mut *back };
    let now = coarse_ns();
    let watched = service.flags & service_flags::EVIDENCE != 0;
    *back = Flow {
        to: tuple.key.reversed(),
        service: service.id,
        backend: id,
        generation: backend.generation,
        state: flow_state::TO_CLIENT | trial_bit,
        head: if watched { head_state::CONNECTING } else { 0 },
        request_seq: segment.end(),
        request_us: (now / 1000) as u32,
        seen: ticks(now),
        ifindex: ctx.ingress_ifindex() as u32,
        link: link_back(frame).ok_or(Reason::Malformed)?,
        ..Flow::default()
    };
    let reply = reserve(back, backend)?;
    let to = reply.reversed();
    let (tcp_delta, ip_delta) = deltas(&tuple.key, &to);
    let forth = Flow {
        to,
        tcp_delta,
        ip_delta,
        service: service.id,
        backend: id,
        generation: backend.generation,
        state: trial_bit,
        sent_end: segment.end(),
        ..Flow::default()
    };
    if EMBRYOS.insert(&tuple.key, &forth, ANY).is_err() {
        forget(&tuple.key, &to);
        return Err(Leave::Drop(Reason::TableFull));
    }
    if let Some(counters) = counters(id) {
        counters.connections += 1;
        counters.trials += trial as u64;
    }
    forward(frame, segment, &forth, backend)
}

/// Half-open backends first, while their budget lasts; else the table.
#[inline(always)]
fn choose(service: &Service, hash: u64) -> Result<Choice, Reason> {
    for seat in 0..TRIAL_SEATS {
        if seat >= service.trial_len as usize {
            break;
        }
        let id = service.trials[seat];
        let Some(backend) = BACKENDS.get(id as u32) else { continue };
        if backend.flags & backend_flags::TRIAL != 0 && backend.link.is_resolved() && take_token(id) {
            return Ok(Choice { id, backend, trial: true });
        }
    }
    let table = TABLES.get_value(service.id as u32, &0).ok_or(Reason::NoBackend)?;
    let mut hash = hash;
    let mut reason = Reason::Swapping;
    for _ in 0..SLOT_TRIES {
        let id = *table.0.get(opaque(slot(hash)) as usize).ok_or(Reason::NoBackend)?;
        if id == NO_BACKEND {
            return Err(Reason::NoBackend);
        }
        let backend = BACKENDS.get(id as u32).ok_or(Reason::NoBackend)?;
        if backend.flags & backend_flags::ADMIT != 0 {
            if backend.link.is_resolved() {
                return Ok(Choice { id, backend, trial: false });
            }
            reason = Reason::Neighbour;
        }
        hash = rehash(hash);
    }
    Err(reason)
}

/// One connection out of a half-open backend's budget. Exact under any number of CPUs:
/// whoever finds the count positive has taken one.
#[inline(always)]
fn take_token(id: u16) -> bool {
    let Some(tokens) = TRIAL.get_ptr_mut(id as u32) else { return false };
    // The look before keeps an exhausted count from running away.
    // SAFETY: an aligned i64 of an array map, which stays where it is.
    unsafe { tokens.read_volatile() > 0 && atomic::fetch_add(tokens, -1) > 0 }
}

/// Finds a NAT port and holds it by the entry for the replies.
///
/// The embryo goes in first and only if its key is free; then the flows are asked. In
/// this order two CPUs cannot both get a port: of two embryos one is refused, and a
/// connection that was promoted in between is already among the flows. A port that rests is
/// taken over without that exclusion: two SYNs that do so at the same moment would share it.
#[inline(always)]
fn reserve(back: &mut Flow, backend: &Backend) -> Result<FlowKey, Reason> {
    let config = CONFIG.get(0).ok_or(Reason::NatPorts)?;
    let ports = config.nat_last as u64 - config.nat_first as u64 + 1;
    for attempt in 0..PORT_TRIES {
        let offset = if attempt == 0 {
            preferred(&back.to).checked_rem(ports).unwrap_or(0)
        } else {
            // SAFETY: a plain helper call.
            (unsafe { bpf_get_prandom_u32() } as u64 * ports) >> 32
        };
        let port = Port::new(config.nat_first + offset as u16);
        let own = ServiceKey { addr: backend.nat_addr, port, proto: 6, zero: 0 };
        if SERVICES.get_ptr(&own).is_some() {
            // Replies to it would be taken for a client's.
            continue;
        }
        let reply = FlowKey { src: backend.addr, dst: backend.nat_addr, sport: backend.port, dport: port };
        (back.tcp_delta, back.ip_delta) = deltas(&reply, &back.to);
        if EMBRYOS.insert(&reply, &*back, NO_EXIST).is_err() {
            let taken = attempt < TIRED_FROM && !rests_for(&reply, &back.to);
            if taken || !is_over(&reply) || EMBRYOS.insert(&reply, &*back, ANY).is_err() {
                continue;
            }
        }
        if is_free(&reply, back.seen) {
            return Ok(reply);
        }
        let _ = EMBRYOS.remove(&reply);
    }
    Err(Reason::NatPorts)
}

/// The port that a client's own port asks for: another one for each of its ports.
///
/// So a NAT port comes again when its client's port does, and a backend that still has the
/// former connection in TIME_WAIT sees the same client's later numbers and time stamps, and
/// accepts (RFC 6191). A port drawn at random brings it another connection's, which it refuses
/// as old half of the time.
#[inline(always)]
const fn preferred(to_client: &FlowKey) -> u64 {
    (rehash(to_client.dst.v4_word() as u64) >> 32) + to_client.dport.host() as u64
}

/// Whether the port rests after a connection from this very client's port.
#[inline(always)]
fn rests_for(reply: &FlowKey, to_client: &FlowKey) -> bool {
    // SAFETY: words are read, each valid whoever writes it.
    unsafe { EMBRYOS.get(reply) }.is_some_and(|embryo| embryo.to == *to_client)
}

/// Whether the embryo of these replies only rests.
#[inline(always)]
fn is_over(reply: &FlowKey) -> bool {
    // SAFETY: one word is read, which is valid whoever writes it.
    unsafe { EMBRYOS.get(reply) }.is_some_and(|embryo| embryo.state & flow_state::OVER != 0)
}

/// Whether no flow has these replies, or one that is dead: its backend is gone, or it was
/// silent for too long. A dead one is forgotten.
#[inline(always)]
fn is_free(reply: &FlowKey, now: u32) -> bool {
    // SAFETY: words are read, each valid whoever writes it.
    let Some(flow) = (unsafe { FLOWS.get(reply) }) else { return true };
    if backend_of(flow).is_some() && now.wrapping_sub(flow.seen) < IDLE_TICKS {
        return false;
    }
    let client = flow.to.reversed();
    let _ = FLOWS.remove(reply);
    let _ = FLOWS.remove(&client);
    true
}

/// The way back to whoever sent the frame.
#[inline(always)]
fn link_back(frame: &Frame) -> Option<Link> {
    Some(Link([frame.load(0)?, frame.load(4)?, frame.load(8)?]).reversed())
}
