//! The ways back to clients, and what moves them while a client is silent.
//!
//! The program moves the way of a client that sends something. Here the kernel's tables move it: a neighbour that has
//! another MAC address, and a route that leads by another gateway.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use lb_common::abi::Link;

/// The way back to a client, as its flows have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientWay {
    pub ifindex: u32,
    /// 0: none.
    pub vlan: u16,
    pub link: Link,
}

/// A neighbour of which the kernel has learnt another MAC address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedNeighbour {
    pub ifindex: u32,
    /// 0: none.
    pub vlan: u16,
    pub before: [u8; 6],
    pub now: [u8; 6],
    /// Neighbours that still have the former one.
    pub staying: BTreeSet<IpAddr>,
}

/// The ways to clients by the kernel's routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// By the length of the prefix, the longest first, and by its first address: every flow is looked up. `None`: by no
    /// gateway, by several, or by one that does not answer.
    ways: BTreeMap<Reverse<u8>, BTreeMap<IpAddr, Option<ClientWay>>>,
}

impl Routes {
    /// The way by the route with the longest prefix.
    fn to(&self, client: IpAddr) -> Option<ClientWay> {
        self.ways.iter().find_map(|(Reverse(length), ways)| ways.get(&first_of(client, *length))).copied()?
    }

    /// The same, with the former way where there is none: a gateway whose device is gone was by that one.
    pub fn or(mut self, former: &Self) -> Self {
        for (length, ways) in &mut self.ways {
            let Some(former) = former.ways.get(length) else { continue };
            for (prefix, way) in ways {
                *way = way.or(former.get(prefix).copied().flatten());
            }
        }
        self
    }
}

impl FromIterator<((u8, IpAddr), Option<ClientWay>)> for Routes {
    fn from_iter<T: IntoIterator<Item = ((u8, IpAddr), Option<ClientWay>)>>(ways: T) -> Self {
        let mut routes = Self::default();
        for ((length, prefix), way) in ways {
            routes.ways.entry(Reverse(length)).or_default().insert(prefix, way);
        }
        routes
    }
}

/// The first address of the prefix that an address is in. A length beyond the family's gives the address itself.
fn first_of(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(u32::from(32 - length.min(32))).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(u32::from(128 - length.min(128))).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

/// News of the kernel about the ways to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    Neighbours(Vec<MovedNeighbour>),
    Routes { before: Routes, now: Routes },
}

impl Moved {
    /// The new way to a client, if the one that its flow has is the one that moved. A flow with another way has a client
    /// that sends by another gateway than the node would: it stays.
    pub fn way(&self, client: IpAddr, has: &ClientWay) -> Option<ClientWay> {
        match self {
            Self::Neighbours(all) => {
                let by = |moved: &&MovedNeighbour| {
                    (has.ifindex, has.vlan, has.link.to()) == (moved.ifindex, moved.vlan, moved.before)
                        && !moved.staying.contains(&client)
                };
                let moved = all.iter().find(by)?;
                Some(ClientWay { link: Link::new(moved.now, has.link.from()), ..*has })
            }
            Self::Routes { before, now } => {
                let place = |way: &ClientWay| (way.ifindex, way.vlan, way.link.to());
                let (before, now) = (before.to(client)?, now.to(client)?);
                (place(&before) == place(has) && place(&now) != place(has)).then_some(now)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(ifindex: u32, last: u8) -> ClientWay {
        ClientWay { ifindex, vlan: 0, link: Link::new([2, 0, 0, 0, 0, last], [2, 0, 0, 0, 9, ifindex as u8]) }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("a literal")
    }

    fn routes(of: &[(&str, u8, Option<ClientWay>)]) -> Routes {
        of.iter().map(|(prefix, length, way)| ((*length, ip(prefix)), *way)).collect()
    }

    #[test]
    fn the_longest_prefix_decides() {
        let routes = routes(&[
            ("0.0.0.0", 0, Some(way(1, 1))),
            ("10.0.0.0", 8, Some(way(2, 2))),
            ("10.1.0.0", 16, None),
            ("10.1.2.3", 32, Some(way(3, 3))),
            ("::", 0, Some(way(4, 4))),
            ("2001:db8::", 33, Some(way(5, 5))),
        ]);
        for (client, wanted) in [
            ("192.0.2.1", Some(1)),
            ("10.255.0.1", Some(2)),
            ("10.1.2.4", None),
            ("10.1.2.3", Some(3)),
            ("2001:db8:8000::1", Some(4)),
            ("2001:db8:7fff::1", Some(5)),
        ] {
            assert_eq!(routes.to(ip(client)).map(|way| way.ifindex), wanted, "{client}");
        }
        assert_eq!(Routes::default().to(ip("10.0.0.1")), None);
    }

    #[test]
    fn a_client_follows_its_route_to_another_gateway() {
        let (near, far) = (way(1, 1), way(2, 2));
        let before = routes(&[("0.0.0.0", 0, Some(near)), ("10.0.0.0", 8, Some(near))]);
        let now = routes(&[("0.0.0.0", 0, Some(far)), ("10.0.0.0", 8, Some(near))]);
        let moved = Moved::Routes { before, now };
        assert_eq!(moved.way(ip("192.0.2.1"), &near), Some(far));
        assert_eq!(moved.way(ip("10.0.0.1"), &near), None, "its own route has not changed");
        assert_eq!(moved.way(ip("192.0.2.1"), &way(1, 7)), None, "it comes by another gateway");
        assert_eq!(moved.way(ip("192.0.2.1"), &far), None, "it is there already");
        // The node's own address does not matter.
        let by_other = ClientWay { link: Link::new(near.link.to(), [6; 6]), ..near };
        assert_eq!(moved.way(ip("192.0.2.1"), &by_other), Some(far));
    }

    #[test]
    fn a_route_that_goes_leaves_the_next_shorter_one() {
        let (near, far) = (way(1, 1), way(2, 2));
        let before = routes(&[("0.0.0.0", 0, Some(far)), ("10.0.0.0", 8, Some(near))]);
        let moved = Moved::Routes { before: before.clone(), now: routes(&[("0.0.0.0", 0, Some(far))]) };
        assert_eq!(moved.way(ip("10.0.0.1"), &near), Some(far));
        for nowhere in [routes(&[]), routes(&[("0.0.0.0", 0, None)])] {
            let moved = Moved::Routes { before: before.clone(), now: nowhere };
            assert_eq!(moved.way(ip("10.0.0.1"), &near), None, "no way is better than none");
        }
    }

    #[test]
    fn a_client_follows_its_neighbour() {
        let moved = MovedNeighbour {
            ifindex: 1,
            vlan: 0,
            before: [2, 0, 0, 0, 0, 1],
            now: [2, 0, 0, 0, 0, 9],
            staying: BTreeSet::from([ip("10.0.0.5")]),
        };
        let moved = Moved::Neighbours(vec![moved]);
        assert_eq!(moved.way(ip("192.0.2.1"), &way(1, 1)), Some(ClientWay { ifindex: 1, ..way(1, 9) }));
        assert_eq!(moved.way(ip("10.0.0.5"), &way(1, 1)), None, "it still has the former address");
        assert_eq!(moved.way(ip("192.0.2.1"), &way(2, 1)), None);
        assert_eq!(moved.way(ip("192.0.2.1"), &ClientWay { vlan: 7, ..way(1, 1) }), None);
    }
}
