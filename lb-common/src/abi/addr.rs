//! Addresses, ports and link headers, as they lie in a frame.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// An IPv6 address, or an IPv4 address in its IPv4-mapped form
/// (RFC 4291 section 2.5.5.2). Words are in network byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Addr(pub [u32; 4]);

impl Addr {
    const MAPPED: u32 = u32::from_be(0x0000_ffff);

    /// From the four bytes of an IPv4 header field, as they lie in memory.
    #[inline(always)]
    pub const fn v4(word: u32) -> Self {
        Self([0, 0, Self::MAPPED, word])
    }

    /// Two words as they lie in memory, each in one access.
    #[inline(always)]
    pub fn words(&self) -> [u64; 2] {
        // In a flow the second address begins at an odd word. The BPF verifier allows that in maps where the CPU
        // does, and the compiler would take twice as many loads.
        #[cfg(target_arch = "bpf")]
        // SAFETY: as many bytes, and any bits make a word.
        return unsafe { *(&raw const self.0).cast() };
        #[cfg(not(target_arch = "bpf"))]
        // SAFETY: as above.
        return unsafe { (&raw const self.0).cast::<[u64; 2]>().read_unaligned() };
    }

    /// The address of two such words.
    #[inline(always)]
    pub const fn from_words([a, b]: [u64; 2]) -> Self {
        #[cfg(target_endian = "little")]
        return Self([a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32]);
        #[cfg(target_endian = "big")]
        return Self([(a >> 32) as u32, a as u32, (b >> 32) as u32, b as u32]);
    }

    /// The IPv4 header field this address stands for.
    #[inline(always)]
    pub const fn v4_word(&self) -> u32 {
        self.0[3]
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        let octets = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let word = |i: usize| u32::from_ne_bytes([octets[i], octets[i + 1], octets[i + 2], octets[i + 3]]);
        Self([word(0), word(4), word(8), word(12)])
    }
}

impl From<Addr> for IpAddr {
    fn from(addr: Addr) -> Self {
        let mut octets = [0; 16];
        for (chunk, word) in octets.chunks_exact_mut(4).zip(addr.0) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        Ipv6Addr::from(octets).to_canonical()
    }
}

/// An IPv4 address as it lies in a header: a word in network byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct V4(pub u32);

impl From<V4> for Addr {
    fn from(address: V4) -> Self {
        Self::v4(address.0)
    }
}

/// An address of one family, as words in network byte order.
pub trait Address: Copy + Default + PartialEq + Eq + 'static {
    /// Fills a [`Flow`] up, so that the part that most packets need lies in one cache line.
    type Padding: Copy + Default + PartialEq + Eq + core::fmt::Debug;

    /// The address as maps and records of both families have it.
    fn wide(&self) -> Addr;

    /// The address out of a map of both families. The caller knows that it is of this family.
    fn narrow(addr: &Addr) -> Self;

    /// The words that can differ between two addresses of this family, two at a time.
    fn pairs(&self) -> [u64; 2];

    /// The same address. In BPF two words of 64 bits are loaded at once.
    fn is(&self, other: &Self) -> bool;

    /// Whether an address can be a client's (RFC 6890).
    fn is_plausible(&self) -> bool;

    /// The source prefix, by which clients are counted: the /24 of an IPv4 address, the /48 of an IPv6 address.
    fn prefix(&self) -> u64;

    /// The first so many bits of the address, and zeros.
    #[must_use]
    fn masked(&self, bits: u32) -> Self;

    /// The sum of the words, for checksums.
    fn sum(&self) -> u64;

    /// The sum of the complements of the words.
    fn negated_sum(&self) -> u64;
}

/// The first so many bits of a word in network byte order, at most all.
#[inline(always)]
const fn first_bits(bits: u32) -> u32 {
    let bits = if bits > 32 { 32 } else { bits };
    (((u32::MAX as u64) << (32 - bits)) as u32).to_be()
}

impl Address for V4 {
    type Padding = [u32; 4];

    #[inline(always)]
    fn wide(&self) -> Addr {
        Addr::v4(self.0)
    }

    #[inline(always)]
    fn narrow(addr: &Addr) -> Self {
        Self(addr.v4_word())
    }

    #[inline(always)]
    fn pairs(&self) -> [u64; 2] {
        [0, self.0 as u64]
    }

    #[inline(always)]
    fn is(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    /// Not this network, not loopback, not multicast or reserved.
    #[inline(always)]
    fn is_plausible(&self) -> bool {
        let first = self.0.to_ne_bytes()[0];
        first != 0 && first != 127 && first < 224
    }

    #[inline(always)]
    fn prefix(&self) -> u64 {
        (self.0 & u32::from_ne_bytes([0xff, 0xff, 0xff, 0])) as u64
    }

    #[inline(always)]
    fn masked(&self, bits: u32) -> Self {
        Self(self.0 & first_bits(bits))
    }

    #[inline(always)]
    fn sum(&self) -> u64 {
        self.0 as u64
    }

    #[inline(always)]
    fn negated_sum(&self) -> u64 {
        !self.0 as u64
    }
}

impl Address for Addr {
    type Padding = [u32; 0];

    #[inline(always)]
    fn wide(&self) -> Addr {
        *self
    }

    #[inline(always)]
    fn narrow(addr: &Addr) -> Self {
        *addr
    }

    #[inline(always)]
    fn pairs(&self) -> [u64; 2] {
        let [a, b, c, d] = self.0;
        [(a as u64) << 32 | b as u64, (c as u64) << 32 | d as u64]
    }

    #[inline(always)]
    fn is(&self, other: &Self) -> bool {
        self.words() == other.words()
    }

    /// Not multicast, not unspecified or loopback, and no IPv4 address in disguise.
    #[inline(always)]
    fn is_plausible(&self) -> bool {
        let [a, b, c, d] = self.0;
        let low = (a | b) == 0 && (c == 0 && (d == 0 || d == 1u32.to_be()) || c == 0xffffu32.to_be());
        a.to_ne_bytes()[0] != 0xff && !low
    }

    #[inline(always)]
    fn prefix(&self) -> u64 {
        let [a, b, ..] = self.0;
        (a as u64) << 32 | (b & u32::from_ne_bytes([0xff, 0xff, 0, 0])) as u64
    }

    #[inline(always)]
    fn masked(&self, bits: u32) -> Self {
        let [a, b, c, d] = self.0;
        let word = |word: u32, before: u32| word & first_bits(bits.saturating_sub(before));
        Self([word(a, 0), word(b, 32), word(c, 64), word(d, 96)])
    }

    #[inline(always)]
    fn sum(&self) -> u64 {
        let [a, b, c, d] = self.0;
        a as u64 + b as u64 + c as u64 + d as u64
    }

    #[inline(always)]
    fn negated_sum(&self) -> u64 {
        let [a, b, c, d] = self.0;
        !a as u64 + !b as u64 + !c as u64 + !d as u64
    }
}

/// A TCP port in network byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Port(pub u16);

impl Port {
    #[inline(always)]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    #[inline(always)]
    pub const fn host(self) -> u16 {
        u16::from_be(self.0)
    }
}

pub fn socket_addr(addr: Addr, port: Port) -> SocketAddr {
    SocketAddr::new(addr.into(), port.host())
}

/// The addresses of an Ethernet header as they lie in a frame: destination, then source.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link(pub [u32; 3]);

impl Link {
    pub const fn new(to: [u8; 6], from: [u8; 6]) -> Self {
        Self([
            u32::from_ne_bytes([to[0], to[1], to[2], to[3]]),
            u32::from_ne_bytes([to[4], to[5], from[0], from[1]]),
            u32::from_ne_bytes([from[2], from[3], from[4], from[5]]),
        ])
    }

    /// The next hop's address.
    pub const fn to(&self) -> [u8; 6] {
        let [a, b] = [self.0[0].to_ne_bytes(), self.0[1].to_ne_bytes()];
        [a[0], a[1], a[2], a[3], b[0], b[1]]
    }

    /// The host's own address.
    pub const fn from(&self) -> [u8; 6] {
        let [b, c] = [self.0[1].to_ne_bytes(), self.0[2].to_ne_bytes()];
        [b[2], b[3], c[0], c[1], c[2], c[3]]
    }

    /// The way back: both addresses exchanged.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self::new(self.from(), self.to())
    }

    /// False while the next hop is not resolved.
    #[inline(always)]
    pub const fn is_resolved(&self) -> bool {
        self.0[0] != 0 || self.0[1] & Self::TO_PART != 0
    }

    /// The bytes of the second word that belong to the next hop's address.
    const TO_PART: u32 = u32::from_ne_bytes([0xff, 0xff, 0, 0]);
}

layout! {
    Addr = 16,
    Link = 12,
    V4 = 4,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_round_trip() {
        for text in ["10.1.2.3", "2001:db8::1", "::1", "255.255.255.255"] {
            let ip: IpAddr = text.parse().expect("literal");
            assert_eq!(IpAddr::from(Addr::from(ip)), ip);
        }
        let ip: IpAddr = "192.0.2.7".parse().expect("literal");
        assert_eq!(Addr::from(ip), Addr::v4(u32::from_ne_bytes([192, 0, 2, 7])));
    }

    #[test]
    fn neighbours_have_one_prefix() {
        let v4 = |octets| V4(u32::from_ne_bytes(octets)).prefix();
        assert_eq!(v4([192, 0, 2, 7]), v4([192, 0, 2, 250]));
        assert_ne!(v4([192, 0, 2, 7]), v4([192, 0, 3, 7]));
        let v6 = |text: &str| Addr::from(text.parse::<IpAddr>().expect("literal")).prefix();
        assert_eq!(v6("2001:db8:1:2::7"), v6("2001:db8:1:ffff:1::"));
        assert_ne!(v6("2001:db8:1::7"), v6("2001:db8:2::7"));
        assert_ne!(v6("2001:db8:1::7"), v6("2001:db9:1::7"));
    }

    #[test]
    fn only_addresses_of_hosts_are_plausible() {
        let is = |text: &str| Addr::from(text.parse::<IpAddr>().expect("literal")).is_plausible();
        for text in
            ["2001:db8::1", "2001:db8:2001:db8::1", "2001:db8:2001:db8:0:ffff:a00:1", "::2", "fe80::1"]
        {
            assert!(is(text), "{text}");
        }
        for text in ["::", "::1", "ff02::1", "ff00::", "::ffff:10.0.0.1"] {
            assert!(!is(text), "{text}");
        }
    }

    #[test]
    fn links_keep_both_addresses() {
        let (a, b) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 9, 8, 7]);
        let link = Link::new(a, b);
        assert_eq!((link.to(), link.from()), (a, b));
        assert_eq!(link.reversed(), Link::new(b, a));
        assert!(link.is_resolved());
        assert!(Link::new([0, 0, 0, 0, 0, 1], b).is_resolved());
        assert!(!Link::new([0; 6], b).is_resolved());
    }

    #[test]
    fn ports_are_in_network_order() {
        assert_eq!(Port::new(80).0.to_ne_bytes(), [0, 80]);
        assert_eq!(Port::new(8080).host(), 8080);
    }
}
