//! `BACKENDS` and `BACKEND_COUNTERS`, and the next hops that complete a backend's entry.

use std::{collections::BTreeMap, net::IpAddr};

use aya::maps::{Array, MapData, MapError, PerCpuArray, PerCpuValues};
use lb_common::abi::{Backend, BackendCounters};
use lb_core::io::BackendId;

use super::access::on_map;
use crate::dataplane::{NextHop, error::Error};

pub(super) struct Backends {
    map: Array<MapData, Backend>,
    counters: PerCpuArray<MapData, BackendCounters>,
    next_hops: BTreeMap<IpAddr, NextHop>,
}

impl Backends {
    pub(super) const fn new(
        map: Array<MapData, Backend>,
        counters: PerCpuArray<MapData, BackendCounters>,
    ) -> Self {
        Self { map, counters, next_hops: BTreeMap::new() }
    }

    pub(super) fn next_hop(&self, address: IpAddr) -> Option<&NextHop> {
        self.next_hops.get(&address)
    }

    pub(super) fn set_next_hop(&mut self, address: IpAddr, hop: NextHop) {
        self.next_hops.insert(address, hop);
    }

    pub(super) fn remove_next_hop(&mut self, address: IpAddr) {
        self.next_hops.remove(&address);
    }

    pub(super) fn get(&self, id: BackendId) -> Result<Backend, Error> {
        self.read(id).map_err(on_map("BACKENDS"))
    }

    pub(super) fn read(&self, id: BackendId) -> Result<Backend, MapError> {
        self.map.get(&id.0.into(), 0)
    }

    /// `None`: the map is not that large.
    pub(super) fn find(&self, id: u16) -> Result<Option<Backend>, Error> {
        match self.map.get(&id.into(), 0) {
            Err(MapError::OutOfBounds { .. }) => Ok(None),
            backend => backend.map(Some).map_err(on_map("BACKENDS")),
        }
    }

    /// Completes an entry with the next hop, and writes it. Returns what it wrote.
    pub(super) fn write(
        &mut self,
        id: BackendId,
        mut value: Backend,
        address: IpAddr,
    ) -> Result<Backend, Error> {
        if let Some(hop) = self.next_hops.get(&address) {
            value.ifindex = hop.ifindex;
            value.vlan = hop.vlan;
            value.link = hop.link;
            value.nat_addr = hop.source.into();
        } else {
            // After a restart: the next hop that the earlier run wrote is used until the kernel reports one.
            let before = self.get(id)?;
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
        self.map.set(id.0.into(), value, 0).map_err(on_map("BACKENDS"))?;
        Ok(value)
    }

    pub(super) fn clear(&mut self, id: BackendId) -> Result<(), Error> {
        self.map.set(id.0.into(), Backend::default(), 0).map_err(on_map("BACKENDS"))
    }

    /// The sum over all CPUs.
    pub(super) fn counters(&self, id: BackendId) -> Result<BackendCounters, Error> {
        let cpus = self.counters.get(&id.0.into(), 0).map_err(on_map("BACKEND_COUNTERS"))?;
        Ok(cpus.iter().fold(BackendCounters::default(), add))
    }

    /// How many records each CPU has lost of a backend, as a record says it.
    pub(super) fn lost_heads(&self, id: BackendId) -> Result<Vec<u32>, MapError> {
        let cpus = self.counters.get(&id.0.into(), 0)?;
        Ok(cpus.iter().map(|cpu| cpu.heads_lost as u32).collect())
    }

    /// For a new backend: the counters of the one that had its id before are not its own.
    pub(super) fn zero_counters(&mut self, id: BackendId) -> Result<(), Error> {
        let cpus = self.counters.get(&id.0.into(), 0).map_err(on_map("BACKEND_COUNTERS"))?;
        let zeros = PerCpuValues::try_from(vec![BackendCounters::default(); cpus.len()])
            .map_err(|error| on_map("BACKEND_COUNTERS")(error.into()))?;
        self.counters.set(id.0.into(), zeros, 0).map_err(on_map("BACKEND_COUNTERS"))
    }
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
        spilled: sum.spilled + cpu.spilled,
        untimed: sum.untimed + cpu.untimed,
        timed_at: cpu.timed_at,
        ttfb: std::array::from_fn(|bucket| sum.ttfb[bucket] + cpu.ttfb[bucket]),
    }
}
