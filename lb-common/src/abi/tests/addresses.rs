use core::net::SocketAddr;

use super::{super::*, v4, wide};

#[test]
fn an_ipv4_address_is_the_same_in_both_forms() {
    let (narrow, wide) = (V4(u32::from_ne_bytes([192, 0, 2, 7])), wide("192.0.2.7"));
    assert_eq!((Addr::from(narrow), narrow.wide(), V4::narrow(&wide)), (wide, wide, narrow));
    assert_eq!((wide.wide(), Addr::narrow(&wide)), (wide, wide));
    assert_eq!(wide.0[..3], [0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff])]);
    assert_eq!(socket_addr(wide, Port::new(80)), SocketAddr::from(([192, 0, 2, 7], 80)));
}

#[test]
fn words_in_pairs() {
    let address = wide("102:304:506:708:90a:b0c:d0e:f10");
    let [a, b, c, d] = address.0;
    assert_eq!(address.pairs(), [u64::from(a) << 32 | u64::from(b), u64::from(c) << 32 | u64::from(d)]);
    assert_eq!(Addr::from_words(address.words()), address);
    let bytes: Vec<u8> = address.words().iter().flat_map(|word| word.to_ne_bytes()).collect();
    assert_eq!(bytes, (1..=16).collect::<Vec<u8>>());
    assert_eq!(v4("1.2.3.4").pairs(), [0, u64::from(u32::from_ne_bytes([1, 2, 3, 4]))]);
}

#[test]
fn sums_and_their_complements() {
    let address = Addr([1, 20, 300, 4000]);
    assert_eq!(address.sum(), 4321);
    assert_eq!(address.negated_sum(), 4 * 0xffff_ffff - 4321);
    assert_eq!((V4(7).sum(), V4(7).negated_sum()), (7, 0xffff_fff8));
}

#[test]
fn addresses_that_clients_can_have() {
    for (text, is) in [
        ("0.0.0.1", false),
        ("1.0.0.0", true),
        ("126.255.255.255", true),
        ("127.0.0.1", false),
        ("128.0.0.1", true),
        ("223.255.255.255", true),
        ("224.0.0.1", false),
        ("255.255.255.255", false),
    ] {
        assert_eq!(v4(text).is_plausible(), is, "{text}");
        assert!(!wide(text).is_plausible(), "{text} in disguise");
    }
    for (text, is) in [
        ("::", false),
        ("::1", false),
        ("::2", true),
        ("::1:0:0", true),
        ("::1:0:1", true),
        ("1::", true),
        ("1::1", true),
        ("0:1::", true),
        ("0:0:1::1", true),
        ("2001:db8::7", true),
        ("1::ffff:102:304", true),
        ("ff02::1", false),
        ("fe80::1", true),
    ] {
        assert_eq!(wide(text).is_plausible(), is, "{text}");
    }
}

fn key() -> FlowKey<Addr> {
    let (sport, dport) = (Port::new(40_000), Port::new(80));
    FlowKey { src: wide("192.0.2.1"), dst: wide("192.0.2.2"), sport, dport }
}

#[test]
fn tuples() {
    let key = key();
    let back = FlowKey { src: key.dst, dst: key.src, sport: key.dport, dport: key.sport };
    assert_eq!((key.reversed(), back.reversed()), (back, key));
    let [a, b, c, d] = key.ports().to_ne_bytes();
    assert_eq!([a, b, c, d], [0x9c, 0x40, 0, 80]);
    let (src, dst) = (v4("192.0.2.1"), v4("192.0.2.2"));
    assert_eq!(key.as_v4(), Some(FlowKey { src, dst, sport: key.sport, dport: key.dport }));
    assert_eq!(FlowKey { src: wide("::2"), ..key }.as_v4(), None);
    assert_eq!(FlowKey { dst: wide("::2"), ..key }.as_v4(), None);
    assert!(key.is(&key));
    for other in [
        FlowKey { src: wide("192.0.2.9"), ..key },
        FlowKey { dst: wide("192.0.2.9"), ..key },
        FlowKey { sport: Port::new(1), ..key },
        FlowKey { dport: Port::new(1), ..key },
    ] {
        assert!(!key.is(&other));
        let (four, other) = (key.as_v4().expect("both are"), other.as_v4().expect("both are"));
        assert!(four.is(&four) && !four.is(&other));
    }
}
