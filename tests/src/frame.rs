//! Frames for packet fixtures: TCP over IP over Ethernet, written and read independently of the program's
//! code.

use std::net::{IpAddr, SocketAddr};

use crate::devices::NODE_MAC;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const URG: u8 = 0x20;
pub const ECE: u8 = 0x40;
pub const CWR: u8 = 0x80;

/// Where the IP header begins, without a VLAN tag.
pub const IP: usize = 14;

/// A segment to be: all that a case may want to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    pub to_mac: [u8; 6],
    pub from_mac: [u8; 6],
    /// The tag control information of an 802.1Q tag.
    pub vlan: Option<u16>,
    pub src: SocketAddr,
    pub dst: SocketAddr,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    /// Or hop limit.
    pub ttl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    pub urgent: u16,
    /// Extension headers between IPv6 and TCP: type and content, a multiple of eight bytes with its first
    /// two.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// TCP options, a multiple of four bytes.
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Tcp {
    /// Both addresses must be of one family.
    pub fn new(src: SocketAddr, dst: SocketAddr, flags: u8) -> Self {
        Self {
            to_mac: NODE_MAC,
            from_mac: [0x02, 0, 0, 0, 0, 0x22],
            vlan: None,
            src,
            dst,
            seq: 1000,
            ack: 0,
            flags,
            ttl: 64,
            tos: 0,
            urgent: 0,
            extensions: Vec::new(),
            options: Vec::new(),
            payload: Vec::new(),
        }
    }

    #[must_use]
    pub fn numbers(mut self, seq: u32, ack: u32) -> Self {
        (self.seq, self.ack) = (seq, ack);
        self
    }

    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// The frame, with right checksums.
    pub fn bytes(&self) -> Vec<u8> {
        assert_eq!(self.options.len() % 4, 0, "options come in words");
        let mut frame = Vec::new();
        frame.extend(self.to_mac);
        frame.extend(self.from_mac);
        if let Some(tag) = self.vlan {
            frame.extend([0x81, 0x00]);
            frame.extend(tag.to_be_bytes());
        }
        let tcp_len = 20 + self.options.len();
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                assert!(self.extensions.is_empty(), "IPv4 has no extension headers");
                frame.extend([0x08, 0x00]);
                let total = 20 + tcp_len + self.payload.len();
                frame.extend([0x45, self.tos]);
                frame.extend((total as u16).to_be_bytes());
                frame.extend([0x12, 0x34, 0x40, 0x00, self.ttl, 6, 0, 0]);
                frame.extend(src.octets());
                frame.extend(dst.octets());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                frame.extend([0x86, 0xdd]);
                let between: usize = self.extensions.iter().map(|(_, content)| 2 + content.len()).sum();
                frame.extend([0x60 | self.tos >> 4, self.tos << 4, 0, 0]);
                frame.extend(((between + tcp_len + self.payload.len()) as u16).to_be_bytes());
                frame.extend([self.extensions.first().map_or(6, |(kind, _)| *kind), self.ttl]);
                frame.extend(src.octets());
                frame.extend(dst.octets());
                for (number, (kind, content)) in self.extensions.iter().enumerate() {
                    assert_eq!((2 + content.len()) % 8, 0, "extension headers come in eight bytes");
                    let next = self.extensions.get(number + 1).map_or(6, |(kind, _)| *kind);
                    // A fragment header has no length.
                    let length = if *kind == 44 { 0 } else { (content.len() + 2) / 8 - 1 };
                    frame.extend([next, length as u8]);
                    frame.extend(content);
                }
            }
            _ => panic!("one family at a time"),
        }
        frame.extend(self.src.port().to_be_bytes());
        frame.extend(self.dst.port().to_be_bytes());
        frame.extend(self.seq.to_be_bytes());
        frame.extend(self.ack.to_be_bytes());
        frame.extend([(tcp_len as u8 / 4) << 4, self.flags, 0x20, 0, 0, 0]);
        frame.extend(self.urgent.to_be_bytes());
        frame.extend(&self.options);
        frame.extend(&self.payload);
        set_checksums(&mut frame);
        frame
    }

    /// Reads a frame back. `None` when it is not TCP, or has IPv4 options.
    pub fn read(frame: &[u8]) -> Option<Self> {
        let Layout { ip, tcp, end, v6, .. } = layout(frame)?;
        let word16 = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        let word32 = |at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        let address = |at: usize| -> IpAddr {
            if v6 {
                <[u8; 16]>::try_from(&frame[at..at + 16]).expect("as many").into()
            } else {
                <[u8; 4]>::try_from(&frame[at..at + 4]).expect("as many").into()
            }
        };
        let (src, dst) = if v6 { (8, 24) } else { (12, 16) };
        let mut extensions = Vec::new();
        if v6 {
            let (mut at, mut kind) = (ip + 40, frame[ip + 6]);
            while at < tcp {
                let length = if kind == 44 { 8 } else { (usize::from(frame[at + 1]) + 1) * 8 };
                extensions.push((kind, frame[at + 2..at + length].to_vec()));
                (at, kind) = (at + length, frame[at]);
            }
        }
        let body = tcp + (frame[tcp + 12] >> 4) as usize * 4;
        Some(Self {
            to_mac: frame[..6].try_into().ok()?,
            from_mac: frame[6..12].try_into().ok()?,
            vlan: (ip == IP + 4).then(|| word16(14)),
            src: SocketAddr::new(address(ip + src), word16(tcp)),
            dst: SocketAddr::new(address(ip + dst), word16(tcp + 2)),
            seq: word32(tcp + 4),
            ack: word32(tcp + 8),
            flags: frame[tcp + 13],
            ttl: if v6 { frame[ip + 7] } else { frame[ip + 8] },
            tos: if v6 { frame[ip] << 4 | frame[ip + 1] >> 4 } else { frame[ip + 1] },
            urgent: word16(tcp + 18),
            extensions,
            options: frame.get(tcp + 20..body)?.to_vec(),
            payload: frame.get(body..end)?.to_vec(),
        })
    }
}

/// Where the parts of a TCP frame begin, and where its datagram ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub ip: usize,
    pub tcp: usize,
    pub end: usize,
    pub v6: bool,
}

/// `None`: not TCP, or not whole, or with IPv4 options.
pub fn layout(frame: &[u8]) -> Option<Layout> {
    let word16 = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let (kind, ip) = match word16(12)? {
        0x8100 => (word16(16)?, IP + 4),
        kind => (kind, IP),
    };
    let (tcp, end) = match kind {
        0x0800 => {
            if *frame.get(ip)? != 0x45 || *frame.get(ip + 9)? != 6 {
                return None;
            }
            (ip + 20, ip + usize::from(word16(ip + 2)?))
        }
        0x86dd => {
            let (mut at, mut kind) = (ip + 40, *frame.get(ip + 6)?);
            while matches!(kind, 0 | 43 | 44 | 60) {
                let length = if kind == 44 { 8 } else { (usize::from(*frame.get(at + 1)?) + 1) * 8 };
                (at, kind) = (at + length, *frame.get(at)?);
            }
            if kind != 6 {
                return None;
            }
            (at, ip + 40 + usize::from(word16(ip + 4)?))
        }
        _ => return None,
    };
    (end <= frame.len() && tcp + 20 <= end).then_some(Layout { ip, tcp, end, v6: kind == 0x86dd })
}

/// Whether the IP header checksum, if there is one, and the TCP checksum are right.
pub fn checksums(frame: &[u8]) -> (bool, bool) {
    let at = layout(frame).expect("a TCP frame");
    let ip = at.v6 || sum(&frame[at.ip..at.ip + 20], 0) == 0xffff;
    (ip, sum(&frame[at.tcp..at.end], pseudo(frame, &at)) == 0xffff)
}

pub fn set_checksums(frame: &mut [u8]) {
    let at = layout(frame).expect("a TCP frame");
    if !at.v6 {
        frame[at.ip + 10..at.ip + 12].fill(0);
        let ip = !sum(&frame[at.ip..at.ip + 20], 0);
        frame[at.ip + 10..at.ip + 12].copy_from_slice(&ip.to_be_bytes());
    }
    frame[at.tcp + 16..at.tcp + 18].fill(0);
    let tcp = !sum(&frame[at.tcp..at.end], pseudo(frame, &at));
    frame[at.tcp + 16..at.tcp + 18].copy_from_slice(&tcp.to_be_bytes());
}

fn pseudo(frame: &[u8], at: &Layout) -> u32 {
    let addresses = if at.v6 { at.ip + 8..at.ip + 40 } else { at.ip + 12..at.ip + 20 };
    u32::from(sum(&frame[addresses], 6)) + (at.end - at.tcp) as u32
}

/// RFC 1071, over big-endian words.
pub fn sum(bytes: &[u8], start: u32) -> u16 {
    let mut total = u64::from(start);
    for chunk in bytes.chunks(2) {
        total += u64::from(u16::from_be_bytes([chunk[0], chunk.get(1).copied().unwrap_or(0)]));
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(a: &str, b: &str, flags: u8) -> Tcp {
        Tcp::new(a.parse().expect("address"), b.parse().expect("address"), flags)
    }

    #[test]
    fn what_is_written_is_read() {
        let v4 = between("10.0.0.1:4000", "10.0.0.2:80", ACK | PSH);
        let v6 = between("[2001:db8::1]:4000", "[2001:db8::2]:80", ACK | PSH);
        let mut extended = v6.clone();
        extended.extensions = vec![(0, vec![1, 4, 0, 0, 0, 0]), (60, vec![0; 14])];
        for mut tcp in [v4, v6, extended] {
            for vlan in [None, Some(0x6005)] {
                tcp.vlan = vlan;
                let mut tcp = tcp.clone().numbers(7, 9).payload(b"odd");
                (tcp.tos, tcp.urgent) = (0xb9, 3);
                tcp.options = vec![1, 1, 1, 0];
                let bytes = tcp.bytes();
                assert_eq!(checksums(&bytes), (true, true));
                assert_eq!(Tcp::read(&bytes), Some(tcp));
            }
        }
    }

    #[test]
    fn a_wrong_bit_is_seen() {
        let mut bytes = between("10.0.0.1:4000", "10.0.0.2:80", SYN).bytes();
        bytes[39] ^= 1;
        assert_eq!(checksums(&bytes), (true, false));
        bytes[IP + 1] ^= 1;
        assert_eq!(checksums(&bytes), (false, false));
        let mut bytes = between("[2001:db8::1]:4000", "[2001:db8::2]:80", SYN).bytes();
        bytes[IP + 20] ^= 1;
        assert_eq!(checksums(&bytes), (true, false));
    }
}
