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
