//! Reading a frame as far as it concerns us.
//!
//! First [`Tuple`]: is this TCP over IPv4, and between whom? It refuses nothing,
//! because the frame may not be ours. Once a VIP or a flow has matched,
//! [`Segment`] reads the rest and says what is wrong with it.

use lb_common::{
    abi::{Addr, FlowKey, Port},
    reason::Reason,
};
use network_types::{eth::EthHdr, ip::Ipv4Hdr, tcp::TcpHdr};

use crate::frame::Frame;

const IP: usize = EthHdr::LEN;
const TCP: usize = IP + Ipv4Hdr::LEN;
/// Up to the end of a TCP header without options, behind an IPv4 header without options.
const HEADERS: usize = TCP + TcpHdr::LEN;

const ETHER_IPV4: u16 = u16::to_be(0x0800);
const PROTO_TCP: u8 = 6;

/// TCP flag bits (RFC 9293 section 3.1).
pub mod flag {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;
}

/// Who talks to whom in a frame that is TCP over IPv4 and not a later fragment.
pub struct Tuple {
    pub key: FlowKey,
    /// Length of the IPv4 header. 20 unless it has options.
    pub ip_len: usize,
    first_fragment: bool,
}

impl Tuple {
    /// `None`: no business of ours.
    #[inline(always)]
    pub fn read(frame: &Frame) -> Option<Self> {
        // One check serves every load of fixed offset below.
        if !frame.holds(TCP + 4) || frame.load::<u16>(12)? != ETHER_IPV4 {
            return None;
        }
        let vihl = frame.load::<u8>(IP)?;
        if frame.load::<u8>(IP + 9)? != PROTO_TCP || vihl >> 4 != 4 {
            return None;
        }
        let fragment = u16::from_be(frame.load(IP + 6)?);
        if fragment & 0x1fff != 0 {
            // The ports are in another frame.
            return None;
        }
        let ip_len = ((vihl & 0x0f) as usize) << 2;
        let ports = if ip_len == Ipv4Hdr::LEN {
            frame.load::<u32>(TCP)?
        } else if ip_len > Ipv4Hdr::LEN {
            frame.load::<u32>(IP + ip_len)?
        } else {
            return None;
        };
        let [s0, s1, d0, d1] = ports.to_ne_bytes();
        Some(Self {
            key: FlowKey {
                src: Addr::v4(frame.load(IP + 12)?),
                dst: Addr::v4(frame.load(IP + 16)?),
                sport: Port(u16::from_ne_bytes([s0, s1])),
                dport: Port(u16::from_ne_bytes([d0, d1])),
            },
            ip_len,
            first_fragment: fragment & 0x2000 != 0,
        })
    }
}

/// A whole TCP segment behind an IPv4 header without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    /// Where the payload starts in the frame.
    pub payload: u32,
    pub payload_len: u32,
    /// Length of the IP datagram.
    pub ip_len: u32,
}

impl Segment {
    #[inline(always)]
    pub fn read(frame: &Frame, tuple: &Tuple) -> Result<Self, Reason> {
        if tuple.first_fragment {
            return Err(Reason::Fragment);
        }
        if tuple.ip_len != Ipv4Hdr::LEN {
            return Err(Reason::IpOptions);
        }
        Self::read_plain(frame).ok_or(Reason::Malformed)?.checked(frame)
    }

    #[inline(always)]
    fn read_plain(frame: &Frame) -> Option<Self> {
        if !frame.holds(HEADERS) {
            return None;
        }
        let ip_len = u16::from_be(frame.load(IP + 2)?) as u32;
        let tcp_len = ((frame.load::<u8>(TCP + 12)? >> 4) as u32) << 2;
        let headers = Ipv4Hdr::LEN as u32 + tcp_len;
        if tcp_len < TcpHdr::LEN as u32 || ip_len < headers || !frame.holds(IP + ip_len as usize) {
            return None;
        }
        Some(Self {
            seq: u32::from_be(frame.load(TCP + 4)?),
            ack: u32::from_be(frame.load(TCP + 8)?),
            flags: frame.load::<u8>(TCP + 13)?,
            payload: IP as u32 + headers,
            payload_len: ip_len - headers,
            ip_len,
        })
    }

    #[inline(always)]
    fn checked(self, frame: &Frame) -> Result<Self, Reason> {
        if frame.load::<u8>(IP + 8).ok_or(Reason::Malformed)? <= 1 {
            return Err(Reason::Ttl);
        }
        // What no stack sends: nothing at all, or two of SYN, FIN and RST.
        let kinds = self.flags & (flag::SYN | flag::FIN | flag::RST);
        if kinds & kinds.wrapping_sub(1) != 0 || self.flags & (kinds | flag::ACK) == 0 {
            return Err(Reason::Flags);
        }
        Ok(self)
    }

    #[inline(always)]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The first segment of a connection.
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        self.flags & (flag::SYN | flag::ACK) == flag::SYN
    }

    /// The sequence number after everything this segment occupies.
    #[inline(always)]
    pub const fn end(&self) -> u32 {
        let control = (self.has(flag::SYN) || self.has(flag::FIN)) as u32;
        self.seq.wrapping_add(self.payload_len).wrapping_add(control)
    }
}

/// Whether an IPv4 address can be a client's: not this network, not loopback,
/// not multicast or reserved (RFC 6890), and not the VIP itself.
#[inline(always)]
pub const fn plausible_client(key: &FlowKey) -> bool {
    let src = key.src.v4_word();
    let first = src.to_ne_bytes()[0];
    first != 0 && first != 127 && first < 224 && src != key.dst.v4_word() && key.sport.0 != 0
}

#[cfg(test)]
#[path = "segment/tests.rs"]
pub(crate) mod tests;
