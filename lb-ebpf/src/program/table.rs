//! The flow tables: one place a connection, found from either end.
//!
//! ```text
//!   client's tuple ──hash──► CLIENTS: set of 15 tags ──┐ set × 15 + way
//!                                                      ▼
//!                                                    FLOWS
//!                                                      ▲
//!   reply's tuple ───hash──► REPLIES: set of 8 ────────┘ number in the entry
//! ```
//!
//! A set is one cache line. A flow lies in the first of two sets while that has room to spare, else in the one with more, and tags
//! are unique within a set. Which sets ever sent one away is noted with them: only then the other is looked at. The reply's entry holds the NAT port, so there is no other list of ports in use. A reply to a NAT
//! port is looked for in one set, as another port will do when that is full; one to a client's own port in two.
//!
//! Who owns what, with any number of CPUs:
//! - A free place (tag 0) is taken by swapping in the tag.
//! - A taken one is taken over, or freed, by swapping its flow's whole state for 0 (a part of it tells the flows
//!   apart that have had the place); only who
//!   succeeds in that touches tag and reply entry, and frees the reply entry first.
//! - A reply entry is free (0) and swapped in, or taken over with its flow. Two CPUs that put the same tag
//!   into one set at the same moment see each other's afterwards, and both step back.
//!
//! A reader may hold a flow that another CPU frees and fills again under its hands, as with the
//! kernel's own LRU maps. Only what is over, unfinished, dead or idle for long is ever taken over.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_loop;
use lb_common::{
    abi::{
        Addr, Address, CLIENT_WAYS, ClientSet, Config, Flow, FlowKey, REPLY_SETS, REPLY_WAYS, ReplySet, V4,
        flow_state,
    },
    hash::{HashKeys, keyed_hash, other_set, set, tag},
};
use lb_ebpf::{
    family::{Family, Ipv4, Ipv6},
    frame::forget,
};

use super::{
    atomic, coarse_ns,
    maps::{CLIENTS4, CLIENTS6, FLOWS4, FLOWS6, REPLIES4, REPLIES6},
    opaque, ticks,
    to_backend::backend_of,
};

/// Sets of `CLIENTS4` and `CLIENTS6`. Set by the daemon when it loads the program.
#[unsafe(no_mangle)]
static CLIENT_SETS: u32 = 1;

/// Of `Config::seed`. Set by the daemon when it loads the program.
#[unsafe(no_mangle)]
static HASH_KEYS: HashKeys = HashKeys([0; HashKeys::COUNT]);

/// Ticks of `Flow::seen` after which a silent connection may give way to a new one. Set by the daemon, which
/// forgets it after the same time.
#[unsafe(no_mangle)]
static SILENCE: u32 = u32::MAX;

/// How many of a full set are looked at for one that gives way. The next SYN looks at the next ones.
const TURNS: u32 = 5;

/// How often a state is tried to be swapped that others set bits of.
const SWAP_TRIES: u32 = 4;

/// The maps of one family.
pub(super) trait Tables: Family {
    fn clients(number: u32) -> Option<*mut ClientSet>;
    fn replies(number: u32) -> Option<*mut ReplySet>;
    fn flow(slot: u32) -> Option<*mut Flow<Self::Addr>>;
    /// How many NAT addresses are configured.
    fn nat_len(config: &Config) -> u16;
    fn nat_address(config: &Config, number: u32) -> Option<Self::Addr>;
}

impl Tables for Ipv4 {
    #[inline(always)]
    fn clients(number: u32) -> Option<*mut ClientSet> {
        CLIENTS4.get_ptr_mut(number)
    }

    #[inline(always)]
    fn replies(number: u32) -> Option<*mut ReplySet> {
        REPLIES4.get_ptr_mut(number)
    }

    #[inline(always)]
    fn flow(slot: u32) -> Option<*mut Flow<V4>> {
        FLOWS4.get_ptr_mut(slot)
    }

    #[inline(always)]
    fn nat_len(config: &Config) -> u16 {
        config.nat4_len
    }

    #[inline(always)]
    fn nat_address(config: &Config, number: u32) -> Option<V4> {
        config.nat4.get(opaque(number) as usize).copied()
    }
}

impl Tables for Ipv6 {
    #[inline(always)]
    fn clients(number: u32) -> Option<*mut ClientSet> {
        CLIENTS6.get_ptr_mut(number)
    }

    #[inline(always)]
    fn replies(number: u32) -> Option<*mut ReplySet> {
        REPLIES6.get_ptr_mut(number)
    }

    #[inline(always)]
    fn flow(slot: u32) -> Option<*mut Flow<Addr>> {
        FLOWS6.get_ptr_mut(slot)
    }

    #[inline(always)]
    fn nat_len(config: &Config) -> u16 {
        config.nat6_len
    }

    #[inline(always)]
    fn nat_address(config: &Config, number: u32) -> Option<Addr> {
        config.nat6.get(opaque(number) as usize).copied()
    }
}

#[inline(always)]
fn sets() -> u32 {
    // SAFETY: a constant of the loaded program; volatile because the loader rewrites it.
    unsafe { (&raw const CLIENT_SETS).read_volatile() }
}

#[inline(always)]
fn hash<A: Address>(key: &FlowKey<A>) -> u64 {
    // SAFETY: as above.
    keyed_hash(
        key,
        &HashKeys(core::array::from_fn(|i| unsafe { (&raw const HASH_KEYS.0[i]).read_volatile() })),
    )
}

/// The flow of a segment from a client.
#[inline(always)]
pub(super) fn by_client<F: Tables>(key: &FlowKey<F::Addr>) -> Option<&'static mut Flow<F::Addr>> {
    let hash = hash(key);
    let number = set(hash, sets());
    let first = F::clients(number)?;
    match in_set::<F>(key, first, number, tag(hash)) {
        Some(flow) => Some(flow),
        // Most never had to go to the other set, and a look there is a wait for memory.
        // SAFETY: a word of a map.
        None if unsafe { (&raw const (*first).spilled).read_volatile() } != 0 => {
            let number = other_set(hash, sets());
            in_set::<F>(key, F::clients(number)?, number, tag(hash))
        }
        None => None,
    }
}

/// Something that belongs to this set goes to the other. To be said before it can be looked for.
#[inline(always)]
fn spill<F: Tables>(number: u32) {
    if let Some(set) = F::clients(number) {
        // SAFETY: a word of a map, which only ever becomes 1.
        unsafe { (&raw mut (*set).spilled).write_volatile(1) };
    }
}

#[inline(always)]
fn in_set<F: Tables>(
    key: &FlowKey<F::Addr>,
    set: *mut ClientSet,
    number: u32,
    tag: u32,
) -> Option<&'static mut Flow<F::Addr>> {
    let mut way = home(tag);
    // SAFETY: words of maps may be read while others write them.
    if unsafe { word(&raw const (*set).tags, way) } != Some(tag) {
        way = 0;
        // SAFETY: as above.
        while unsafe { word(&raw const (*set).tags, way)? } != tag {
            way += 1;
        }
        // Wherever it was found, it goes on alike.
        way = forget(way, tag) & 15;
    }
    let flow = F::flow(number * CLIENT_WAYS as u32 + way)?;
    // SAFETY: map values stay where they are. Another CPU may write the same flow; fields are words,
    // and each is valid by itself.
    let flow = unsafe { &mut *flow };
    (flow.is_live() && flow.client == *key).then_some(flow)
}

/// Where a tag is put if that way is free, so that most are found at the first look.
#[inline(always)]
const fn home(tag: u32) -> u32 {
    ((tag >> 8) * CLIENT_WAYS as u32) >> 24
}

/// # Safety
/// `words` must be readable.
#[inline(always)]
unsafe fn word<const N: usize>(words: *const [u32; N], index: u32) -> Option<u32> {
    let index = opaque(index) as usize;
    if index >= N {
        return None;
    }
    // SAFETY: inside, by the line above.
    Some(unsafe { words.cast::<u32>().add(index).read_volatile() })
}

/// The flow of a segment from a backend. `kept`: it may be one that keeps its client's address.
#[inline(always)]
pub(super) fn by_reply<F: Tables>(
    key: &FlowKey<F::Addr>,
    kept: impl FnOnce() -> bool,
) -> Option<&'static mut Flow<F::Addr>> {
    let hash = hash(key);
    let sets = sets() * REPLY_SETS;
    match in_replies::<F>(key, set(hash, sets), tag(hash)) {
        Some(flow) => Some(flow),
        None if kept() => in_replies::<F>(key, other_set(hash, sets), tag(hash)),
        None => None,
    }
}

#[inline(always)]
fn in_replies<F: Tables>(
    key: &FlowKey<F::Addr>,
    number: u32,
    tag: u32,
) -> Option<&'static mut Flow<F::Addr>> {
    let set = F::replies(number)?;
    let slot = {
        let mut way = 0;
        loop {
            // SAFETY: words of maps may be read while others write them.
            let entry = unsafe { (&raw const (*set).ways[way]).read_volatile() };
            if entry as u32 == tag {
                break (entry >> 32) as u32;
            }
            way += 1;
            if way == REPLY_WAYS {
                return None;
            }
        }
    };
    // SAFETY: as in `in_set`.
    let flow = unsafe { &mut *F::flow(slot)? };
    (flow.is_live() && flow.reply == *key).then_some(flow)
}

/// Frees a flow's place and its NAT port.
#[inline(always)]
pub(super) fn release<F: Tables>(flow: &mut Flow<F::Addr>) {
    for _ in 0..opaque(SWAP_TRIES) {
        // SAFETY: a word of a map that others may write.
        let state = unsafe { (&raw const flow.state).read_volatile() };
        if state & flow_state::LIVE == 0 {
            return;
        }
        if owns(flow, state) {
            free_reply::<F>(flow);
            free_place::<F>(flow.slot);
            return;
        }
    }
}

/// Whether this CPU is the one that ends what the flow holds.
#[inline(always)]
fn owns<A: Address>(flow: &mut Flow<A>, state: u32) -> bool {
    // SAFETY: a word of a map.
    unsafe { atomic::replace32(&raw mut flow.state, state, 0) }
}

#[inline(always)]
fn free_reply<F: Tables>(flow: &Flow<F::Addr>) {
    let hash = hash(&flow.reply);
    let entry = entry(flow.slot, tag(hash));
    let sets = sets() * REPLY_SETS;
    // All but few are in the first. Only what keeps its client's address can be in the other.
    if !free_entry::<F>(set(hash, sets), entry) {
        free_entry::<F>(other_set(hash, sets), entry);
    }
}

#[inline(always)]
fn free_entry<F: Tables>(number: u32, entry: u64) -> bool {
    let Some(set) = F::replies(number) else { return false };
    for way in 0..REPLY_WAYS {
        // SAFETY: words of a map that others may write.
        unsafe {
            let at = &raw mut (*set).ways[way];
            if at.read_volatile() == entry {
                return atomic::replace64(at, entry, 0);
            }
        }
    }
    false
}

#[inline(always)]
pub(super) fn free_place<F: Tables>(slot: u32) {
    let number = slot / CLIENT_WAYS as u32;
    let way = opaque(slot - number * CLIENT_WAYS as u32) as usize;
    let Some(set) = F::clients(number) else { return };
    if way < CLIENT_WAYS {
        // SAFETY: a word of a map, and its place is ours.
        unsafe { atomic::publish((&raw mut (*set).tags).cast::<u32>().add(way), 0) };
    }
}

#[inline(always)]
const fn entry(slot: u32, tag: u32) -> u64 {
    (slot as u64) << 32 | tag as u64
}

/// No place.
pub(super) const NOWHERE: u64 = u64::MAX;

/// A free place for a new flow of this client, or [`NOWHERE`]. It holds nothing yet: nobody finds it.
///
/// The first set, where it is found at once, until few ways of it are left; then the one of the two that has more. If one were
/// filled before the other was looked at, some would find none long before there are `max_flows`.
// A function of its own, for the verifier follows it only once that way.
#[inline(never)]
pub(super) fn claim<F: Tables>(key: &FlowKey<F::Addr>) -> u64 {
    let hash = hash(key);
    let tag = tag(hash);
    let (first, other) = (set(hash, sets()), other_set(hash, sets()));
    // Once more when another CPU was quicker.
    for _ in 0..opaque(2) {
        let (mut number, mut free) = (first, room::<F>(first, tag));
        if ones(free) <= SPARE {
            let there = room::<F>(other, tag);
            if ones(there) > ones(free) {
                (number, free) = (other, there);
            }
        }
        if let Some(place) = take::<F>(number, free, tag) {
            if number != first {
                spill::<F>(first);
            }
            // Wherever it was found, it goes on alike.
            return forget(place, tag) as u64;
        }
    }
    NOWHERE
}

/// The same after that when there is no free one: somebody gives way, if anybody does. `now` in nanoseconds.
#[inline(never)]
pub(super) fn claim_taken<F: Tables>(key: &FlowKey<F::Addr>, now: u64) -> u64 {
    let hash = hash(key);
    let numbers = (set(hash, sets()), other_set(hash, sets()));
    taken_over::<F>(numbers, tag(hash), now).map_or(NOWHERE, u64::from)
}

/// The free ways of a set; none if it has the tag.
#[inline(always)]
fn room<F: Tables>(number: u32, tag: u32) -> u32 {
    let Some(set) = F::clients(number) else { return 0 };
    let (mut same, mut free) = (0, 0);
    for way in 0..CLIENT_WAYS {
        // SAFETY: words of maps may be read while others write them.
        let seen = unsafe { (&raw const (*set).tags[way]).read_volatile() };
        // Added up way by way: left to itself the compiler keeps all ways for the end, on a stack that is full.
        same = opaque(same | is_zero(seen ^ tag)) as u32;
        free = opaque(free | is_zero(seen) << way) as u32;
    }
    free & same.wrapping_sub(1)
}

/// Takes one of these ways: the one where the tag is looked for first, if that is free.
#[inline(always)]
fn take<F: Tables>(number: u32, free: u32, tag: u32) -> Option<u32> {
    let set = F::clients(number)?;
    let home = 1 << home(tag);
    let chosen = if free & home != 0 { home } else { free };
    let way = lowest(chosen) as usize;
    if chosen == 0 || way >= CLIENT_WAYS {
        return None;
    }
    // SAFETY: inside, by the line above.
    let won = unsafe { atomic::replace32((&raw mut (*set).tags).cast::<u32>().add(way), 0, tag) };
    won.then_some(number * CLIENT_WAYS as u32 + way as u32)
}

/// Who is looked at for a place, and the best so far.
#[repr(C)]
struct Search {
    set: u32,
    other: u32,
    way: u32,
    /// `readiness`
    best: u32,
    chosen: u32,
    /// The state of the best when it was looked at.
    state: u32,
    /// In microseconds, as far as 32 bits go.
    now: u32,
}

/// Of those looked at, who gives way most readily. Where nothing but a flood fills a set, that is the next in turn:
/// they go in the order in which they came.
#[inline(always)]
fn taken_over<F: Tables>((number, other): (u32, u32), tag: u32, now: u64) -> Option<u32> {
    let way = hand::<F>(number)?;
    let now = (now / 1000) as u32;
    let mut search = Search { set: number, other, way, best: STAYS, chosen: 0, state: 0, now };
    // The turns are the kernel's loop (Linux 5.17): the verifier looks at one of them only.
    // SAFETY: the callback has the type that the kernel calls, and the search outlives the loop.
    unsafe { bpf_loop(2 * TURNS, consider::<F> as *mut c_void, (&raw mut search).cast(), 0) };
    let found = &raw const search;
    // SAFETY: written by the callback, of which the compiler does not know.
    let (number, best, chosen, state) = unsafe {
        (
            (&raw const (*found).set).read_volatile(),
            (&raw const (*found).best).read_volatile(),
            (&raw const (*found).chosen).read_volatile(),
            (&raw const (*found).state).read_volatile(),
        )
    };
    let at = opaque(chosen) as usize;
    if best == STAYS || at >= CLIENT_WAYS {
        return None;
    }
    let set = F::clients(number)?;
    let slot = number * CLIENT_WAYS as u32 + at as u32;
    // SAFETY: as in `in_set`.
    let flow = unsafe { &mut *F::flow(slot)? };
    // If something has happened to it since, it stays.
    if !owns(flow, state) {
        return None;
    }
    free_reply::<F>(flow);
    // SAFETY: inside, and its place is ours.
    unsafe { atomic::publish((&raw mut (*set).tags).cast::<u32>().add(at), tag) };
    turn_to::<F>(number, at as u32 + 1);
    Some(slot)
}

/// Whose turn it is in a set.
#[inline(always)]
fn hand<F: Tables>(number: u32) -> Option<u32> {
    // SAFETY: a word of a map.
    Some(unsafe { (&raw const (*F::clients(number)?).cursor).read_volatile() } as u32)
}

#[inline(always)]
fn turn_to<F: Tables>(number: u32, way: u32) {
    if let Some(set) = F::clients(number) {
        // SAFETY: a word of a map. Two CPUs that write it at once lose a turn.
        unsafe { (&raw mut (*set).cursor).write_volatile(way as u16) };
    }
}

/// One turn of the search. 1 ends it.
unsafe extern "C" fn consider<F: Tables>(turn: u32, search: *mut Search) -> i64 {
    // SAFETY: the kernel hands over what `taken_over` gave it.
    let search = unsafe { &mut *search };
    if turn == TURNS {
        if search.best != STAYS {
            return 1;
        }
        // Nobody here; the next SYN begins with others.
        turn_to::<F>(search.set, search.way);
        search.set = search.other;
        search.way = hand::<F>(search.set).unwrap_or(0);
    }
    let way = if search.way < CLIENT_WAYS as u32 { search.way } else { 0 };
    search.way = way + 1;
    let Some(flow) = F::flow(search.set * CLIENT_WAYS as u32 + way) else { return 1 };
    // SAFETY: as in `in_set`.
    let flow = unsafe { &*flow };
    // SAFETY: a word of a map that others may write.
    let state = unsafe { (&raw const flow.state).read_volatile() };
    let readiness = readiness(flow, state, search.now);
    if readiness > search.best {
        (search.best, search.chosen, search.state) = (readiness, way, state);
    }
    i64::from(search.best >= AT_ONCE)
}

/// A living connection does not give way.
const STAYS: u32 = 0;

/// From here on nobody looks further: an embryo of a quarter of a second, or what is over or dead.
const AT_ONCE: u32 = 1 << 18;

/// How readily a flow gives way: an embryo the more the older it is, so that a handshake under way is the last.
#[inline(always)]
fn readiness<A: Address>(flow: &Flow<A>, state: u32, now_us: u32) -> u32 {
    if state & flow_state::LIVE == 0 {
        // Somebody else is just taking or freeing it.
        return STAYS;
    }
    if state & flow_state::TIME_WAIT != 0 {
        return AT_ONCE;
    }
    if state & flow_state::ESTABLISHED == 0 {
        return embryo_age(flow, now_us).max(0) as u32 | 1;
    }
    if is_dead(flow, ticks(coarse_ns())) { AT_ONCE } else { STAYS }
}

/// In microseconds, since the SYN was seen. One that came meanwhile is younger than nothing.
#[inline(always)]
fn embryo_age<A: Address>(flow: &Flow<A>, now_us: u32) -> i32 {
    now_us.wrapping_sub(flow.asked_us) as i32
}

/// Its backend is gone, or it was silent for too long.
#[inline(always)]
fn is_dead<A: Address>(flow: &Flow<A>, now: u32) -> bool {
    // SAFETY: a constant of the loaded program; volatile because the loader rewrites it.
    let silence = unsafe { (&raw const SILENCE).read_volatile() };
    now.wrapping_sub(flow.seen) >= silence || backend_of(flow).is_none()
}

/// Asks for the memory that [`hold`] will look at, and does not wait for it.
#[inline(always)]
pub(super) fn expect<F: Tables>(reply: &FlowKey<F::Addr>) {
    if let Some(set) = F::replies(set(hash(reply), sets() * REPLY_SETS)) {
        // SAFETY: words of maps may be read while others write them.
        unsafe { (&raw const (*set).ways[0]).read_volatile() };
    }
}

/// Holds the tuple of its replies for a flow, if it is free, or held by something that must give way.
/// Embryos do so from an age on, in microseconds, and what rests after another client's connection, as the caller says.
#[inline(always)]
pub(super) fn hold<F: Tables>(flow: &Flow<F::Addr>, least_age: i32, tired: bool) -> bool {
    let hash = hash(&flow.reply);
    let tag = tag(hash);
    let Some(set) = F::replies(set(hash, sets() * REPLY_SETS)) else { return false };
    let (same, free) = look(set, tag);
    if same != 0 {
        return replace::<F>(set, same, flow, tag, least_age, tired);
    }
    put(set, free, entry(flow.slot, tag), || look(set, tag).0)
}

/// The same for a flow that keeps its client's address: no other tuple will do for it, so it may lie in
/// either of two sets, and everything that may give way does.
#[inline(always)]
pub(super) fn hold_kept<F: Tables>(flow: &Flow<F::Addr>) -> bool {
    let hash = hash(&flow.reply);
    let tag = tag(hash);
    let sets = sets() * REPLY_SETS;
    let numbers = (set(hash, sets), other_set(hash, sets));
    let Some(first) = F::replies(numbers.0) else { return false };
    let Some(second) = F::replies(numbers.1) else { return false };
    let (same, free) = look(first, tag);
    let (same_too, free_too) = look(second, tag);
    if same | same_too != 0 {
        let (set, same) = if same != 0 { (first, same) } else { (second, same_too) };
        return replace::<F>(set, same, flow, tag, i32::MIN, true);
    }
    if free | free_too == 0 {
        return take_turn::<F>(first, flow, tag);
    }
    // The first, where it is found at once, until that fills up more than the other.
    let in_first = ones(free) > SPARE || ones(free) >= ones(free_too);
    let (set, free) = if in_first { (first, free) } else { (second, free_too) };
    put(set, free, entry(flow.slot, tag), || {
        let other = if numbers.0 == numbers.1 { 0 } else { look(second, tag).0 };
        look(first, tag).0 | other << REPLY_WAYS
    })
}

/// Takes the entry of a flow that gives way, out of a set that is full.
#[inline(always)]
fn take_turn<F: Tables>(set: *mut ReplySet, flow: &Flow<F::Addr>, tag: u32) -> bool {
    for way in 0..opaque(REPLY_WAYS as u32) as usize {
        let way = opaque(way as u32) as usize;
        if way >= REPLY_WAYS {
            break;
        }
        // SAFETY: inside, by the line above.
        let at = unsafe { (&raw mut (*set).ways).cast::<u64>().add(way) };
        // SAFETY: a word of a map.
        let held = unsafe { at.read_volatile() };
        let holder = (held >> 32) as u32;
        let Some(other) = F::flow(holder) else { continue };
        // SAFETY: as in `in_set`.
        let other = unsafe { &mut *other };
        // SAFETY: a word of a map that others may write.
        let state = unsafe { (&raw const other.state).read_volatile() };
        // Its entry must still be this one, or another's would be overwritten.
        // SAFETY: a word of a map.
        let still = || unsafe { at.read_volatile() } == held;
        if state & flow_state::LIVE != 0
            && readiness(other, state, flow.asked_us) != STAYS
            && still()
            && owns(other, state)
        {
            // SAFETY: a word of a map: the entry of a flow that this CPU has ended.
            unsafe { at.write_volatile(entry(flow.slot, tag)) };
            free_place::<F>(holder);
            return true;
        }
    }
    false
}

/// Ways that are kept in the first of two sets for those that have no other.
const SPARE: u32 = 4;

/// How many bits of at most 16 are set.
#[inline(always)]
const fn ones(mask: u32) -> u32 {
    let pairs = mask - (mask >> 1 & 0x5555);
    let fours = (pairs & 0x3333) + (pairs >> 2 & 0x3333);
    let eights = (fours + (fours >> 4)) & 0x0f0f;
    (eights + (eights >> 8)) & 0x1f
}

/// Which ways of a set have this tag, and which are free.
#[inline(always)]
fn look(set: *mut ReplySet, tag: u32) -> (u32, u32) {
    let (mut same, mut free) = (0, 0);
    for way in 0..REPLY_WAYS {
        // SAFETY: words of maps may be read while others write them.
        let seen = unsafe { (&raw const (*set).ways[way]).read_volatile() };
        same |= is_zero(seen as u32 ^ tag) << way;
        free |= is_zero(seen as u32) << way;
        // At once, before the next is read: else a whole set waits on the stack.
        (same, free) = (opaque(same) as u32, opaque(free) as u32);
    }
    (same, free)
}

/// Takes the entry of a flow that has the same tuple, if that may be ended.
#[inline(always)]
fn replace<F: Tables>(
    set: *mut ReplySet,
    same: u32,
    flow: &Flow<F::Addr>,
    tag: u32,
    least_age: i32,
    tired: bool,
) -> bool {
    let taken = lowest(same) as usize;
    if taken >= REPLY_WAYS {
        return false;
    }
    // SAFETY: inside, by the line above; read once more, it may be another's by now.
    let at = unsafe { (&raw mut (*set).ways).cast::<u64>().add(taken) };
    // SAFETY: a word of a map.
    let held = unsafe { at.read_volatile() };
    let holder = (held >> 32) as u32;
    if held as u32 != tag || !ends::<F>(holder, flow, least_age, tired) {
        return false;
    }
    // SAFETY: a word of a map: the entry of a flow that this CPU has ended.
    unsafe { at.write_volatile(entry(flow.slot, tag)) };
    free_place::<F>(holder);
    true
}

/// Enters a flow into a free way, and steps back if another CPU has just entered the same. `all`: a bit for
/// each way that has the tag.
#[inline(always)]
fn put(set: *mut ReplySet, free: u32, mine: u64, all: impl FnOnce() -> u32) -> bool {
    let way = lowest(free) as usize;
    if free == 0 || way >= REPLY_WAYS {
        return false;
    }
    // SAFETY: inside, by the line above.
    let at = unsafe { (&raw mut (*set).ways).cast::<u64>().add(way) };
    // SAFETY: a word of a map.
    if !unsafe { atomic::replace64(at, 0, mine) } {
        return false;
    }
    let same = all();
    if same & same.wrapping_sub(1) != 0 {
        // SAFETY: a word of a map.
        unsafe { atomic::replace64(at, mine, 0) };
        return false;
    }
    true
}

/// 1 for 0, else 0. Without a branch, which the verifier would follow both ways for each way of a set.
#[inline(always)]
fn is_zero(number: u32) -> u32 {
    (opaque(number).wrapping_sub(1) >> 63) as u32
}

/// The place of the lowest bit of at most 16, likewise.
#[inline(always)]
fn lowest(mask: u32) -> u64 {
    let bit = mask & mask.wrapping_neg();
    let half = |ones: u32| 1 - is_zero(bit & ones);
    opaque(half(0xff00) << 3 | half(0xf0f0) << 2 | half(0xcccc) << 1 | half(0xaaaa))
}

/// Ends the flow that holds a NAT port, if it may.
#[inline(always)]
fn ends<F: Tables>(holder: u32, successor: &Flow<F::Addr>, least_age: i32, tired: bool) -> bool {
    let Some(flow) = F::flow(holder) else { return false };
    // SAFETY: as in `in_set`.
    let flow = unsafe { &mut *flow };
    // SAFETY: a word of a map that others may write.
    let state = unsafe { (&raw const flow.state).read_volatile() };
    if state & flow_state::LIVE == 0 {
        return false;
    }
    // The place may have gone to another flow since its number was read.
    if flow.reply != successor.reply {
        return false;
    }
    let may = if state & flow_state::TIME_WAIT != 0 {
        tired || flow.client == successor.client
    } else if state & flow_state::ESTABLISHED == 0 {
        embryo_age(flow, successor.asked_us) >= least_age
    } else {
        is_dead(flow, successor.seen)
    };
    may && owns(flow, state)
}
