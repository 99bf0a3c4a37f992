use lb_common::abi::{FlowKey, Port, V4};

use super::*;
use crate::{family::Ipv4, frame};

/// A frame 10.0.0.1:40000 → 203.0.113.10:80 without right checksums: nothing here reads them.
pub(crate) fn tcp(flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x08, 0x00];
    let ip_len = (40 + payload.len()) as u16;
    bytes.extend([0x45, 0]);
    bytes.extend(ip_len.to_be_bytes());
    bytes.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 203, 0, 113, 10]);
    bytes.extend(40_000u16.to_be_bytes());
    bytes.extend(80u16.to_be_bytes());
    bytes.extend(1000u32.to_be_bytes());
    bytes.extend(2000u32.to_be_bytes());
    bytes.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend(payload);
    bytes
}

fn read(bytes: &mut [u8]) -> Option<Result<Segment, Reason>> {
    let ip = frame::of(bytes).from(14);
    Ipv4::tuple(&ip).map(|tuple| Segment::read::<Ipv4>(&ip, &tuple, || ip.len() as u32))
}

#[test]
fn a_plain_segment() {
    let mut bytes = tcp(flag::ACK, b"hello");
    let ip = frame::of(&mut bytes).from(14);
    let tuple = Ipv4::tuple(&ip).expect("tcp");
    assert_eq!(tuple.key.sport.host(), 40_000);
    assert_eq!(tuple.key.dport.host(), 80);
    let segment = Segment::read::<Ipv4>(&ip, &tuple, || ip.len() as u32).expect("well formed");
    assert_eq!((segment.seq, segment.ack), (1000, 2000));
    assert_eq!((segment.payload, segment.payload_len), (40, 5));
    assert_eq!(segment.end(), 1005);
}

#[test]
fn padding_is_not_payload() {
    let mut bytes = tcp(flag::ACK, b"");
    bytes.resize(60, 0xaa);
    assert_eq!(read(&mut bytes).expect("tcp").expect("good").payload_len, 0);
}

#[test]
fn every_truncation_is_passed_or_malformed() {
    let whole = tcp(flag::ACK, b"hello");
    for len in 0..whole.len() {
        let mut bytes = whole[..len].to_vec();
        match read(&mut bytes) {
            None => assert!(len < 38, "{len}"),
            Some(result) => assert_eq!(result, Err(Reason::Malformed), "{len}"),
        }
    }
}

#[test]
fn only_flags_that_stacks_send() {
    use flag::{ACK, FIN, RST, SYN};
    const PSH: u8 = 0x08;
    let sound = [SYN, RST, ACK, SYN | ACK, FIN | ACK, RST | ACK].map(|flags| [flags, flags | PSH]).concat();
    // URG, ECE and CWR may come with each of them.
    for flags in 0..=u8::MAX {
        let segment = read(&mut tcp(flags, b"")).expect("tcp");
        let refused = (!sound.contains(&(flags & 0x1f))).then_some(Reason::Flags);
        assert_eq!(segment.err(), refused, "{flags:#x}");
    }
}

#[test]
fn a_payload_may_go_on_in_other_buffers() {
    let mut bytes = tcp(flag::ACK, b"0123456789");
    let whole = bytes.len();
    let ip = frame::of(&mut bytes[..whole - 4]).from(14);
    let tuple = Ipv4::tuple(&ip).expect("tcp");
    let with = |whole| Segment::read::<Ipv4>(&ip, &tuple, || whole);
    assert_eq!(with(50).expect("whole").payload_len, 10);
    assert_eq!(with(55).expect("padded").payload_len, 10);
    assert_eq!(with(49), Err(Reason::Malformed));
    // The program writes into the header, so all of it must be here.
    for cut in 34 + 14..54 {
        let ip = frame::of(&mut bytes[..cut]).from(14);
        let tuple = Ipv4::tuple(&ip).expect("tcp");
        assert_eq!(Segment::read::<Ipv4>(&ip, &tuple, || 50), Err(Reason::Malformed), "{cut}");
    }
}

#[test]
fn refusals() {
    let cases: [(&str, usize, u8, Reason); 6] = [
        ("more fragments", 20, 0x20, Reason::Fragment),
        ("ihl 6", 14, 0x46, Reason::IpOptions),
        ("ttl 1", 22, 1, Reason::Ttl),
        ("data offset 4", 46, 0x40, Reason::Malformed),
        ("data offset beyond", 46, 0xf0, Reason::Malformed),
        ("ip length beyond", 16, 0xff, Reason::Malformed),
    ];
    for (name, at, value, reason) in cases {
        let mut bytes = tcp(flag::ACK, b"hello");
        bytes[at] = value;
        assert_eq!(read(&mut bytes), Some(Err(reason)), "{name}");
    }
}

#[test]
fn not_ours() {
    for (name, at, value) in
        [("udp", 23, 17), ("version 6", 14, 0x65), ("later fragment", 21, 1), ("ihl 4", 14, 0x44)]
    {
        let mut bytes = tcp(flag::ACK, b"hello");
        bytes[at] = value;
        assert_eq!(read(&mut bytes), None, "{name}");
    }
}

#[test]
fn clients_that_cannot_be() {
    let mut bytes = tcp(flag::SYN, b"");
    let mut with = |change: fn(&mut FlowKey<V4>)| {
        let mut tuple = Ipv4::tuple(&frame::of(&mut bytes).from(14)).expect("tcp");
        change(&mut tuple.key);
        plausible_client::<Ipv4>(&tuple)
    };
    assert!(with(|_| {}));
    assert!(!with(|key| key.src = V4(0)));
    assert!(!with(|key| key.src = V4(u32::from_ne_bytes([127, 0, 0, 1]))));
    assert!(!with(|key| key.src = V4(u32::from_ne_bytes([224, 0, 0, 1]))));
    assert!(!with(|key| key.src = V4(u32::MAX)));
    assert!(!with(|key| key.src = key.dst));
    assert!(!with(|key| key.sport = Port::new(0)));
}

#[test]
fn every_combination_of_flags() {
    for flags in 0..=u8::MAX {
        let mut kinds = [flag::SYN, flag::FIN, flag::RST].into_iter().filter(|kind| flags & kind != 0);
        let sound = kinds.by_ref().take(2).count() < 2 && flags & (flag::SYN | flag::RST | flag::ACK) != 0;
        let read = read(&mut tcp(flags, b"")).expect("tcp");
        assert_eq!(read.map(|segment| segment.flags), if sound { Ok(flags) } else { Err(Reason::Flags) });
    }
}

fn segment(flags: u8, seq: u32, ack: u32, payload_len: u32) -> Segment {
    Segment { seq, ack, flags, payload_len, ..Segment::default() }
}

#[test]
fn what_opens_a_connection() {
    for (flags, opens) in [
        (flag::SYN, true),
        (flag::SYN | flag::ACK, false),
        (flag::ACK, false),
        (flag::RST, false),
        (flag::SYN | 0x08, true),
    ] {
        assert_eq!(segment(flags, 0, 0, 0).opens(), opens, "{flags:#x}");
    }
}

#[test]
fn syn_and_fin_take_a_number() {
    for (flags, end) in [(flag::ACK, 12), (flag::SYN, 13), (flag::FIN | flag::ACK, 13), (flag::RST, 12)] {
        assert_eq!(segment(flags, 10, 0, 2).end(), end, "{flags:#x}");
    }
    assert_eq!(segment(flag::FIN, u32::MAX, 0, 1).end(), 1);
}

#[test]
fn where_a_segment_lies() {
    // Around zero, where numbers begin again.
    for next in [1000, 0, 1, u32::MAX] {
        let place =
            |from: i32, length| segment(flag::ACK, next.wrapping_add_signed(from), 0, length).place(next);
        assert_eq!(place(0, 0), Place::Before, "an acknowledgement");
        assert_eq!(place(-1, 0), Place::Before, "a keep-alive");
        assert_eq!(place(-5, 5), Place::Before, "all was there");
        assert_eq!(place(-5, 6), Place::Next, "one byte is new");
        assert_eq!(place(0, 1), Place::Next);
        assert_eq!(place(1, 0), Place::Beyond);
        assert_eq!(place(1, 9), Place::Beyond);
        assert_eq!(segment(flag::FIN | flag::ACK, next, 0, 0).place(next), Place::Next);
    }
}

#[test]
fn which_acknowledgements_a_client_can_send() {
    for sent_end in [50_000_000u32, 7] {
        let plausible =
            |flags, behind: u32| segment(flags, 0, sent_end.wrapping_sub(behind), 0).is_plausible(sent_end);
        assert!(plausible(flag::ACK, 0));
        assert!(plausible(flag::ACK | flag::FIN, MOST_IN_FLIGHT));
        assert!(!plausible(flag::ACK, MOST_IN_FLIGHT + 1));
        assert!(!plausible(flag::ACK, u32::MAX), "what was not sent yet");
        assert!(!plausible(flag::RST | flag::ACK, 0));
        assert!(!plausible(flag::SYN, 0));
    }
    assert_eq!(MOST_IN_FLIGHT, 16 << 20);
}

#[test]
fn who_sees_the_connection() {
    const FIRST: u32 = 101;
    let (next, sent) = (1_000_000_000u32, 3_000_000_000u32);
    let of_peer = |flags, ahead: i32, missing: u32| {
        let segment = segment(flags, next + 0u32.wrapping_add_signed(ahead), sent.wrapping_sub(missing), 0);
        is_of_peer(&segment, FIRST, next, sent)
    };
    // The product of both distances, each with one added, is at most 2^28.
    for (ahead, missing, is) in [
        (0, 0, true),
        (0, MOST_IN_FLIGHT, true),
        (0, MOST_IN_FLIGHT + 1, false),
        (1 << 24, 0, true),
        ((1 << 24) + 1, 0, false),
        ((1 << 14) - 1, (1 << 14) - 1, true),
        (1 << 14, (1 << 14) - 1, false),
        ((1 << 14) - 1, 1 << 14, false),
        (1 << 20, 1, true),
        (1, 1 << 20, true),
        (1 << 20, 1 << 20, false),
    ] {
        assert_eq!(of_peer(flag::ACK, ahead, missing), is, "{ahead} {missing}");
        let behind = segment(flag::ACK, next - ahead as u32, sent.wrapping_sub(missing), 0);
        assert_eq!(is_of_peer(&behind, FIRST, next, sent), is, "-{ahead} {missing}");
    }
    assert!(!of_peer(flag::RST, 0, 0));
    assert!(!of_peer(flag::RST | flag::ACK, 0, 0));
    assert!(!of_peer(flag::ACK, 0, u32::MAX - 5), "what was not sent yet");
    for (seq, length, is) in [(100, 0, true), (99, 1, true), (101, 0, false), (99, 0, false)] {
        assert_eq!(is_of_peer(&segment(flag::SYN, seq, 0, length), FIRST, next, sent), is, "{seq}");
    }
    assert!(!is_of_peer(&segment(flag::SYN | flag::ACK, 100, 0, 0), FIRST, next, sent));
}

#[test]
fn a_header_with_options_and_ipv6() {
    let mut bytes = tcp(flag::ACK, b"hello");
    bytes[46] = 0x60;
    let with_options = read(&mut bytes).expect("tcp").expect("sound");
    assert_eq!((with_options.payload, with_options.payload_len, with_options.ip_len), (44, 1, 45));
    let mut six = crate::samples::tcp6(flag::ACK, b"hello");
    let ip = frame::of(&mut six);
    let tuple = crate::family::Ipv6::tuple(&ip).expect("tcp");
    let segment = Segment::read::<crate::family::Ipv6>(&ip, &tuple, || 0).expect("sound");
    assert_eq!((segment.tcp, segment.payload, segment.payload_len, segment.ip_len), (40, 60, 5, 65));
    assert!(plausible_client::<crate::family::Ipv6>(&tuple));
}
