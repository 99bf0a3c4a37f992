//! Whether a backend must answer a SYN. Anybody can send a SYN that every stack ignores, and such a SYN says
//! nothing about the backend.

use lb_common::{abi::Address as _, checksum::fold};

use crate::{family::Family, frame::Frame};

/// Shortest and longest TCP header.
const SHORTEST: u32 = 20;
const LONGEST: u32 = 60;
/// TCP header of a SYN of Linux.
const USUAL: u32 = 40;

/// A SYN with a TTL or hop limit up to this may end on its way from Shunt to the backend, and its sender chooses
/// where. Hosts begin at 64, 128 or 255, and no path has more than 31 hops. So a SYN of a real client has more
/// than this left when it reaches the balancer, and from here it reaches every backend.
const MOST_HOPS: u8 = 32;

/// Kinds of options (RFC 9293 section 3.2, RFC 7323, RFC 2018, RFC 7413).
const END: u8 = 0;
const PADDING: u8 = 1;
const SEGMENT_SIZE: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const TIMESTAMPS: u8 = 8;
const FAST_OPEN: u8 = 34;

/// Whether a SYN reaches the backend and has the right checksums. `partial`: the TCP checksum covers the pseudo
/// header alone, and the sender's device would finish it. A SYN behind extension headers or with data is not
/// checked: false. `headers`: the offset of the payload. `hide` hides a number from the compiler.
#[inline(always)]
pub fn is_sound<F: Family>(
    ip: &Frame,
    headers: u32,
    ip_len: u32,
    partial: bool,
    hide: impl Fn(u32) -> u32,
) -> bool {
    let length = headers.wrapping_sub(F::HEADER as u32);
    if !(SHORTEST..=LONGEST).contains(&length) || ip_len != headers {
        return false;
    }
    if ip.load::<u8>(F::TTL).is_none_or(|ttl| ttl <= MOST_HOPS) {
        return false;
    }
    checksums_are_right::<F>(ip, length, partial, &hide).unwrap_or(false)
}

#[inline(always)]
fn checksums_are_right<F: Family>(
    ip: &Frame,
    length: u32,
    partial: bool,
    hide: &impl Fn(u32) -> u32,
) -> Option<bool> {
    if !F::header_is_right(ip)? {
        return Some(false);
    }
    let pseudo = u32::from_ne_bytes([0, 6, 0, length as u8]);
    let mut sum = F::load(ip, F::SRC)?.sum() + F::load(ip, F::DST)?.sum() + pseudo as u64;
    let tcp = ip.from(F::HEADER);
    if partial {
        return Some(tcp.load::<u16>(16)? == fold(sum));
    }
    if length == USUAL {
        // One check for the end of the frame instead of one for each word.
        if !tcp.holds(USUAL as usize) {
            return None;
        }
        for word in 0..USUAL as usize / 4 {
            sum += tcp.load::<u32>(4 * word)? as u64;
        }
        return Some(fold(sum) == 0xffff);
    }
    for word in 0..hide(LONGEST / 4) {
        if 4 * word >= length {
            break;
        }
        sum += tcp.from_any(((4 * word) & 0x3f) as usize).load::<u32>(0)? as u64;
    }
    Some(fold(sum) == 0xffff)
}

/// The offset of the first option in the TCP header.
pub const FIRST_OPTION: u32 = SHORTEST;

/// The most steps from option to option.
pub const MOST_OPTIONS: u32 = 13;

/// Results of [`next_option`] that are no offsets: all options are known, or one is unknown.
pub const ALL_KNOWN: u32 = 64;
pub const STRANGE: u32 = 65;

/// The offsets of the time stamp and of the scale in a SYN with the options of Linux.
pub const LINUX_STAMP: usize = 28;
pub const LINUX_SCALE: usize = 39;

/// Whether the options are those of Linux, which most clients run. One look decides, without the steps.
#[inline(always)]
pub fn is_linux(tcp: &Frame, length: u32) -> bool {
    const SIZE: u32 = u32::from_ne_bytes([SEGMENT_SIZE, 4, 0, 0]);
    const SACK_AND_TIMES: u32 = u32::from_ne_bytes([SACK_PERMITTED, 2, TIMESTAMPS, 10]);
    const SCALE: u32 = u32::from_ne_bytes([PADDING, WINDOW_SCALE, 3, 0]);
    length == USUAL
        && tcp.load::<u32>(20).is_some_and(|word| word & u32::from_ne_bytes([0xff, 0xff, 0, 0]) == SIZE)
        && tcp.load::<u32>(24) == Some(SACK_AND_TIMES)
        && tcp.load::<u32>(36).is_some_and(|word| word & u32::from_ne_bytes([0xff, 0xff, 0xff, 0]) == SCALE)
}

/// The first option with a lower segment size, where it is that option and offers more than `most`.
#[inline(always)]
pub fn lower_size(tcp: &Frame, most: u32) -> Option<u32> {
    let has_options = tcp.load::<u8>(12)? >> 4 > (SHORTEST / 4) as u8;
    let [kind, length, high, low] = tcp.load::<u32>(FIRST_OPTION as usize)?.to_ne_bytes();
    let offered = (high as u32) << 8 | low as u32;
    if !has_options || kind != SEGMENT_SIZE || length != 4 || offered <= most {
        return None;
    }
    Some(u32::from_ne_bytes([kind, length, (most >> 8) as u8, most as u8]))
}

/// By how many bits a client's windows are shifted, if this option of its SYN says so (RFC 7323).
#[inline(always)]
pub fn scale_in(tcp: &Frame, at: u32) -> Option<u8> {
    let option = tcp.from_any((at & 0x3f) as usize);
    (option.load::<u8>(0)? == WINDOW_SCALE && option.load::<u8>(1)? == 3).then(|| option.load(2))?
}

/// The scale of the client's windows after this SYN-ACK, if its SYN has asked for `wanted`: none, unless the
/// SYN-ACK has the option too. It is looked for where stacks write it: last, or behind the segment size.
#[inline(always)]
pub fn agreed_scale(tcp: &Frame, length: u32, wanted: u8) -> u8 {
    let has = |at: usize| {
        const SCALE: u32 = u32::from_ne_bytes([PADDING, WINDOW_SCALE, 3, 0]);
        const KIND: u32 = u32::from_ne_bytes([0xff, 0xff, 0xff, 0]);
        tcp.load::<u32>(at).is_some_and(|word| word & KIND == SCALE)
    };
    // Never where a time stamp may lie, which the client chooses.
    let agreed = match length {
        40 => has(36) || has(24),
        32 => has(28) || has(24),
        28 => has(24),
        36 => has(24),
        _ => false,
    };
    if agreed { wanted } else { 0 }
}

/// The offset of the next option. A listener may silently refuse a SYN with an unknown option, for example
/// with the signatures of RFC 2385 and RFC 5925.
#[inline(always)]
pub fn next_option(tcp: &Frame, at: u32, length: u32) -> u32 {
    if at >= length {
        return ALL_KNOWN;
    }
    let option = tcp.from_any((at & 0x3f) as usize);
    let size = match option.load::<u8>(0) {
        Some(END) => return ALL_KNOWN,
        Some(PADDING) => 1,
        Some(SEGMENT_SIZE | WINDOW_SCALE | SACK_PERMITTED | TIMESTAMPS | FAST_OPEN) => {
            option.load::<u8>(1).unwrap_or(0) as u32
        }
        _ => return STRANGE,
    };
    if size == 0 || at + size > length {
        return STRANGE;
    }
    at + size
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        family::{Ipv4, Ipv6},
        frame,
        samples::{checksum, tcp6},
        segment::{flag::SYN, tests::tcp},
    };

    /// A SYN with these options, whose checksums are right.
    fn syn(options: &[u8]) -> Vec<u8> {
        with_ttl(64, options)
    }

    fn with_ttl(ttl: u8, options: &[u8]) -> Vec<u8> {
        let mut bytes = tcp(SYN, b"");
        bytes[14 + 8] = ttl;
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
        let ip = frame::of(bytes).from(14);
        let steps = (0..MOST_OPTIONS).scan(FIRST_OPTION, |at, _| {
            *at = if *at < ALL_KNOWN { next_option(&ip.from(20), *at, length - 20) } else { *at };
            Some(*at)
        });
        let known = steps.last() == Some(ALL_KNOWN);
        is_sound::<Ipv4>(&ip, length, length, false, |number| number) && known
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
    fn what_is_taken_for_linux_at_a_look_is_known_step_by_step_too() {
        let linux = [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
        let at_a_look = |options: &[u8]| {
            let mut bytes = syn(options);
            is_linux(&frame::of(&mut bytes).from(14).from(20), 20 + options.len() as u32)
        };
        assert!(at_a_look(&linux));
        let mut seen = 0;
        for (byte, bit) in (0..linux.len()).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
            let mut options = linux;
            options[byte] ^= 1 << bit;
            seen += u32::from(at_a_look(&options));
            assert!(!at_a_look(&options) || owed(&mut syn(&options)), "{options:?}");
        }
        // Size, times and scale may be any.
        assert_eq!(seen, 8 * (2 + 8 + 1));
        let longer = [&linux[..], &[1, 1, 1, 1]].concat();
        assert!(!at_a_look(&linux[..16]) && !at_a_look(&longer));
    }

    #[test]
    fn only_a_larger_size_is_lowered() {
        let lowered = |options: &[u8]| {
            let mut bytes = syn(options);
            lower_size(&frame::of(&mut bytes).from(34), 1220).map(u32::to_ne_bytes)
        };
        assert_eq!(lowered(&[2, 4, 5, 0xa0, 1, 1, 1, 1]), Some([2, 4, 4, 0xc4]));
        assert_eq!(lowered(&[2, 4, 4, 0xc5]), Some([2, 4, 4, 0xc4]));
        for options in
            [&[2, 4, 4, 0xc4][..], &[1, 1, 1, 1, 2, 4, 5, 0xa0], &[2, 3, 5, 0xa0], &[], &[3, 4, 5, 0xa0]]
        {
            assert_eq!(lowered(options), None, "{options:?}");
        }
        let mut without_options = tcp(SYN, &[2, 4, 5, 0xa0]);
        assert_eq!(lower_size(&frame::of(&mut without_options).from(34), 1220), None, "it is payload");
    }

    #[test]
    fn what_may_end_on_its_way_is_not() {
        for (ttl, reaches) in [(255, true), (64, true), (33, true), (32, false), (1, false), (0, false)] {
            let mut bytes = with_ttl(ttl, &[]);
            assert_eq!(owed(&mut bytes), reaches, "{ttl}");
        }
    }

    #[test]
    fn a_scale_is_agreed_if_both_ends_have_it() {
        let linux = [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
        let bsd = [2, 4, 5, 0xb4, 1, 3, 3, 6, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0];
        let without_times = [2, 4, 5, 0xb4, 1, 1, 4, 2, 1, 3, 3, 7];
        let without_scale = [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 1, 3, 3, 7];
        let alone = [2, 4, 5, 0xb4, 1, 3, 3, 7];
        let [alone_and_4, alone_and_8] = [4, 8].map(|more| [&alone[..], &[1; 8][..more]].concat());
        for (options, scale) in [
            (&linux[..], 9),
            (&bsd, 9),
            (&without_times, 9),
            (&without_scale, 0),
            (&alone, 9),
            (&alone_and_4, 9),
            (&alone_and_8, 9),
            (&linux[..8], 0),
            (&[], 0),
        ] {
            let mut bytes = syn(options);
            let tcp = frame::of(&mut bytes).from(34);
            assert_eq!(agreed_scale(&tcp, 20 + options.len() as u32, 9), scale, "{options:?}");
        }
        let mut bytes = syn(&linux);
        let tcp = frame::of(&mut bytes).from(34);
        let found: Vec<_> = (20..40).filter_map(|at| Some((at, scale_in(&tcp, at)?))).collect();
        assert_eq!(found, [(37, 7)]);
    }

    #[test]
    fn what_may_be_ignored_is_not() {
        let mut signed = [1; 20];
        signed[..2].copy_from_slice(&[19, 18]);
        let mut authentic = [1; 16];
        authentic[..2].copy_from_slice(&[29, 16]);
        for options in [&signed[..], &authentic, &[2, 0, 0, 0], &[2, 5, 0, 0], &[254, 4, 0, 0]] {
            assert!(!owed(&mut syn(options)), "{options:?}");
        }
        for byte in 14..syn(&[]).len() {
            let mut bytes = syn(&[]);
            bytes[byte] ^= 0x21;
            assert!(!owed(&mut bytes), "byte {byte}");
        }
    }

    #[test]
    fn a_syn_with_data_or_behind_other_headers_is_not_checked() {
        let mut bytes = syn(&[]);
        let ip = frame::of(&mut bytes).from(14);
        let sound = |headers, ip_len| is_sound::<Ipv4>(&ip, headers, ip_len, false, |number| number);
        assert!(sound(40, 40));
        for (headers, ip_len) in [(40, 41), (40, 39), (36, 36), (19, 19), (44, 44), (84, 84)] {
            assert!(!sound(headers, ip_len), "{headers} {ip_len}");
        }
        let mut bytes = tcp6(SYN, b"");
        let ip = frame::of(&mut bytes);
        assert!(is_sound::<Ipv6>(&ip, 60, 60, false, |number| number));
    }

    #[test]
    fn an_unfinished_checksum_covers_the_pseudo_header_alone() {
        let sound = |bytes: &mut [u8], partial| {
            is_sound::<Ipv4>(&frame::of(bytes).from(14), 40, 40, partial, |number| number)
        };
        let mut bytes = syn(&[]);
        assert!(!sound(&mut bytes, true));
        let pseudo = !checksum(&[&bytes[26..34], &[0, 6, 0, 20]]);
        bytes[50..52].copy_from_slice(&pseudo.to_be_bytes());
        assert!(sound(&mut bytes, true) && !sound(&mut bytes, false));
    }
}
