//! Where a client's SYN goes, by what the maps say.
//!
//! This is the decision of the XDP program (`lb-ebpf`, `to_backend` and `connect`) with the same hash and in the same
//! order, but it takes no token and makes no flow. `tests/tests/packet/explain.rs` compares the two.

use std::net::{IpAddr, SocketAddr};

use lb_common::{
    LIMITED_TRIES, NO_BACKEND, SLOT_TRIES,
    abi::{
        Addr, Address, Backend, Flow, FlowKey, Limit, OwnAddr, OwnWay, Service, ServiceKey, Table, V4,
        backend_flags, flow_state, service_flags, socket_addr,
    },
    hash::{flow_hash, rehash, slot, source_hash},
    reason::Reason,
};
use lb_core::{
    io::{BackendId, Member},
    maglev,
};

use super::error::Error;

/// The maps that decide, each as it is read.
pub trait Maps {
    fn service(&self, key: &ServiceKey) -> Result<Option<Service>, Error>;
    /// By which way a client may come from an address that is a VIP's or a backend's. `None`: the address is neither.
    fn own_address(&self, source: &Addr) -> Result<Option<OwnAddr>, Error>;
    /// Whether a service refuses connections of a source.
    fn denies(&self, service: &Service, source: &Addr) -> Result<bool, Error>;
    /// Whether a source's prefix may begin no connection, because it holds too much: of the NAT ports of a backend, or
    /// with [`NO_BACKEND`] of the flow table.
    fn holds_too_much(&self, source: &Addr, backend: u16) -> bool;
    /// The flow of a client, by the tuple of its packets.
    fn flow(&self, key: &FlowKey<Addr>) -> Option<KnownFlow>;
    fn backend(&self, id: u16) -> Result<Option<Backend>, Error>;
    /// The trials that are left in a budget.
    fn tokens(&self, id: u16) -> Result<i64, Error>;
    fn table(&self, service: u16) -> Result<Option<Box<Table>>, Error>;
    /// Whether an entry of `LIMITS` has as many connections as it may have.
    fn is_full(&self, entry: u32) -> bool;
}

/// A connection, as the flow tables have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownFlow {
    /// `flow_state`
    pub state: u32,
    pub backend: u16,
    pub generation: u32,
    /// The addresses that the backend sees: the NAT address, and its own.
    pub nat: SocketAddr,
    pub address: SocketAddr,
}

impl<A: Address> From<&Flow<A>> for KnownFlow {
    fn from(flow: &Flow<A>) -> Self {
        Self {
            state: flow.state,
            backend: flow.backend,
            generation: flow.generation,
            nat: socket_addr(flow.reply.dst.wide(), flow.reply.dport),
            address: socket_addr(flow.reply.src.wide(), flow.reply.sport),
        }
    }
}

/// Where the connections of one client go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steering {
    pub hash: u64,
    pub slot: u32,
    /// The backend in that slot of the Maglev table.
    pub in_slot: Option<BackendId>,
    pub pinned: Option<Pinned>,
    /// The client's address is a backend's: from any other interface or VLAN the program drops its SYN.
    pub only_by: Option<Way>,
    /// Half-open backends, in the order in which the program tries them.
    pub trial_slots: Vec<TrialSlot>,
    pub choice: Choice,
    /// Where the next SYN would go if the chosen backend left.
    pub without: Option<Choice>,
}

/// An interface, and a VLAN behind it. 0: none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub ifindex: u32,
    pub vlan: u16,
}

/// A connection that the flow tables have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinned {
    pub stage: Stage,
    pub backend: BackendId,
    /// The backend's id still has the same generation. Otherwise the program ignores the flow.
    pub alive: bool,
    /// It is a trial.
    pub trial: bool,
    /// One side has sent a FIN.
    pub closing: bool,
    /// The addresses that the backend sees: the NAT address, and its own.
    pub nat: SocketAddr,
    pub address: SocketAddr,
    /// Its next hop answers.
    pub reachable: bool,
    /// A new SYN of this client goes there, too.
    pub takes_syn: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Flow,
    Handshake,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrialSlot {
    pub backend: BackendId,
    /// Trials that are left in this sweep's budget.
    pub left: i64,
    /// A new connection would go there now.
    pub takes: bool,
}

/// The destination of the SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The backend of the client's present connection.
    Pinned(BackendId),
    /// A half-open backend, from its trial budget.
    Trial(BackendId),
    /// By the Maglev table, at this try. 1: the client's own slot.
    Table { backend: BackendId, tries: u32 },
    /// No backend.
    Nobody(Reason),
}

impl Choice {
    pub const fn backend(self) -> Option<BackendId> {
        match self {
            Self::Pinned(backend) | Self::Trial(backend) | Self::Table { backend, .. } => Some(backend),
            Self::Nobody(_) => None,
        }
    }
}

/// Decides about a SYN. `key`: the tuple from the client to the VIP. `members`: the members of the service's Maglev
/// table, for the choice without one of them. `None`: there is no such VIP.
pub fn of(maps: &impl Maps, key: &FlowKey<Addr>, members: &[Member]) -> Result<Option<Steering>, Error> {
    let vip = ServiceKey { addr: key.dst, port: key.dport, proto: 6, zero: 0 };
    let Some(service) = maps.service(&vip)? else { return Ok(None) };
    let hash = key.as_v4().map_or_else(|| hash_of(&service, key), |key| hash_of(&service, &key));
    let slot = slot(hash);
    let table = maps.table(service.id)?;
    let in_slot = table.as_ref().map(|table| table.0[slot as usize]).filter(|id| *id != NO_BACKEND);
    let pinned = pinned(maps, key)?;
    let trial_slots = trial_slots(maps, &service)?;
    let choose = |slots: &[TrialSlot], table: Option<&Table>| choose(maps, &service, slots, table, hash);
    let own = maps.own_address(&key.src)?;
    let choice = match pinned.filter(|pinned| pinned.takes_syn) {
        Some(pinned) if pinned.reachable => Choice::Pinned(pinned.backend),
        Some(_) => Choice::Nobody(Reason::Neighbour),
        // No frame comes from a VIP.
        None if !is_plausible(key) || own.is_some_and(|own| own.is_vip()) => Choice::Nobody(Reason::Martian),
        None if maps.denies(&service, &key.src)? => Choice::Nobody(Reason::Denied),
        None if maps.holds_too_much(&key.src, NO_BACKEND) => Choice::Nobody(Reason::SourceShare),
        None => possible(maps, &service, key, choose(&trial_slots, table.as_deref())?)?,
    };
    let without = match choice.backend() {
        Some(gone) => {
            let others: Vec<_> = trial_slots.iter().filter(|slot| slot.backend != gone).copied().collect();
            let rest: Vec<_> = members.iter().filter(|member| member.id != gone).copied().collect();
            let instead = choose(&others, Some(&*maglev::build(&rest)))?;
            Some(possible(maps, &service, key, instead)?)
        }
        None => None,
    };
    let in_slot = in_slot.map(BackendId);
    let only_by = own.and_then(|own| match own.ways {
        [OwnWay { ifindex, vlan, .. }, others @ ..]
            if ifindex != 0 && others == [OwnWay::default(); OwnAddr::WAYS - 1] =>
        {
            Some(Way { ifindex, vlan })
        }
        _ => None,
    });
    Ok(Some(Steering { hash, slot, in_slot, pinned, only_by, trial_slots, choice, without }))
}

/// The hash by which the service chooses.
fn hash_of<A: Address>(service: &Service, key: &FlowKey<A>) -> u64 {
    if service.affinity == 0 { flow_hash(key) } else { source_hash(key, service.affinity.into()) }
}

/// Whether a tuple's source can be a client of its destination.
fn is_plausible(key: &FlowKey<Addr>) -> bool {
    let is_v4 = IpAddr::from(key.src).is_ipv4();
    let source = if is_v4 { V4::narrow(&key.src).is_plausible() } else { key.src.is_plausible() };
    source && key.src != key.dst && key.sport.0 != 0
}

/// The client's connection. A flow in time-wait is none: it only lets its NAT port rest.
fn pinned(maps: &impl Maps, key: &FlowKey<Addr>) -> Result<Option<Pinned>, Error> {
    let Some(known) = maps.flow(key).filter(|known| known.state & flow_state::TIME_WAIT == 0) else {
        return Ok(None);
    };
    let stage = if known.state & flow_state::ESTABLISHED != 0 { Stage::Flow } else { Stage::Handshake };
    let backend = maps.backend(known.backend)?.filter(|backend| backend.generation == known.generation);
    let flags = backend.map_or(0, |backend| backend.flags);
    let trial = known.state & flow_state::TRIAL != 0;
    let closing = known.state & (flow_state::CLIENT_FIN | flow_state::BACKEND_FIN) != 0;
    let admits = flags & backend_flags::ADMIT != 0;
    let takes_syn = match stage {
        Stage::Flow => admits && !closing,
        Stage::Handshake => admits || trial && flags & backend_flags::TRIAL != 0,
    };
    Ok(Some(Pinned {
        stage,
        backend: BackendId(known.backend),
        alive: backend.is_some(),
        reachable: backend.is_some_and(|backend| backend.link.is_resolved()),
        trial,
        closing,
        nat: known.nat,
        address: known.address,
        takes_syn,
    }))
}

fn trial_slots(maps: &impl Maps, service: &Service) -> Result<Vec<TrialSlot>, Error> {
    let ids = service.trials.iter().take(service.trial_len.into());
    ids.map(|id| {
        let left = maps.tokens(*id)?;
        let full = service.flags & service_flags::LIMITED != 0 && maps.is_full((*id).into());
        let ready = maps
            .backend(*id)?
            .is_some_and(|backend| backend.flags & backend_flags::TRIAL != 0 && backend.link.is_resolved());
        Ok(TrialSlot { backend: BackendId(*id), left, takes: ready && left > 0 && !full })
    })
    .collect()
}

/// No backend if the client's prefix holds too many of its NAT ports, or if it is the client itself and the mode is
/// `dnat`: it would see its own address as the source.
fn possible(
    maps: &impl Maps,
    service: &Service,
    key: &FlowKey<Addr>,
    choice: Choice,
) -> Result<Choice, Error> {
    let Some(id) = choice.backend() else { return Ok(choice) };
    if maps.holds_too_much(&key.src, id.0) {
        return Ok(Choice::Nobody(Reason::SourceShare));
    }
    let itself = service.flags & service_flags::DNAT != 0
        && maps.backend(id.0)?.is_some_and(|backend| backend.addr == key.src);
    Ok(if itself { Choice::Nobody(Reason::Hairpin) } else { choice })
}

/// The choice for a SYN without a connection. Where limits hold the client is taken to have proven its address.
fn choose(
    maps: &impl Maps,
    service: &Service,
    trial_slots: &[TrialSlot],
    table: Option<&Table>,
    mut hash: u64,
) -> Result<Choice, Error> {
    let limited = service.flags & service_flags::LIMITED != 0;
    if limited && maps.is_full(Limit::of_service(service.id)) {
        return Ok(Choice::Nobody(Reason::Full));
    }
    if let Some(slot) = trial_slots.iter().find(|slot| slot.takes) {
        return Ok(Choice::Trial(slot.backend));
    }
    let Some(table) = table else { return Ok(Choice::Nobody(Reason::NoBackend)) };
    let mut reason = Reason::Swapping;
    for tries in 1..=if limited { LIMITED_TRIES } else { SLOT_TRIES } {
        let id = table.0[slot(hash) as usize];
        let backend = if id == NO_BACKEND { None } else { maps.backend(id)? };
        let Some(backend) = backend else { return Ok(Choice::Nobody(Reason::NoBackend)) };
        if backend.flags & backend_flags::ADMIT != 0 {
            reason = match backend.link.is_resolved() {
                true if limited && maps.is_full(id.into()) => Reason::Full,
                true => return Ok(Choice::Table { backend: BackendId(id), tries }),
                false if reason == Reason::Full => Reason::Full,
                false => Reason::Neighbour,
            };
        }
        hash = rehash(hash);
    }
    Ok(Choice::Nobody(reason))
}
