//! The adapter of the port: carries out each step as writes to maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use aya::maps::{Array, ArrayOfMaps, HashMap, MapData, MapError, PerCpuArray};
use lb_common::{
    abi::{
        Addr, Backend, FlowKey, OwnAddr, OwnWay, Port, Service, ServiceKey, Table, mirror_mode, service_flags,
    },
    reason::Reason,
};
use lb_core::{
    config::Mode,
    io::{BackendId, Generation, Member, ServiceId, Step},
    maglev,
};
use tracing::warn;

use super::{
    access::{absent_is_fine, found, on_map},
    backends::Backends,
    connection_limits::ConnectionLimits,
    crowd::Crowd,
    flows::FlowTables,
    nat_addresses::NatAddresses,
    own_macs::OwnMacMap,
    ports::PortMap,
    registry::Registry,
    reset_sender::ResetSender,
    reset_targets::ResetTargets,
    reverse_nat::ReverseNatMap,
    sources::SourceRules,
    spoof_guard::SpoofGuard,
    timeouts::TimeoutScanner,
    trial_budgets::TrialBudgets,
    values::{backend_flags, service_key, service_value},
};
use crate::dataplane::{
    Count, Counts, Dataplane, NextHop, OwnMacs,
    client_ways::Moved,
    counters::Counters,
    error::Error,
    path_warning::PathWarning,
    steering::{self, Steering},
};

/// The maps, and what the daemon has to know besides to write them.
pub struct Bpf {
    pub(super) services: HashMap<MapData, ServiceKey, Service>,
    pub(super) tables: ArrayOfMaps<MapData, Array<MapData, Table>>,
    pub(super) backends: Backends,
    pub(super) trial: Array<MapData, i64>,
    pub(super) mirror_modes: Array<MapData, u32>,
    pub(super) drops: PerCpuArray<MapData, u64>,
    pub(super) ports: PortMap,
    pub(super) sources: SourceRules,
    pub(super) spoof_guard: SpoofGuard,
    pub(super) own_macs: OwnMacMap,
    pub(super) reverse_nat: ReverseNatMap,
    pub(super) registry: Registry,
    pub(super) flows: Arc<FlowTables>,
    pub(super) crowd: Arc<Crowd>,
    pub(super) nat_addresses: NatAddresses,
    pub(super) trial_budgets: Arc<TrialBudgets>,
    pub(super) reset_targets: Arc<ResetTargets>,
    pub(super) vips: BTreeMap<SocketAddr, ServiceId>,
    /// The path warnings that were logged and still hold.
    pub(super) path_warnings: BTreeMap<BackendId, PathWarning>,
}

impl Dataplane for Bpf {
    fn apply(&mut self, step: &Step) -> Result<(), Error> {
        match step {
            Step::Service {
                id,
                vip,
                mode,
                no_backend,
                evidence,
                redispatch,
                affinity,
                limit,
                sources,
                trials,
            } => {
                let dnat_vip = (*mode == Mode::Dnat).then_some(*vip);
                self.reverse_nat.set_dnat_vip(*id, dnat_vip, &self.registry);
                // The program must find the VIP of a reply before the first connection begins.
                self.settle()?;
                let key = service_key(*vip);
                let present = found(self.services.get(&key, 0)).map_err(on_map("SERVICES"))?;
                let rules = self.sources.write(*id, sources, present.map(|service| service.flags));
                let rules = rules.map_err(on_map("SOURCES"))?;
                self.flows.limits.set_service(*id, *limit);
                let did_not_count = |before: &Service| before.flags & service_flags::LIMITED == 0;
                if limit.is_some() && present.as_ref().is_some_and(did_not_count) {
                    // Those that begin until the service's entry is there are found by the timeout scanner.
                    self.flows.count_in(*id);
                }
                let (how, what) = ((*mode, *no_backend), (*evidence, *redispatch));
                let value = service_value(*id, how, what, *affinity, *limit, rules, trials);
                self.services.insert(key, value, 0).map_err(on_map("SERVICES"))?;
                self.sources.tidy(*id, rules).map_err(on_map("SOURCES"))?;
                self.ports.mark_due(self.vips.insert(*vip, *id) != Some(*id));
                self.log_path_warnings(|_, service| service == *id);
                self.settle()?;
                self.write_own_addr(vip.ip())
            }
            Step::RemoveService { id, vip } => {
                absent_is_fine(self.services.remove(&service_key(*vip))).map_err(on_map("SERVICES"))?;
                if self.vips.get(vip) == Some(id) {
                    self.vips.remove(vip);
                }
                self.flows.limits.set_service(*id, None);
                self.reverse_nat.set_dnat_vip(*id, None, &self.registry);
                self.ports.mark_due(true);
                self.settle()?;
                self.sources.remove(*id).map_err(on_map("SOURCES"))?;
                self.write_own_addr(vip.ip())
            }
            Step::Backend {
                id,
                service,
                address,
                generation,
                admit,
                flow_reset,
                count_successes,
                redispatch,
                max_connections,
            } => {
                self.reverse_nat.mark_due(self.registry.insert(*id, *address, *service));
                self.settle()?;
                let before = self.backends.get(*id)?;
                if before.generation != generation.0 {
                    self.backends.zero_counters(*id)?;
                    self.reset_targets.zero_counts(*id);
                }
                let value = Backend {
                    addr: address.ip().into(),
                    port: Port::new(address.port()),
                    generation: generation.0,
                    flags: backend_flags(*admit, *flow_reset, *redispatch),
                    service: service.0,
                    ..Backend::default()
                };
                self.flows.limits.set_backend(*id, *generation, *max_connections);
                self.write_backend(*id, value, address.ip())?;
                self.log_path_warnings(|at, _| at == *address);
                // At first the next success is mirrored: a run of failures may have begun, which it ends.
                let mode = if *count_successes { mirror_mode::NEXT } else { mirror_mode::ALL };
                self.mirror_modes.set(id.0.into(), mode, 0).map_err(on_map("MIRROR_MODES"))?;
                self.write_own_addr(before.addr.into())
            }
            Step::RemoveBackend { id } => {
                self.path_warnings.remove(id);
                self.reset_targets.update(*id, &Backend::default());
                self.reverse_nat.mark_due(self.registry.remove(*id));
                self.settle()?;
                let before = self.backends.get(*id)?;
                self.backends.clear(*id)?;
                self.flows.limits.remove_backend(*id);
                self.write_own_addr(before.addr.into())
            }
            Step::Budget { id, tokens } => {
                self.trial.set(id.0.into(), i64::from(*tokens), 0).map_err(on_map("TRIAL_BUDGETS"))
            }
            Step::Table { service, members } => {
                let mut inner = Array::<MapData, Table>::create(1, 0).map_err(on_map("TABLES"))?;
                // By reference: it would not fit on the stack.
                let table: &Table = &maglev::build(members);
                inner.set(0, table, 0).map_err(on_map("TABLES"))?;
                // Returns when the program reads the old table for no packet any more.
                self.tables.set(service.0.into(), &inner, 0).map_err(on_map("TABLES"))
            }
        }
    }

    fn set_next_hop(&mut self, address: IpAddr, hop: NextHop) -> Result<(), Error> {
        if self.backends.next_hop(address) == Some(&hop) {
            return Ok(());
        }
        self.backends.set_next_hop(address, hop);
        let written = self.write_next_hop(address);
        self.log_path_warnings(|at, _| at.ip() == address);
        if written.is_err() {
            // The next call with the same hop must write it.
            self.backends.remove_next_hop(address);
        }
        written
    }

    fn set_own_macs(&mut self, macs: &OwnMacs) -> Result<(), Error> {
        self.own_macs.write(macs).map_err(on_map("OWN_MACS"))
    }

    fn set_nat_addresses(&mut self, addresses: &[IpAddr]) {
        self.nat_addresses.set(addresses);
    }

    fn follow_clients(&mut self, moved: Moved) -> Count {
        let flows = Arc::clone(&self.flows);
        Box::new(move || Ok(flows.follow(&moved)))
    }

    fn counters(&mut self) -> Result<Counters, Error> {
        let mut counters = Counters::default();
        for (id, ..) in self.registry.iter() {
            counters.backends.push((id, self.backends.counters(id)?));
            counters.resets.push((id, self.reset_targets.counts(id)));
            if !self.backends.get(id)?.link.is_resolved() {
                counters.unreachable.push(id);
            }
        }
        counters.path_warnings = self.path_warnings.iter().map(|(id, warning)| (*id, *warning)).collect();
        for id in self.vips.values().collect::<BTreeSet<_>>() {
            for reason in Reason::ALL {
                let index = u32::from(id.0) * Reason::COUNT as u32 + reason as u32;
                let cpus = self.drops.get(&index, 0).map_err(on_map("DROPS"))?;
                let total = cpus.iter().sum();
                if total > 0 {
                    counters.drops.push((*id, reason, total));
                }
            }
        }
        counters.expired_flows = self.flows.expired();
        let limits = &self.flows.limits;
        let counting = limits.services();
        counters.service_limits = counting.iter().map(|id| (*id, limits.of_service(*id))).collect();
        let theirs = self.registry.iter().filter(|(_, _, service)| counting.contains(service));
        counters.backend_limits = theirs.map(|(id, ..)| (id, limits.of_backend(id))).collect();
        Ok(counters)
    }

    fn steering(&mut self, key: &FlowKey<Addr>, members: &[Member]) -> Result<Option<Steering>, Error> {
        steering::of(self, key, members)
    }

    fn connections(&mut self, backends: Vec<(BackendId, Generation)>) -> Counts {
        let flows = Arc::clone(&self.flows);
        Box::new(move || Ok(flows.connections(&backends)))
    }

    fn connections_by(&mut self, interfaces: BTreeSet<u32>) -> Count {
        let flows = Arc::clone(&self.flows);
        Box::new(move || Ok(flows.connections_by(&interfaces)))
    }
}

impl Drop for Bpf {
    fn drop(&mut self) {
        self.reset_targets.close();
    }
}

impl Bpf {
    /// The tables that this dataplane reads.
    pub fn flow_tables(&self) -> &FlowTables {
        &self.flows
    }

    /// How many connections services and backends have, and may have.
    pub fn connection_limits(&self) -> Arc<ConnectionLimits> {
        Arc::clone(&self.flows.limits)
    }

    /// A scanner of the same tables, for a thread of its own.
    pub fn timeout_scanner(&self) -> TimeoutScanner {
        TimeoutScanner {
            flows: Arc::clone(&self.flows),
            crowd: Arc::clone(&self.crowd),
            budgets: Arc::clone(&self.trial_budgets),
            targets: Arc::clone(&self.reset_targets),
            check: Mutex::default(),
        }
    }

    /// A sender of resets for the backends that this dataplane writes, for a thread of its own.
    pub fn reset_sender(&self) -> ResetSender {
        ResetSender { flows: Arc::clone(&self.flows), targets: Arc::clone(&self.reset_targets) }
    }

    /// Writes the ports in any case.
    pub(super) fn write_ports(&mut self) -> Result<(), MapError> {
        let vips = self.vips.keys().map(SocketAddr::port);
        self.ports.write(vips, self.reverse_nat.ports(), &self.flows)
    }

    /// Logs a warning for each changed backend whose path warning is new. A plan changes few backends; only the plans
    /// of a start change all.
    fn log_path_warnings(&mut self, changed: impl Fn(SocketAddr, ServiceId) -> bool) {
        for (id, address, service) in self.registry.iter().filter(|(_, at, service)| changed(*at, *service)) {
            let hop = self.backends.next_hop(address.ip());
            let behind_router = |hop: &NextHop| {
                (hop.routed && self.reverse_nat.is_dnat(service)).then_some(PathWarning::BehindRouter)
            };
            let Some(warning) = hop.and_then(|hop| hop.path_warning.or_else(|| behind_router(hop))) else {
                self.path_warnings.remove(&id);
                continue;
            };
            if self.path_warnings.insert(id, warning) != Some(warning) {
                warn!(backend = %address, code = %warning, "{}", warning.message());
            }
        }
    }

    fn write_next_hop(&mut self, address: IpAddr) -> Result<(), Error> {
        let there = self.registry.iter().filter(|(_, at, _)| at.ip() == address).map(|(id, ..)| id);
        for id in there.collect::<Vec<_>>() {
            let value = self.backends.get(id)?;
            self.write_backend(id, value, address)?;
        }
        Ok(())
    }

    fn write_backend(&mut self, id: BackendId, value: Backend, address: IpAddr) -> Result<(), Error> {
        let written = self.backends.write(id, value, address)?;
        self.reset_targets.update(id, &written);
        self.write_own_addr(address)
    }

    /// Writes by which interface a client may come from an address that is a VIP's or a backend's.
    fn write_own_addr(&mut self, address: IpAddr) -> Result<(), Error> {
        let own = if self.vips.keys().any(|vip| vip.ip() == address) {
            Some(OwnAddr::default())
        } else if self.registry.iter().any(|(_, at, _)| at.ip() == address) {
            let hop = self.backends.next_hop(address);
            hop.map(|hop| {
                let [a, b, c] = hop.also;
                OwnAddr { ways: [OwnWay { ifindex: hop.ifindex, vlan: hop.vlan, zero: 0 }, a, b, c] }
            })
        } else {
            None
        };
        self.spoof_guard.write(address, own).map_err(on_map("OWN_ADDRS"))
    }

    /// Writes what follows from services and backends: reverse NAT and ports.
    fn settle(&mut self) -> Result<(), Error> {
        let new_ports = self.reverse_nat.settle(&self.registry).map_err(on_map("REVERSE_NAT"))?;
        self.ports.mark_due(new_ports);
        let vips = self.vips.keys().map(SocketAddr::port);
        self.ports.settle(vips, self.reverse_nat.ports(), &self.flows).map_err(on_map("PORTS"))
    }
}
