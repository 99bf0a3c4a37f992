//! Neighbours that change their MAC address: a gateway that fails over, a host that moves.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::kernel::{Device, Neighbour};
use crate::dataplane::client_ways::MovedNeighbour;

/// Above this many, only those that the kernel still knows are remembered.
const MOST: usize = 1 << 16;

/// The last MAC address of each neighbour. While the kernel asks for a gateway that has failed, it knows none.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<(u32, IpAddr), [u8; 6]>);

impl Known {
    /// The last MAC address of a neighbour.
    pub(super) fn mac(&self, ifindex: u32, address: IpAddr) -> Option<[u8; 6]> {
        self.0.get(&(ifindex, address)).copied()
    }

    /// Notes the neighbours, and returns those that have moved.
    pub(super) fn note(
        &mut self,
        neighbours: &BTreeMap<(u32, IpAddr), Neighbour>,
        links: &BTreeMap<u32, Device>,
    ) -> Vec<MovedNeighbour> {
        let mut moved = Vec::new();
        for ((index, address), Neighbour { mac: now, .. }) in neighbours {
            let Some(before) = self.0.insert((*index, *address), *now).filter(|before| before != now) else {
                continue;
            };
            let stays = |((of, _), other): &(&(u32, IpAddr), &Neighbour)| of == index && other.mac == before;
            let staying: BTreeSet<IpAddr> =
                neighbours.iter().filter(stays).map(|((_, address), _)| *address).collect();
            let device = links.get(index).copied().unwrap_or_default();
            let (ifindex, vlan) = device.below.unwrap_or((*index, 0));
            moved.push(MovedNeighbour { ifindex, vlan, before, now: *now, staying });
        }
        if self.0.len() > MOST {
            self.0.retain(|neighbour, _| neighbours.contains_key(neighbour));
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(address: &str, last: u8) -> ((u32, IpAddr), Neighbour) {
        let mac = [2, 0, 0, 0, 0, last];
        ((7, address.parse().expect("a literal")), Neighbour { mac, stale: false })
    }

    #[test]
    fn a_gateway_that_fails_over_has_moved() {
        let mut known = Known::default();
        let links = BTreeMap::from([(7, Device { below: Some((2, 10)), ..Device::default() })]);
        let mut note = |entries: &[(&str, u8)]| {
            let neighbours = entries.iter().map(|(address, last)| entry(address, *last)).collect();
            known.note(&neighbours, &links)
        };
        assert_eq!(note(&[("10.0.0.1", 1), ("10.0.0.2", 1), ("fe80::1", 1)]), []);
        assert_eq!(note(&[("10.0.0.1", 1), ("10.0.0.2", 1)]), []);
        // The router lives on without the gateway's address, or it has failed.
        for before in [1, 3] {
            let moved = note(&[("10.0.0.1", before + 1), ("10.0.0.2", 1)]);
            let [moved] = moved.as_slice() else { panic!("{moved:?}") };
            assert_eq!((moved.ifindex, moved.vlan, moved.now[5]), (2, 10, before + 1));
            let staying: Vec<IpAddr> =
                if before == 1 { vec!["10.0.0.2".parse().expect("a literal")] } else { vec![] };
            assert_eq!(moved.staying.iter().copied().collect::<Vec<_>>(), staying);
            assert_eq!(note(&[("10.0.0.2", 1)]), [], "the kernel asks again");
            assert_eq!(note(&[("10.0.0.1", 3), ("10.0.0.2", 1)]).len(), 1);
        }
        assert_eq!(note(&[("fe80::1", 9)]).len(), 1);
    }
}
