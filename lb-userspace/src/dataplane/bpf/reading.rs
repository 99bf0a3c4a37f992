//! The maps as a question for a client's way asks them. Read, never written.

use aya::maps::MapError;
use lb_common::abi::{Addr, Backend, FlowKey, Service, ServiceKey, Table, service_flags, source_rule};

use super::{
    super::steering::{Known, Maps},
    Bpf, Error, on,
};

impl Maps for Bpf {
    fn service(&self, key: &ServiceKey) -> Result<Option<Service>, Error> {
        found(self.services.get(key, 0)).map_err(on("SERVICES"))
    }

    fn denies(&self, service: &Service, source: &Addr) -> Result<bool, Error> {
        if service.flags & service_flags::SOURCES == 0 {
            return Ok(false);
        }
        let rule = found(self.sources.rule(service.id, service.flags, *source)).map_err(on("SOURCES"))?;
        Ok(rule.map_or(service.flags & service_flags::LISTED_ONLY != 0, |rule| rule == source_rule::DENY))
    }

    fn flow(&self, key: &FlowKey<Addr>) -> Option<Known> {
        self.flows.by_client(key)
    }

    fn backend(&self, id: u16) -> Result<Option<Backend>, Error> {
        match self.backends.get(&id.into(), 0) {
            Err(MapError::OutOfBounds { .. }) => Ok(None),
            backend => backend.map(Some).map_err(on("BACKENDS")),
        }
    }

    fn tokens(&self, id: u16) -> Result<i64, Error> {
        self.trial.get(&id.into(), 0).map_err(on("TRIAL_BUDGETS"))
    }

    fn table(&self, service: u16) -> Result<Option<Box<Table>>, Error> {
        let Some(table) = found(self.tables.get(&service.into(), 0)).map_err(on("TABLES"))? else {
            return Ok(None);
        };
        table.get(&0, 0).map(|table| Some(Box::new(table))).map_err(on("TABLES"))
    }
}

pub(super) fn found<T>(result: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}
