//! Answering a segment with a reset (RFC 9293 section 3.10.7.1), or with a challenge ACK (RFC 5961 section 4).

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

/// The numbers and flags of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
}

impl Answer {
    /// `RST` with `SEQ = SEG.ACK` for a segment with ACK, otherwise `RST|ACK` with `ACK` = the end of the segment.
    /// `None`: the segment is a reset itself, and a reset is never answered.
    #[inline(always)]
    pub const fn reset(segment: &Segment) -> Option<Self> {
        if segment.has(flag::RST) {
            return None;
        }
        Some(if segment.has(flag::ACK) {
            Self { seq: segment.ack, ack: 0, flags: flag::RST, window: 0 }
        } else {
            Self { seq: 0, ack: segment.end(), flags: flag::RST | flag::ACK, window: 0 }
        })
    }

    /// The next number of the backend, and the one that it expects. A client that has this connection may take
    /// over the window until the backend's next segment, so it is neither closed nor large.
    #[inline(always)]
    pub const fn challenge(seq: u32, ack: u32) -> Self {
        Self { seq, ack, flags: flag::ACK, window: 512 }
    }
}

/// Turns the frame into its answer. Returns the length to which the caller shortens a longer frame. The bytes
/// behind the answer are zeroed. `partial`: the sender's device would have finished the checksum, and it will
/// finish the new one.
#[inline(always)]
pub fn answer<F: Family>(
    frame: &Frame,
    link_len: usize,
    segment: &Segment,
    partial: bool,
    answer: &Answer,
) -> Option<usize> {
    let ip = frame.from(link_len);
    if !ip.holds(F::HEADER + 20) || !frame.holds(12) {
        return None;
    }
    // The device begins where TCP began in the old frame.
    if partial && segment.tcp as usize != F::HEADER {
        return None;
    }
    let Answer { seq, ack, flags, window } = *answer;
    let to = [frame.load::<u16>(0)?, frame.load::<u16>(2)?, frame.load::<u16>(4)?];
    let from = [frame.load::<u16>(6)?, frame.load::<u16>(8)?, frame.load::<u16>(10)?];
    for i in 0..3 {
        frame.store(2 * i, from[i]);
        frame.store(6 + 2 * i, to[i]);
    }

    let (src, dst) = (F::load(&ip, F::SRC)?, F::load(&ip, F::DST)?);
    let ports = ip.load::<u32>(segment.tcp as usize & 0x3fff)?.rotate_left(16);
    write::<F>(&ip, (&dst, &src), ports, [seq, ack], (flags, window), partial);
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
    write::<F>(&ip, (&to.src, &to.dst), ports, [seq, 0], (flag::RST, 0), false);
    Some(LINK + F::HEADER + 20)
}

/// Writes the IP header and the TCP header of an answer.
#[inline(always)]
fn write<F: Family>(
    ip: &Frame,
    (src, dst): (&F::Addr, &F::Addr),
    ports: u32,
    [seq, ack]: [u32; 2],
    (flags, window): (u8, u16),
    partial: bool,
) {
    let [high, low] = window.to_be_bytes();
    F::write_header(ip, src, dst);
    let tcp = ip.from(F::HEADER);
    let words = [ports, seq.to_be(), ack.to_be(), u32::from_ne_bytes([0x50, flags, high, low]), 0];
    let pseudo = src.sum() + dst.sum() + u64::from(u32::from_ne_bytes([0, PROTO_TCP, 0, 20]));
    let mut sum = pseudo;
    for (i, word) in words.iter().enumerate() {
        tcp.store(4 * i, *word);
        sum += u64::from(*word);
    }
    tcp.store(16, if partial { fold(pseudo) } else { !fold(sum) });
}

#[cfg(test)]
#[path = "reset/tests.rs"]
mod tests;
