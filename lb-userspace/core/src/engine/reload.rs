//! A new configuration: adds and removes services. Within a service `reconfigure` does the same with backends.
//!
//! The engine knows a service by its name, and a backend by service, name, address and identity. A backend that stays
//! keeps all its state under the new policy. A backend that was removed and comes back in a later reload
//! starts clean. A configuration that does not fit changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::SocketAddr,
};

use super::{
    Engine,
    backend::Backend,
    ids::Exhausted,
    reconfigure::{ABSENT, PRESENT, key},
    service::Service,
    writer::Writer,
};
use crate::{
    codes::EventReason,
    config::{self, Config},
    event::{Event, EventKind, Evidence},
    ids::{Adopted, ServiceId},
    plan::{Entry, Forwarding},
    time::Instant,
};

impl Engine {
    /// Whether the maps have space for what a reload would add, while removed backends are still in them.
    pub fn fits(&self, config: &Config) -> Result<(), Exhausted> {
        let (mut services, mut backends) = (0, 0);
        for wanted in &config.services {
            let Some(present) = self.active().find(|present| present.config.name == wanted.name) else {
                let adopted = self.adopted.iter().filter(|adopted| adopted.vip == Some(wanted.vip));
                let known: BTreeSet<_> = adopted.map(|adopted| adopted.address).collect();
                services += usize::from(known.is_empty());
                backends += wanted.everyone().filter(|new| !known.contains(&new.address)).count();
                continue;
            };
            let known: BTreeSet<_> = present.backends.iter().map(|backend| key(&backend.config)).collect();
            backends += wanted.everyone().filter(|new| !known.contains(&key(new))).count();
        }
        self.ids.check_space(services, backends)
    }

    pub(super) fn configure(&mut self, config: &Config, now: Instant) {
        if let Err(exhausted) = self.fits(config) {
            self.refuse_config(&exhausted, now);
            return;
        }
        self.config_generation += 1;
        let present: BTreeMap<String, ServiceId> =
            self.active().map(|service| (service.config.name.clone(), service.id)).collect();
        let wanted: BTreeSet<&str> = config.services.iter().map(|service| service.name.as_str()).collect();
        for (_, id) in present.iter().filter(|(name, _)| !wanted.contains(name.as_str())) {
            let service = self.services.get_mut(id).expect("it is active");
            service.retire(self.config_generation, now);
        }

        let mut adopted = mem::take(&mut self.adopted);
        self.order.clear();
        for wanted in &config.services {
            let id = match present.get(&wanted.name) {
                Some(id) => *id,
                None => self.add_service(wanted, &mut adopted, now),
            };
            let service = self.services.get_mut(&id).expect("it is present or was just added");
            service.reconfigure(wanted, self.config_generation, &mut self.ids, self.seed, now);
            self.order.push(id);
        }
        self.restore(now);
        self.remove_unclaimed(adopted, now);
        self.reindex();
        self.dirty.extend(self.services.keys());
    }

    fn refuse_config(&mut self, exhausted: &Exhausted, now: Instant) {
        let event = Event {
            kind: EventKind::Membership,
            from: "loaded".to_owned(),
            to: "refused".to_owned(),
            reason: EventReason::Exhausted,
            actor: "config".to_owned(),
            config_generation: self.config_generation,
            evidence: Evidence { detail: Some(exhausted.to_string()), ..Evidence::default() },
            ..Event::of_the_node(now)
        };
        self.outbox.publish([event]);
    }

    /// A service without backends yet.
    fn add_service(
        &mut self,
        wanted: &config::Service,
        adopted: &mut Vec<Adopted>,
        now: Instant,
    ) -> ServiceId {
        let mut known: Vec<Adopted> =
            adopted.extract_if(.., |adopted| adopted.vip == Some(wanted.vip)).collect();
        known.sort_by_key(|adopted| (!adopted.admits, adopted.id));
        let id = known.first().map_or_else(|| self.ids.service(), |adopted| adopted.service);
        let mut service = Service::new(id, wanted, now);
        for adopted in known {
            let is_its = |backend: &&config::Backend| backend.address == adopted.address;
            // Only one backend of an address can be adopted.
            let free = service.backends.iter().all(|backend| backend.config.address != adopted.address);
            match wanted.everyone().find(is_its).filter(|_| free) {
                Some(config) => {
                    let id = (adopted.id, adopted.generation);
                    service.backends.push(Backend::new(id, config.clone(), wanted, self.seed, now));
                }
                None => service.adopt_removed(&adopted, now),
            }
        }
        service.config_generation = self.config_generation;
        let event = service.event(EventKind::Membership, None, now);
        service.report(event, ABSENT, PRESENT, EventReason::Added, "config");
        for index in 0..service.backends.len() {
            let event = service.event(EventKind::Membership, Some(index), now);
            service.report(event, ABSENT, PRESENT, EventReason::Adopted, "config");
        }
        self.services.insert(id, service);
        id
    }

    /// Takes out of the maps what an earlier run left there and the configuration does not have. It has no
    /// name any more, so no event reports it.
    fn remove_unclaimed(&mut self, adopted: Vec<Adopted>, now: Instant) {
        let mut by_service: BTreeMap<ServiceId, Vec<Adopted>> = BTreeMap::new();
        for adopted in adopted {
            by_service.entry(adopted.service).or_default().push(adopted);
        }
        for (id, backends) in by_service {
            let vip = backends[0].vip;
            let config = config::Service {
                name: vip.map_or_else(|| format!("service {id}"), |vip| vip.to_string()),
                // The VIP of no service, so that it blocks none.
                vip: vip.unwrap_or(SocketAddr::from(([0; 4], 0))),
                mode: config::Mode::default(),
                no_backend: config::NoBackend::default(),
                evidence: false,
                connections: config::Connections::default(),
                limits: config::Limits::default(),
                affinity: None,
                sources: config::Sources::default(),
                backends: Vec::new(),
                fallback: Vec::new(),
                probe: None,
                breaker: config::Breaker::default(),
            };
            let mut service = Service::new(id, &config, now);
            let config::Service { mode, no_backend, evidence, sources, .. } = config;
            let entry = |vip| Entry {
                vip,
                mode,
                no_backend,
                evidence,
                redispatch: false,
                affinity: None,
                limit: None,
                sources,
                trials: Vec::new(),
            };
            service.writer =
                Writer::adopting(Forwarding { service: vip.map(entry), ..Forwarding::default() });
            for adopted in &backends {
                service.adopt_removed(adopted, now);
            }
            service.retired = true;
            self.services.insert(id, service);
        }
    }
}
