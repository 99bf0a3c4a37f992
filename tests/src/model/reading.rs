//! Reading a frame.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use lb_common::reason::Reason;

use crate::frame::{ACK, FIN, IP, RST, SYN};

const TCP: u8 = 6;

pub(super) enum Reading {
    /// Nobody can see that it is for a VIP.
    NotOurs,
    Tcp(Segment),
}

/// TCP whose ports can be read. Numbers are of no meaning when there are flaws.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) src: SocketAddr,
    pub(super) dst: SocketAddr,
    /// Where the IP and the TCP header begin, and where the datagram ends.
    pub(super) ip: usize,
    pub(super) tcp: usize,
    pub(super) end: usize,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) syn: bool,
    pub(super) fin: bool,
    pub(super) rst: bool,
    pub(super) acks: bool,
    pub(super) payload: usize,
    /// Why nobody who has a VIP takes it.
    pub(super) flaws: BTreeSet<Reason>,
    /// No client can have its source.
    pub(super) martian: bool,
}

impl Segment {
    /// The number after all that it occupies.
    pub(super) fn end(&self) -> u32 {
        self.seq.wrapping_add(self.payload as u32).wrapping_add(u32::from(self.syn || self.fin))
    }
}

fn word16(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?))
}

fn word32(frame: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn read(frame: &[u8]) -> Reading {
    let segment = match word16(frame, 12) {
        Some(0x0800) => ipv4(frame),
        Some(0x86dd) => ipv6(frame),
        _ => None,
    };
    segment.map_or(Reading::NotOurs, Reading::Tcp)
}

fn ipv4(frame: &[u8]) -> Option<Segment> {
    let header = frame.get(IP..IP + 20)?;
    let length = usize::from(header[0] & 15) * 4;
    let fragment = word16(header, 6)?;
    if header[0] >> 4 != 4 || length < 20 || header[9] != TCP || fragment & 0x1fff != 0 {
        return None;
    }
    let address =
        |at: usize| -> IpAddr { Ipv4Addr::from(word32(header, at).expect("inside the header")).into() };
    let mut flaws = BTreeSet::new();
    if fragment & 0x2000 != 0 {
        flaws.insert(Reason::Fragment);
    }
    if length > 20 {
        flaws.insert(Reason::IpOptions);
    }
    let end = IP + usize::from(word16(header, 2)?);
    segment(frame, (address(12), address(16)), IP + length, end, header[8], flaws)
}

fn ipv6(frame: &[u8]) -> Option<Segment> {
    let header = frame.get(IP..IP + 40)?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let address = |at: usize| -> IpAddr {
        Ipv6Addr::from(<[u8; 16]>::try_from(&header[at..at + 16]).expect("as many")).into()
    };
    let mut flaws = BTreeSet::new();
    let (mut at, mut kind, mut count) = (IP + 40, header[6], 0);
    while kind != TCP {
        let head = frame.get(at..at + 4)?;
        count += 1;
        match kind {
            // Hop by hop, routing, destination.
            0 | 43 | 60 => {
                // A routing header with segments left names another destination.
                if count > 2 || kind == 43 && head[3] != 0 {
                    flaws.insert(Reason::IpOptions);
                }
                at += 8 * (usize::from(head[1]) + 1);
            }
            44 => {
                if word16(head, 2)? & 0xfff8 != 0 {
                    return None;
                }
                flaws.insert(Reason::Fragment);
                at += 8;
            }
            _ => return None,
        }
        // Nobody looks behind more.
        if count == 6 && head[0] != TCP {
            return None;
        }
        kind = head[0];
    }
    let end = IP + 40 + usize::from(word16(header, 4)?);
    segment(frame, (address(8), address(24)), at, end, header[7], flaws)
}

/// `ttl`: or hop limit.
fn segment(
    frame: &[u8],
    (src, dst): (IpAddr, IpAddr),
    tcp: usize,
    end: usize,
    ttl: u8,
    mut flaws: BTreeSet<Reason>,
) -> Option<Segment> {
    let (src, dst) =
        (SocketAddr::new(src, word16(frame, tcp)?), SocketAddr::new(dst, word16(frame, tcp + 2)?));
    let fields = || {
        let (seq, ack) = (word32(frame, tcp + 4)?, word32(frame, tcp + 8)?);
        let header = usize::from(*frame.get(tcp + 12)? >> 4) * 4;
        let flags = *frame.get(tcp + 13)?;
        frame.get(tcp..tcp + 20)?;
        (header >= 20 && tcp + header <= end && end <= frame.len())
            .then(|| (seq, ack, flags, end - tcp - header))
    };
    let (seq, ack, flags, payload) = fields().unwrap_or_else(|| {
        flaws.insert(Reason::Malformed);
        (0, 0, ACK, 0)
    });
    if ttl <= 1 {
        flaws.insert(Reason::Ttl);
    }
    let has = |flag: u8| flags & flag != 0;
    let (syn, fin, rst, acks) = (has(SYN), has(FIN), has(RST), has(ACK));
    let ends_or_begins = [syn, fin, rst].into_iter().filter(|set| *set).count();
    if ends_or_begins > 1 || !(syn || rst || acks) {
        flaws.insert(Reason::Flags);
    }
    let martian = src.ip() == dst.ip() || src.port() == 0 || is_nobody(src.ip());
    Some(Segment { src, dst, ip: IP, tcp, end, seq, ack, syn, fin, rst, acks, payload, flaws, martian })
}

/// An address that no host sends from (RFC 6890).
fn is_nobody(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let first = v4.octets()[0];
            first == 0 || first == 127 || first >= 224
        }
        IpAddr::V6(v6) => {
            v6.is_unspecified() || v6.is_loopback() || v6.is_multicast() || v6.to_ipv4_mapped().is_some()
        }
    }
}

/// Whether so many of the first bits are the same.
pub(super) fn alike(a: IpAddr, b: IpAddr, bits: u8) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= bits.into(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= bits.into(),
        _ => false,
    }
}
