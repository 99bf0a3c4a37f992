//! The addresses of fixtures, of one family or the other.

use std::{
    cell::Cell,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Which addresses the hosts of a fixture have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

thread_local! {
    static FAMILY: Cell<Family> = const { Cell::new(Family::V4) };
}

/// The family of fixtures on this thread: IPv4, unless [`in_family`] sets another one.
pub fn family() -> Family {
    FAMILY.get()
}

/// Does this with the addresses of one family. A fixture is written once and done with both.
pub fn in_family<T>(family: Family, work: impl FnOnce() -> T) -> T {
    let before = FAMILY.replace(family);
    let done = work();
    FAMILY.set(before);
    done
}

/// Makes two tests out of a function: one for each family.
#[macro_export]
macro_rules! both_families {
    ($name:ident) => {
        mod $name {
            #[test]
            fn ipv4() {
                $crate::kernel::in_family($crate::kernel::Family::V4, super::$name);
            }

            #[test]
            fn ipv6() {
                $crate::kernel::in_family($crate::kernel::Family::V6, super::$name);
            }
        }
    };
}

/// The MAC that the next hop of a backend is given.
pub fn backend_mac(id: u16) -> [u8; 6] {
    [0x02, 0, 0, 1, (id >> 8) as u8, id as u8]
}

/// Of the family in use: the IPv4 address, or the last 32 bits of an IPv6 address.
pub fn address(v4: [u8; 4]) -> IpAddr {
    match family() {
        Family::V4 => Ipv4Addr::from(v4).into(),
        Family::V6 => {
            let [a, b, c, d] = v4.map(u16::from);
            Ipv6Addr::new(0x2001, 0xdb8, a, b, 0x5a, 0, c, d).into()
        }
    }
}

pub fn backend_address(id: u16) -> SocketAddr {
    SocketAddr::new(address([10, 9, 1 + (id >> 8) as u8, id as u8]), 8080)
}

pub fn vip() -> SocketAddr {
    SocketAddr::new(address([203, 0, 113, 10]), 80)
}

/// The source that backends see.
pub fn nat_source() -> IpAddr {
    address([10, 9, 0, 1])
}
