//! At which MAC addresses the node takes frames of an interface: those of the interface, of the bridge or bond that it
//! is a port of, and of the devices on it, such as the macvlan of a VRRP daemon. Native XDP of a bond runs on its ports,
//! so frames for the bond come by these.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::OwnMac;

use super::kernel::Device;
use crate::dataplane::OwnMacs;

/// `filters`: addresses that interfaces accept beside their own.
pub(super) fn own_macs(
    attached: &BTreeSet<u32>,
    links: &BTreeMap<u32, Device>,
    filters: &[(u32, [u8; 6])],
) -> OwnMacs {
    let mut macs = OwnMacs::new();
    for index in attached {
        let Some(device) = links.get(index) else { continue };
        let added = filters.iter().filter(|(of, _)| of == index).map(|(_, mac)| *mac);
        let related = related(*index, links);
        let all = related.iter().filter_map(|index| links.get(index)).map(|device| device.mac).chain(added);
        let all: Vec<[u8; 6]> = all.collect();
        let ports = ports(*index, links).filter(|port| !attached.contains(port));
        for by in ports.chain([*index]) {
            macs.extend(all.iter().map(|mac| (OwnMac::new(by, *mac), device.mac)));
        }
    }
    macs
}

/// The ports of a bond or bridge.
pub(super) fn ports(of: u32, links: &BTreeMap<u32, Device>) -> impl Iterator<Item = u32> {
    links.iter().filter(move |(_, device)| device.master == Some(of)).map(|(index, _)| *index)
}

/// A device, its masters, and all devices on any of these.
fn related(index: u32, links: &BTreeMap<u32, Device>) -> BTreeSet<u32> {
    let mut found = BTreeSet::from([index]);
    loop {
        let masters = found.iter().filter_map(|index| links.get(index)?.master);
        let on = |device: &Device| device.lower.is_some_and(|lower| found.contains(&lower));
        let upper = links.iter().filter(|(_, device)| on(device)).map(|(index, _)| *index);
        let new: Vec<u32> = masters.chain(upper).filter(|index| !found.contains(index)).collect();
        if new.is_empty() {
            return found;
        }
        found.extend(new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn mac(last: u8) -> [u8; 6] {
        [2, 0, 0, 0, 0, last]
    }

    fn device(last: u8) -> Device {
        Device { mac: mac(last), ..Device::default() }
    }

    fn of(attached: u32, links: &BTreeMap<u32, Device>, filters: &[(u32, [u8; 6])]) -> Vec<u8> {
        let macs = own_macs(&[attached].into(), links, filters);
        let usual = links[&attached].mac;
        assert!(macs.iter().all(|(mac, of)| (mac.ifindex, *of) == (attached, usual)));
        macs.into_keys().map(|own| own.mac[5]).collect()
    }

    #[test]
    fn a_device_has_its_own_and_those_of_the_devices_on_it() {
        let mut links = BTreeMap::from([(2, device(2)), (3, device(3)), (9, device(9))]);
        assert_eq!(of(2, &links, &[]), [2]);
        // A macvlan, and another one on that.
        links.insert(4, Device { lower: Some(2), ..device(4) });
        links.insert(5, Device { lower: Some(4), ..device(5) });
        assert_eq!(of(2, &links, &[]), [2, 4, 5]);
        assert_eq!(of(3, &links, &[]), [3]);
        assert_eq!(of(4, &links, &[]), [4, 5], "what is below it takes frames of its own");
    }

    #[test]
    fn a_port_has_those_of_its_bridge_and_what_is_on_that() {
        let port = |last| Device { master: Some(7), ..device(last) };
        let links = BTreeMap::from([
            (2, port(2)),
            (3, port(3)),
            (7, device(7)),
            (8, Device { lower: Some(7), ..device(8) }),
        ]);
        assert_eq!(of(2, &links, &[]), [2, 7, 8]);
        let of_master = own_macs(&[7].into(), &links, &[]);
        for by in [2, 3, 7] {
            let all: Vec<u8> =
                of_master.keys().filter(|own| own.ifindex == by).map(|own| own.mac[5]).collect();
            assert_eq!(all, [7, 8], "by {by}: not those of its ports");
        }
        assert!(of_master.values().all(|usual| *usual == mac(7)));
        let both = own_macs(&[2, 7].into(), &links, &[]);
        assert!(both.keys().any(|own| (own.ifindex, own.mac) == (2, mac(2))), "a port that is listed itself");
    }

    #[test]
    fn a_device_has_what_its_filter_accepts() {
        let links = BTreeMap::from([(2, device(2)), (3, device(3))]);
        let filters = [(2, mac(0x51)), (3, mac(0x52)), (4, mac(0x53))];
        assert_eq!(of(2, &links, &filters), [2, 0x51]);
        assert_eq!(own_macs(&[6].into(), &links, &filters), OwnMacs::new(), "it is gone");
    }
}
