//! The NAT addresses in `CONFIG`, which change while the program runs.

use std::net::IpAddr;

use lb_common::abi::{Addr, Config, NAT_ADDRESSES, V4};

use super::mapped::Mapped;

#[derive(Debug)]
pub(super) struct NatAddresses {
    config: Mapped<Config>,
}

impl NatAddresses {
    pub(super) const fn new(config: Mapped<Config>) -> Self {
        Self { config }
    }

    /// New connections use these from now on. Those that live keep theirs.
    pub(super) fn set(&self, addresses: &[IpAddr]) {
        let config = self.config.at(0);
        let v4: Vec<V4> = addresses.iter().filter_map(v4).take(NAT_ADDRESSES).collect();
        let v6: Vec<Addr> =
            addresses.iter().filter(|of| of.is_ipv6()).take(NAT_ADDRESSES).map(|of| (*of).into()).collect();
        // First the addresses, because the program reads as many as the length says. A SYN that reads half of one gets no
        // answer, and its client sends it again.
        for (place, address) in v4.iter().enumerate() {
            // SAFETY: a value of the mapping, which the program only reads.
            unsafe { (&raw mut (*config).nat4[place]).write_volatile(*address) };
        }
        for (place, address) in v6.iter().enumerate() {
            // SAFETY: as above.
            unsafe { (&raw mut (*config).nat6[place]).write_volatile(*address) };
        }
        // SAFETY: as above.
        unsafe {
            (&raw mut (*config).nat4_len).write_volatile(v4.len() as u16);
            (&raw mut (*config).nat6_len).write_volatile(v6.len() as u16);
        }
    }
}

pub(super) fn v4(address: &IpAddr) -> Option<V4> {
    match address {
        IpAddr::V4(v4) => Some(V4(u32::from_ne_bytes(v4.octets()))),
        IpAddr::V6(_) => None,
    }
}
