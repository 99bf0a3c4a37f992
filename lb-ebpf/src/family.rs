//! The differences between IPv4 and IPv6. Everything else is written once.
//!
//! Offsets are from the start of the IP header, wherever that lies in the frame.

use lb_common::{
    abi::{Addr, Address, FlowKey, Port, V4},
    checksum::{self, fold, replace16},
};

use crate::{
    frame::Frame,
    verifier::{forget, host_order},
};

const PROTO_TCP: u8 = 6;

/// Extension headers that a segment for a VIP may have.
const MOST_EXTENSIONS: u32 = 2;

/// The program looks for ports behind at most this many headers. A frame with more is not Shunt's.
const DEEPEST: u32 = 6;

/// The tuple of a frame that is TCP and has its ports, and where its TCP header is.
pub struct Tuple<A> {
    pub key: FlowKey<A>,
    /// Where the TCP header begins.
    pub tcp: usize,
    /// `flaw`: why a VIP does not accept the frame, although its ports can be read.
    pub flaws: u32,
}

/// The part behind the IP header of a frame that is TCP and has its ports.
#[derive(Clone, Copy)]
pub struct Transport {
    /// As they lie in the header.
    ports: u32,
    tcp: usize,
    flaws: u32,
}

impl Transport {
    /// Source and destination.
    #[inline(always)]
    pub const fn ports(&self) -> (Port, Port) {
        let [s0, s1, d0, d1] = self.ports.to_ne_bytes();
        (Port(u16::from_ne_bytes([s0, s1])), Port(u16::from_ne_bytes([d0, d1])))
    }
}

/// Bits of [`Tuple::flaws`].
pub mod flaw {
    /// The first fragment of a datagram.
    pub const FRAGMENT: u32 = 1 << 0;
    /// IPv4 options, or extension headers that are too many or not for us.
    pub const OPTIONS: u32 = 1 << 1;
}

/// IPv4 or IPv6.
pub trait Family: Copy {
    type Addr: Address;

    /// In network order, as a frame has it.
    const ETHER_TYPE: u16;
    /// Length of the header without anything that may follow.
    const HEADER: usize;
    /// The TCP header always begins at `HEADER` in a frame that is forwarded.
    const FIXED: bool;
    /// Routers fragment a datagram that is too big for the next link, if its header allows it.
    const ROUTERS_FRAGMENT: bool;
    /// Offset of the TTL or hop limit.
    const TTL: usize;
    const SRC: usize;
    const DST: usize;

    /// `None`: the frame is not TCP, or its ports cannot be read.
    fn transport(ip: &Frame) -> Option<Transport>;

    /// The tuple. It is read apart from the ports, because the ports alone turn most other frames away.
    #[inline(always)]
    fn tuple_of(ip: &Frame, transport: &Transport) -> Option<Tuple<Self::Addr>> {
        let (src, dst) = (Self::load(ip, Self::SRC)?, Self::load(ip, Self::DST)?);
        let (sport, dport) = transport.ports();
        let key = FlowKey { src, dst, sport, dport };
        Some(Tuple { key, tcp: transport.tcp, flaws: transport.flaws })
    }

    /// Ports and addresses together.
    #[inline(always)]
    fn tuple(ip: &Frame) -> Option<Tuple<Self::Addr>> {
        Self::tuple_of(ip, &Self::transport(ip)?)
    }

    /// Length of the datagram, from the start of the header to the end of the payload.
    fn length(ip: &Frame) -> Option<u64>;

    fn load(ip: &Frame, offset: usize) -> Option<Self::Addr>;

    fn store(ip: &Frame, offset: usize, address: &Self::Addr);

    /// The header's checksum, or 0 where there is none.
    fn header_sum(ip: &Frame) -> u16;

    /// Whether the header's checksum is right, where there is one.
    fn header_is_right(ip: &Frame) -> Option<bool>;

    /// Adds to the header's checksum, where there is one.
    fn adjust(ip: &Frame, delta: u64);

    /// Takes one from the TTL or hop limit, and adds this and `delta` to the header's checksum, where there is one.
    fn pass_on(ip: &Frame, delta: u16);

    /// Lets routers fragment a datagram, where they do that at all. `id`: for a datagram that has no
    /// identification, because it was not to be fragmented.
    fn allow_fragments(ip: &Frame, id: u16);

    /// Writes a header of a segment without options or payload, and its checksum.
    fn write_header(ip: &Frame, src: &Self::Addr, dst: &Self::Addr);
}

#[derive(Clone, Copy)]
pub struct Ipv4;

#[derive(Clone, Copy)]
pub struct Ipv6;

impl Family for Ipv4 {
    type Addr = V4;

    const ETHER_TYPE: u16 = u16::to_be(0x0800);
    const HEADER: usize = 20;
    const FIXED: bool = true;
    const ROUTERS_FRAGMENT: bool = true;
    const TTL: usize = 8;
    const SRC: usize = 12;
    const DST: usize = 16;

    #[inline(always)]
    fn transport(ip: &Frame) -> Option<Transport> {
        // One check serves every load of fixed offset below.
        if !ip.holds(Self::HEADER + 4) {
            return None;
        }
        let vihl = ip.load::<u8>(0)?;
        if ip.load::<u8>(9)? != PROTO_TCP {
            return None;
        }
        let fragment = u16::from_be(ip.load(6)?);
        if vihl == 0x45 && fragment & 0x3fff == 0 {
            return Some(Transport { ports: ip.load(Self::HEADER)?, tcp: Self::HEADER, flaws: 0 });
        }
        // A later fragment has no ports. Other values are no IPv4.
        if fragment & 0x1fff != 0 || vihl >> 4 != 4 || vihl & 0x0f < 5 {
            return None;
        }
        let tcp = ((vihl & 0x0f) as usize) << 2;
        let flaws = if fragment & 0x2000 != 0 { flaw::FRAGMENT } else { flaw::OPTIONS };
        // Frames with options are not translated, so the program does not need to know where their TCP header
        // begins.
        Some(Transport { ports: ip.load(tcp)?, tcp: Self::HEADER, flaws })
    }

    #[inline(always)]
    fn length(ip: &Frame) -> Option<u64> {
        Some(host_order(ip.load(2)?))
    }

    #[inline(always)]
    fn load(ip: &Frame, offset: usize) -> Option<V4> {
        Some(V4(ip.load(offset)?))
    }

    #[inline(always)]
    fn store(ip: &Frame, offset: usize, address: &V4) {
        ip.store(offset, address.0);
    }

    #[inline(always)]
    fn header_sum(ip: &Frame) -> u16 {
        ip.load(10).unwrap_or(0)
    }

    #[inline(always)]
    fn header_is_right(ip: &Frame) -> Option<bool> {
        let words: [u32; 5] = [ip.load(0)?, ip.load(4)?, ip.load(8)?, ip.load(12)?, ip.load(16)?];
        Some(fold(words.iter().map(|word| *word as u64).sum()) == 0xffff)
    }

    #[inline(always)]
    fn adjust(ip: &Frame, delta: u64) {
        if let Some(sum) = ip.load::<u16>(10) {
            ip.store(10, checksum::apply(sum, fold(delta)));
        }
    }

    #[inline(always)]
    fn pass_on(ip: &Frame, delta: u16) {
        let (Some(ttl), Some(sum)) = (ip.load::<u8>(Self::TTL), ip.load::<u16>(10)) else { return };
        ip.store(Self::TTL, ttl.wrapping_sub(1));
        ip.store(10, checksum::apply_both(sum, delta, checksum::TTL_STEP));
    }

    #[inline(always)]
    fn allow_fragments(ip: &Frame, id: u16) {
        const DONT: u16 = 0x4000u16.to_be();
        let (Some(was), Some(flags)) = (ip.load::<u16>(4), ip.load::<u16>(6)) else { return };
        if flags & DONT == 0 {
            return;
        }
        let id = if was == 0 { id } else { was };
        ip.store(4, id);
        ip.store(6, flags & !DONT);
        Self::adjust(ip, replace16(was, id) + replace16(flags, flags & !DONT));
    }

    #[inline(always)]
    fn write_header(ip: &Frame, src: &V4, dst: &V4) {
        let words = [
            u32::from_ne_bytes([0x45, 0, 0, 40]),
            u32::from_ne_bytes([0, 0, 0x40, 0]),
            u32::from_ne_bytes([64, PROTO_TCP, 0, 0]),
            src.0,
            dst.0,
        ];
        let mut sum = 0;
        for (i, word) in words.iter().enumerate() {
            ip.store(4 * i, *word);
            sum += u64::from(*word);
        }
        ip.store(10, !fold(sum));
    }
}

/// Next headers that may lie between an IPv6 header and TCP (RFC 8200 section 4).
mod next {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const DESTINATION: u8 = 60;
}

/// Where TCP begins behind extension headers, and the flaws of the headers. `None`: the frame is not TCP, or
/// its ports are missing.
#[inline(always)]
fn extensions(ip: &Frame, first: u8) -> Option<(usize, u32)> {
    let mut protocol = first;
    let mut at = Ipv6::HEADER as u32;
    let mut flaws = 0;
    for count in 1..=DEEPEST {
        let head: [u8; 4] = ip.bytes((at & FURTHEST) as usize)?;
        if protocol == next::FRAGMENT {
            if u16::from_be_bytes([head[2], head[3]]) & 0xfff8 != 0 {
                return None;
            }
            flaws |= flaw::FRAGMENT;
            at += 8;
        } else if protocol == next::HOP_BY_HOP || protocol == next::DESTINATION || protocol == next::ROUTING {
            // With segments left, the destination is not the last one, and the checksum covers another
            // address.
            if count > MOST_EXTENSIONS || protocol == next::ROUTING && head[3] != 0 {
                flaws |= flaw::OPTIONS;
            }
            at += (head[1] as u32 + 1) << 3;
        } else {
            return None;
        }
        protocol = head[0];
        let noise = u32::from_ne_bytes(head);
        at = forget(at, noise) & FURTHEST;
        flaws = forget(flaws, noise) & (flaw::FRAGMENT | flaw::OPTIONS);
        if protocol == PROTO_TCP {
            break;
        }
    }
    (protocol == PROTO_TCP).then_some(((at & FURTHEST) as usize, flaws))
}

/// Each extension header is at most 2048 bytes long. This mask gives the verifier a bound.
const FURTHEST: u32 = 0x3fff;

impl Family for Ipv6 {
    type Addr = Addr;

    const ETHER_TYPE: u16 = u16::to_be(0x86dd);
    const HEADER: usize = 40;
    const FIXED: bool = false;
    const ROUTERS_FRAGMENT: bool = false;
    const TTL: usize = 7;
    const SRC: usize = 8;
    const DST: usize = 24;

    #[inline(always)]
    fn transport(ip: &Frame) -> Option<Transport> {
        if !ip.holds(Self::HEADER + 4) || ip.load::<u8>(0)? >> 4 != 6 {
            return None;
        }
        let protocol = ip.load::<u8>(6)?;
        let (tcp, flaws) = if protocol == PROTO_TCP { (Self::HEADER, 0) } else { extensions(ip, protocol)? };
        Some(Transport { ports: ip.load(tcp)?, tcp, flaws })
    }

    #[inline(always)]
    fn length(ip: &Frame) -> Option<u64> {
        Some(host_order(ip.load(4)?) + Self::HEADER as u64)
    }

    #[inline(always)]
    fn load(ip: &Frame, offset: usize) -> Option<Addr> {
        Some(Addr::from_words([ip.load(offset)?, ip.load(offset + 8)?]))
    }

    #[inline(always)]
    fn store(ip: &Frame, offset: usize, address: &Addr) {
        let [a, b] = address.words();
        ip.store(offset, a);
        ip.store(offset + 8, b);
    }

    #[inline(always)]
    fn header_sum(_: &Frame) -> u16 {
        0
    }

    #[inline(always)]
    fn header_is_right(_: &Frame) -> Option<bool> {
        Some(true)
    }

    #[inline(always)]
    fn adjust(_: &Frame, _: u64) {}

    #[inline(always)]
    fn pass_on(ip: &Frame, _: u16) {
        if let Some(limit) = ip.load::<u8>(Self::TTL) {
            ip.store(Self::TTL, limit.wrapping_sub(1));
        }
    }

    /// No router does.
    #[inline(always)]
    fn allow_fragments(_: &Frame, _: u16) {}

    #[inline(always)]
    fn write_header(ip: &Frame, src: &Addr, dst: &Addr) {
        ip.store(0, u32::from_ne_bytes([0x60, 0, 0, 0]));
        ip.store(4, u32::from_ne_bytes([0, 20, PROTO_TCP, 64]));
        Self::store(ip, Self::SRC, src);
        Self::store(ip, Self::DST, dst);
    }
}

#[cfg(test)]
#[path = "family/tests.rs"]
mod tests;
