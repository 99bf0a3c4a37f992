//! Whether a SYN has to be answered. Anybody can send one that every stack ignores, and what it then does not answer
//! says nothing about it.

use lb_common::{abi::Address as _, checksum::fold};

use crate::{family::Family, frame::Frame};

/// Bytes of a TCP header without options, and with all that it can have.
const SHORTEST: u32 = 20;
const LONGEST: u32 = 60;

/// More options than any stack sends.
const MOST_OPTIONS: u32 = 12;

/// Kinds of options (RFC 9293 section 3.2, RFC 7323, RFC 2018, RFC 7413).
const END: u8 = 0;
const PADDING: u8 = 1;
const SEGMENT_SIZE: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const TIMESTAMPS: u8 = 8;
const FAST_OPEN: u8 = 34;

/// Whether a listener owes an answer to this SYN: its checksums are right, and it has no option that a listener may
/// refuse in silence, as the signatures of RFC 2385 and RFC 5925. One behind extension headers or with data is
/// not looked at: no. `headers`: up to where the payload begins. `hide` keeps a number from the compiler.
#[inline(always)]
pub fn is_owed_an_answer<F: Family>(
    ip: &Frame,
    headers: u32,
    ip_len: u32,
    hide: impl Fn(u32) -> u32,
) -> bool {
    let length = headers.wrapping_sub(F::HEADER as u32);
    if !(SHORTEST..=LONGEST).contains(&length) || ip_len != headers {
        return false;
    }
    checksums_are_right::<F>(ip, length, &hide).unwrap_or(false)
        && options_are_known(&ip.from(F::HEADER), length, &hide).unwrap_or(false)
}

#[inline(always)]
fn checksums_are_right<F: Family>(ip: &Frame, length: u32, hide: &impl Fn(u32) -> u32) -> Option<bool> {
    if !F::header_is_right(ip)? {
        return Some(false);
    }
    let pseudo = u32::from_ne_bytes([0, 6, 0, length as u8]);
    let mut sum = F::load(ip, F::SRC)?.sum() + F::load(ip, F::DST)?.sum() + pseudo as u64;
    let tcp = ip.from(F::HEADER);
    for word in 0..hide(LONGEST / 4) {
        if 4 * word >= length {
            break;
        }
        sum += tcp.from_any(((4 * word) & 0x3f) as usize).load::<u32>(0)? as u64;
    }
    Some(fold(sum) == 0xffff)
}

#[inline(always)]
fn options_are_known(tcp: &Frame, length: u32, hide: &impl Fn(u32) -> u32) -> Option<bool> {
    let mut at = SHORTEST;
    for _ in 0..hide(MOST_OPTIONS) {
        if at >= length {
            return Some(true);
        }
        let option = tcp.from_any((at & 0x3f) as usize);
        match option.load::<u8>(0)? {
            END => return Some(true),
            PADDING => at += 1,
            SEGMENT_SIZE | WINDOW_SCALE | SACK_PERMITTED | TIMESTAMPS | FAST_OPEN => {
                let size = option.load::<u8>(1)? as u32;
                if size < 2 {
                    return Some(false);
                }
                at += size;
            }
            _ => return Some(false),
        }
    }
    Some(at >= length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{family::Ipv4, frame, segment::tests::tcp};

    /// A SYN with these options, whose checksums are right.
    fn syn(options: &[u8]) -> Vec<u8> {
        let mut bytes = tcp(crate::segment::flag::SYN, b"");
        bytes.extend_from_slice(options);
        let length = 20 + options.len();
        bytes[14 + 2..14 + 4].copy_from_slice(&(20 + length as u16).to_be_bytes());
        bytes[34 + 12] = (length as u8 / 4) << 4;
        let words =
            |bytes: &[u8]| bytes.chunks(2).map(|w| u64::from(u16::from_ne_bytes([w[0], w[1]]))).sum::<u64>();
        bytes[24..26].fill(0);
        let sum = !fold(words(&bytes[14..34]));
        bytes[24..26].copy_from_slice(&sum.to_ne_bytes());
        bytes[50..52].fill(0);
        let pseudo = words(&bytes[26..34]) + u64::from(u32::from_ne_bytes([0, 6, 0, length as u8]));
        let sum = !fold(words(&bytes[34..]) + pseudo);
        bytes[50..52].copy_from_slice(&sum.to_ne_bytes());
        bytes
    }

    fn owed(bytes: &mut [u8]) -> bool {
        let length = bytes.len() as u32 - 14;
        is_owed_an_answer::<Ipv4>(&frame::of(bytes).from(14), length, length, |number| number)
    }

    #[test]
    fn what_stacks_send_is_owed_an_answer() {
        let linux = [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
        let macos = [2, 4, 5, 0xb4, 1, 3, 3, 6, 1, 1, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 4, 2, 0, 0];
        let windows = [2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2];
        let fast_open = [34, 2, 1, 1];
        for options in [&[][..], &linux, &macos, &windows, &fast_open] {
            assert!(owed(&mut syn(options)), "{options:?}");
        }
    }

    #[test]
    fn what_may_be_ignored_is_not() {
        let mut signed = [1; 20];
        signed[..2].copy_from_slice(&[19, 18]);
        let mut authentic = [1; 16];
        authentic[..2].copy_from_slice(&[29, 16]);
        for options in [&signed[..], &authentic, &[2, 1, 0, 0], &[2, 0, 0, 0], &[254, 4, 0, 0]] {
            assert!(!owed(&mut syn(options)), "{options:?}");
        }
        for byte in 14..syn(&[]).len() {
            let mut bytes = syn(&[]);
            bytes[byte] ^= 0x21;
            assert!(!owed(&mut bytes), "byte {byte}");
        }
    }
}
