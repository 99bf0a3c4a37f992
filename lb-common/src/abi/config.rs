//! Settings that hold for every service, and the small tables that turn most frames away.

use super::addr::{Addr, Address, V4};

/// NAT addresses of one family that may be configured.
pub const NAT_ADDRESSES: usize = 8;

/// `CONFIG`, one entry: settings for every service.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Keys the hash of the flow table, so that nobody can choose the set of a flow. It stays the same as
    /// long as the table lives.
    pub seed: u64,
    /// First port of the NAT range, host order.
    pub nat_first: u16,
    /// Last port of the NAT range, host order, inclusive.
    pub nat_last: u16,
    /// How many of the NAT addresses below are set. 0: each backend has its own.
    pub nat4_len: u16,
    pub nat6_len: u16,
    /// The mean time between two SYNs that begin connections on one CPU. 0: no limit.
    pub syn_interval_ns: u32,
    /// Until when the list in `CROWDED` holds, in ticks of 2^30 ns. 0: it is empty. The daemon writes it again
    /// and again, so that a dead daemon refuses nobody.
    pub crowded_until: u32,
    /// An ICMP error that reports a smaller path MTU is forged, or of no use.
    pub min_path_mtu4: u16,
    pub min_path_mtu6: u16,
    pub zero: u32,
    pub nat4: [V4; NAT_ADDRESSES],
    pub nat6: [Addr; NAT_ADDRESSES],
}

/// Key of `CROWDED`: a source prefix that holds more than its share of something.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CrowdKey {
    /// [`Address::prefix`](super::Address::prefix)
    pub prefix: u64,
    /// Of this backend's NAT ports. [`NO_BACKEND`](crate::NO_BACKEND): of the flow table.
    pub backend: u16,
    /// 1 for IPv6.
    pub v6: u16,
    pub zero: u32,
}

impl CrowdKey {
    #[inline(always)]
    pub fn new<A: Address>(source: &A, backend: u16) -> Self {
        Self { prefix: source.prefix(), backend, v6: (size_of::<A>() != 4) as u16, zero: 0 }
    }
}

/// Entries of `CROWDED`.
pub const MAX_CROWDED: u32 = 4096;

/// `PORTS`, one entry: what a TCP port of this host may be, by its number in host order.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ports(pub [u8; 65_536]);

/// Bits of [`Ports`].
pub mod port_flags {
    /// A VIP has it, or had it and a connection still goes by it.
    pub const VIP: u8 = 1 << 0;
    /// It is in the NAT range, or was and a connection still goes by it.
    pub const NAT: u8 = 1 << 1;
    /// A backend in mode `dnat` has it, or had it: a frame *from* it may be a reply to any port.
    pub const DNAT: u8 = 1 << 2;
}

/// Ids that an 802.1Q tag can have. 0 and the last id name no VLAN (IEEE 802.1Q, table 9-2).
pub const VLAN_IDS: usize = 4096;

/// `VLANS`, one entry: whether the program looks at tagged frames with an id.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Vlans(pub [u8; VLAN_IDS]);

/// Value of `OWN_ADDRS`: an address that no client has, or a client behind these interfaces and VLANs only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnAddr {
    /// For a backend: by which routes lead to it. None: a VIP, which sends no frames.
    pub ways: [OwnWay; Self::WAYS],
}

impl OwnAddr {
    pub const WAYS: usize = 4;

    /// Whether it is a VIP's: no frame comes from there.
    pub const fn is_vip(&self) -> bool {
        self.ways[0].ifindex == 0
    }

    /// Whether frames from there come by this interface and VLAN.
    #[inline(always)]
    pub fn leads_by(&self, ifindex: u32, vlan: u16) -> bool {
        self.ways.iter().any(|way| way.ifindex == ifindex && way.vlan == vlan)
    }
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnWay {
    /// 0: none.
    pub ifindex: u32,
    pub vlan: u16,
    pub zero: u16,
}

/// Key of `OWN_MACS`: a unicast MAC address at which this node takes frames of an interface. The value is the usual
/// address of the interface, by which answers leave.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnMac {
    pub ifindex: u32,
    pub mac: [u8; 6],
    pub zero: [u8; 2],
}

impl OwnMac {
    pub const fn new(ifindex: u32, mac: [u8; 6]) -> Self {
        Self { ifindex, mac, zero: [0; 2] }
    }
}

/// Entries of `OWN_MACS`.
pub const MAX_OWN_MACS: u32 = 1024;

/// The usual MAC address of some interfaces, by the last bits of their index: most frames need no look-up in
/// `OWN_MACS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsualMacs(pub [u64; Self::COUNT]);

impl UsualMacs {
    pub const COUNT: usize = 64;

    /// Only a broadcast would fit, on an interface beyond the four millionth.
    pub const NONE: Self = Self([u64::MAX; Self::COUNT]);

    /// Of two interfaces with the same last bits the later one has the place.
    pub fn of(macs: impl IntoIterator<Item = OwnMac>) -> Self {
        let mut usual = Self::NONE;
        for OwnMac { ifindex, mac: [a, b, c, d, e, f], .. } in macs {
            let first_bytes = u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]);
            usual.0[Self::place(ifindex)] = Self::entry(first_bytes, ifindex);
        }
        usual
    }

    #[inline(always)]
    pub const fn place(ifindex: u32) -> usize {
        ifindex as usize % Self::COUNT
    }

    /// `first_bytes`: of a frame, eight as they lie in it. The two behind the address do not matter.
    #[inline(always)]
    pub const fn entry(first_bytes: u64, ifindex: u32) -> u64 {
        #[cfg(target_endian = "little")]
        let mac = first_bytes << 16;
        #[cfg(target_endian = "big")]
        let mac = first_bytes & !0xffff;
        mac | (ifindex as u64 / Self::COUNT as u64) & 0xffff
    }
}

/// `OWN_ADDR_FILTER`, one entry: not 0 if an address of `OWN_ADDRS` has this
/// [`address_hash`](crate::hash::address_hash).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OwnAddrFilter(pub [u8; 65_536]);

#[cfg(feature = "user")]
// SAFETY: an array of integers.
unsafe impl aya::Pod for UsualMacs {}

layout! {
    Config = 192,
    CrowdKey = 16,
    Ports = 65_536,
    OwnAddrFilter = 65_536,
    OwnWay = 8,
    OwnAddr = 32,
    OwnMac = 12,
    Vlans = 4096,
}
