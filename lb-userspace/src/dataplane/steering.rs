//! Where a client's SYN goes, by what the maps say.
//!
//! The same decision as the XDP program's (`lb-ebpf`, `to_backend` and `connect`), with the same hash
//! and in the same order, but asked, not done: no token is taken, no entry made.
//! `tests/tests/packet/explain.rs` holds the two against each other.

use std::net::SocketAddr;

use lb_common::{
    NO_BACKEND, SLOT_TRIES,
    abi::{
        Addr, Address, Backend, Flow, FlowKey, Service, ServiceKey, Table, backend_flags, flow_state,
        service_flags, socket_addr,
    },
    hash::{flow_hash, rehash, slot},
    reason::Reason,
};
use lb_core::{
    io::{BackendId, Member},
    maglev,
};

use super::Error;

/// The maps that decide, each as it is read.
pub trait Maps {
    fn service(&self, key: &ServiceKey) -> Result<Option<Service>, Error>;
    /// Whether a service takes no connections of a source.
    fn denies(&self, service: &Service, source: &Addr) -> Result<bool, Error>;
    /// The connection of a client, by the tuple of what it sends.
    fn flow(&self, key: &FlowKey<Addr>) -> Option<Known>;
    fn backend(&self, id: u16) -> Result<Option<Backend>, Error>;
    /// What is left of a trial budget.
    fn tokens(&self, id: u16) -> Result<i64, Error>;
    fn table(&self, service: u16) -> Result<Option<Box<Table>>, Error>;
}

/// What the flow tables have of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// `flow_state`
    pub state: u32,
    pub backend: u16,
    pub generation: u32,
    /// The addresses that the backend sees: ours, and its own.
    pub nat: SocketAddr,
    pub address: SocketAddr,
}

impl<A: Address> From<&Flow<A>> for Known {
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

/// How one client is steered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steering {
    pub hash: u64,
    pub slot: u32,
    /// What the table has in that slot.
    pub in_slot: Option<BackendId>,
    pub pinned: Option<Pinned>,
    /// Half-open backends, in the order in which they are offered.
    pub seats: Vec<Seat>,
    pub choice: Choice,
    /// If the chosen backend left: where the next SYN would go instead.
    pub without: Option<Choice>,
}

/// A connection that the maps know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinned {
    pub stage: Stage,
    pub backend: BackendId,
    /// Its id has not changed hands since. Otherwise the entry counts for nothing.
    pub alive: bool,
    /// It was admitted out of a half-open budget.
    pub trial: bool,
    /// One side has sent its FIN.
    pub closing: bool,
    /// The addresses that the backend sees: ours, and its own.
    pub nat: SocketAddr,
    pub address: SocketAddr,
    /// Its next hop answers.
    pub reachable: bool,
    /// Also a new SYN of this client goes there.
    pub keeps_syn: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Flow,
    Handshake,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    pub backend: BackendId,
    /// Connections that it may still be given.
    pub left: i64,
    /// It would be given one now.
    pub takes: bool,
}

/// Who gets the SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The backend that has the client's connection already.
    Pinned(BackendId),
    /// A half-open one, out of its budget.
    Trial(BackendId),
    /// By the table, at this try; 1 is the client's own slot.
    Table { backend: BackendId, tries: u32 },
    /// Nobody.
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

/// `key`: the client's tuple, from it to the VIP. `members`: of the service's table, for what would be without
/// one of them. `None`: there is no such VIP.
pub fn of(maps: &impl Maps, key: &FlowKey<Addr>, members: &[Member]) -> Result<Option<Steering>, Error> {
    let vip = ServiceKey { addr: key.dst, port: key.dport, proto: 6, zero: 0 };
    let Some(service) = maps.service(&vip)? else { return Ok(None) };
    let hash = key.as_v4().map_or_else(|| flow_hash(key), |key| flow_hash(&key));
    let slot = slot(hash);
    let table = maps.table(service.id)?;
    let in_slot = table.as_ref().map(|table| table.0[slot as usize]).filter(|id| *id != NO_BACKEND);
    let pinned = pinned(maps, key)?;
    let seats = seats(maps, &service)?;
    let choice = match pinned.filter(|pinned| pinned.keeps_syn) {
        Some(pinned) if pinned.reachable => Choice::Pinned(pinned.backend),
        Some(_) => Choice::Nobody(Reason::Neighbour),
        None if maps.denies(&service, &key.src)? => Choice::Nobody(Reason::Denied),
        None => not_itself(maps, &service, key, choose(maps, &seats, table.as_deref(), hash)?)?,
    };
    let without = match choice.backend() {
        Some(gone) => {
            let seats: Vec<_> = seats.iter().filter(|seat| seat.backend != gone).copied().collect();
            let rest: Vec<_> = members.iter().filter(|member| member.id != gone).copied().collect();
            let instead = choose(maps, &seats, Some(&*maglev::build(&rest)), hash)?;
            Some(not_itself(maps, &service, key, instead)?)
        }
        None => None,
    };
    let in_slot = in_slot.map(BackendId);
    Ok(Some(Steering { hash, slot, in_slot, pinned, seats, choice, without }))
}

/// The client's connection, unless it is over: then it only keeps its NAT port from being used.
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
    let keeps_syn = match stage {
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
        keeps_syn,
    }))
}

fn seats(maps: &impl Maps, service: &Service) -> Result<Vec<Seat>, Error> {
    let ids = service.trials.iter().take(service.trial_len.into());
    ids.map(|id| {
        let left = maps.tokens(*id)?;
        let ready = maps
            .backend(*id)?
            .is_some_and(|backend| backend.flags & backend_flags::TRIAL != 0 && backend.link.is_resolved());
        Ok(Seat { backend: BackendId(*id), left, takes: ready && left > 0 })
    })
    .collect()
}

/// Nobody instead of a backend that the client is itself, where the backend would see its own address as the
/// source.
fn not_itself(
    maps: &impl Maps,
    service: &Service,
    key: &FlowKey<Addr>,
    choice: Choice,
) -> Result<Choice, Error> {
    let (Some(id), true) = (choice.backend(), service.flags & service_flags::DNAT != 0) else {
        return Ok(choice);
    };
    let itself = maps.backend(id.0)?.is_some_and(|backend| backend.addr == key.src);
    Ok(if itself { Choice::Nobody(Reason::Hairpin) } else { choice })
}

/// A SYN that no connection is known of.
fn choose(maps: &impl Maps, seats: &[Seat], table: Option<&Table>, mut hash: u64) -> Result<Choice, Error> {
    if let Some(seat) = seats.iter().find(|seat| seat.takes) {
        return Ok(Choice::Trial(seat.backend));
    }
    let Some(table) = table else { return Ok(Choice::Nobody(Reason::NoBackend)) };
    let mut reason = Reason::Swapping;
    for tries in 1..=SLOT_TRIES {
        let id = table.0[slot(hash) as usize];
        let backend = if id == NO_BACKEND { None } else { maps.backend(id)? };
        let Some(backend) = backend else { return Ok(Choice::Nobody(Reason::NoBackend)) };
        if backend.flags & backend_flags::ADMIT != 0 {
            if backend.link.is_resolved() {
                return Ok(Choice::Table { backend: BackendId(id), tries });
            }
            reason = Reason::Neighbour;
        }
        hash = rehash(hash);
    }
    Ok(Choice::Nobody(reason))
}
