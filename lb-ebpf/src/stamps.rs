//! TCP time stamps (RFC 7323), and what a backend in TIME_WAIT makes of them.

use crate::frame::Frame;

/// How the option begins, behind two bytes of padding.
const PADDED: u32 = u32::from_ne_bytes([1, 1, 8, 10]);

/// The time stamps of a segment (RFC 7323).
pub struct Stamps {
    /// Of its sender.
    pub value: u32,
    /// The last one of its receiver that the sender has seen.
    pub echo: u32,
}

/// The time stamps of a segment that is no SYN, where stacks write them (RFC 7323 appendix A). IPv6 headers with
/// extensions shift them, and then there are none.
#[inline(always)]
pub fn stamps(tcp: &Frame) -> Option<Stamps> {
    let has_options = tcp.load::<u8>(12)? >> 4 >= 8;
    if !has_options || tcp.load::<u32>(20)? != PADDED {
        return None;
    }
    Some(Stamps { value: u32::from_be(tcp.load(24)?), echo: u32::from_be(tcp.load(28)?) })
}

/// Whether a backend that preserves a connection in TIME_WAIT begins a new one with the same tuple: Linux compares the
/// time stamps where both have one, and the numbers otherwise (RFC 6191, RFC 9293 section 3.10.7.4).
///
/// `last`: the number that followed the client's FIN. `stamp`: its last time stamp, 0 for none.
#[inline(always)]
pub const fn begins_again(last: u32, stamp: u32, syn: u32, syn_stamp: u32) -> bool {
    if stamp != 0 && syn_stamp != 0 {
        syn_stamp.wrapping_sub(stamp) as i32 > 0
    } else {
        syn.wrapping_sub(last) as i32 > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{frame, segment::tests::tcp};

    fn with_options(options: &[u8]) -> Vec<u8> {
        let mut bytes = tcp(0x10, options);
        bytes[46] = (((20 + options.len()) / 4) << 4) as u8;
        bytes
    }

    #[test]
    fn time_stamps_where_stacks_write_them() {
        let read = |options: &[u8]| {
            let mut bytes = with_options(options);
            stamps(&frame::of(&mut bytes).from(34)).map(|stamps| (stamps.value, stamps.echo))
        };
        let times = [1, 1, 8, 10, 0, 0, 1, 2, 0xff, 0, 0, 3];
        assert_eq!(read(&times), Some((0x102, 0xff00_0003)));
        // SACK behind them, in front of them, something else, too short.
        assert_eq!(
            read(&[&times[..], &[1, 1, 5, 10, 0, 0, 0, 0, 0, 0, 0, 0]].concat()),
            Some((0x102, 0xff00_0003))
        );
        assert_eq!(read(&[&[1, 1, 5, 10, 0, 0, 0, 0, 0, 0, 0, 0], &times[..]].concat()), None);
        assert_eq!(read(&[1; 12]), None);
        assert_eq!(read(&times[..8]), None);
        let mut payload = with_options(&times);
        payload[46] = 0x50;
        assert!(stamps(&frame::of(&mut payload).from(34)).is_none(), "no options, but payload like them");
    }

    /// The rules of Linux (net/ipv4/tcp_minisocks.c), each from both sides.
    #[test]
    fn when_a_backend_begins_again() {
        // Both have time stamps: numbers do not matter.
        assert!(begins_again(5000, 10, 1000, 11));
        assert!(!begins_again(1000, 11, 5000, 10) && !begins_again(1000, 10, 5000, 10));
        assert!(begins_again(5000, u32::MAX, 1000, 1), "stamps wrap");
        // One has none.
        for (stamp, of_syn) in [(0, 0), (7, 0), (0, 7)] {
            assert!(begins_again(1000, stamp, 1001, of_syn), "{stamp} {of_syn}");
            assert!(!begins_again(1000, stamp, 1000, of_syn) && !begins_again(1000, stamp, 999, of_syn));
            assert!(begins_again(u32::MAX, stamp, 5, of_syn), "numbers wrap");
        }
    }
}
