use super::*;
use crate::{
    frame,
    samples::{CLIENT6, TCP, VIP6, ip4, ip6, is_right, segment, tcp4, tcp6},
};

/// Where TCP begins, the flaws, and the ports.
fn read<F: Family>(datagram: &[u8]) -> Option<(usize, u32, u16, u16)> {
    let mut bytes = datagram.to_vec();
    let tuple = F::tuple(&frame::of(&mut bytes))?;
    Some((tuple.tcp, tuple.flaws, tuple.key.sport.host(), tuple.key.dport.host()))
}

const fn plain(tcp: usize, flaws: u32) -> Option<(usize, u32, u16, u16)> {
    Some((tcp, flaws, 40_000, 80))
}

#[test]
fn ipv4_headers() {
    let change = |at: usize, value: u8| {
        let mut bytes = tcp4(0x10, b"");
        bytes[at] = value;
        read::<Ipv4>(&bytes)
    };
    assert_eq!(read::<Ipv4>(&tcp4(0x10, b"")), plain(20, 0));
    assert_eq!(change(9, 17), None, "udp");
    assert_eq!(change(0, 0x65), None, "another version");
    assert_eq!(change(0, 0x44), None, "shorter than a header");
    assert_eq!(change(6, 0x20), plain(20, flaw::FRAGMENT), "the first of several fragments");
    assert_eq!(change(6, 0x80), plain(20, 0), "the reserved bit alone");
    for (at, value) in [(7, 1), (6, 0x10), (6, 0x30)] {
        assert_eq!(change(at, value), None, "a later fragment: {value:#x} at {at}");
    }
    let body = segment(&[0; 4], &[0; 4], 0x10, b"");
    let with_options = |count: usize| ip4([1; 4], [2; 4], TCP, &vec![1; 4 * count], &body);
    for count in 1..=10 {
        assert_eq!(read::<Ipv4>(&with_options(count)), plain(20, flaw::OPTIONS), "{count} words of options");
    }
    let mut fragment = with_options(1);
    fragment[6] = 0x20;
    assert_eq!(read::<Ipv4>(&fragment), plain(20, flaw::FRAGMENT));
    assert_eq!(read::<Ipv4>(&with_options(10)[..63]), None, "its ports are cut off");
    assert_eq!(read::<Ipv4>(&tcp4(0x10, b"")[..24]), plain(20, 0));
    assert_eq!(read::<Ipv4>(&tcp4(0x10, b"")[..23]), None);
}

/// An extension header of so many times eight bytes.
fn extension(next: u8, eights: u8, third: [u8; 2]) -> Vec<u8> {
    let mut bytes = vec![next, eights - 1, third[0], third[1]];
    bytes.resize(8 * usize::from(eights), 0xee);
    bytes
}

#[test]
fn ipv6_extension_headers() {
    const HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DESTINATION: u8 = 60;
    const ODD: u32 = flaw::OPTIONS;
    // The headers, each with its length and its third and fourth byte, and what follows.
    type Header = (u8, u8, [u8; 2]);
    type Case<'a> = (&'a [Header], u8, Option<(usize, u32)>);
    let cases: &[Case<'_>] = &[
        (&[], TCP, Some((40, 0))),
        (&[], 17, None),
        (&[], 59, None),
        (&[(HOP, 1, [0, 0])], TCP, Some((48, 0))),
        (&[(DESTINATION, 3, [0, 9])], TCP, Some((64, 0))),
        (&[(DESTINATION, 255, [0, 0])], TCP, Some((2080, 0))),
        (&[(ROUTING, 1, [9, 0])], TCP, Some((48, 0))),
        (&[(ROUTING, 1, [0, 1])], TCP, Some((48, ODD))),
        (&[(HOP, 1, [0, 0]), (DESTINATION, 2, [0, 0])], TCP, Some((64, 0))),
        (&[(HOP, 1, [0, 0]), (ROUTING, 1, [0, 2])], TCP, Some((56, ODD))),
        (&[(HOP, 1, [0, 0]), (DESTINATION, 1, [0, 0]), (DESTINATION, 1, [0, 0])], TCP, Some((64, ODD))),
        (&[(FRAGMENT, 1, [0, 0])], TCP, Some((48, flaw::FRAGMENT))),
        (&[(FRAGMENT, 1, [0, 1])], TCP, Some((48, flaw::FRAGMENT))),
        (&[(FRAGMENT, 1, [0, 7])], TCP, Some((48, flaw::FRAGMENT))),
        (&[(FRAGMENT, 1, [0, 8])], TCP, None),
        (&[(FRAGMENT, 1, [1, 0])], TCP, None),
        (&[(ROUTING, 1, [0, 1]), (FRAGMENT, 1, [0, 0])], TCP, Some((56, flaw::FRAGMENT | ODD))),
        (&[(HOP, 1, [0, 0])], 17, None),
        (&[(DESTINATION, 1, [0, 0]); 6], TCP, Some((88, ODD))),
        (&[(DESTINATION, 1, [0, 0]); 7], TCP, None),
    ];
    for (headers, last, expected) in cases {
        let kinds = headers.iter().map(|(kind, ..)| *kind).skip(1).chain([*last]);
        let mut body: Vec<u8> = headers
            .iter()
            .zip(kinds)
            .flat_map(|((_, eights, bytes), next)| extension(next, *eights, *bytes))
            .collect();
        body.extend(segment(&CLIENT6, &VIP6, 0x10, b""));
        let first = headers.first().map_or(*last, |(kind, ..)| *kind);
        let datagram = ip6(CLIENT6, VIP6, first, &body);
        let expected = expected.map(|(tcp, flaws)| (tcp, flaws, 40_000, 80));
        assert_eq!(read::<Ipv6>(&datagram), expected, "{headers:?} {last}");
        if let Some((tcp, ..)) = expected {
            assert_eq!(read::<Ipv6>(&datagram[..tcp + 3]), None, "{headers:?}: its ports are cut off");
        }
    }
    // A fragment header has no length of its own.
    let mut long = ip6(CLIENT6, VIP6, FRAGMENT, &extension(TCP, 1, [0, 0]));
    long.extend(segment(&CLIENT6, &VIP6, 0x10, b""));
    long[41] = 9;
    assert_eq!(read::<Ipv6>(&long), plain(48, flaw::FRAGMENT));
    let mut other = tcp6(0x10, b"");
    other[0] = 0x40;
    assert_eq!(read::<Ipv6>(&other), None, "another version");
}

/// Reads and writes of the fields that both families have.
fn fields<F: Family>(mut datagram: Vec<u8>, addresses: usize, ttl: usize) {
    let before = datagram.clone();
    let size = (F::HEADER - addresses) / 2;
    let ip = frame::of(&mut datagram);
    assert_eq!(F::length(&ip), Some(before.len() as u64));
    let (src, dst) = (F::load(&ip, F::SRC).expect("there"), F::load(&ip, F::DST).expect("there"));
    assert!(src != dst);
    assert_eq!(F::header_is_right(&ip), Some(true));
    F::store(&ip, F::SRC, &dst);
    F::store(&ip, F::DST, &src);
    let mut expected = before.clone();
    expected[addresses..][..size].copy_from_slice(&before[addresses + size..][..size]);
    expected[addresses + size..][..size].copy_from_slice(&before[addresses..][..size]);
    assert_eq!(datagram, expected);
    assert!(is_right(&datagram), "a sum does not depend on the order");

    let ip = frame::of(&mut datagram);
    F::pass_on(&ip, 0);
    assert!(is_right(&datagram));
    expected[ttl] -= 1;
    assert_eq!(datagram[ttl], expected[ttl]);

    // The cut is inside of each field that is read.
    for cut in 0..F::HEADER {
        let mut short = before[..cut].to_vec();
        let ip = frame::of(&mut short);
        assert!(F::load(&ip, F::DST).is_none(), "{cut}");
        F::pass_on(&ip, 0);
        F::adjust(&ip, 1);
        F::allow_fragments(&ip, 1);
        assert!(F::header_is_right(&ip) != Some(false), "{cut}");
    }
}

#[test]
fn fields_of_both() {
    fields::<Ipv4>(tcp4(0x10, b"hello"), 12, 8);
    fields::<Ipv6>(tcp6(0x10, b"hello"), 8, 7);
}

#[test]
fn only_ipv4_has_a_header_checksum() {
    let mut four = tcp4(0x10, b"");
    let ip = frame::of(&mut four);
    let sum = Ipv4::header_sum(&ip);
    assert_ne!(sum, 0);
    Ipv4::adjust(&ip, replace16(64, 63));
    assert_ne!(Ipv4::header_sum(&ip), sum);
    assert_eq!(Ipv4::header_is_right(&ip), Some(false));
    Ipv4::adjust(&ip, replace16(63, 64));
    assert_eq!((Ipv4::header_sum(&ip), Ipv4::header_is_right(&ip)), (sum, Some(true)));
    for at in (0..20).filter(|at| *at != 10 && *at != 11) {
        let mut wrong = tcp4(0x10, b"");
        wrong[at] ^= 0x10;
        assert_eq!(Ipv4::header_is_right(&frame::of(&mut wrong)), Some(false), "{at}");
    }
    let mut six = tcp6(0x10, b"");
    let before = six.clone();
    let ip = frame::of(&mut six);
    Ipv6::adjust(&ip, 1);
    Ipv6::allow_fragments(&ip, 1);
    assert_eq!((Ipv6::header_sum(&ip), Ipv6::header_is_right(&ip)), (0, Some(true)));
    assert_eq!(six, before);
}

#[test]
fn a_translation_and_the_ttl_are_one_change() {
    let mut datagram = tcp4(0x10, b"");
    let ip = frame::of(&mut datagram);
    Ipv4::store(&ip, Ipv4::SRC, &V4(u32::from_ne_bytes([192, 0, 2, 9])));
    let was = u32::from_ne_bytes([10, 0, 0, 1]);
    Ipv4::pass_on(&ip, fold(checksum::replace32(was, u32::from_ne_bytes([192, 0, 2, 9]))));
    assert_eq!((datagram[8], Ipv4::header_is_right(&frame::of(&mut datagram))), (63, Some(true)));
}

#[test]
fn routers_may_fragment_afterwards() {
    // Identification, flags and offset, before and after.
    for (was, will) in [
        ([0, 0, 0x40, 0], [0x12, 0x34, 0, 0]),
        ([5, 6, 0x40, 0], [5, 6, 0, 0]),
        ([0, 0, 0xc0, 9], [0x12, 0x34, 0x80, 9]),
        ([0, 0, 0, 0], [0, 0, 0, 0]),
        ([0, 0, 0x20, 0], [0, 0, 0x20, 0]),
    ] {
        let mut datagram = tcp4(0x10, b"");
        datagram[4..8].copy_from_slice(&was);
        let ip = frame::of(&mut datagram);
        Ipv4::adjust(&ip, checksum::replace32(u32::from_ne_bytes([0, 0, 0x40, 0]), u32::from_ne_bytes(was)));
        assert_eq!(Ipv4::header_is_right(&ip), Some(true));
        Ipv4::allow_fragments(&ip, u16::to_be(0x1234));
        assert_eq!(Ipv4::header_is_right(&ip), Some(true));
        assert_eq!(datagram[4..8], will);
    }
}

#[test]
fn headers_of_answers() {
    let mut four = vec![0xee; 40];
    let (src, dst) = (V4(u32::from_ne_bytes([1, 2, 3, 4])), V4(u32::from_ne_bytes([5, 6, 7, 8])));
    Ipv4::write_header(&frame::of(&mut four), &src, &dst);
    assert_eq!(four[..20], ip4([1, 2, 3, 4], [5, 6, 7, 8], TCP, &[], &[0; 20])[..20]);
    let mut six = vec![0xee; 60];
    let (src, dst) = {
        let mut sample = tcp6(0x10, b"");
        let ip = frame::of(&mut sample);
        (Ipv6::load(&ip, Ipv6::SRC).expect("there"), Ipv6::load(&ip, Ipv6::DST).expect("there"))
    };
    Ipv6::write_header(&frame::of(&mut six), &src, &dst);
    assert_eq!(six[..40], tcp6(0x10, b"")[..40]);
}
