//! ICMP errors (RFC 792, RFC 4443): what they quote of a segment, and giving both new addresses.

use lb_common::{
    abi::{Address, FlowKey, Link},
    checksum::{TTL_STEP, apply, fold, replace16},
};

use crate::{
    family::{Family, Tuple},
    frame::Frame,
};

/// Length of the ICMP header before the quoted datagram.
const ICMP_HEADER: usize = 8;

/// Where a TCP header has its checksum.
const TCP_CHECKSUM: usize = 16;

/// The furthest offset of a quoted TCP header. The mask gives the verifier a bound.
const FURTHEST: usize = 0x3fff;

/// The differences of the two families. Offsets are from the start of the outer IP header.
pub trait Errors: Family {
    const ICMP: u8;
    /// Where an IP header has its protocol.
    const PROTOCOL: usize;
    /// ICMPv6 covers the outer addresses too.
    const PSEUDO_HEADER: bool;

    /// Whether a type is an error that quotes the datagram it is about.
    fn is_error(kind: u8) -> bool;

    /// The path MTU that an error reports: "fragmentation needed", or "packet too big". `icmp` begins with the
    /// ICMP header. `None`: the error is another one.
    fn path_mtu(icmp: &Frame) -> Option<u32>;

    /// No options, no fragment: the ICMP header follows at once.
    fn is_plain(ip: &Frame) -> bool;

    /// Where TCP begins in a quoted datagram, from the start of its IP header.
    fn quoted_tcp(inner: &Frame, tuple: &Tuple<Self::Addr>) -> Option<usize>;
}

impl Errors for crate::family::Ipv4 {
    const ICMP: u8 = 1;
    const PROTOCOL: usize = 9;
    const PSEUDO_HEADER: bool = false;

    /// Destination unreachable with all its codes, time exceeded, parameter problem.
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        kind == 3 || kind == 11 || kind == 12
    }

    /// RFC 1191. Routers from before it report 0.
    #[inline(always)]
    fn path_mtu(icmp: &Frame) -> Option<u32> {
        let is_it = icmp.load::<u16>(0)? == u16::from_ne_bytes([3, 4]);
        if is_it { Some(u16::from_be(icmp.load(6)?) as u32) } else { None }
    }

    #[inline(always)]
    fn is_plain(ip: &Frame) -> bool {
        ip.load::<u8>(0) == Some(0x45)
            && ip.load::<u16>(6).is_some_and(|part| u16::from_be(part) & 0x3fff == 0)
    }

    #[inline(always)]
    fn quoted_tcp(inner: &Frame, _: &Tuple<Self::Addr>) -> Option<usize> {
        Some(((inner.load::<u8>(0)? & 0x0f) as usize) << 2)
    }
}

impl Errors for crate::family::Ipv6 {
    const ICMP: u8 = 58;
    const PROTOCOL: usize = 6;
    const PSEUDO_HEADER: bool = true;

    /// Destination unreachable, packet too big, time exceeded, parameter problem.
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        (1..=4).contains(&kind)
    }

    #[inline(always)]
    fn path_mtu(icmp: &Frame) -> Option<u32> {
        if icmp.load::<u8>(0)? == 2 { Some(u32::from_be(icmp.load(4)?)) } else { None }
    }

    #[inline(always)]
    fn is_plain(_: &Frame) -> bool {
        true
    }

    #[inline(always)]
    fn quoted_tcp(_: &Frame, tuple: &Tuple<Self::Addr>) -> Option<usize> {
        Some(tuple.tcp)
    }
}

/// Whether a frame without a TCP tuple may be an ICMP error.
#[inline(always)]
pub fn may_be_error<F: Errors>(ip: &Frame) -> bool {
    ip.load::<u8>(F::PROTOCOL) == Some(F::ICMP) && ip.load::<u8>(F::HEADER).is_some_and(F::is_error)
}

/// The tuple that an error quotes. `None`: the frame is no error, the quoted ports cannot be read, or the
/// error is not addressed to the sender of the quoted segment.
#[inline(always)]
pub fn quoted<F: Errors>(ip: &Frame) -> Option<Tuple<F::Addr>> {
    if !ip.holds(F::HEADER + ICMP_HEADER + F::HEADER) || !may_be_error::<F>(ip) || !F::is_plain(ip) {
        return None;
    }
    let inner = ip.from(F::HEADER + ICMP_HEADER);
    let tuple = F::tuple(&inner)?;
    (F::load(ip, F::DST)? == tuple.key.src).then_some(tuple)
}

/// The path MTU that an error reports, if it reports one. `ip` begins with its outer header.
#[inline(always)]
pub fn path_mtu<F: Errors>(ip: &Frame) -> Option<u32> {
    F::path_mtu(&ip.from(F::HEADER))
}

/// The sequence number of the quoted segment. `tuple` is the result of [`quoted`]. `None`: it was cut off before.
#[inline(always)]
pub fn quoted_seq<F: Errors>(ip: &Frame, tuple: &Tuple<F::Addr>) -> Option<u32> {
    let inner = ip.from(F::HEADER + ICMP_HEADER);
    let at = F::quoted_tcp(&inner, tuple)? & FURTHEST;
    // The end of the datagram: the frame may be padded.
    if (F::length(ip)? as usize) < F::HEADER + ICMP_HEADER + at + 8 {
        return None;
    }
    Some(u32::from_be(inner.from_any(at).load(4)?))
}

/// New outer source of an error, and the new tuple of the segment that it quotes.
pub struct Readdressed<'a, A> {
    pub src: &'a A,
    pub quoted: &'a FlowKey<A>,
}

/// Rewrites link, addresses, ports, TTL and checksums. `tuple` is the result of [`quoted`]. A quoted segment
/// that is cut off before its checksum has none to correct.
/// `None`: the frame is shorter than its headers, and nothing was written.
#[inline(always)]
pub fn readdress<F: Errors>(
    frame: &Frame,
    ip: &Frame,
    tuple: &Tuple<F::Addr>,
    link: &Link,
    to: &Readdressed<'_, F::Addr>,
) -> Option<()> {
    let icmp = ip.from(F::HEADER);
    let inner = ip.from(F::HEADER + ICMP_HEADER);
    let tcp_at = F::quoted_tcp(&inner, tuple)? & FURTHEST;
    let tcp = inner.from_any(tcp_at);
    if !inner.holds(F::HEADER) || !tcp.holds(4) || !frame.holds(12) {
        return None;
    }
    let (ttl, icmp_check) = (ip.load::<u8>(F::TTL)?, icmp.load::<u16>(2)?);
    let (was, will) = (&tuple.key, to.quoted);
    let addresses = replaced(&was.src, &will.src) + replaced(&was.dst, &will.dst);
    let ports = replace16(was.sport.0, will.sport.0) + replace16(was.dport.0, will.dport.0);
    let mut icmp_delta = addresses + ports;

    // The end of the datagram: the frame may be padded.
    let quoted = (F::length(ip)? as usize).checked_sub(F::HEADER + ICMP_HEADER + tcp_at)?;
    if quoted >= TCP_CHECKSUM + 2
        && let Some(check) = tcp.load::<u16>(TCP_CHECKSUM)
    {
        let now = apply(check, fold(addresses + ports));
        tcp.store(TCP_CHECKSUM, now);
        icmp_delta += replace16(check, now);
    }
    let header = F::header_sum(&inner);
    F::adjust(&inner, addresses);
    icmp_delta += replace16(header, F::header_sum(&inner));
    F::store(&inner, F::SRC, &will.src);
    F::store(&inner, F::DST, &will.dst);
    tcp.store(0, will.sport.0);
    tcp.store(2, will.dport.0);

    let from = F::load(ip, F::SRC)?;
    let outer = replaced(&from, to.src) + replaced(&was.src, &will.src);
    F::adjust(ip, outer + TTL_STEP as u64);
    F::store(ip, F::SRC, to.src);
    F::store(ip, F::DST, &will.src);
    ip.store(F::TTL, ttl.wrapping_sub(1));
    icmp.store(2, apply(icmp_check, fold(icmp_delta + if F::PSEUDO_HEADER { outer } else { 0 })));

    frame.store(0, link.0[0]);
    frame.store(4, link.0[1]);
    frame.store(8, link.0[2]);
    Some(())
}

/// The change of a sum when an address takes the place of another.
#[inline(always)]
fn replaced<A: Address>(was: &A, will: &A) -> u64 {
    was.negated_sum() + will.sum()
}

#[cfg(test)]
#[path = "icmp/tests.rs"]
mod tests;
