//! From Services and EndpointSlices to sets of backends.
//!
//! | endpoint | state in the file |
//! |---|---|
//! | ready | `ready` |
//! | terminating and serving | `draining`; `ready` while no endpoint of the port is ready |
//! | anything else | `out` |
//! | in no slice any more | not in the file |
//!
//! The identity is the uid of the pod: a new pod on an old address is another backend.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use crate::objects::{Endpoint, Family, Key, Port, Service, Slice};

/// In the order in which one is preferred to another at the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Ready,
    Draining,
    Out,
}

/// An endpoint at one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) address: SocketAddr,
    pub(crate) state: State,
    /// The uid of its pod.
    pub(crate) id: Option<String>,
    /// The name of its pod.
    pub(crate) pod: Option<String>,
}

/// One file: a port of a Service in one IP version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) service: Key,
    /// The name of the port, or its number.
    pub(crate) port: String,
    pub(crate) family: Family,
}

impl Place {
    pub(crate) fn file_name(&self) -> String {
        let Key { namespace, name } = &self.service;
        let family = match self.family {
            Family::V4 => "",
            Family::V6 => ".v6",
        };
        format!("{namespace}.{name}.{}{family}.json", self.port)
    }
}

/// The sets of all ports that are followed, and remarks about annotations that mean nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sets {
    pub(crate) sets: BTreeMap<Place, Vec<Candidate>>,
    pub(crate) remarks: Vec<String>,
}

/// `selected`: the Services were selected by their labels, so they need no annotation.
pub(crate) fn build(
    services: &BTreeMap<Key, Service>,
    slices: &BTreeMap<Key, Slice>,
    selected: bool,
) -> Sets {
    let mut by_service: BTreeMap<&Key, Vec<&Slice>> = BTreeMap::new();
    for slice in slices.values() {
        by_service.entry(&slice.service).or_default().push(slice);
    }
    let mut all = Sets::default();
    for (key, service) in services {
        let slices = by_service.get(key).map(Vec::as_slice).unwrap_or_default();
        for port in followed(key, service, selected, &mut all.remarks) {
            for family in families(service, slices) {
                let label = if port.name.is_empty() { port.number.to_string() } else { port.name.clone() };
                let place = Place { service: key.clone(), port: label, family };
                all.sets.insert(place, set(slices, &port.name, family));
            }
        }
    }
    all
}

/// The ports of a Service that its annotation or the selector names.
fn followed<'a>(key: &Key, service: &'a Service, selected: bool, remarks: &mut Vec<String>) -> Vec<&'a Port> {
    let words = match service.discover.as_deref().map(str::trim) {
        Some("false") | None if !selected => return Vec::new(),
        Some("false") => return Vec::new(),
        Some("true") | None => return service.ports.iter().collect(),
        Some(words) => words,
    };
    let mut ports = Vec::new();
    for word in words.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let fits = |port: &&Port| port.name == word || port.number.to_string() == word;
        match service.ports.iter().find(fits) {
            Some(port) if !ports.contains(&port) => ports.push(port),
            Some(_) => {}
            None => {
                let Key { namespace, name } = key;
                remarks.push(format!("service {namespace}/{name} has no TCP port `{word}`"));
            }
        }
    }
    ports
}

/// The IP versions of a Service. A server that knows none of them says so by its slices.
fn families(service: &Service, slices: &[&Slice]) -> Vec<Family> {
    let mut families = service.families.clone();
    if families.is_empty() {
        families = slices.iter().filter_map(|slice| slice.family).collect();
    }
    families.sort_unstable();
    families.dedup();
    families
}

/// The endpoints at one port, in the order of their addresses.
fn set(slices: &[&Slice], port: &str, family: Family) -> Vec<Candidate> {
    let mut found: Vec<(Candidate, bool)> = Vec::new();
    for slice in slices.iter().filter(|slice| slice.family == Some(family)) {
        let Some(port) = slice.ports.iter().find(|of| of.name == port) else { continue };
        for endpoint in slice.endpoints.iter().filter(|of| is_host(of.address)) {
            found.push((candidate(endpoint, port.number), endpoint.serving && endpoint.terminating));
        }
    }
    // Those that terminate and still serve are better than none.
    if found.iter().all(|(of, _)| of.state != State::Ready) {
        for (of, _) in found.iter_mut().filter(|(_, serves)| *serves) {
            of.state = State::Ready;
        }
    }
    // While an endpoint moves, two slices may have it. An address that was given again belongs to the better one.
    found.sort_by(|(a, _), (b, _)| (a.state, a.address, &a.id).cmp(&(b.state, b.address, &b.id)));
    let mut set: Vec<Candidate> = Vec::new();
    for (of, _) in found {
        if !set.iter().any(|other| other.address == of.address) {
            set.push(of);
        }
    }
    set.sort_by_key(|of| of.address);
    set
}

fn candidate(endpoint: &Endpoint, port: u16) -> Candidate {
    let state = match endpoint {
        Endpoint { ready: true, .. } => State::Ready,
        Endpoint { serving: true, terminating: true, .. } => State::Draining,
        Endpoint { .. } => State::Out,
    };
    let target = endpoint.target.as_ref();
    Candidate {
        address: SocketAddr::new(endpoint.address, port),
        state,
        id: target.and_then(|of| of.uid.clone()),
        pod: target.and_then(|of| of.name.clone()),
    }
}

/// Whether the daemon takes the address. It refuses a set with any other, as a whole.
fn is_host(address: IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    !local && !address.is_loopback() && !address.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Target;

    fn key(name: &str) -> Key {
        Key { namespace: "shop".to_owned(), name: name.to_owned() }
    }

    fn port(name: &str, number: u16) -> Port {
        Port { name: name.to_owned(), number }
    }

    /// `ready`, `serving`, `terminating`.
    fn endpoint(address: &str, flags: (bool, bool, bool), id: &str) -> Endpoint {
        let (ready, serving, terminating) = flags;
        let target = Some(Target { name: Some(format!("pod-{id}")), uid: Some(id.to_owned()) });
        let target = target.filter(|_| !id.is_empty());
        Endpoint { address: address.parse().expect("literal"), ready, serving, terminating, target }
    }

    const READY: (bool, bool, bool) = (true, true, false);
    const LEAVES: (bool, bool, bool) = (false, true, true);
    const FAILS: (bool, bool, bool) = (false, false, false);
    const LOST: (bool, bool, bool) = (false, false, true);

    fn slice(endpoints: &[Endpoint]) -> Slice {
        let family =
            if endpoints.first().is_none_or(|of| of.address.is_ipv4()) { Family::V4 } else { Family::V6 };
        let ports = vec![port("http", 8080), port("admin", 9000)];
        Slice { service: key("web"), family: Some(family), ports, endpoints: endpoints.to_vec() }
    }

    fn seen(slices: &[&Slice]) -> Vec<(String, State, Option<String>)> {
        let set = set(slices, "http", Family::V4);
        set.into_iter().map(|of| (of.address.to_string(), of.state, of.id)).collect()
    }

    fn row(address: &str, state: State, id: &str) -> (String, State, Option<String>) {
        (format!("{address}:8080"), state, (!id.is_empty()).then(|| id.to_owned()))
    }

    #[test]
    fn conditions_become_states() {
        let all = [
            endpoint("10.0.0.2", LEAVES, "b"),
            endpoint("10.0.0.1", READY, "a"),
            endpoint("10.0.0.3", FAILS, "c"),
            endpoint("10.0.0.4", LOST, ""),
        ];
        let expected = [
            row("10.0.0.1", State::Ready, "a"),
            row("10.0.0.2", State::Draining, "b"),
            row("10.0.0.3", State::Out, "c"),
            row("10.0.0.4", State::Out, ""),
        ];
        assert_eq!(seen(&[&slice(&all)]), expected);
    }

    #[test]
    fn without_a_ready_one_those_that_still_serve_are_used() {
        let all = [endpoint("10.0.0.1", LEAVES, "a"), endpoint("10.0.0.2", LOST, "b")];
        assert_eq!(
            seen(&[&slice(&all)]),
            [row("10.0.0.1", State::Ready, "a"), row("10.0.0.2", State::Out, "b")]
        );
        // One that is ready may be in another slice.
        let other = slice(&[endpoint("10.0.0.3", READY, "c")]);
        assert_eq!(seen(&[&slice(&all), &other])[0], row("10.0.0.1", State::Draining, "a"));
    }

    #[test]
    fn slices_are_merged_and_no_address_is_there_twice() {
        let first = slice(&[endpoint("10.0.0.1", FAILS, "a"), endpoint("10.0.0.2", LEAVES, "b")]);
        let second = slice(&[endpoint("10.0.0.1", READY, "a"), endpoint("10.0.0.2", READY, "c")]);
        let expected = [row("10.0.0.1", State::Ready, "a"), row("10.0.0.2", State::Ready, "c")];
        assert_eq!(seen(&[&first, &second]), expected);
        assert_eq!(seen(&[&second, &first]), expected);
        // No host is reached at these.
        let odd = slice(&[
            endpoint("127.0.0.1", READY, ""),
            endpoint("0.0.0.1", READY, ""),
            endpoint("224.0.0.1", READY, ""),
        ]);
        assert_eq!(seen(&[&odd]), []);
        let v6 = slice(&[endpoint("fd00::1", READY, "a"), endpoint("fe80::1", READY, "b")]);
        assert_eq!(seen(&[&v6]), []);
        assert_eq!(set(&[&v6], "http", Family::V6).len(), 1);
    }

    fn places(discover: Option<&str>, selected: bool) -> (Vec<String>, usize) {
        let service = Service {
            discover: discover.map(str::to_owned),
            families: Vec::new(),
            ports: vec![port("http", 80), port("admin", 9000)],
        };
        let slices = BTreeMap::from([
            (key("web-x"), slice(&[endpoint("10.0.0.1", READY, "a")])),
            (key("web-y"), slice(&[endpoint("fd00::1", READY, "a")])),
        ]);
        let Sets { sets, remarks } = build(&BTreeMap::from([(key("web"), service)]), &slices, selected);
        (sets.keys().map(Place::file_name).collect(), remarks.len())
    }

    #[test]
    fn an_annotation_or_a_selector_says_what_is_followed() {
        let all =
            ["shop.web.admin.json", "shop.web.admin.v6.json", "shop.web.http.json", "shop.web.http.v6.json"];
        let all: Vec<String> = all.map(str::to_owned).into();
        assert_eq!(places(None, false), (Vec::new(), 0));
        assert_eq!(places(Some("false"), true), (Vec::new(), 0));
        assert_eq!(places(None, true), (all.clone(), 0));
        assert_eq!(places(Some("true"), false), (all.clone(), 0));
        assert_eq!(places(Some("http"), false), (all[2..].to_vec(), 0));
        assert_eq!(places(Some("80, 80,http"), true), (all[2..].to_vec(), 0));
        assert_eq!(places(Some("admin,metrics"), false), (all[..2].to_vec(), 1));
    }

    #[test]
    fn a_service_without_endpoints_has_an_empty_set() {
        let service = Service {
            discover: Some("true".to_owned()),
            families: vec![Family::V4],
            ports: vec![port("", 80)],
        };
        let Sets { sets, .. } = build(&BTreeMap::from([(key("web"), service)]), &BTreeMap::new(), false);
        let found: Vec<_> = sets.iter().map(|(place, set)| (place.file_name(), set.len())).collect();
        assert_eq!(found, [("shop.web.80.json".to_owned(), 0)]);
    }
}
