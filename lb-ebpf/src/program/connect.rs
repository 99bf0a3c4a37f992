//! A new connection: which backend, which NAT port.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_loop};
use lb_common::{
    NO_BACKEND, SLOT_TRIES, TABLE_SLOTS,
    abi::{
        Address, Backend, Config, Flow, FlowKey, Link, Port, Service, TRIAL_SLOTS, backend_flags, flow_state,
        head_state, port_flags, service_flags,
    },
    hash::{flow_hash, rehash, slot},
    reason::Reason,
};
use lb_ebpf::{frame::Frame, syn, translate::deltas};

use super::{
    LINK, Leave, NEVER, Packet, Way, answer_ticks, atomic,
    clock::{coarse_ns, coarse_us},
    counters, evidence, frame, hook,
    hook::{Context, Raw},
    kinds,
    maps::{BACKENDS, CONFIG, LAST_SYNACK, TABLES, TRIAL_BUDGETS},
    opaque, pace,
    table::{self, Tables},
    ticks,
    to_backend::forward,
};

/// How many NAT ports are tried, all but the first at random. With half of the range in use, one SYN in
/// 2^44 finds none; its client tries again with other ports.
const PORT_TRIES: u32 = 44;

/// From this try on a port is taken from an embryo: only in a flood do so many have one.
const FROM_EMBRYOS: u32 = 8;

/// How old the embryo must be at that try, in microseconds; after each four tries, half as old. So those go first that will
/// not complete any more, and a handshake under way is the last, however fast the flood. Most tries fail because their
/// set of replies is full, which is why there are four.
const OLDEST_EMBRYO: u32 = 1 << 20;

/// From this try on any embryo will do.
const FROM_ANY_EMBRYO: u32 = 32;

/// From this try on a port is taken although it rests after a connection that is over.
const TIRED_FROM: u32 = 8;

/// Slots that are looked at for another backend than the one that a handshake failed with. A quarter of a small
/// service is missed by one handshake in 10^8.
const OTHER_TRIES: u32 = 64;

struct Choice {
    id: u16,
    backend: &'static Backend,
    trial: bool,
}

/// `anew`: the client had a flow, which may be a handshake that its backend left unanswered.
#[inline(always)]
pub(super) fn connect<F: Tables>(
    ctx: &Context,
    packet: &Packet<'_, F>,
    service: &Service,
    anew: bool,
) -> Result<Way, Leave> {
    let key = &packet.tuple.key;
    if !pace::admits() {
        return Err(Leave::Drop(Reason::SynRate));
    }
    let hash = flow_hash(key);
    let (mut moved, mut again) = (NO_BACKEND, false);
    if anew && service.flags & service_flags::REDISPATCH != 0 {
        let forsaken = forsaken::<F>(key);
        if forsaken as u16 != NO_BACKEND {
            moved = elsewhere(service.id, hash, forsaken as u16) as u16;
            if moved == NO_BACKEND && forsaken & REFUSED != 0 {
                // There is nobody else, and its client need not wait.
                return Err(Leave::Reset(Reason::NoBackend));
            }
            again = true;
        }
    }
    let choice = match choose(service, hash, moved, again) {
        Ok(choice) => choice,
        Err(Reason::NoBackend) if service.flags & service_flags::NO_BACKEND_DROP == 0 => {
            return Err(Leave::Reset(Reason::NoBackend));
        }
        Err(reason) => return Err(Leave::Drop(reason)),
    };
    let Choice { id, backend, trial } = choice;
    let now = coarse_ns();
    let mut place = table::claim::<F>(key);
    if place == table::NOWHERE {
        place = table::claim_taken::<F>(key, now);
    }
    if place == table::NOWHERE {
        return Err(Leave::Drop(Reason::TableFull));
    }
    let place = place as u32;
    let flow = F::flow(place).ok_or(Reason::TableFull)?;
    // SAFETY: the place is ours, and nobody finds it before its state says so.
    let flow = unsafe { &mut *flow };
    flow.client = *key;
    flow.slot = place;
    flow.seen = ticks(now);
    flow.asked_us = coarse_us();
    flow.backend = id;
    flow.service = service.id;
    flow.generation = backend.generation;
    flow.ifindex = ctx.ingress_ifindex() as u32;
    // A frame that was read this far has a link header.
    flow.link = link_back(&packet.frame).unwrap_or_default();
    flow.head = 0;
    flow.head_seq = 0;
    flow.sent_end = 0;
    flow.client_end = packet.segment.end();
    flow.asked_seq = packet.segment.end();
    flow.backend_syn_fin_ack = 0;
    let kept = service.flags & service_flags::DNAT != 0;
    if !kept {
        aim_first::<F>(flow, backend);
        table::expect::<F>(&flow.reply);
    }
    let watched = service.flags & service_flags::EVIDENCE != 0;
    if watched {
        // Meanwhile what was asked for comes from memory.
        look_at_syn::<F>(ctx.ctx, place, packet.segment.payload, packet.segment.ip_len);
    }
    flow.client_fin_ack = 0;
    let held = if kept {
        match keep::<F>(place, id) {
            KEPT => Ok(()),
            ITSELF => Err(Reason::Hairpin),
            _ => Err(Reason::NatPorts),
        }
    } else {
        reserve::<F>(flow)
    };
    if let Err(reason) = held {
        table::free_place::<F>(place);
        return Err(if reason == Reason::Hairpin { Leave::Reset(reason) } else { Leave::Drop(reason) });
    }
    (flow.tcp_delta, flow.ip_delta) = deltas(&flow.client, &flow.reply);
    let state = flow_state::LIVE
        | if service.flags & service_flags::REDISPATCH != 0 { flow_state::REDISPATCH } else { 0 }
        | if trial { flow_state::TRIAL } else { 0 }
        | if watched { flow_state::EVIDENCE } else { 0 }
        | (packet.vlan as u32) << flow_state::VLAN
        | flow_state::incarnation(now);
    // SAFETY: a word of a map.
    unsafe { atomic::publish(&raw mut flow.state, state) };
    if let Some(counters) = counters(id) {
        counters.connections += 1;
        counters.trials += trial as u64;
    }
    forward(packet, flow, backend)
}

/// Notes whether a backend that does not answer this SYN has failed. Not by what it returns: the verifier would go
/// through all that follows for each answer.
#[inline(never)]
fn look_at_syn<F: Tables>(ctx: *mut Raw, place: u32, headers: u32, ip_len: u32) -> u32 {
    // As if the context came from elsewhere: the compiler would pass the frame's bounds as numbers.
    let ctx = opaque_pointer(ctx);
    let mut ip = frame(&Context::new(ctx)).from(LINK);
    let hide = |number| opaque(number) as u32;
    if !syn::is_sound::<F>(&ip, headers, ip_len, false, hide) {
        if !hook::is_partial(&Context::new(ctx), (LINK + F::HEADER) as u32 + 16) {
            return 0;
        }
        ip = frame(&Context::new(ctx)).from(LINK);
        if !syn::is_sound::<F>(&ip, headers, ip_len, true, hide) {
            return 0;
        }
    }
    let Some(flow) = F::flow(place) else { return 0 };
    // SAFETY: a place of the map that is the new connection's alone. Between turns the place of the option is kept in
    // the map, of which the verifier knows nothing: else it would go through every place that it can have.
    let flow = unsafe { &mut *flow };
    if syn::is_linux(&ip.from(F::HEADER), headers.wrapping_sub(F::HEADER as u32)) {
        flow.head = head_state::CONNECTING;
        return 0;
    }
    flow.client_fin_ack = syn::FIRST_OPTION;
    let mut look = Look::<F::Addr> { ctx, flow, length: headers.wrapping_sub(F::HEADER as u32) };
    // SAFETY: the callback has the type that the kernel calls, and what it works on outlives the loop.
    unsafe { bpf_loop(syn::MOST_OPTIONS, option::<F> as *mut c_void, (&raw mut look).cast(), 0) };
    0
}

/// A look at the options of a SYN: what goes from one turn to the next.
#[repr(C)]
struct Look<A: Address> {
    ctx: *mut Raw,
    flow: *mut Flow<A>,
    length: u32,
}

/// One option is looked at.
unsafe extern "C" fn option<F: Tables>(_: u32, look: *mut Look<F::Addr>) -> i64 {
    // SAFETY: the kernel hands over what `look_at_syn` gave it.
    let (ctx, flow, length) = unsafe { ((*look).ctx, &mut *(*look).flow, (*look).length) };
    let ip = frame(&Context::new(ctx)).from(LINK);
    let next = syn::next_option(&ip.from(F::HEADER), flow.client_fin_ack, length);
    flow.client_fin_ack = next;
    if next == syn::ALL_KNOWN {
        flow.head = head_state::CONNECTING;
    }
    (next >= syn::ALL_KNOWN) as i64
}

#[inline(always)]
fn opaque_pointer<T>(pointer: *mut T) -> *mut T {
    let mut pointer = pointer;
    // SAFETY: an empty instruction, in the eyes of everybody but the compiler.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) pointer, options(nomem, nostack, preserves_flags)) };
    pointer
}

/// Beside the id that [`forsaken`] gives: the backend has refused.
const REFUSED: u32 = 1 << 16;

/// The backend of a handshake that has come to nothing, which ends here. [`NO_BACKEND`]: there is none.
// A function of its own, like those that follow, because it needs much of the stack.
#[inline(never)]
fn forsaken<F: Tables>(key: &FlowKey<F::Addr>) -> u32 {
    let Some(embryo) = table::by_client::<F>(key) else { return NO_BACKEND as u32 };
    if embryo.state & (flow_state::ANSWERED | flow_state::TIME_WAIT) != 0 {
        return NO_BACKEND as u32;
    }
    evidence::note_silence(embryo);
    let backend = embryo.backend;
    let refused = if embryo.state & flow_state::REFUSED != 0 { REFUSED } else { 0 };
    if let Some(counters) = counters(backend) {
        counters.redispatched += 1;
    }
    table::release::<F>(embryo);
    backend as u32 | refused
}

/// A look for another backend: what goes from one turn to the next.
#[repr(C)]
struct Others {
    table: *const [u16; TABLE_SLOTS],
    hash: u64,
    avoided: u16,
    best: u16,
    /// Since when `best` has not answered.
    silence: u32,
    now: u32,
}

/// Another backend for a handshake that has to go elsewhere: of those that a table offers the one that has answered
/// a SYN last, because this client has waited long enough. [`NO_BACKEND`]: there is no other.
#[inline(never)]
fn elsewhere(service: u16, hash: u64, avoided: u16) -> u32 {
    let Some(table) = TABLES.get_value(service as u32, &0) else { return NO_BACKEND as u32 };
    let now = answer_ticks();
    let mut others = Others { table, hash, avoided, best: NO_BACKEND, silence: 0, now };
    // SAFETY: the callback has the type that the kernel calls, and what it works on outlives the loop.
    unsafe { bpf_loop(OTHER_TRIES, offer as *mut c_void, (&raw mut others).cast(), 0) };
    // SAFETY: written by the callback, of which the compiler does not know.
    unsafe { (&raw const others.best).read_volatile() as u32 }
}

/// One slot is looked at.
unsafe extern "C" fn offer(_: u32, others: *mut Others) -> i64 {
    // SAFETY: the kernel hands over what `elsewhere` gave it.
    let others = unsafe { &mut *others };
    others.hash = rehash(others.hash);
    // SAFETY: the map's one value, which stays as long as the program runs.
    let Some(&id) = (unsafe { &*others.table }).get(opaque(slot(others.hash)) as usize) else { return 1 };
    let (Some(backend), Some(&at)) = (BACKENDS.get(id as u32), LAST_SYNACK.get(id as u32)) else { return 0 };
    let may = id != others.avoided && backend.flags & backend_flags::ADMIT != 0 && backend.link.is_resolved();
    let silence = if at == NEVER { u32::MAX } else { others.now.wrapping_sub(at) };
    // The first of them wins where none is known to have answered.
    if may && (others.best == NO_BACKEND || silence < others.silence) {
        (others.best, others.silence) = (id, silence);
    }
    0
}

/// Half-open backends first, while their budget lasts; else the table. `moved`: where a handshake goes on that has
/// come to nothing elsewhere. One that comes `again` has had its token.
#[inline(always)]
fn choose(service: &Service, hash: u64, moved: u16, again: bool) -> Result<Choice, Reason> {
    if moved != NO_BACKEND
        && let Some(backend) = BACKENDS.get(moved as u32)
    {
        return Ok(Choice { id: moved, backend, trial: false });
    }
    for seat in 0..opaque(TRIAL_SLOTS as u32) as usize {
        if again || seat >= service.trial_len as usize {
            break;
        }
        let Some(&id) = service.trials.get(seat) else { break };
        let Some(backend) = BACKENDS.get(id as u32) else { continue };
        if backend.flags & backend_flags::TRIAL != 0 && backend.link.is_resolved() && take_token(id) {
            return Ok(Choice { id, backend, trial: true });
        }
    }
    let table = TABLES.get_value(service.id as u32, &0).ok_or(Reason::NoBackend)?;
    let mut hash = hash;
    let mut reason = Reason::Swapping;
    for _ in 0..opaque(SLOT_TRIES) {
        let id = *table.get(opaque(slot(hash)) as usize).ok_or(Reason::NoBackend)?;
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
    let Some(tokens) = TRIAL_BUDGETS.get_ptr_mut(id as u32) else { return false };
    // The look before keeps an exhausted count from running away.
    // SAFETY: an aligned i64 of an array map, which stays where it is.
    unsafe { tokens.read_volatile() > 0 && atomic::fetch_add(tokens, -1) > 0 }
}

/// Answers of [`keep`].
const KEPT: u32 = 0;
const TAKEN: u32 = 1;
const ITSELF: u32 = 2;

/// The client's own address and port stay the source.
// A function of its own, for the sake of the stack.
#[inline(never)]
fn keep<F: Tables>(slot: u32, backend: u16) -> u32 {
    let (Some(flow), Some(backend)) = (F::flow(slot), BACKENDS.get(backend as u32)) else { return TAKEN };
    // SAFETY: a place of the map that is the new connection's alone.
    let flow = unsafe { &mut *flow };
    flow.reply.src = F::Addr::narrow(&backend.addr);
    flow.reply.dst = flow.client.src;
    flow.reply.sport = backend.port;
    flow.reply.dport = flow.client.sport;
    if flow.reply.src == flow.reply.dst {
        return ITSELF;
    }
    // Else another service's connection of the same client to the same backend is there, and the backend could
    // not tell them apart.
    if table::hold_kept::<F>(flow) { KEPT } else { TAKEN }
}

/// A look for a NAT address and port: what goes from one turn to the next.
#[repr(C)]
struct Search<A: Address> {
    flow: *mut Flow<A>,
    held: u64,
}

/// Holds a NAT address and port for this flow: those that it was given first, or others.
///
/// The turns are the kernel's loop (Linux 5.17): the verifier looks at one of them, not at all that can
/// happen in twelve.
#[inline(always)]
fn reserve<F: Tables>(flow: &mut Flow<F::Addr>) -> Result<(), Reason> {
    let config = CONFIG.get(0).ok_or(Reason::NatPorts)?;
    if F::nat_len(config) == 0 && flow.reply.src == flow.reply.dst {
        return Err(Reason::Hairpin);
    }
    let mut search = Search::<F::Addr> { flow, held: 0 };
    // SAFETY: the callback has the type that the kernel calls, and the search outlives the loop.
    unsafe { bpf_loop(PORT_TRIES, turn::<F> as *mut c_void, (&raw mut search).cast(), 0) };
    // SAFETY: written by the callback, of which the compiler does not know.
    if unsafe { (&raw const search.held).read_volatile() } == 0 {
        return Err(Reason::NatPorts);
    }
    Ok(())
}

/// How many ports the NAT range has.
#[inline(always)]
const fn ports(config: &Config) -> u64 {
    (config.nat_last as u64).wrapping_sub(config.nat_first as u64).wrapping_add(1)
}

/// What its replies will be sent to, if that is free.
#[inline(always)]
fn aim_first<F: Tables>(flow: &mut Flow<F::Addr>, backend: &Backend) {
    flow.reply.src = F::Addr::narrow(&backend.addr);
    flow.reply.dst = F::Addr::narrow(&backend.nat_addr);
    flow.reply.sport = backend.port;
    if let Some(config) = CONFIG.get(0) {
        let (which, wanted) = preferred(&flow.client);
        aim::<F>(flow, config, which, (wanted as u64).checked_rem(ports(config)).unwrap_or(0));
    }
}

/// `which` of the addresses, as a part of 2^32, and which of the ports.
#[inline(always)]
fn aim<F: Tables>(flow: &mut Flow<F::Addr>, config: &Config, which: u32, offset: u64) {
    let addresses = F::nat_len(config) as u64;
    if let Some(address) = F::nat_address(config, ((which as u64 * addresses) >> 32) as u32)
        && addresses > 0
    {
        flow.reply.dst = address;
    }
    flow.reply.dport = Port::new((config.nat_first as u64 + offset) as u16);
}

/// One turn of the search. 1 ends it.
unsafe extern "C" fn turn<F: Tables>(number: u32, search: *mut Search<F::Addr>) -> i64 {
    // SAFETY: the kernel hands over what `reserve` gave it.
    let search = unsafe { &mut *search };
    // SAFETY: a place of the map that is the search's alone.
    let flow = unsafe { &mut *search.flow };
    let own = flow.reply.src == flow.reply.dst;
    if !own && !is_vip(flow.reply.dport) && table::hold::<F>(flow, embryo_age(number), number >= TIRED_FROM) {
        search.held = 1;
        return 1;
    }
    let Some(config) = CONFIG.get(0) else { return 1 };
    // SAFETY: plain helper calls.
    let (which, offset) =
        unsafe { (bpf_get_prandom_u32(), (bpf_get_prandom_u32() as u64 * ports(config)) >> 32) };
    aim::<F>(flow, config, which, offset);
    0
}

/// How old an embryo must be to lose its port at this try.
#[inline(always)]
const fn embryo_age(number: u32) -> i32 {
    if number < FROM_EMBRYOS {
        i32::MAX
    } else if number < FROM_ANY_EMBRYO {
        (OLDEST_EMBRYO >> ((number - FROM_EMBRYOS) / 4)) as i32
    } else {
        i32::MIN
    }
}

/// Whether any VIP has this port: on a NAT address, replies to it would be taken for a client's.
#[inline(always)]
fn is_vip(port: Port) -> bool {
    kinds(port).is_none_or(|kinds| kinds & port_flags::VIP != 0)
}

/// The NAT address that a client asks for, and the port that its own port asks for: another one for each of its ports.
///
/// So a NAT port comes again when its client's port does, and a backend that still has the
/// former connection in TIME_WAIT sees the same client's later numbers and time stamps, and
/// accepts (RFC 6191). A port drawn at random brings it another connection's, which it refuses
/// as old half of the time.
#[inline(always)]
fn preferred<A: Address>(client: &FlowKey<A>) -> (u32, u32) {
    let [a, b] = client.src.pairs();
    let hash = rehash(a.rotate_left(32) ^ b);
    (hash as u32, ((hash >> 32) as u32).wrapping_add(client.sport.host() as u32))
}

/// The way back to whoever sent the frame: both addresses of its link header, exchanged.
#[inline(always)]
fn link_back(frame: &Frame) -> Option<Link> {
    let [a, b] = frame.load::<u16>(10)?.to_ne_bytes();
    let [c, d] = frame.load::<u16>(0)?.to_ne_bytes();
    Some(Link([frame.load(6)?, u32::from_ne_bytes([a, b, c, d]), frame.load(2)?]))
}
