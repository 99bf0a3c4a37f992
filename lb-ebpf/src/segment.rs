//! A TCP segment: the fields of its headers, and its flaws.

use lb_common::{abi::Address as _, reason::Reason};

use crate::{
    family::{Family, Tuple, flaw},
    frame::Frame,
};

/// Length of a TCP header without options.
const TCP_HEADER: u32 = 20;

/// TCP flag bits (RFC 9293 section 3.1).
pub mod flag {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;
}

/// Where a segment lies among the numbers of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It brings nothing new: an acknowledgement, a keep-alive, or what was sent before.
    Before,
    /// It continues what came before, without a gap, and brings something new.
    Next,
    /// Something before it is missing.
    Beyond,
}

/// No stack has more bytes than this under way. A number that is farther off is made up.
pub const MOST_IN_FLIGHT: u32 = 1 << 24;

/// The combinations of the five lowest flags that stacks send, each as the bit of its number: one or more of SYN, RST
/// and ACK, at most one of SYN, FIN and RST, and no data without an ACK.
const SOUND_FLAGS: u32 = {
    let (mut sound, mut flags) = (0, 0);
    while flags < 32 {
        let kinds = flags & (flag::SYN | flag::FIN | flag::RST);
        if kinds.count_ones() <= 1 && flags & (flag::SYN | flag::RST | flag::ACK) != 0 {
            sound |= 1 << flags;
        }
        flags += 1;
    }
    sound
};

/// A whole TCP segment. Offsets are from the start of the IP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    /// Where the TCP header starts.
    pub tcp: u32,
    /// Where the payload starts.
    pub payload: u32,
    pub payload_len: u32,
    /// Length of the IP datagram.
    pub ip_len: u64,
}

impl Segment {
    /// `whole`: asked for the length over all buffers, if the segment is longer than `ip`.
    #[inline(always)]
    pub fn read<F: Family>(
        ip: &Frame,
        tuple: &Tuple<F::Addr>,
        whole: impl FnOnce() -> u32,
    ) -> Result<Self, Reason> {
        let mut segment = Self::default();
        segment.fill::<F>(ip, tuple, whole)?;
        Ok(segment)
    }

    /// The same into an existing segment. If segment and reason were one value, the compiler would move unset
    /// registers along with the reason, and the verifier refuses that.
    #[inline(always)]
    pub fn fill<F: Family>(
        &mut self,
        ip: &Frame,
        tuple: &Tuple<F::Addr>,
        whole: impl FnOnce() -> u32,
    ) -> Result<(), Reason> {
        if tuple.flaws & flaw::FRAGMENT != 0 {
            return Err(Reason::Fragment);
        }
        if tuple.flaws & flaw::OPTIONS != 0 {
            return Err(Reason::IpOptions);
        }
        self.fill_plain::<F>(ip, tuple.tcp, whole).ok_or(Reason::Malformed)?;
        if ip.load::<u8>(F::TTL).ok_or(Reason::Malformed)? <= 1 {
            return Err(Reason::Ttl);
        }
        if SOUND_FLAGS >> (self.flags & 31) & 1 == 0 {
            return Err(Reason::Flags);
        }
        Ok(())
    }

    #[inline(always)]
    fn fill_plain<F: Family>(&mut self, ip: &Frame, at: usize, whole: impl FnOnce() -> u32) -> Option<()> {
        let tcp = if F::FIXED { ip.from(at) } else { ip.from_any(at) };
        if !tcp.holds(TCP_HEADER as usize) || !ip.holds(F::HEADER) {
            return None;
        }
        let ip_len = F::length(ip)?;
        let tcp_len = ((tcp.load::<u8>(12)? >> 4) as u32) << 2;
        let headers = at as u32 + tcp_len;
        if tcp_len < TCP_HEADER || ip_len < headers as u64 {
            return None;
        }
        if !ip.holds(ip_len as usize) && (whole() as u64) < ip_len {
            return None;
        }
        self.seq = u32::from_be(tcp.load(4)?);
        self.ack = u32::from_be(tcp.load(8)?);
        self.flags = tcp.load::<u8>(13)?;
        self.tcp = at as u32;
        self.payload = headers;
        self.payload_len = ip_len as u32 - headers;
        self.ip_len = ip_len;
        Some(())
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

    /// Whether a client that has what the backend has sent can have sent this segment. A sender who does not see the
    /// connection must guess. SYN and RST have rules of their own.
    #[inline(always)]
    pub const fn is_plausible(&self, sent_end: u32) -> bool {
        self.flags & (flag::SYN | flag::RST) == 0 && sent_end.wrapping_sub(self.ack) <= MOST_IN_FLIGHT
    }

    /// Where this segment lies, if `next` is the first number that is missing.
    #[inline(always)]
    pub const fn place(&self, next: u32) -> Place {
        if self.end().wrapping_sub(next) as i32 <= 0 {
            Place::Before
        } else if self.seq.wrapping_sub(next) as i32 <= 0 {
            Place::Next
        } else {
            Place::Beyond
        }
    }

    /// The sequence number after everything that this segment occupies.
    #[inline(always)]
    pub const fn end(&self) -> u32 {
        const { assert!(flag::SYN == flag::FIN << 1, "one shift brings the one to the other") };
        // Without a branch. No segment has both.
        let control = (self.flags | self.flags >> 1) & flag::FIN;
        self.seq.wrapping_add(self.payload_len).wrapping_add(control as u32)
    }
}

/// Whether a client's segment comes from somebody who sees the connection. `first_end`: the number after the SYN, as
/// long as nothing followed it; `next`: the client's next number; `sent_end`: the backend's.
///
/// Both numbers must be near to these, one the nearer the farther the other is: half of a request may have been lost,
/// and all of its answer. A stranger needs some hundred million segments to meet that.
#[inline(always)]
pub const fn is_of_peer(segment: &Segment, first_end: u32, next: u32, sent_end: u32) -> bool {
    const FARTHEST: u64 = 1 << 28;
    if segment.flags & (flag::SYN | flag::RST) != 0 {
        // A SYN that is repeated.
        return segment.opens() && segment.end() == first_end;
    }
    let ahead = segment.seq.wrapping_sub(next) as i32;
    let off = (if ahead < 0 { ahead.wrapping_neg() } else { ahead }) as u32 as u64;
    let missing = sent_end.wrapping_sub(segment.ack);
    missing <= MOST_IN_FLIGHT && off <= MOST_IN_FLIGHT as u64 && (off + 1) * (missing as u64 + 1) <= FARTHEST
}

/// Whether a tuple's source can be a client of its destination.
#[inline(always)]
pub fn plausible_client<F: Family>(tuple: &Tuple<F::Addr>) -> bool {
    let key = &tuple.key;
    key.src.is_plausible() && key.src != key.dst && key.sport.0 != 0
}

#[cfg(test)]
#[path = "segment/tests.rs"]
pub(crate) mod tests;
