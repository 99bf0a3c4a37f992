//! Answering a segment with a reset (RFC 9293 section 3.10.7.1).

use lb_common::{
    abi::{Address as _, FlowKey, Link},
    checksum::fold,
};

use crate::{
    family::Family,
    frame::{Frame, LINK},
    segment::{Segment, flag},
};

/// Length of an Ethernet frame that needs no padding by the driver.
const MIN_FRAME: usize = 60;
const PROTO_TCP: u8 = 6;

/// Turns the frame into the reset that answers it: `RST` with `SEQ = SEG.ACK` for a segment with ACK,
/// otherwise `RST|ACK` with `ACK` = the end of the segment. Returns the length to which the caller shortens a
/// longer frame. The bytes behind the reset are zeroed. `partial`: the sender's device would have finished
/// the checksum, and it will finish the new one.
/// `None`: the segment is a reset itself, and a reset is never answered.
#[inline(always)]
pub fn reset<F: Family>(frame: &Frame, link_len: usize, segment: &Segment, partial: bool) -> Option<usize> {
    let ip = frame.from(link_len);
    if segment.has(flag::RST) || !ip.holds(F::HEADER + 20) || !frame.holds(12) {
        return None;
    }
    // The device begins where TCP began in the old frame.
    if partial && segment.tcp as usize != F::HEADER {
        return None;
    }
    let (seq, ack, flags) = if segment.has(flag::ACK) {
        (segment.ack, 0, flag::RST)
    } else {
        (0, segment.end(), flag::RST | flag::ACK)
    };

    let to = [frame.load::<u16>(0)?, frame.load::<u16>(2)?, frame.load::<u16>(4)?];
    let from = [frame.load::<u16>(6)?, frame.load::<u16>(8)?, frame.load::<u16>(10)?];
    for i in 0..3 {
        frame.store(2 * i, from[i]);
        frame.store(6 + 2 * i, to[i]);
    }

    let (src, dst) = (F::load(&ip, F::SRC)?, F::load(&ip, F::DST)?);
    let ports = ip.load::<u32>(segment.tcp as usize & 0x3fff)?.rotate_left(16);
    write::<F>(&ip, (&dst, &src), ports, [seq, ack], flags, partial);
    // Padding must not leak what was there (RFC 894; CVE-2003-0001).
    let end = link_len + F::HEADER + 20;
    if end < MIN_FRAME {
        let tcp = ip.from(F::HEADER);
        // As far as there are bytes: a shorter frame leaves as short as it came.
        for at in 20..20 + MIN_FRAME - 54 {
            if !tcp.store(at, 0u8) {
                break;
            }
        }
        return Some(MIN_FRAME);
    }
    Some(end)
}

/// Turns a frame into a reset to one end of the connection that it is about. `to`: the tuple of the reset.
/// `seq`: the number that this end expects. Returns the length to which the caller shortens the frame.
/// `None`: the frame is too short, and nothing was written.
#[inline(always)]
pub fn reset_about<F: Family>(frame: &Frame, link: &Link, to: &FlowKey<F::Addr>, seq: u32) -> Option<usize> {
    let ip = frame.from(LINK);
    if !ip.holds(F::HEADER + 20) || !frame.holds(12) {
        return None;
    }
    frame.store(0, link.0[0]);
    frame.store(4, link.0[1]);
    frame.store(8, link.0[2]);
    let [a, b] = to.sport.0.to_ne_bytes();
    let [c, d] = to.dport.0.to_ne_bytes();
    let ports = u32::from_ne_bytes([a, b, c, d]);
    write::<F>(&ip, (&to.src, &to.dst), ports, [seq, 0], flag::RST, false);
    Some(LINK + F::HEADER + 20)
}

/// Writes the IP header and the TCP header of a reset.
#[inline(always)]
fn write<F: Family>(
    ip: &Frame,
    (src, dst): (&F::Addr, &F::Addr),
    ports: u32,
    [seq, ack]: [u32; 2],
    flags: u8,
    partial: bool,
) {
    F::write_header(ip, src, dst);
    let tcp = ip.from(F::HEADER);
    let words = [ports, seq.to_be(), ack.to_be(), u32::from_ne_bytes([0x50, flags, 0, 0]), 0];
    let pseudo = src.sum() + dst.sum() + u64::from(u32::from_ne_bytes([0, PROTO_TCP, 0, 20]));
    let mut sum = pseudo;
    for (i, word) in words.iter().enumerate() {
        tcp.store(4 * i, *word);
        sum += u64::from(*word);
    }
    tcp.store(16, if partial { fold(pseudo) } else { !fold(sum) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{family::Ipv4, frame, segment::tests::tcp};

    fn answer(flags: u8, payload: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = tcp(flags, payload);
        bytes.resize(bytes.len().max(MIN_FRAME), 0xee);
        let frame = frame::of(&mut bytes);
        let ip = frame.from(14);
        let tuple = Ipv4::tuple(&ip).expect("tcp");
        let segment = Segment::read::<Ipv4>(&ip, &tuple, || ip.len() as u32).expect("well formed");
        let len = reset::<Ipv4>(&frame, 14, &segment, false)?;
        bytes.truncate(len);
        Some(bytes)
    }

    fn internet_sum(bytes: &[u8], start: u64) -> u16 {
        fold(bytes.chunks(2).map(|c| u64::from(u16::from_ne_bytes([c[0], c[1]]))).sum::<u64>() + start)
    }

    #[test]
    fn shapes() {
        // flags in, payload, seq, ack, flags out
        let cases: [(u8, &[u8], u32, u32, u8); 4] = [
            (flag::SYN, b"", 0, 1001, flag::RST | flag::ACK),
            (flag::SYN, b"fast", 0, 1005, flag::RST | flag::ACK),
            (flag::ACK, b"hello", 2000, 0, flag::RST),
            (flag::ACK | flag::FIN, b"", 2000, 0, flag::RST),
        ];
        for (flags, payload, seq, ack, out) in cases {
            let bytes = answer(flags, payload).expect("answered");
            assert_eq!(bytes[..12], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
            assert_eq!(bytes[26..34], [203, 0, 113, 10, 10, 0, 0, 1]);
            assert_eq!(bytes[34..38], [0, 80, 0x9c, 0x40]);
            assert_eq!(bytes[38..42], seq.to_be_bytes());
            assert_eq!(bytes[42..46], ack.to_be_bytes());
            assert_eq!(bytes[46..48], [0x50, out]);
            assert_eq!(bytes[54..], [0; 6]);
            assert_eq!(internet_sum(&bytes[14..34], 0), 0xffff);
            let pseudo = internet_sum(&bytes[26..34], u64::from(u32::from_ne_bytes([0, 6, 0, 20])));
            assert_eq!(internet_sum(&bytes[34..54], u64::from(pseudo)), 0xffff);
        }
    }

    #[test]
    fn a_reset_is_never_answered() {
        assert!(answer(flag::RST, b"").is_none());
        assert!(answer(flag::RST | flag::ACK, b"").is_none());
    }
}
