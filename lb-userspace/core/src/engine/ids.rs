//! Who has which index in the maps.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{MAX_BACKENDS, MAX_SERVICES};

use crate::{
    config::Config,
    ids::{Adopted, BackendId, Generation, ServiceId},
};

/// More than the maps have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    #[error("{wanted} services, but the maps have room for {room}")]
    Services { wanted: usize, room: usize },
    #[error("{wanted} backends, but the maps have room for {room}")]
    Backends { wanted: usize, room: usize },
}

/// Whether a configuration fits into empty maps. A reload needs more room: what leaves keeps its place
/// until the maps have let go of it, see [`Engine::fits`](super::Engine::fits).
pub fn fits(config: &Config) -> Result<(), Exhausted> {
    let backends = config.services.iter().map(|service| service.everyone().count()).sum();
    room_for(config.services.len(), MAX_SERVICES as usize, backends, MAX_BACKENDS as usize)
}

fn room_for(services: usize, room: usize, backends: usize, backend_room: usize) -> Result<(), Exhausted> {
    if services > room {
        return Err(Exhausted::Services { wanted: services, room });
    }
    if backends > backend_room {
        return Err(Exhausted::Backends { wanted: backends, room: backend_room });
    }
    Ok(())
}

#[derive(Debug)]
pub(super) struct Ids {
    services: BTreeSet<ServiceId>,
    backends: BTreeSet<BackendId>,
    generations: BTreeMap<BackendId, u32>,
    /// Generation of ids that had no owner yet: at least that of any owner in an earlier run.
    before: u32,
    /// Where the search for a free id begins, so that one that was just freed rests longest.
    next_backend: u16,
}

impl Ids {
    pub(super) fn new(adopted: &[Adopted], floor: u32) -> Self {
        Self {
            services: adopted.iter().map(|adopted| adopted.service).collect(),
            backends: adopted.iter().map(|adopted| adopted.id).collect(),
            generations: adopted.iter().map(|adopted| (adopted.id, adopted.generation.0)).collect(),
            before: adopted.iter().map(|adopted| adopted.generation.0).fold(floor, u32::max),
            next_backend: 0,
        }
    }

    /// Whether there is room for that many more.
    pub(super) fn room(&self, services: usize, backends: usize) -> Result<(), Exhausted> {
        let (taken, taken_backends) = (self.services.len(), self.backends.len());
        room_for(services, MAX_SERVICES as usize - taken, backends, MAX_BACKENDS as usize - taken_backends)
    }

    /// Only called with room.
    pub(super) fn service(&mut self) -> ServiceId {
        let mut all = (0..MAX_SERVICES as u16).map(ServiceId);
        let id = all.find(|id| !self.services.contains(id)).expect("room was checked");
        self.services.insert(id);
        id
    }

    /// Only called with room.
    pub(super) fn backend(&mut self) -> (BackendId, Generation) {
        let max = MAX_BACKENDS as u16;
        let from = self.next_backend;
        let mut all = (0..max).map(|i| BackendId((from + i) % max));
        let id = all.find(|id| !self.backends.contains(id)).expect("room was checked");
        self.next_backend = (id.0 + 1) % max;
        self.backends.insert(id);
        let last = self.generations.get(&id).copied().unwrap_or(self.before);
        let generation = last.wrapping_add(1).max(1);
        self.generations.insert(id, generation);
        (id, Generation(generation))
    }

    pub(super) fn free_service(&mut self, id: ServiceId) {
        self.services.remove(&id);
    }

    pub(super) fn free_backend(&mut self, id: BackendId) {
        self.backends.remove(&id);
    }
}
