//! Backends that come and go in a replay, as with a reload.

use std::net::{Ipv4Addr, SocketAddr};

use lb_core::config::{Backend, Config, Discovered};

use super::unfit::Unfit;
use crate::journal::line::Member;

const DEFAULT_WEIGHT: u16 = 100;

/// Whether a backend can be added at an address.
pub(super) fn check(
    config: &Config,
    service: usize,
    name: &str,
    address: Option<SocketAddr>,
) -> Result<(), Unfit> {
    let mut others = config.services[service].everyone().filter(|known| known.name != name);
    match others.find(|known| Some(known.address) == address) {
        Some(other) => {
            let message = format!("the address of `{name}` is that of `{}`", other.name);
            Err(Unfit::new(message, "give it another `address`, or none: one is made up"))
        }
        None => Ok(()),
    }
}

/// Adds a backend: as the file has it, or a new one. False: it is there already.
pub(super) fn add(
    config: &mut Config,
    original: &Config,
    service: usize,
    name: &str,
    address: Option<SocketAddr>,
    weight: Option<std::num::NonZeroU16>,
) -> bool {
    let configured = original.services[service].everyone().find(|known| known.name == name);
    let fallback = original.services[service].fallback.iter().any(|known| known.name == name);
    let present = &mut config.services[service];
    let all: Vec<Backend> = present.everyone().cloned().collect();
    let wanted = Backend {
        name: name.to_owned(),
        address: address
            .or(configured.map(|known| known.address))
            .filter(|address| all.iter().all(|known| known.name == name || known.address != *address))
            .unwrap_or_else(|| unused(&all)),
        weight: weight.map(u16::from).or(configured.map(|known| known.weight)).unwrap_or(DEFAULT_WEIGHT),
        probe_address: None,
        max_connections: None,
        discovered: None,
    };
    let mut everyone = present.backends.iter_mut().chain(&mut present.fallback);
    match everyone.find(|known| known.name == name) {
        None if fallback => present.fallback.push(wanted),
        None => present.backends.push(wanted),
        Some(known) => {
            let address = address.unwrap_or(known.address);
            let weight = weight.map_or(known.weight, u16::from);
            if (known.address, known.weight) == (address, weight) {
                return false;
            }
            (known.address, known.weight) = (address, weight);
        }
    }
    true
}

/// Makes these the members, in this order. False: they were already.
pub(super) fn set(config: &mut Config, service: usize, members: &[Member]) -> bool {
    let wanted = |of_fallback: bool| -> Vec<Backend> {
        let of = members.iter().filter(|member| member.fallback == of_fallback);
        of.map(|Member { name, address, weight, fallback: _, discovery, id }| Backend {
            name: name.clone(),
            address: *address,
            weight: weight.get(),
            probe_address: None,
            max_connections: None,
            discovered: discovery.map(|standing| Discovered { standing, identity: id.clone() }),
        })
        .collect()
    };
    let (backends, fallback) = (wanted(false), wanted(true));
    let present = &mut config.services[service];
    let new = present.backends != backends || present.fallback != fallback;
    (present.backends, present.fallback) = (backends, fallback);
    new
}

/// A service that has no backends in its file keeps those that discovery gave it.
pub(super) fn keep_discovered(config: &mut Config, before: &Config) {
    for service in config.services.iter_mut().filter(|service| service.backends.is_empty()) {
        let known = before.services.iter().find(|known| known.name == service.name);
        service.backends = known.map(|known| known.backends.clone()).unwrap_or_default();
    }
}

/// An address for a backend that has none: the first unused one of those that are reserved for benchmarks
/// (RFC 2544).
fn unused(backends: &[Backend]) -> SocketAddr {
    let first = u32::from(Ipv4Addr::new(198, 18, 0, 1));
    let mut all = (0..u32::MAX).map(|i| SocketAddr::from((Ipv4Addr::from(first.wrapping_add(i)), 80)));
    all.find(|address| backends.iter().all(|known| known.address != *address))
        .expect("there are fewer backends than addresses")
}
