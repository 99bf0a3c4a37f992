//! ICMP errors for packet fixtures, written and read independently of the program's code.

use std::net::IpAddr;

use crate::frame::{IP, sum};

/// An error to be: what it quotes is bytes, as it may be cut off anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcmpError {
    pub to_mac: [u8; 6],
    pub from_mac: [u8; 6],
    pub src: IpAddr,
    pub dst: IpAddr,
    pub kind: u8,
    pub code: u8,
    /// The second word of the header: an MTU, a pointer.
    pub rest: [u8; 4],
    pub ttl: u8,
    /// From its IP header on.
    pub quoted: Vec<u8>,
}

impl IcmpError {
    /// The frame, with right checksums.
    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        frame.extend(self.to_mac);
        frame.extend(self.from_mac);
        let length = 8 + self.quoted.len() as u16;
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                frame.extend([0x08, 0x00, 0x45, 0xc0]);
                frame.extend((20 + length).to_be_bytes());
                frame.extend([0x43, 0x21, 0, 0, self.ttl, 1, 0, 0]);
                frame.extend(src.octets());
                frame.extend(dst.octets());
                let check = !sum(&frame[IP..], 0);
                frame[IP + 10..IP + 12].copy_from_slice(&check.to_be_bytes());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(length.to_be_bytes());
                frame.extend([58, self.ttl]);
                frame.extend(src.octets());
                frame.extend(dst.octets());
            }
            _ => panic!("one family at a time"),
        }
        let icmp = frame.len();
        frame.extend([self.kind, self.code, 0, 0]);
        frame.extend(self.rest);
        frame.extend(&self.quoted);
        let check = !sum(&frame[icmp..], pseudo(&frame));
        frame[icmp + 2..icmp + 4].copy_from_slice(&check.to_be_bytes());
        frame
    }

    /// Reads one back, padding left out.
    pub fn read(frame: &[u8]) -> Option<Self> {
        let word16 = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        let (src, dst, ttl, icmp, end) = if word16(12) == 0x0800 {
            let address = |at: usize| <[u8; 4]>::try_from(&frame[at..at + 4]).map(IpAddr::from);
            let end = IP + usize::from(word16(IP + 2));
            (address(IP + 12).ok()?, address(IP + 16).ok()?, frame[IP + 8], IP + 20, end)
        } else {
            let address = |at: usize| <[u8; 16]>::try_from(&frame[at..at + 16]).map(IpAddr::from);
            let end = IP + 40 + usize::from(word16(IP + 4));
            (address(IP + 8).ok()?, address(IP + 24).ok()?, frame[IP + 7], IP + 40, end)
        };
        Some(Self {
            to_mac: frame[..6].try_into().ok()?,
            from_mac: frame[6..12].try_into().ok()?,
            src,
            dst,
            kind: frame[icmp],
            code: frame[icmp + 1],
            rest: frame[icmp + 4..icmp + 8].try_into().ok()?,
            ttl,
            quoted: frame.get(icmp + 8..end)?.to_vec(),
        })
    }
}

/// Whether the outer IP header checksum, if there is one, and the ICMP checksum are right.
pub fn checksums(frame: &[u8]) -> (bool, bool) {
    let v6 = frame[12] == 0x86;
    let length = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let (icmp, end) = if v6 { (IP + 40, IP + 40 + length(IP + 4)) } else { (IP + 20, IP + length(IP + 2)) };
    let ip = v6 || sum(&frame[IP..icmp], 0) == 0xffff;
    (ip, sum(&frame[icmp..end], pseudo(frame)) == 0xffff)
}

/// Only ICMPv6 has one.
fn pseudo(frame: &[u8]) -> u32 {
    if frame[12] == 0x86 {
        let length = u32::from(u16::from_be_bytes([frame[IP + 4], frame[IP + 5]]));
        u32::from(sum(&frame[IP + 8..IP + 40], 58)) + length
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_a_wrong_bit_is_seen() {
        for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("2001:db8::1", "2001:db8::2")] {
            let error = IcmpError {
                to_mac: [2; 6],
                from_mac: [4; 6],
                src: src.parse().expect("address"),
                dst: dst.parse().expect("address"),
                kind: 3,
                code: 4,
                rest: [0, 0, 5, 0xdc],
                ttl: 61,
                quoted: vec![7; 29],
            };
            let mut bytes = error.bytes();
            assert_eq!((IcmpError::read(&bytes), checksums(&bytes)), (Some(error), (true, true)));
            *bytes.last_mut().expect("not empty") ^= 4;
            assert_eq!(checksums(&bytes), (true, false));
        }
    }
}
