//! The dataplane in the kernel: writing the maps of the XDP program.

mod attach;
mod flows;
mod idle;
mod link;
mod load;
mod pins;
mod reading;
mod reset_sender;
mod returns;
mod ring;
mod room;
mod sources;
mod spoof_guard;
mod success_counts;
mod timeouts;
mod unattached;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    sync::Arc,
};

use aya::maps::{Array, ArrayOfMaps, HashMap, MapData, MapError, PerCpuArray, PerCpuValues};
use lb_common::{
    abi::{
        self, Addr, Backend, BackendCounters, FlowKey, OwnAddr, Port, Ports, Service, ServiceKey, Table,
        backend_flags, mirror_mode, port_flags, service_flags,
    },
    reason::Reason,
};
use lb_core::{
    config::{Mode as Forwarding, NoBackend},
    io::{Admit, BackendId, FlowReset, Generation, Member, ServiceId, Step},
    maglev,
};
use tracing::warn;

use self::reset_sender::Cuts;
pub use self::{
    flows::{FlowCounts, FlowTables},
    idle::{ExpiredFlows, Idle},
    load::{Attached, Hook, Logger, OpenError, Opened, Options, Shape, open},
    pins::{DetachError, Detached, Lock, Owner, detach, is_bpffs, owner},
    reset_sender::{ResetCounts, ResetSender},
    ring::EvidenceRing,
    room::flow_table_bytes,
    success_counts::SuccessCounts,
    timeouts::{Limits, Look, Now, TimedOut, Watch},
    unattached::{Settings, Unattached},
};
use self::{sources::SourceRules, spoof_guard::SpoofGuard};
use super::{
    Count, Counters, Dataplane, Error, NextHop, PathWarning,
    steering::{self, Steering},
};

/// The maps, and what of their content is not in them: how addresses are reached.
pub struct Bpf {
    ports: Array<MapData, Ports>,
    services: HashMap<MapData, ServiceKey, Service>,
    tables: ArrayOfMaps<MapData, Array<MapData, Table>>,
    backends: Array<MapData, Backend>,
    trial: Array<MapData, i64>,
    mirror_modes: Array<MapData, u32>,
    backend_counters: PerCpuArray<MapData, BackendCounters>,
    drops: PerCpuArray<MapData, u64>,
    sources: SourceRules,
    origins: SpoofGuard,
    returns: returns::Returns,
    flows: Arc<FlowTables>,
    cuts: Arc<Cuts>,
    next_hops: BTreeMap<IpAddr, NextHop>,
    nat_ports: RangeInclusive<u16>,
    vips: BTreeMap<SocketAddr, ServiceId>,
    /// `PORTS` is not known to say what it has to.
    ports_due: bool,
    /// What was warned of, as long as it lasts.
    told: BTreeMap<BackendId, PathWarning>,
}

impl Dataplane for Bpf {
    fn apply(&mut self, step: &Step) -> Result<(), Error> {
        match step {
            Step::Service { id, vip, mode, no_backend, evidence, redispatch, sources, trials } => {
                self.returns.service(*id, (*mode == Forwarding::Dnat).then_some(*vip));
                // Its replies are looked for before the first connection begins.
                self.settle()?;
                let key = service_key(*vip);
                let present = reading::found(self.services.get(&key, 0)).map_err(on("SERVICES"))?;
                let rules = self.sources.write(*id, sources, present.map(|service| service.flags));
                let rules = rules.map_err(on("SOURCES"))?;
                let value = service_value(*id, *mode, *no_backend, *evidence, *redispatch, rules, trials);
                self.services.insert(key, value, 0).map_err(on("SERVICES"))?;
                self.sources.tidy(*id, rules).map_err(on("SOURCES"))?;
                self.ports_due |= self.vips.insert(*vip, *id) != Some(*id);
                self.tell_concerns(|_, of| of == *id);
                self.settle()?;
                self.write_origin(vip.ip())
            }
            Step::RemoveService { id, vip } => {
                absent_is_fine(self.services.remove(&service_key(*vip))).map_err(on("SERVICES"))?;
                if self.vips.get(vip) == Some(id) {
                    self.vips.remove(vip);
                }
                self.returns.service(*id, None);
                self.ports_due = true;
                self.settle()?;
                self.sources.remove(*id).map_err(on("SOURCES"))?;
                self.write_origin(vip.ip())
            }
            Step::Backend { id, service, address, generation, admit, flow_reset, count_successes } => {
                self.returns.backend(*id, *address, *service);
                self.settle()?;
                let before = self.backends.get(&id.0.into(), 0).map_err(on("BACKENDS"))?;
                if before.generation != generation.0 {
                    self.zero_counters(*id)?;
                    self.cuts.forget(*id);
                }
                let value = Backend {
                    addr: address.ip().into(),
                    port: Port::new(address.port()),
                    generation: generation.0,
                    flags: flags_of(*admit, *flow_reset),
                    service: service.0,
                    ..Backend::default()
                };
                self.write_backend(*id, value, address.ip())?;
                self.tell_concerns(|at, _| at == *address);
                // Not none at once: a run of failures may have begun.
                let mode = if *count_successes { mirror_mode::NEXT } else { mirror_mode::ALL };
                self.mirror_modes.set(id.0.into(), mode, 0).map_err(on("MIRROR_MODES"))?;
                self.write_origin(before.addr.into())
            }
            Step::RemoveBackend { id } => {
                self.told.remove(id);
                self.cuts.note(*id, &Backend::default());
                self.returns.remove_backend(*id);
                self.settle()?;
                let before = self.backends.get(&id.0.into(), 0).map_err(on("BACKENDS"))?;
                self.backends.set(id.0.into(), Backend::default(), 0).map_err(on("BACKENDS"))?;
                self.write_origin(before.addr.into())
            }
            Step::Budget { id, tokens } => {
                self.trial.set(id.0.into(), i64::from(*tokens), 0).map_err(on("TRIAL_BUDGETS"))
            }
            Step::Table { service, members } => {
                let mut inner = Array::<MapData, Table>::create(1, 0).map_err(on("TABLES"))?;
                // By reference: it would not fit on the stack.
                let table: &Table = &maglev::build(members);
                inner.set(0, table, 0).map_err(on("TABLES"))?;
                // Returns when no packet is still being steered by the old table.
                self.tables.set(service.0.into(), &inner, 0).map_err(on("TABLES"))
            }
        }
    }

    fn set_next_hop(&mut self, address: IpAddr, hop: NextHop) -> Result<(), Error> {
        if self.next_hops.get(&address) == Some(&hop) {
            return Ok(());
        }
        self.next_hops.insert(address, hop);
        let written = self.write_next_hop(address);
        self.tell_concerns(|at, _| at.ip() == address);
        if written.is_err() {
            // So that it is written when it is told again.
            self.next_hops.remove(&address);
        }
        written
    }

    fn counters(&mut self) -> Result<Counters, Error> {
        let mut counters = Counters::default();
        for (id, ..) in self.returns.backends() {
            let cpus = self.backend_counters.get(&id.0.into(), 0).map_err(on("BACKEND_COUNTERS"))?;
            counters.backends.push((id, cpus.iter().fold(BackendCounters::default(), add)));
            let value = self.backends.get(&id.0.into(), 0).map_err(on("BACKENDS"))?;
            counters.ended.push((id, self.cuts.ended(id)));
            if !value.link.is_resolved() {
                counters.unreachable.push(id);
            }
        }
        counters.path_warnings = self.told.iter().map(|(id, path_warning)| (*id, *path_warning)).collect();
        for id in self.vips.values().collect::<BTreeSet<_>>() {
            for reason in Reason::ALL {
                let index = u32::from(id.0) * Reason::COUNT as u32 + reason as u32;
                let cpus = self.drops.get(&index, 0).map_err(on("DROPS"))?;
                let total = cpus.iter().sum();
                if total > 0 {
                    counters.drops.push((*id, reason, total));
                }
            }
        }
        counters.forgotten = self.flows.forgotten();
        Ok(counters)
    }

    fn steering(&mut self, key: &FlowKey<Addr>, members: &[Member]) -> Result<Option<Steering>, Error> {
        steering::of(self, key, members)
    }

    fn connections(&mut self, backend: BackendId, generation: Generation) -> Count {
        let flows = Arc::clone(&self.flows);
        Box::new(move || Ok(flows.connections(backend, generation)))
    }
}

impl Drop for Bpf {
    fn drop(&mut self) {
        self.cuts.close();
    }
}

impl Bpf {
    /// The tables that this dataplane reads.
    pub fn flow_tables(&self) -> &FlowTables {
        &self.flows
    }

    /// A scanner of the same tables, for a thread of its own.
    pub fn watch(&self) -> Watch {
        Watch { flows: Arc::clone(&self.flows) }
    }

    /// A sender of resets for the backends that this dataplane writes, for a thread of its own.
    pub fn endings(&self) -> ResetSender {
        ResetSender { flows: Arc::clone(&self.flows), cuts: Arc::clone(&self.cuts) }
    }

    fn path_warning(&self, address: IpAddr, service: ServiceId) -> Option<PathWarning> {
        let hop = self.next_hops.get(&address)?;
        let behind = hop.routed && self.returns.keeps(service);
        hop.path_warning.or(behind.then_some(PathWarning::BehindRouter))
    }

    /// Warns of what is new about the backends that a change is about. Not of all of them: at the start each
    /// of them changes.
    fn tell_concerns(&mut self, about: impl Fn(SocketAddr, ServiceId) -> bool) {
        let touched = self.returns.backends().filter(|(_, address, service)| about(*address, *service));
        for (id, address, service) in touched.collect::<Vec<_>>() {
            let Some(path_warning) = self.path_warning(address.ip(), service) else {
                self.told.remove(&id);
                continue;
            };
            if self.told.insert(id, path_warning) != Some(path_warning) {
                warn!(backend = %address, "{path_warning}");
            }
        }
    }

    fn write_next_hop(&mut self, address: IpAddr) -> Result<(), Error> {
        let at = self.returns.backends().filter(|(_, at, _)| at.ip() == address).map(|(id, ..)| id);
        for id in at.collect::<Vec<_>>() {
            let value = self.backends.get(&id.0.into(), 0).map_err(on("BACKENDS"))?;
            self.write_backend(id, value, address)?;
        }
        Ok(())
    }

    /// Says by which way a client may come from an address that is a VIP's or a backend's.
    fn write_origin(&mut self, address: IpAddr) -> Result<(), Error> {
        let origin = if self.vips.keys().any(|vip| vip.ip() == address) {
            Some(OwnAddr::default())
        } else if self.returns.backends().any(|(_, at, _)| at.ip() == address) {
            let hop = self.next_hops.get(&address);
            hop.map(|hop| OwnAddr { ifindex: hop.ifindex, vlan: hop.vlan, zero: 0 })
        } else {
            None
        };
        self.origins.write(address, origin).map_err(on("OWN_ADDRS"))
    }

    /// Writes what follows from services and backends: whose replies are whose, and what ports may be.
    fn settle(&mut self) -> Result<(), Error> {
        self.ports_due |= self.returns.settle().map_err(on("REVERSE_NAT"))?;
        if self.ports_due {
            self.write_ports().map_err(on("PORTS"))?;
            self.ports_due = false;
        }
        Ok(())
    }

    /// Says of every port what it may be.
    fn write_ports(&mut self) -> Result<(), MapError> {
        let mut ports = vec![0u8; 1 << 16];
        for port in self.nat_ports.clone() {
            ports[usize::from(port)] |= port_flags::NAT;
        }
        for vip in self.vips.keys() {
            ports[usize::from(vip.port())] |= port_flags::VIP;
        }
        for port in self.returns.ports() {
            ports[usize::from(*port)] |= port_flags::DNAT;
        }
        let ports: Box<[u8; 1 << 16]> = ports.into_boxed_slice().try_into().expect("as many as made above");
        // SAFETY: `Ports` is that array, transparently.
        let ports: &Ports = unsafe { &*std::ptr::from_ref(&*ports).cast() };
        // By reference: it is large for a stack.
        self.ports.set(0, ports, 0)
    }

    /// What an id's former owner counted is not the new one's.
    fn zero_counters(&mut self, id: BackendId) -> Result<(), Error> {
        let cpus = self.backend_counters.get(&id.0.into(), 0).map_err(on("BACKEND_COUNTERS"))?;
        let zeros = PerCpuValues::try_from(vec![BackendCounters::default(); cpus.len()])
            .map_err(|error| on("BACKEND_COUNTERS")(error.into()))?;
        self.backend_counters.set(id.0.into(), zeros, 0).map_err(on("BACKEND_COUNTERS"))
    }

    /// Completes the value with what is known of the way there, and writes it.
    fn write_backend(&mut self, id: BackendId, mut value: Backend, address: IpAddr) -> Result<(), Error> {
        if let Some(hop) = self.next_hops.get(&address) {
            value.ifindex = hop.ifindex;
            value.vlan = hop.vlan;
            value.link = hop.link;
            value.nat_addr = hop.source.into();
        } else {
            // Taken over from an earlier run: what it knew holds until we know better.
            let before = self.backends.get(&id.0.into(), 0).map_err(on("BACKENDS"))?;
            if before.addr == value.addr {
                value = Backend {
                    ifindex: before.ifindex,
                    vlan: before.vlan,
                    link: before.link,
                    nat_addr: before.nat_addr,
                    ..value
                };
            }
        }
        self.backends.set(id.0.into(), value, 0).map_err(on("BACKENDS"))?;
        self.cuts.note(id, &value);
        self.write_origin(address)
    }
}

fn service_key(vip: SocketAddr) -> ServiceKey {
    ServiceKey { addr: vip.ip().into(), port: Port::new(vip.port()), proto: 6, zero: 0 }
}

/// `rules`: the flags that say where its source rules are.
fn service_value(
    id: ServiceId,
    mode: Forwarding,
    no_backend: NoBackend,
    evidence: bool,
    redispatch: bool,
    rules: u16,
    trials: &[BackendId],
) -> Service {
    let mut flags = rules
        | match mode {
            Forwarding::Nat => 0,
            Forwarding::Dnat => service_flags::DNAT,
        };
    if redispatch {
        flags |= service_flags::REDISPATCH;
    }
    if evidence {
        flags |= service_flags::EVIDENCE;
    }
    match no_backend {
        NoBackend::Drop => flags |= service_flags::NO_BACKEND_DROP,
        // With `any` the engine's tables are empty only when nobody may be used at all.
        NoBackend::Reset | NoBackend::Any => {}
    }
    let mut value = Service { id: id.0, flags, ..Service::default() };
    for (seat, trial) in value.trials.iter_mut().zip(trials) {
        *seat = trial.0;
        value.trial_len += 1;
    }
    value
}

fn flags_of(admit: Admit, flow_reset: FlowReset) -> u16 {
    let admit = match admit {
        Admit::All => backend_flags::ADMIT,
        Admit::Trials => backend_flags::TRIAL,
        Admit::None => 0,
    };
    let reset = match flow_reset {
        FlowReset::Never => 0,
        FlowReset::AtRequest => backend_flags::RESET_AT_REQUEST,
        FlowReset::Now => backend_flags::RESET_NOW,
    };
    admit | reset
}

fn add(sum: BackendCounters, cpu: &BackendCounters) -> BackendCounters {
    BackendCounters {
        packets_to: sum.packets_to + cpu.packets_to,
        bytes_to: sum.bytes_to + cpu.bytes_to,
        packets_from: sum.packets_from + cpu.packets_from,
        bytes_from: sum.bytes_from + cpu.bytes_from,
        connections: sum.connections + cpu.connections,
        trials: sum.trials + cpu.trials,
        established: sum.established + cpu.established,
        heads: sum.heads + cpu.heads,
        heads_lost: sum.heads_lost + cpu.heads_lost,
        opaque: sum.opaque + cpu.opaque,
        pipelined: sum.pipelined + cpu.pipelined,
        resets: sum.resets + cpu.resets,
        redispatched: sum.redispatched + cpu.redispatched,
        untimed: sum.untimed + cpu.untimed,
        timed_at: cpu.timed_at,
        ttfb: std::array::from_fn(|bucket| sum.ttfb[bucket] + cpu.ttfb[bucket]),
    }
}

fn on(map: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map { map, source }
}

fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

fn backend_address(value: &Backend) -> SocketAddr {
    abi::socket_addr(value.addr, value.port)
}
