//! What the XDP program itself writes: connections. Read, never written.

use std::{collections::BTreeSet, os::fd::AsFd as _};

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData, MapError},
};
use lb_common::abi::{Backend, Flow, FlowKey, IDLE_TICKS, Service, ServiceKey, Table, flow_state};
use lb_core::io::{BackendId, Generation};

use super::{super::steering::Maps, Bpf, Error, OpenError, on};
use crate::dataplane::actor::monotonic_ns;

/// A handshake that is older than so many ticks (about seconds) will not complete any more.
const HANDSHAKE_TICKS: u32 = 5;

/// The flows and the handshakes. Second handles to their maps, so that they can be read on any thread.
pub(super) struct Connections {
    flows: HashMap<MapData, FlowKey, Flow>,
    embryos: HashMap<MapData, FlowKey, Flow>,
}

impl Connections {
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self, OpenError> {
        let second = |name: &'static str| {
            let Some(Map::LruHashMap(data)) = ebpf.map(name) else { return Err(OpenError::Object(name)) };
            let fd = data.fd().as_fd().try_clone_to_owned();
            let data = MapData::from_fd(fd.map_err(|_| OpenError::Object(name))?).map_err(OpenError::Map)?;
            HashMap::try_from(Map::LruHashMap(data)).map_err(OpenError::Map)
        };
        Ok(Self { flows: second("FLOWS")?, embryos: second("EMBRYOS")? })
    }

    /// Connections of a backend that are neither over nor silent for so long that the program takes them
    /// for dead.
    pub(super) fn count(&self, backend: BackendId, generation: Generation) -> Result<u64, Error> {
        let now = (monotonic_ns() >> 30) as u32;
        let is_its = |flow: &Flow, idle: u32| {
            (flow.backend, flow.generation) == (backend.0, generation.0)
                && flow.state & flow_state::TO_CLIENT != 0
                && flow.state & flow_state::OVER == 0
                && now.wrapping_sub(flow.seen) < idle
        };
        let flows = keys(&self.flows, |flow| is_its(flow, IDLE_TICKS)).map_err(on("FLOWS"))?;
        let embryos = keys(&self.embryos, |flow| is_its(flow, HANDSHAKE_TICKS)).map_err(on("EMBRYOS"))?;
        Ok(flows.union(&embryos).count() as u64)
    }
}

type Tuple = ([u32; 4], [u32; 4], u16, u16);

/// The keys of the entries that fit. When an entry goes while it is looked at, the kernel begins again
/// with the first: each key counts once, and there is an end to it.
fn keys(
    map: &HashMap<MapData, FlowKey, Flow>,
    fits: impl Fn(&Flow) -> bool,
) -> Result<BTreeSet<Tuple>, MapError> {
    const MOST: usize = 1 << 22;
    let mut found = BTreeSet::new();
    for entry in map.iter().take(MOST) {
        let (FlowKey { src, dst, sport, dport }, flow) = entry?;
        if fits(&flow) {
            found.insert((src.0, dst.0, sport.0, dport.0));
        }
    }
    Ok(found)
}

impl Maps for Bpf {
    fn service(&self, key: &ServiceKey) -> Result<Option<Service>, Error> {
        found(self.services.get(key, 0)).map_err(on("SERVICES"))
    }

    fn flow(&self, key: &FlowKey) -> Result<Option<Flow>, Error> {
        found(self.flows.flows.get(key, 0)).map_err(on("FLOWS"))
    }

    fn embryo(&self, key: &FlowKey) -> Result<Option<Flow>, Error> {
        found(self.flows.embryos.get(key, 0)).map_err(on("EMBRYOS"))
    }

    fn backend(&self, id: u16) -> Result<Option<Backend>, Error> {
        match self.backends.get(&id.into(), 0) {
            Err(MapError::OutOfBounds { .. }) => Ok(None),
            backend => backend.map(Some).map_err(on("BACKENDS")),
        }
    }

    fn tokens(&self, id: u16) -> Result<i64, Error> {
        self.trial.get(&id.into(), 0).map_err(on("TRIAL"))
    }

    fn table(&self, service: u16) -> Result<Option<Box<Table>>, Error> {
        let Some(table) = found(self.tables.get(&service.into(), 0)).map_err(on("TABLES"))? else {
            return Ok(None);
        };
        table.get(&0, 0).map(|table| Some(Box::new(table))).map_err(on("TABLES"))
    }
}

fn found<T>(result: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}
