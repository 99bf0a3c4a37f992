//! Ending the connections of backends that are out, at both ends.
//!
//! Where a client asks for something new the program answers it by a reset, and the backend is left with half a
//! connection. Whoever asks for nothing is left with a whole one. A thread resets what is left, by frames of its own
//! that leave by the way the connection's own do, with the numbers that each end expects (RFC 9293 section 3.10.7.4:
//! a reset is believed only at the very next number). An end that expects another one says which
//! (RFC 5961 section 3); by then the connection is forgotten, and what belongs to none is answered by a reset.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use etherparse::PacketBuilder;
use lb_common::abi::{Address, Backend, Flow, FlowKey, Link, backend_flags, flow_state, head_state};
use lb_core::io::{BackendId, Generation};
use tracing::warn;

use super::{
    flows::{Family, FlowTables},
    wire::Wire,
};
use crate::dataplane::actor::monotonic_ns;

/// Between two looks, while there is anything to end.
const PACE: Duration = Duration::from_millis(100);

/// A look may take no more than one part of so many of the time.
const LEISURE: u32 = 20;

/// A connection on which nothing is under way is idle when its backend was silent for so long, in ticks of 2^30 ns,
/// about seconds. Nothing is lost by waiting, because what is asked on it meanwhile is answered by a reset; and a response
/// that pauses, of which nobody here knows that it is not complete, gets that much time.
const IDLE_TICKS: u32 = 14;

/// A backend of which so many looks have found no connection is left alone: it gets no new one. One look could miss
/// the connection of a SYN that was under way when the maps were written.
const ENOUGH_LOOKS: u8 = 2;

const TTL: u8 = 64;

/// Backends whose connections are to be ended, and how they are reached. Written by whoever writes the maps.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ways: BTreeMap<BackendId, Way>,
    ended: BTreeMap<BackendId, ResetCounts>,
    closed: bool,
}

/// Connections of a backend that were reset at both ends, by cause. Whose client was told by the program is counted there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResetCounts {
    /// Nothing was under way on them.
    pub idle: u64,
    /// Their time was over.
    pub drained: u64,
}

#[derive(Clone, Copy, Debug)]
struct Way {
    generation: Generation,
    which: Which,
    ifindex: u32,
    link: Link,
    vlan: u16,
    /// How many looks in a row have found none of its connections.
    empty_looks: u8,
}

/// Which connections of a backend end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    All,
    /// Those that wait for nothing.
    Idle,
    /// The backend is back. Those whose client was told before are over all the same, which the backend does not know.
    Told,
}

impl Cuts {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the map says of a backend from now on.
    pub(super) fn note(&self, id: BackendId, value: &Backend) {
        let cuts = value.flags & (backend_flags::RESET_NOW | backend_flags::RESET_AT_REQUEST);
        let mut state = self.state();
        let generation = Generation(value.generation);
        let was_cut = state.ways.get(&id).is_some_and(|way| way.generation == generation);
        if generation.0 == 0 || cuts == 0 && !was_cut {
            state.ways.remove(&id);
            return;
        }
        let which = match cuts {
            0 => Which::Told,
            cuts if cuts & backend_flags::RESET_NOW != 0 => Which::All,
            _ => Which::Idle,
        };
        let way = Way {
            generation,
            which,
            ifindex: value.ifindex,
            link: value.link,
            vlan: value.vlan,
            empty_looks: 0,
        };
        state.ways.insert(id, way);
        self.changed.notify_all();
    }

    /// The id is another's from now on.
    pub(super) fn forget(&self, id: BackendId) {
        self.state().ended.remove(&id);
    }

    /// How many connections of a backend were ended by us.
    pub(super) fn ended(&self, id: BackendId) -> ResetCounts {
        self.state().ended.get(&id).copied().unwrap_or_default()
    }

    /// Nobody writes the maps any more.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    /// Waits until there is something to end. `None`: there never will be.
    fn wait(&self) -> Option<BTreeMap<BackendId, Way>> {
        let state = self
            .changed
            .wait_while(self.state(), |state| !state.closed && state.ways.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        (!state.closed).then(|| state.ways.clone())
    }

    /// Whether what a look began with is so now: a backend that is back meanwhile has new connections.
    fn still(&self, id: BackendId, way: &Way) -> bool {
        let state = self.state();
        let now = state.ways.get(&id);
        now.is_some_and(|now| (now.generation, now.which) == (way.generation, way.which))
    }

    /// What a look at these has found.
    fn take_in(&self, ways: &BTreeMap<BackendId, Way>, found: &BTreeMap<BackendId, Found>) {
        let mut state = self.state();
        for (id, looked_at) in ways {
            let found = found.get(id).copied().unwrap_or_default();
            if found.ended != ResetCounts::default() {
                let total = state.ended.entry(*id).or_default();
                total.idle += found.ended.idle;
                total.drained += found.ended.drained;
            }
            let Some(way) = state.ways.get_mut(id).filter(|way| way.generation == looked_at.generation)
            else {
                continue;
            };
            way.empty_looks = if found.living > 0 { 0 } else { way.empty_looks + 1 };
            if way.empty_looks >= ENOUGH_LOOKS {
                state.ways.remove(id);
            }
        }
    }
}

/// Ends connections; made by [`open`](super::open).
pub struct ResetSender {
    pub(super) flows: Arc<FlowTables>,
    pub(super) cuts: Arc<Cuts>,
}

impl ResetSender {
    /// Starts the thread. It ends with the dataplane.
    pub fn spawn(self) -> io::Result<()> {
        let wire = Wire::open()?;
        thread::Builder::new().name("endings".to_owned()).spawn(move || self.run(&wire))?;
        Ok(())
    }

    fn run(self, wire: &Wire) {
        let mut failing = false;
        while let Some(ways) = self.cuts.wait() {
            let began_ns = monotonic_ns();
            let mut failed = None;
            self.end(&ways, now_ticks(), &mut |ifindex, frame| {
                failed = wire.send(ifindex, frame).err().or(failed.take());
            });
            if let Some(error) = failed.as_ref().filter(|_| !failing) {
                warn!(%error, "a connection could not be reset; its ends find out when they speak");
            }
            failing = failed.is_some();
            thread::sleep(PACE.max(Duration::from_nanos(monotonic_ns() - began_ns) * LEISURE));
        }
    }

    /// Ends what there is to end, as if it were so many ticks later. For packet fixtures.
    pub fn look(&self, later_ticks: u32, mut send: impl FnMut(u32, &[u8])) {
        let ways = self.cuts.state().ways.clone();
        self.end(&ways, now_ticks().wrapping_add(later_ticks), &mut send);
    }

    fn end(&self, ways: &BTreeMap<BackendId, Way>, now: u32, send: &mut dyn FnMut(u32, &[u8])) {
        let mut found = BTreeMap::new();
        let still = |id, way: &Way| self.cuts.still(id, way);
        end_of(&self.flows.v4, ways, &still, now, &mut found, send);
        end_of(&self.flows.v6, ways, &still, now, &mut found, send);
        self.cuts.take_in(ways, &found);
    }
}

/// Connections of one backend, in one look.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    /// Before it.
    living: u64,
    ended: ResetCounts,
}

fn end_of<A: Address>(
    family: &Family<A>,
    ways: &BTreeMap<BackendId, Way>,
    still: &dyn Fn(BackendId, &Way) -> bool,
    now: u32,
    found: &mut BTreeMap<BackendId, Found>,
    send: &mut dyn FnMut(u32, &[u8]),
) {
    family.each(|flow| {
        let id = BackendId(flow.backend);
        let Some(way) = ways.get(&id).filter(|way| way.generation.0 == flow.generation) else { return };
        if flow.state & flow_state::TIME_WAIT != 0 {
            return;
        }
        let found = found.entry(id).or_default();
        // Of one that is back, only these are looked for.
        found.living += u64::from(way.which != Which::Told || flow.state & flow_state::CLIENT_RESET != 0);
        // Whoever changed it since has a better claim to what becomes of it, until the next look.
        if !is_due(flow, way.which, now) || !still(id, way) || !family.end(flow) {
            return;
        }
        if flow.state & flow_state::CLIENT_RESET == 0 {
            let cause = match way.which {
                Which::All => &mut found.ended.drained,
                Which::Idle | Which::Told => &mut found.ended.idle,
            };
            *cause += 1;
            let from = (flow.sent_end, flow.client_end);
            let vlan = flow_state::vlan(flow.state);
            send(flow.ifindex, &tagged(reset(&flow.link, &flow.client.reversed(), from), vlan));
        }
        if way.link.is_resolved() {
            let from = (flow.client_end, flow.sent_end);
            send(way.ifindex, &tagged(reset(&way.link, &flow.reply.reversed(), from), way.vlan));
        }
    });
}

/// Whether a living connection ends now, if those of its backend do.
fn is_due<A: Address>(flow: &Flow<A>, which: Which, now: u32) -> bool {
    if flow.state & flow_state::CLIENT_RESET != 0 {
        return true;
    }
    match which {
        Which::All => true,
        Which::Told => false,
        Which::Idle => is_idle(flow, now),
    }
}

/// Whether nothing is under way on it.
fn is_idle<A: Address>(flow: &Flow<A>, now: u32) -> bool {
    let read = flow.state & (flow_state::EVIDENCE | flow_state::OPAQUE) == flow_state::EVIDENCE;
    let awaits = if read {
        flow.head & head_state::AWAITED != 0
    } else {
        // At each answer of the backend the program notes where the client's next request will begin.
        flow.client_end != flow.asked_seq
    };
    flow.state & flow_state::ESTABLISHED != 0
        && !awaits
        && now.wrapping_sub(flow.seen) as i32 >= IDLE_TICKS as i32
}

/// A reset of what this tuple's source has, as its next number, with what it has got.
fn reset<A: Address>(link: &Link, tuple: &FlowKey<A>, (seq, ack): (u32, u32)) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(link.from(), link.to());
    let ip = match (IpAddr::from(tuple.src.wide()), IpAddr::from(tuple.dst.wide())) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ethernet.ipv4(src.octets(), dst.octets(), TTL),
        (src, dst) => ethernet.ipv6(octets(src), octets(dst), TTL),
    };
    let tcp = ip.tcp(tuple.sport.host(), tuple.dport.host(), seq, 0).rst().ack(ack);
    let mut frame = Vec::with_capacity(tcp.size(0));
    tcp.write(&mut frame, &[]).expect("a vector takes what it is given");
    frame
}

/// The frame in a VLAN (IEEE 802.1Q), unless that is 0.
fn tagged(mut frame: Vec<u8>, vlan: u16) -> Vec<u8> {
    const AFTER_ADDRESSES: usize = 12;
    if vlan != 0 {
        let [high, low] = vlan.to_be_bytes();
        frame.splice(AFTER_ADDRESSES..AFTER_ADDRESSES, [0x81, 0x00, high, low]);
    }
    frame
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn now_ticks() -> u32 {
    (monotonic_ns() >> 30) as u32
}
