//! Gives out the indices of services and backends in the maps.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{MAX_BACKENDS, MAX_SERVICES};

use crate::{
    config::Config,
    ids::{Adopted, BackendId, Generation, ServiceId},
};

/// More than the maps can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    #[error("{wanted} services, but the maps hold at most {capacity}")]
    Services { wanted: usize, capacity: usize },
    #[error("{wanted} backends, but the maps hold at most {capacity}")]
    Backends { wanted: usize, capacity: usize },
}

/// Whether a configuration fits into empty maps. A reload needs more space: a removed backend keeps its place
/// until the maps no longer hold it, see [`Engine::fits`](super::Engine::fits).
pub fn fits(config: &Config) -> Result<(), Exhausted> {
    let backends = config.services.iter().map(|service| service.everyone().count()).sum();
    check(config.services.len(), MAX_SERVICES as usize, backends, MAX_BACKENDS as usize)
}

fn check(
    services: usize,
    capacity: usize,
    backends: usize,
    backend_capacity: usize,
) -> Result<(), Exhausted> {
    if services > capacity {
        return Err(Exhausted::Services { wanted: services, capacity });
    }
    if backends > backend_capacity {
        return Err(Exhausted::Backends { wanted: backends, capacity: backend_capacity });
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

    /// Whether that many more fit.
    pub(super) fn check_space(&self, services: usize, backends: usize) -> Result<(), Exhausted> {
        let (taken, taken_backends) = (self.services.len(), self.backends.len());
        check(services, MAX_SERVICES as usize - taken, backends, MAX_BACKENDS as usize - taken_backends)
    }

    /// Call it only after [`check_space`](Self::check_space).
    pub(super) fn service(&mut self) -> ServiceId {
        let mut all = (0..MAX_SERVICES as u16).map(ServiceId);
        let id = all.find(|id| !self.services.contains(id)).expect("the space was checked");
        self.services.insert(id);
        id
    }

    /// Call it only after [`check_space`](Self::check_space).
    pub(super) fn backend(&mut self) -> (BackendId, Generation) {
        let max = MAX_BACKENDS as u16;
        let from = self.next_backend;
        let mut all = (0..max).map(|i| BackendId((from + i) % max));
        let id = all.find(|id| !self.backends.contains(id)).expect("the space was checked");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_for_an_id_goes_round() {
        let last = MAX_BACKENDS as u16 - 1;
        let mut ids = Ids::new(&[], 0);
        ids.next_backend = last;
        let mut next = || ids.backend().0.0;
        assert_eq!([next(), next(), next()], [last, 0, 1]);
        ids.free_backend(BackendId(0));
        assert_eq!(ids.backend().0, BackendId(2), "one that was just freed rests longest");
        ids.free_backend(BackendId(2));
        assert_eq!(ids.backend().0, BackendId(3), "also the last one that was given");
    }

    #[test]
    fn the_id_of_a_service_that_is_gone_is_given_again() {
        let mut ids = Ids::new(&[], 0);
        for id in 0..MAX_SERVICES as u16 {
            assert_eq!(ids.check_space(1, 0), Ok(()));
            assert_eq!(ids.service(), ServiceId(id));
        }
        assert!(ids.check_space(1, 0).is_err());
        ids.free_service(ServiceId(7));
        assert_eq!((ids.check_space(1, 0), ids.service()), (Ok(()), ServiceId(7)));
    }
}
