use lb_common::abi::Port;

use super::*;
use crate::{
    family::{Ipv4, Ipv6},
    frame,
    samples::{is_right, linked, tcp4, tcp6},
};

/// There and back: every field is where it belongs, and every checksum is right.
fn both_ways<F: Family>(datagram: &[u8], other: &FlowKey<F::Addr>) {
    let mut bytes = linked(datagram);
    let from = F::tuple(&frame::of(&mut bytes).from(14)).expect("tcp").key;
    let (tcp_delta, ip_delta) = deltas(&from, other);
    let link = Link([0x0101_0101, 0x0202_0202, 0x0303_0303]);
    let mut go = |to: &FlowKey<F::Addr>, tcp_delta, ip_delta| {
        let frame = frame::of(&mut bytes);
        let ip = frame.from(14);
        let to = Translation { src: &to.src, dst: &to.dst, ports: to.ports(), tcp_delta, ip_delta };
        translate::<F>(&frame, &ip, F::HEADER, &link, &to).expect("all is there");
        let now = F::tuple(&ip).expect("tcp").key;
        assert!(now.src == *to.src && now.dst == *to.dst && now.ports() == to.ports);
        assert_eq!(bytes[..12], [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]);
        assert!(is_right(&bytes[14..]));
    };
    go(other, tcp_delta, ip_delta);
    go(&from, !tcp_delta, !ip_delta);
    assert_eq!(bytes[14 + F::TTL], 62);
    // Everything but the TTL and the checksum that covers it is as it was.
    bytes[14 + F::TTL] = 64;
    let header = if F::FIXED { 14 + 12 } else { 14 };
    assert_eq!(bytes[header..], linked(datagram)[header..]);
}

#[test]
fn there_and_back() {
    let word = |bytes| lb_common::abi::V4(u32::from_ne_bytes(bytes));
    let (sport, dport) = (Port::new(61_001), Port::new(8080));
    let nat = FlowKey { src: word([172, 16, 0, 1]), dst: word([172, 16, 9, 200]), sport, dport };
    both_ways::<Ipv4>(&tcp4(0x18, b"hello"), &nat);
    let six = |low| lb_common::abi::Addr([0x0123_4567, 0x89ab_cdef, 0xfedc_ba98, low]);
    both_ways::<Ipv6>(&tcp6(0x18, b"hello"), &FlowKey { src: six(1), dst: six(2), sport, dport });
}

#[test]
fn what_is_too_short_is_left_alone() {
    let whole = linked(&tcp4(0x10, b""));
    let key = FlowKey::<lb_common::abi::V4>::default();
    let to = Translation { src: &key.src, dst: &key.dst, ports: 0, tcp_delta: 1, ip_delta: 1 };
    for cut in 0..whole.len() {
        let mut bytes = whole.clone();
        let frame = frame::of(&mut bytes[..cut]);
        assert!(translate::<Ipv4>(&frame, &frame.from(14), 20, &Link::default(), &to).is_none(), "{cut}");
        assert_eq!(bytes, whole, "{cut}");
    }
}
