//! The sources of failures: how many different clients saw them.
//!
//! A client can provoke failures that say nothing about the backend. So one client alone convicts nobody while
//! the service has others.

use std::net::{IpAddr, SocketAddr};

use lb_common::abi::{Addr, Address as _, V4};

use crate::{outcome::ClientCounts, random};

/// Different sources that are counted. More are not needed to decide.
pub const MOST: usize = 8;

/// The different sources of some failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    prefixes: Few,
    addresses: Few,
    /// The source of a failure is not known, or the failure does not rest on what a client saw.
    certain: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Few {
    of: [u64; MOST],
    len: u8,
}

impl Sources {
    /// Adds the source of a failure. `None`: the number of sources limits nothing any more.
    pub fn add(&mut self, client: Option<IpAddr>) {
        match client {
            Some(client) => {
                self.prefixes.add(prefix(client));
                self.addresses.add(key(client));
            }
            None => self.certain = true,
        }
    }

    pub fn merge(&mut self, other: &Self) {
        other.prefixes.known().iter().for_each(|source| self.prefixes.add(*source));
        other.addresses.known().iter().for_each(|source| self.addresses.add(*source));
        self.certain |= other.certain;
    }

    /// Whether failures of these sources may convict: `least` different ones have to agree, or all that the
    /// service has. The service's clients differ by their prefixes if it has several, else by their
    /// addresses. Without a client_counts nothing is known about the clients, and any source will do.
    pub fn suffice(&self, least: u32, client_counts: Option<ClientCounts>) -> bool {
        let Some(ClientCounts { prefixes, addresses }) = client_counts else { return true };
        if self.certain || least <= 1 {
            return true;
        }
        if prefixes >= 2 {
            u32::from(self.prefixes.len) >= least.min(prefixes)
        } else if addresses >= 2 {
            u32::from(self.addresses.len) >= least.min(addresses)
        } else {
            true
        }
    }

    /// How many different ones there are, at most [`MOST`] each.
    pub fn count(&self) -> ClientCounts {
        ClientCounts { prefixes: u32::from(self.prefixes.len), addresses: u32::from(self.addresses.len) }
    }
}

impl Few {
    fn add(&mut self, source: u64) {
        if self.known().contains(&source) {
            return;
        }
        if let Some(free) = self.of.get_mut(usize::from(self.len)) {
            *free = source;
            self.len += 1;
        }
    }

    fn known(&self) -> &[u64] {
        &self.of[..usize::from(self.len)]
    }
}

/// The /24 or the /48 of an address, as the program counts it.
fn prefix(address: IpAddr) -> u64 {
    let wide = Addr::from(address);
    if address.to_canonical().is_ipv4() { V4::narrow(&wide).prefix() } else { wide.prefix() }
}

/// Two addresses with one key count as one, which only asks for one more.
fn key(address: IpAddr) -> u64 {
    random::of_address(0, SocketAddr::new(address, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(clients: &[&str]) -> Sources {
        let mut sources = Sources::default();
        clients.iter().for_each(|client| sources.add(Some(client.parse().expect("literal"))));
        sources
    }

    fn client_counts(prefixes: u32, addresses: u32) -> Option<ClientCounts> {
        Some(ClientCounts { prefixes, addresses })
    }

    #[test]
    fn sources_are_counted_by_prefix_and_by_address() {
        let all = ["192.0.2.1", "192.0.2.1", "192.0.2.9", "198.51.100.1", "::ffff:192.0.2.1"];
        assert_eq!(of(&all).count(), ClientCounts { prefixes: 2, addresses: 3 });
        let all = ["2001:db8:1::1", "2001:db8:1:9::1", "2001:db8:2::1"];
        assert_eq!(of(&all).count(), ClientCounts { prefixes: 2, addresses: 3 });
        let many: Vec<String> = (0..100).map(|number| format!("10.0.{number}.1")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(of(&many).count(), ClientCounts { prefixes: 8, addresses: 8 });
    }

    #[test]
    fn one_source_does_where_the_service_has_no_other() {
        assert!(of(&["192.0.2.1"]).suffice(2, client_counts(1, 1)));
        assert!(of(&["192.0.2.1"]).suffice(2, client_counts(0, 0)));
        assert!(of(&["192.0.2.1"]).suffice(2, None));
        assert!(!of(&["192.0.2.1"]).suffice(2, client_counts(1, 2)));
        assert!(!of(&["192.0.2.1"]).suffice(2, client_counts(2, 2)));
        assert!(of(&["192.0.2.1"]).suffice(1, client_counts(2, 2)), "off");
    }

    #[test]
    fn clients_of_one_prefix_are_one_where_the_service_has_others() {
        let two = of(&["192.0.2.1", "192.0.2.2"]);
        assert!(two.suffice(2, client_counts(1, 2)));
        assert!(!two.suffice(2, client_counts(2, 3)));
        assert!(of(&["192.0.2.1", "198.51.100.2"]).suffice(2, client_counts(2, 3)));
    }

    #[test]
    fn no_more_are_asked_for_than_the_service_has() {
        let three = of(&["192.0.2.1", "198.51.100.1", "203.0.113.1"]);
        assert!(three.suffice(8, client_counts(3, 9)));
        assert!(!three.suffice(8, client_counts(4, 9)));
    }

    #[test]
    fn a_failure_of_no_client_is_certain() {
        let mut sources = of(&["192.0.2.1"]);
        sources.add(None);
        assert!(sources.suffice(2, client_counts(9, 9)));
        let mut merged = of(&["192.0.2.1"]);
        assert!(!merged.suffice(2, client_counts(9, 9)));
        merged.merge(&of(&["198.51.100.1"]));
        assert!(merged.suffice(2, client_counts(9, 9)));
        let mut certain = of(&["192.0.2.1"]);
        certain.merge(&sources);
        assert!(certain.suffice(9, client_counts(9, 9)));
    }
}
