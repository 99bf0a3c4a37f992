//! Which of the paths to the backends work, as far as the kernel's tables say.
//!
//! A fault counts when it has held for a while: a cable that is plugged in again, or a routing daemon that starts again,
//! takes no backend out. One that was there at the first look counts at once, unless the neighbour is still being asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_core::snapshot::PathState;

use super::kernel::Device;

/// The paths to the addresses of the backends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// Addresses that are not in it work.
    pub faults: BTreeMap<IpAddr, PathState>,
    /// The configured NAT addresses, and whether the node has each.
    pub nat_addresses: BTreeMap<IpAddr, bool>,
}

impl Paths {
    /// The path to a backend. `is_nat`: frames to it have a NAT address as their source.
    pub fn to(&self, address: IpAddr, is_nat: bool) -> PathState {
        if let Some(fault) = self.faults.get(&address) {
            return *fault;
        }
        let of_family = |nat: &IpAddr| nat.is_ipv4() == address.is_ipv4();
        let mut nat = self.nat_addresses.iter().filter(|(nat, _)| is_nat && of_family(nat)).peekable();
        match nat.peek().is_some() && nat.all(|(_, is_present)| !is_present) {
            true => PathState::NoNatAddress,
            false => PathState::Ok,
        }
    }
}

/// A fault counts when it was there at so many looks of the clock in a row, a second apart.
const HELD: u32 = 2;

/// The kernel asks for a neighbour three times, a second apart.
const ASKED: u32 = 4;

/// Faults, and for how many looks each has held.
#[derive(Debug, Default)]
pub(super) struct Faults {
    known: BTreeMap<IpAddr, Known>,
}

#[derive(Debug)]
struct Known {
    fault: PathState,
    looks: u32,
    counts: bool,
}

impl Faults {
    /// Notes what a look has found. `is_tick`: it was the clock's turn, and no event of the kernel.
    pub(super) fn note(&mut self, address: IpAddr, found: PathState, is_tick: bool) {
        let is_new = !self.known.contains_key(&address);
        let known = self.known.entry(address).or_insert(Known { fault: found, looks: 0, counts: false });
        let waits = matches!(found, PathState::NoNeighbour | PathState::NoLink);
        match (known.fault, found) {
            (_, PathState::Ok) => *known = Known { fault: found, looks: 0, counts: true },
            (PathState::Ok, _) if !is_new => *known = Known { fault: found, looks: 0, counts: false },
            (_, _) => {
                known.fault = found;
                known.looks += u32::from(is_tick);
                let least = if found == PathState::NoNeighbour { ASKED } else { HELD };
                known.counts |= (is_new && !waits) || known.looks >= least;
            }
        }
    }

    pub(super) fn retain(&mut self, wanted: impl Fn(IpAddr) -> bool) {
        self.known.retain(|address, _| wanted(*address));
    }

    /// The faults that count.
    pub(super) fn counting(&self) -> impl Iterator<Item = (IpAddr, PathState)> {
        let counts = |known: &Known| known.counts && known.fault != PathState::Ok;
        self.known
            .iter()
            .filter(move |(_, known)| counts(known))
            .map(|(address, known)| (*address, known.fault))
    }
}

/// Whether frames that leave by a device arrive, and their replies meet the program, as far as the device decides that.
pub(super) fn of_device(
    index: u32,
    links: &BTreeMap<u32, Device>,
    attached: &BTreeSet<u32>,
    vlans: &[u16],
) -> PathState {
    let device = links.get(&index).copied().unwrap_or_default();
    if !device.has_link {
        PathState::NoLink
    } else if !meets_program(index, links, attached) {
        PathState::NotAttached
    } else if device.below.is_some_and(|(_, vlan)| vlan != 0 && !vlans.contains(&vlan)) {
        PathState::VlanNotListed
    } else {
        PathState::Ok
    }
}

/// Whether frames that come by an interface meet the program: it is attached to that interface, to the one below it, or
/// to a port of it.
fn meets_program(index: u32, links: &BTreeMap<u32, Device>, attached: &BTreeSet<u32>) -> bool {
    /// A VLAN on a bond of ports is two deep.
    const DEEPEST: usize = 4;
    let mut below = vec![index];
    for _ in 0..DEEPEST {
        if below.iter().any(|index| attached.contains(index)) {
            return true;
        }
        let next = |of: &u32| {
            let of = *of;
            let lower = links.get(&of).and_then(|device| device.lower);
            let ports = links.iter().filter(move |(_, device)| device.master == Some(of));
            lower.into_iter().chain(ports.map(|(index, _)| *index)).collect::<Vec<_>>()
        };
        below = below.iter().flat_map(next).collect();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn counting(faults: &Faults) -> Option<PathState> {
        faults.counting().next().map(|(_, fault)| fault)
    }

    #[test]
    fn a_fault_that_is_there_at_first_counts_at_once() {
        for fault in [PathState::Local, PathState::NoRoute, PathState::NotUnicast, PathState::NotAttached] {
            let mut faults = Faults::default();
            faults.note(HOST, fault, false);
            assert_eq!(counting(&faults), Some(fault));
        }
    }

    #[test]
    fn a_fault_that_comes_later_counts_when_it_has_held() {
        let mut faults = Faults::default();
        faults.note(HOST, PathState::Ok, true);
        for (is_tick, counts) in [(true, false), (false, false), (true, false), (false, false), (true, true)]
        {
            faults.note(HOST, PathState::NoRoute, is_tick);
            assert_eq!(counting(&faults).is_some(), counts, "{faults:?}");
        }
        faults.note(HOST, PathState::NoNeighbour, false);
        assert_eq!(counting(&faults), Some(PathState::NoNeighbour), "another fault at once");
        faults.note(HOST, PathState::Ok, false);
        assert_eq!(counting(&faults), None);
    }

    #[test]
    fn a_neighbour_has_time_to_answer() {
        let mut faults = Faults::default();
        faults.note(HOST, PathState::NoNeighbour, false);
        assert_eq!(counting(&faults), None);
        for looks in 1..=4 {
            faults.note(HOST, PathState::NoNeighbour, true);
            assert_eq!(counting(&faults).is_some(), looks == 4);
        }
        assert_eq!(counting(&faults), Some(PathState::NoNeighbour));
        faults.retain(|_| false);
        assert_eq!(counting(&faults), None);
    }

    #[test]
    fn one_nat_address_of_the_family_is_enough() {
        let mut paths = Paths::default();
        assert_eq!(paths.to(HOST, true), PathState::Ok, "the route's source is used");
        let nat: [IpAddr; 3] = ["10.0.0.8", "10.0.0.9", "fd00::8"].map(|text| text.parse().expect("literal"));
        paths.nat_addresses.extend([(nat[0], false), (nat[1], true), (nat[2], false)]);
        assert_eq!(paths.to(HOST, true), PathState::Ok);
        assert_eq!(paths.to("fd00::1".parse().expect("literal"), true), PathState::NoNatAddress);
        paths.nat_addresses.insert(nat[1], false);
        assert_eq!(paths.to(HOST, true), PathState::NoNatAddress);
        assert_eq!(paths.to(HOST, false), PathState::Ok);
        paths.faults.insert(HOST, PathState::Local);
        assert_eq!(paths.to(HOST, true), PathState::Local);
    }

    #[test]
    fn a_program_below_or_on_a_port_is_met() {
        let device = |lower, master| Device { lower, master, ..Device::default() };
        // 5: a VLAN on the bond 4, whose ports are 2 and 3. 6 stands alone.
        let links = BTreeMap::from([
            (2, device(None, Some(4))),
            (3, device(None, Some(4))),
            (4, device(None, None)),
            (5, device(Some(4), None)),
            (6, device(None, None)),
        ]);
        for (attached, met) in [(2, [2, 4, 5].as_slice()), (4, &[4, 5]), (5, &[5]), (6, &[6])] {
            let attached = BTreeSet::from([attached]);
            let found: Vec<u32> =
                links.keys().copied().filter(|index| meets_program(*index, &links, &attached)).collect();
            assert_eq!(found, met, "{attached:?}");
        }
        let loops = BTreeMap::from([(1, device(Some(2), None)), (2, device(Some(1), None))]);
        assert!(!meets_program(1, &loops, &BTreeSet::from([9])));
    }
}
