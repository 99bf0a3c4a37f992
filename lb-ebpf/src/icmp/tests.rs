use lb_common::abi::Port;

use super::*;
use crate::{
    family::{Ipv4, Ipv6},
    frame,
    samples::{CLIENT4, CLIENT6, VIP4, VIP6, checksum, ip4, ip6, is_right, linked, segment, tcp4, tcp6},
};

const ROUTER4: [u8; 4] = [192, 0, 2, 99];
const ROUTER6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 99];

/// An error from the router to the sender of the datagram that it quotes. `rest`: the bytes behind the checksum.
fn error4(kind: u8, code: u8, rest: [u8; 4], quoted: &[u8]) -> Vec<u8> {
    let mut body = [&[kind, code, 0, 0], &rest[..], quoted].concat();
    let sum = checksum(&[&body]);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    ip4(ROUTER4, CLIENT4, 1, &[], &body)
}

fn error6(kind: u8, code: u8, rest: [u8; 4], quoted: &[u8]) -> Vec<u8> {
    let mut body = [&[kind, code, 0, 0], &rest[..], quoted].concat();
    let [high, low] = (body.len() as u16).to_be_bytes();
    let sum = checksum(&[&ROUTER6, &CLIENT6, &[high, low, 0, 58], &body]);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    ip6(ROUTER6, CLIENT6, 58, &body)
}

/// The ports that an error quotes, and the number of the segment.
fn read<F: Errors>(datagram: &[u8]) -> Option<(u16, u16, Option<u32>)> {
    let mut bytes = datagram.to_vec();
    let ip = frame::of(&mut bytes);
    let tuple = quoted::<F>(&ip)?;
    Some((tuple.key.sport.host(), tuple.key.dport.host(), quoted_seq::<F>(&ip, &tuple)))
}

const WHOLE: Option<(u16, u16, Option<u32>)> = Some((40_000, 80, Some(1000)));

#[test]
fn which_messages_are_errors() {
    let fours: Vec<_> = (0..=255).filter(|kind| Ipv4::is_error(*kind)).collect();
    assert_eq!(fours, [3, 11, 12]);
    let sixes: Vec<_> = (0..=255).filter(|kind| Ipv6::is_error(*kind)).collect();
    assert_eq!(sixes, [1, 2, 3, 4]);
    let may_be = |mut bytes: Vec<u8>| {
        let ip = frame::of(&mut bytes);
        (may_be_error::<Ipv4>(&ip), may_be_error::<Ipv6>(&ip))
    };
    assert_eq!(may_be(error4(3, 1, [0; 4], &tcp4(0x10, b""))), (true, false));
    assert_eq!(may_be(error4(8, 0, [0; 4], b"ping")), (false, false));
    assert_eq!(may_be(error6(1, 0, [0; 4], &tcp6(0x10, b""))), (false, true));
    assert_eq!(may_be(error6(128, 0, [0; 4], b"ping")), (false, false));
    assert_eq!(may_be(tcp4(0x10, b"")), (false, false));
}

#[test]
fn what_an_error_quotes() {
    assert_eq!(read::<Ipv4>(&error4(3, 1, [0; 4], &tcp4(0x10, b"hello"))), WHOLE);
    assert_eq!(read::<Ipv6>(&error6(1, 0, [0; 4], &tcp6(0x10, b"hello"))), WHOLE);
    // Routers need to quote no more than eight bytes of the segment.
    assert_eq!(read::<Ipv4>(&error4(3, 1, [0; 4], &tcp4(0x10, b"hello")[..28])), WHOLE);
    assert_eq!(read::<Ipv6>(&error6(1, 0, [0; 4], &tcp6(0x10, b"hello")[..48])), WHOLE);
    let ports = Some((40_000, 80, None));
    assert_eq!(read::<Ipv4>(&error4(3, 1, [0; 4], &tcp4(0x10, b"hello")[..27])), ports);
    assert_eq!(read::<Ipv6>(&error6(1, 0, [0; 4], &tcp6(0x10, b"hello")[..47])), ports);
    assert_eq!(read::<Ipv4>(&error4(3, 1, [0; 4], &tcp4(0x10, b"hello")[..23])), None);
    assert_eq!(read::<Ipv6>(&error6(1, 0, [0; 4], &tcp6(0x10, b"hello")[..43])), None);
    // The number ends with the datagram, not with the frame.
    for padded in [27, 28] {
        let mut bytes = error4(3, 1, [0; 4], &tcp4(0x10, b"")[..padded]);
        bytes.extend([0xaa; 20]);
        assert_eq!(read::<Ipv4>(&bytes), if padded == 28 { WHOLE } else { ports });
        let mut bytes = error6(1, 0, [0; 4], &tcp6(0x10, b"")[..20 + padded]);
        bytes.extend([0xaa; 20]);
        assert_eq!(read::<Ipv6>(&bytes), if padded == 28 { WHOLE } else { ports });
    }
    // A message that is no error quotes nothing, although it carries a segment.
    assert_eq!(read::<Ipv4>(&error4(8, 0, [0; 4], &tcp4(0x10, b"hello"))), None);
    assert_eq!(read::<Ipv6>(&error6(128, 0, [0; 4], &tcp6(0x10, b"hello"))), None);
    let mut options = error4(3, 1, [0; 4], &tcp4(0x10, b"hello"));
    options[0] = 0x46;
    assert_eq!(read::<Ipv4>(&options), None);
    for (at, value) in [(6, 0x20), (7, 1)] {
        let mut fragment = error4(3, 1, [0; 4], &tcp4(0x10, b"hello"));
        fragment[at] = value;
        assert_eq!(read::<Ipv4>(&fragment), None);
    }
    // To somebody else than the sender of what it quotes.
    let other = ip4(VIP4, CLIENT4, 6, &[], &segment(&VIP4, &CLIENT4, 0x10, b"hello"));
    assert_eq!(read::<Ipv4>(&error4(3, 1, [0; 4], &other)), None);
}

#[test]
fn options_and_extensions_of_the_quoted_header() {
    for words in 1..=10 {
        let quoted = ip4(CLIENT4, VIP4, 6, &vec![1; 4 * words], &segment(&CLIENT4, &VIP4, 0x10, b""));
        assert_eq!(read::<Ipv4>(&error4(11, 0, [0; 4], &quoted)), WHOLE, "{words}");
    }
    let body = [&[6, 0, 0, 0, 0, 0, 0, 0], &segment(&CLIENT6, &VIP6, 0x10, b"")[..]].concat();
    assert_eq!(read::<Ipv6>(&error6(3, 0, [0; 4], &ip6(CLIENT6, VIP6, 60, &body))), WHOLE);
}

#[test]
fn reported_path_mtus() {
    let of = |mut bytes: Vec<u8>| {
        let ip = frame::of(&mut bytes);
        (path_mtu::<Ipv4>(&ip), path_mtu::<Ipv6>(&ip))
    };
    let rest = [9, 8, 5, 0x14];
    assert_eq!(of(error4(3, 4, rest, &tcp4(0x10, b""))).0, Some(0x514));
    assert_eq!(of(error4(3, 1, rest, &tcp4(0x10, b""))).0, None);
    assert_eq!(of(error4(11, 4, rest, &tcp4(0x10, b""))).0, None);
    assert_eq!(of(error6(2, 0, rest, &tcp6(0x10, b""))).1, Some(0x0908_0514));
    assert_eq!(of(error6(1, 4, rest, &tcp6(0x10, b""))).1, None);
}

fn address<F: Errors>(of: fn(Vec<u8>) -> Vec<u8>) -> F::Addr {
    let mut bytes = of(vec![]);
    F::load(&frame::of(&mut bytes), F::SRC).expect("there")
}

/// Gives an error new addresses and looks at everything that changes. `body`: where the quoted datagram begins.
fn moved<F: Errors>(datagram: &[u8], tcp: usize, to: &Readdressed<'_, F::Addr>) -> Vec<u8> {
    let mut bytes = linked(datagram);
    let link = Link([0x0101_0101, 0x0202_0202, 0x0303_0303]);
    let frame = frame::of(&mut bytes);
    let ip = frame.from(14);
    let tuple = quoted::<F>(&ip).expect("an error");
    readdress::<F>(&frame, &ip, &tuple, &link, to).expect("all is there");
    assert_eq!(bytes[..12], [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]);
    assert_eq!(bytes[12..14], linked(datagram)[12..14]);
    let moved = bytes.split_off(14);
    let mut copy = moved.clone();
    let ip = frame::of(&mut copy);
    let inner = ip.from(F::HEADER + ICMP_HEADER);
    assert!(F::load(&ip, F::SRC) == Some(*to.src));
    assert!(F::load(&ip, F::DST) == Some(to.quoted.src));
    assert!(F::load(&inner, F::SRC) == Some(to.quoted.src));
    assert!(F::load(&inner, F::DST) == Some(to.quoted.dst));
    let quoted = &moved[F::HEADER + ICMP_HEADER..];
    assert_eq!(quoted[tcp..tcp + 2], to.quoted.sport.host().to_be_bytes());
    assert_eq!(quoted[tcp + 2..tcp + 4], to.quoted.dport.host().to_be_bytes());
    assert_eq!(moved[F::TTL], 63);
    assert_eq!(quoted[F::TTL], 64);
    moved
}

#[test]
fn an_error_gets_the_addresses_of_the_other_side() {
    let (src, dst, router) = (
        address::<Ipv4>(|_| ip4([172, 16, 0, 1], [0; 4], 6, &[], &[])),
        address::<Ipv4>(|_| ip4([172, 16, 9, 9], [0; 4], 6, &[], &[])),
        address::<Ipv4>(|_| ip4([172, 16, 77, 7], [0; 4], 6, &[], &[])),
    );
    let key = FlowKey { src, dst, sport: Port::new(1234), dport: Port::new(8080) };
    let to = Readdressed { src: &router, quoted: &key };
    let whole = tcp4(0x10, b"hello");
    // Whole; with the checksum; cut inside of it; before it.
    for length in [whole.len(), 38, 37, 36, 28] {
        let moved = moved::<Ipv4>(&error4(3, 4, [0, 0, 5, 0], &whole[..length]), 20, &to);
        assert!(is_right(&moved), "{length}");
        let quoted = &moved[28..];
        assert_eq!(checksum(&[&quoted[..20]]), 0, "{length}");
        if length == whole.len() {
            assert!(is_right(quoted));
        } else if (36..38).contains(&length) {
            assert_eq!(quoted[36..], whole[36..length], "{length}: half a checksum is none");
        }
    }
    // Padding behind the datagram is no checksum.
    let mut padded = error4(3, 1, [0; 4], &whole[..36]);
    padded.extend([0x55; 10]);
    let padded = moved::<Ipv4>(&padded, 20, &to);
    assert_eq!(padded[64..], [0x55; 10]);
    assert!(is_right(&padded));
    let optional = ip4(CLIENT4, VIP4, 6, &[1; 8], &segment(&CLIENT4, &VIP4, 0x10, b"x"));
    let optional = moved::<Ipv4>(&error4(3, 1, [0; 4], &optional), 28, &to);
    assert!(is_right(&optional));
    assert_eq!(checksum(&[&optional[28..56]]), 0);
}

#[test]
fn an_error_of_ipv6_gets_the_addresses_of_the_other_side() {
    let other = |last: u8| {
        let mut bytes = CLIENT6;
        bytes[7] = 0x77;
        bytes[15] = last;
        let mut datagram = ip6(bytes, VIP6, 6, &[]);
        Ipv6::load(&frame::of(&mut datagram), Ipv6::SRC).expect("there")
    };
    let key = FlowKey { src: other(1), dst: other(2), sport: Port::new(1234), dport: Port::new(8080) };
    let to = Readdressed { src: &other(3), quoted: &key };
    let whole = tcp6(0x10, b"hello");
    for length in [whole.len(), 58, 57, 48] {
        let moved = moved::<Ipv6>(&error6(2, 0, [0, 0, 5, 0], &whole[..length]), 40, &to);
        assert!(is_right(&moved), "{length}");
        if length == whole.len() {
            assert!(is_right(&moved[48..]));
        }
    }
    let body = [&[6, 0, 0, 0, 0, 0, 0, 0], &segment(&CLIENT6, &VIP6, 0x10, b"")[..]].concat();
    assert!(is_right(&moved::<Ipv6>(&error6(1, 0, [0; 4], &ip6(CLIENT6, VIP6, 60, &body)), 48, &to)));
}

#[test]
fn what_is_too_short_is_left_alone() {
    let key = FlowKey::default();
    let to = Readdressed { src: &key.src, quoted: &key };
    let whole = linked(&error4(3, 1, [0; 4], &tcp4(0x10, b"")[..24]));
    for cut in 14..whole.len() {
        let mut bytes = whole.clone();
        let tuple = quoted::<Ipv4>(&frame::of(&mut bytes).from(14)).expect("an error");
        let frame = frame::of(&mut bytes[..cut]);
        assert!(readdress::<Ipv4>(&frame, &frame.from(14), &tuple, &Link::default(), &to).is_none(), "{cut}");
        assert_eq!(bytes, whole, "{cut}");
    }
}
