//! Frames for packet fixtures: TCP over IPv4 over Ethernet, written and read independently of the program's code.

use std::net::SocketAddrV4;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;

pub const IP: usize = 14;
pub const TCP: usize = 34;

/// A segment to be: all that a case may want to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    pub to_mac: [u8; 6],
    pub from_mac: [u8; 6],
    pub src: SocketAddrV4,
    pub dst: SocketAddrV4,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub ttl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// TCP options, a multiple of four bytes.
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Tcp {
    pub fn new(src: SocketAddrV4, dst: SocketAddrV4, flags: u8) -> Self {
        Self {
            to_mac: [0x02, 0, 0, 0, 0, 0x11],
            from_mac: [0x02, 0, 0, 0, 0, 0x22],
            src,
            dst,
            seq: 1000,
            ack: 0,
            flags,
            ttl: 64,
            tos: 0,
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
        frame.extend([0x08, 0x00]);
        let tcp_len = 20 + self.options.len();
        let total = 20 + tcp_len + self.payload.len();
        frame.extend([0x45, self.tos]);
        frame.extend((total as u16).to_be_bytes());
        frame.extend([0x12, 0x34, 0x40, 0x00, self.ttl, 6, 0, 0]);
        frame.extend(self.src.ip().octets());
        frame.extend(self.dst.ip().octets());
        frame.extend(self.src.port().to_be_bytes());
        frame.extend(self.dst.port().to_be_bytes());
        frame.extend(self.seq.to_be_bytes());
        frame.extend(self.ack.to_be_bytes());
        frame.extend([(tcp_len as u8 / 4) << 4, self.flags, 0x20, 0, 0, 0, 0, 0]);
        frame.extend(&self.options);
        frame.extend(&self.payload);
        set_checksums(&mut frame);
        frame
    }

    /// Reads a frame back. `None` when it is not TCP over IPv4 without options.
    pub fn read(frame: &[u8]) -> Option<Self> {
        if frame.len() < 54 || frame[12..14] != [8, 0] || frame[IP] != 0x45 || frame[IP + 9] != 6 {
            return None;
        }
        let word16 = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        let word32 = |at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        let end = IP + word16(IP + 2) as usize;
        let body = TCP + (frame[TCP + 12] >> 4) as usize * 4;
        Some(Self {
            to_mac: frame[..6].try_into().ok()?,
            from_mac: frame[6..12].try_into().ok()?,
            src: SocketAddrV4::new(word32(IP + 12).into(), word16(TCP)),
            dst: SocketAddrV4::new(word32(IP + 16).into(), word16(TCP + 2)),
            seq: word32(TCP + 4),
            ack: word32(TCP + 8),
            flags: frame[TCP + 13],
            ttl: frame[IP + 8],
            tos: frame[IP + 1],
            options: frame.get(TCP + 20..body)?.to_vec(),
            payload: frame.get(body..end)?.to_vec(),
        })
    }
}

/// Whether the IPv4 header checksum and the TCP checksum are right.
pub fn checksums(frame: &[u8]) -> (bool, bool) {
    (sum(&frame[IP..IP + 20], 0) == 0xffff, sum(segment(frame), pseudo(frame)) == 0xffff)
}

pub fn set_checksums(frame: &mut [u8]) {
    frame[IP + 10..IP + 12].fill(0);
    frame[TCP + 16..TCP + 18].fill(0);
    let ip = !sum(&frame[IP..IP + 20], 0);
    frame[IP + 10..IP + 12].copy_from_slice(&ip.to_be_bytes());
    let tcp = !sum(segment(frame), pseudo(frame));
    frame[TCP + 16..TCP + 18].copy_from_slice(&tcp.to_be_bytes());
}

fn segment(frame: &[u8]) -> &[u8] {
    let end = IP + u16::from_be_bytes([frame[IP + 2], frame[IP + 3]]) as usize;
    &frame[TCP..end]
}

fn pseudo(frame: &[u8]) -> u32 {
    u32::from(sum(&frame[IP + 12..IP + 20], 6)) + segment(frame).len() as u32
}

/// RFC 1071, over big-endian words.
fn sum(bytes: &[u8], start: u32) -> u16 {
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

    #[test]
    fn what_is_written_is_read() {
        let (a, b) = ("10.0.0.1:4000".parse().expect("address"), "10.0.0.2:80".parse().expect("address"));
        let mut tcp = Tcp::new(a, b, ACK | PSH).numbers(7, 9).payload(b"odd");
        tcp.options = vec![1, 1, 1, 0];
        let bytes = tcp.bytes();
        assert_eq!(checksums(&bytes), (true, true));
        assert_eq!(Tcp::read(&bytes), Some(tcp));
    }

    #[test]
    fn a_wrong_bit_is_seen() {
        let (a, b) = ("10.0.0.1:4000".parse().expect("address"), "10.0.0.2:80".parse().expect("address"));
        let mut bytes = Tcp::new(a, b, SYN).bytes();
        bytes[TCP + 5] ^= 1;
        assert_eq!(checksums(&bytes), (true, false));
        bytes[IP + 1] ^= 1;
        assert_eq!(checksums(&bytes), (false, false));
    }
}
