use super::*;
use crate::{
    family::{Ipv4, Ipv6},
    frame,
    samples::{CLIENT4, CLIENT6, TCP, VIP4, VIP6, checksum, ip6, is_right, linked, segment, tcp4, tcp6},
    segment::tests::tcp,
};

fn answered(flags: u8, payload: &[u8], by: impl Fn(&Segment) -> Option<Answer>) -> Option<Vec<u8>> {
    let mut bytes = tcp(flags, payload);
    bytes.resize(bytes.len().max(MIN_FRAME), 0xee);
    let frame = frame::of(&mut bytes);
    let ip = frame.from(14);
    let tuple = Ipv4::tuple(&ip).expect("tcp");
    let segment = Segment::read::<Ipv4>(&ip, &tuple, || ip.len() as u32).expect("well formed");
    let len = answer::<Ipv4>(&frame, 14, &segment, false, &by(&segment)?)?;
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
        let bytes = answered(flags, payload, Answer::reset).expect("answered");
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
fn a_challenge_has_the_numbers_of_the_connection() {
    let bytes = answered(flag::SYN, b"", |_| Some(Answer::challenge(7, 9))).expect("answered");
    assert_eq!((&bytes[38..42], &bytes[42..46]), (&7u32.to_be_bytes()[..], &9u32.to_be_bytes()[..]));
    assert_eq!(bytes[46..50], [0x50, flag::ACK, 2, 0]);
    let pseudo = internet_sum(&bytes[26..34], u64::from(u32::from_ne_bytes([0, 6, 0, 20])));
    assert_eq!(internet_sum(&bytes[34..54], u64::from(pseudo)), 0xffff);
}

#[test]
fn a_reset_is_never_answered() {
    assert!(answered(flag::RST, b"", Answer::reset).is_none());
    assert!(answered(flag::RST | flag::ACK, b"", Answer::reset).is_none());
}

fn read<F: Family>(frame: &Frame) -> Segment {
    let ip = frame.from(LINK);
    let tuple = F::tuple(&ip).expect("tcp");
    Segment::read::<F>(&ip, &tuple, || ip.len() as u32).expect("well formed")
}

#[test]
fn an_answer_of_ipv6_needs_no_padding() {
    for payload in [&b""[..], b"hello"] {
        let mut bytes = linked(&tcp6(flag::ACK, payload));
        let frame = frame::of(&mut bytes);
        let segment = read::<Ipv6>(&frame);
        let by = Answer::reset(&segment).expect("no reset");
        assert_eq!(answer::<Ipv6>(&frame, LINK, &segment, false, &by), Some(74));
        assert!(is_right(&bytes[LINK..74]));
        assert_eq!((&bytes[22..38], &bytes[38..54]), (&VIP6[..], &CLIENT6[..]));
        assert_eq!(bytes[54..58], [0, 80, 0x9c, 0x40]);
        assert_eq!(bytes[74..], *payload, "the caller cuts this off");
    }
}

/// Extension headers are left out: the answer is longer than the datagram where TCP began later.
#[test]
fn an_answer_has_no_extension_headers() {
    let body = [&[TCP, 0, 0, 0, 0, 0, 0, 0], &segment(&CLIENT6, &VIP6, flag::ACK, b"")[..]].concat();
    let whole = linked(&ip6(CLIENT6, VIP6, 60, &body));
    for (partial, length) in [(false, Some(74)), (true, None)] {
        let mut bytes = whole.clone();
        let frame = frame::of(&mut bytes);
        let segment = read::<Ipv6>(&frame);
        let by = Answer::reset(&segment).expect("no reset");
        assert_eq!(answer::<Ipv6>(&frame, LINK, &segment, partial, &by), length);
        if partial {
            assert_eq!(bytes, whole, "the device would finish a sum that is elsewhere");
        } else {
            assert!(is_right(&bytes[LINK..74]));
            assert_eq!(bytes[54..58], [0, 80, 0x9c, 0x40]);
        }
    }
}

/// The device adds the segment to the sum of the pseudo header.
#[test]
fn an_unfinished_checksum_stays_unfinished() {
    let mut bytes = linked(&tcp4(flag::ACK, b"hello"));
    let frame = frame::of(&mut bytes);
    let segment = read::<Ipv4>(&frame);
    let by = Answer::reset(&segment).expect("no reset");
    assert_eq!(answer::<Ipv4>(&frame, LINK, &segment, true, &by), Some(60));
    let pseudo = !checksum(&[&VIP4, &CLIENT4, &[0, TCP, 0, 20]]);
    assert_eq!(bytes[50..52], pseudo.to_be_bytes());
}

#[test]
fn a_short_frame_is_not_padded_beyond_its_end() {
    for length in 54..=62 {
        let mut bytes = linked(&tcp4(flag::ACK, b""));
        bytes.resize(length, 0xee);
        let frame = frame::of(&mut bytes);
        let segment = read::<Ipv4>(&frame);
        let by = Answer::reset(&segment).expect("no reset");
        assert_eq!(answer::<Ipv4>(&frame, LINK, &segment, false, &by), Some(MIN_FRAME));
        assert!(is_right(&bytes[LINK..]));
        let end = length.min(MIN_FRAME);
        assert!(bytes[54..end].iter().all(|byte| *byte == 0));
        assert!(bytes[end..].iter().all(|byte| *byte == 0xee));
    }
    let segment = read::<Ipv4>(&frame::of(&mut linked(&tcp4(flag::ACK, b""))));
    let by = Answer::reset(&segment).expect("no reset");
    for cut in 0..54 {
        let mut bytes = linked(&tcp4(flag::ACK, b""));
        let before = bytes.clone();
        let frame = frame::of(&mut bytes[..cut]);
        assert_eq!(answer::<Ipv4>(&frame, LINK, &segment, false, &by), None, "{cut}");
        assert_eq!(bytes, before, "{cut}");
    }
}

/// Any frame of a sufficient length becomes one.
fn reset_of<F: Family>(of: &[u8]) -> Vec<u8> {
    let to = F::tuple(&frame::of(&mut linked(of)).from(LINK)).expect("tcp").key;
    let link = Link([0x0101_0101, 0x0202_0202, 0x0303_0303]);
    let whole = LINK + F::HEADER + 20;
    for cut in 0..whole {
        let mut bytes = vec![0xee; cut];
        assert_eq!(reset_about::<F>(&frame::of(&mut bytes), &link, &to, 0x0102_0304), None, "{cut}");
        assert_eq!(bytes, vec![0xee; cut]);
    }
    let mut bytes = vec![0xee; whole];
    assert_eq!(reset_about::<F>(&frame::of(&mut bytes), &link, &to, 0x0102_0304), Some(whole));
    assert_eq!(bytes[..12], [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]);
    assert!(is_right(&bytes[LINK..]));
    let ip = frame::of(&mut bytes).from(LINK);
    assert!(F::tuple(&ip).is_some_and(|tuple| tuple.key == to));
    bytes
}

#[test]
fn a_reset_to_one_end() {
    let four = reset_of::<Ipv4>(&tcp4(flag::ACK, b""));
    assert_eq!(four[38..50], [1, 2, 3, 4, 0, 0, 0, 0, 0x50, flag::RST, 0, 0]);
    let six = reset_of::<Ipv6>(&tcp6(flag::ACK, b""));
    assert_eq!(six[58..70], [1, 2, 3, 4, 0, 0, 0, 0, 0x50, flag::RST, 0, 0]);
}
