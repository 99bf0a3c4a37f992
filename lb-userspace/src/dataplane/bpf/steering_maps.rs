//! Reads the maps that decide where a client's SYN goes.

use std::net::IpAddr;

use lb_common::abi::{
    Addr, Address as _, Backend, CrowdKey, FlowKey, OwnAddr, Service, ServiceKey, Table, V4, service_flags,
    source_rule,
};

use super::{
    access::{found, on_map},
    dataplane::Bpf,
};
use crate::dataplane::{
    error::Error,
    steering::{KnownFlow, Maps},
};

impl Maps for Bpf {
    fn service(&self, key: &ServiceKey) -> Result<Option<Service>, Error> {
        found(self.services.get(key, 0)).map_err(on_map("SERVICES"))
    }

    fn own_address(&self, source: &Addr) -> Result<Option<OwnAddr>, Error> {
        Ok(self.spoof_guard.own(IpAddr::from(*source)))
    }

    fn denies(&self, service: &Service, source: &Addr) -> Result<bool, Error> {
        if service.flags & service_flags::SOURCES == 0 {
            return Ok(false);
        }
        let rule = found(self.sources.rule(service.id, service.flags, *source)).map_err(on_map("SOURCES"))?;
        Ok(rule.map_or(service.flags & service_flags::LISTED_ONLY != 0, |rule| rule == source_rule::DENY))
    }

    fn holds_too_much(&self, source: &Addr, backend: u16) -> bool {
        let key = match IpAddr::from(*source) {
            IpAddr::V4(_) => CrowdKey::new(&V4::narrow(source), backend),
            IpAddr::V6(_) => CrowdKey::new(source, backend),
        };
        self.crowd.holds_too_much(&key)
    }

    fn flow(&self, key: &FlowKey<Addr>) -> Option<KnownFlow> {
        self.flows.by_client(key)
    }

    fn backend(&self, id: u16) -> Result<Option<Backend>, Error> {
        self.backends.find(id)
    }

    fn tokens(&self, id: u16) -> Result<i64, Error> {
        self.trial.get(&id.into(), 0).map_err(on_map("TRIAL_BUDGETS"))
    }

    fn is_full(&self, entry: u32) -> bool {
        self.flows.limits.is_full(entry)
    }

    fn table(&self, service: u16) -> Result<Option<Box<Table>>, Error> {
        let Some(table) = found(self.tables.get(&service.into(), 0)).map_err(on_map("TABLES"))? else {
            return Ok(None);
        };
        table.get(&0, 0).map(|table| Some(Box::new(table))).map_err(on_map("TABLES"))
    }
}
