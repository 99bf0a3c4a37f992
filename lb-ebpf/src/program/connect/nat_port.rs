//! The tuple of a connection's replies: a NAT address and port, or in mode `dnat` the client's own.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_loop};
use lb_common::{
    abi::{Address, Backend, Config, Flow, FlowKey, Port},
    hash::rehash,
    reason::Reason,
};

use crate::program::{
    crowd,
    flows::{self, Resting},
    maps::{BACKENDS, CONFIG, Tables},
    ports::is_vip,
};

/// How many NAT ports the program tries, all but the first at random. With half of the range in use, one SYN
/// in 2^44 finds none. Its client then tries again with other ports.
const PORT_TRIES: u32 = 44;

/// From this try on, the program takes a port from a half-open handshake. Only a flood has so many of them.
const FROM_HANDSHAKES: u32 = 8;

/// The least age of such a handshake, in microseconds. It halves after each four tries. So the program takes
/// ports first from handshakes that will not complete any more, and last from those that may, however fast
/// the flood is. There are four tries because most fail on a full set of replies.
const OLDEST_HANDSHAKE: u32 = 1 << 20;

/// From this try on, the age of a half-open handshake does not matter.
const FROM_ANY_HANDSHAKE: u32 = 32;

/// From this try on, the program takes a port that rests, if the backend will accept the new connection.
const FROM_TIME_WAIT: u32 = 8;

/// From this try on, it also takes one that rests for a client with another address.
const FROM_OTHERS: u32 = 20;

/// From this try on, it takes any port that rests.
const FROM_ANY_TIME_WAIT: u32 = 32;

/// Results of [`preserve`].
pub(crate) const PRESERVED: u32 = 0;
const TAKEN: u32 = 1;
pub(crate) const ITSELF: u32 = 2;

/// The client's own address and port stay the source.
// A function of its own, to spare the stack of its caller.
#[inline(never)]
pub(crate) fn preserve<F: Tables>(slot: u32, backend: u16) -> u32 {
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
    // Otherwise the client has a connection to the same backend by another service, and to the backend both
    // would be one.
    if flows::reserve_preserved::<F>(flow) { PRESERVED } else { TAKEN }
}

/// The search for a NAT address and port: its state between two turns.
#[repr(C)]
struct Search<A: Address> {
    flow: *mut Flow<A>,
    reserved: u64,
}

/// Reserves a NAT address and port for this flow: the preferred ones, or others.
///
/// The kernel runs the turns (`bpf_loop`, Linux 5.17), so that the verifier looks at one turn only.
#[inline(always)]
pub(crate) fn reserve<F: Tables>(flow: &mut Flow<F::Addr>) -> Result<(), Reason> {
    let config = CONFIG.get(0).ok_or(Reason::NatPorts)?;
    if F::nat_len(config) == 0 && flow.reply.src == flow.reply.dst {
        return Err(Reason::Hairpin);
    }
    if crowd::refuses::<F>(&flow.client, flow.backend) {
        return Err(Reason::SourceShare);
    }
    let mut search = Search::<F::Addr> { flow, reserved: 0 };
    // SAFETY: the callback has the type that the kernel calls, and the search outlives the loop.
    unsafe { bpf_loop(PORT_TRIES, turn::<F> as *mut c_void, (&raw mut search).cast(), 0) };
    // SAFETY: written by the callback, of which the compiler does not know.
    if unsafe { (&raw const search.reserved).read_volatile() } == 0 {
        return Err(Reason::NatPorts);
    }
    Ok(())
}

/// How many ports the NAT range has.
#[inline(always)]
const fn ports(config: &Config) -> u64 {
    (config.nat_last as u64).wrapping_sub(config.nat_first as u64).wrapping_add(1)
}

/// Sets the reply's tuple to the preferred NAT address and port.
#[inline(always)]
pub(crate) fn aim_first<F: Tables>(flow: &mut Flow<F::Addr>, backend: &Backend) {
    flow.reply.src = F::Addr::narrow(&backend.addr);
    flow.reply.dst = F::Addr::narrow(&backend.nat_addr);
    flow.reply.sport = backend.port;
    if let Some(config) = CONFIG.get(0) {
        let (which, wanted) = preferred(&flow.client);
        aim::<F>(flow, config, which, (wanted as u64).checked_rem(ports(config)).unwrap_or(0));
    }
}

/// `which`: one of the addresses, as a part of 2^32. `offset`: one of the ports.
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
    if !own
        && !is_vip(flow.reply.dport)
        && flows::reserve_reply::<F>(flow, least_age(number), resting(number))
    {
        search.reserved = 1;
        return 1;
    }
    let Some(config) = CONFIG.get(0) else { return 1 };
    // SAFETY: plain helper calls.
    let (which, offset) =
        unsafe { (bpf_get_prandom_u32(), (bpf_get_prandom_u32() as u64 * ports(config)) >> 32) };
    aim::<F>(flow, config, which, offset);
    0
}

/// The least age at which a half-open handshake loses its port at this try.
#[inline(always)]
const fn least_age(number: u32) -> i32 {
    if number < FROM_HANDSHAKES {
        i32::MAX
    } else if number < FROM_ANY_HANDSHAKE {
        (OLDEST_HANDSHAKE >> ((number - FROM_HANDSHAKES) / 4)) as i32
    } else {
        i32::MIN
    }
}

/// The flows in time-wait that lose their port at this try.
#[inline(always)]
const fn resting(number: u32) -> Resting {
    if number < FROM_TIME_WAIT {
        Resting::Own
    } else if number < FROM_OTHERS {
        Resting::OwnAddress
    } else if number < FROM_ANY_TIME_WAIT {
        Resting::Harmless
    } else {
        Resting::Any
    }
}

/// The preferred NAT address of a client, and the preferred port, a different one for each port of the
/// client.
///
/// So a NAT port returns together with the client's port. A backend that still has the former connection in
/// TIME_WAIT then sees later numbers and time stamps of the same client and accepts (RFC 6191). With a random
/// port it would see those of another connection, and would refuse half of them as old.
#[inline(always)]
fn preferred<A: Address>(client: &FlowKey<A>) -> (u32, u32) {
    let [a, b] = client.src.pairs();
    let hash = rehash(a.rotate_left(32) ^ b);
    (hash as u32, ((hash >> 32) as u32).wrapping_add(client.sport.host() as u32))
}
