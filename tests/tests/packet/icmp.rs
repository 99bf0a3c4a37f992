//! ICMP errors about connections: each goes to the end it is for, with everything in it as that end knows it.

use std::net::{IpAddr, SocketAddr};

use lb_common::reason::Reason;
use lb_core::config::Mode;
use lb_tests::{
    both_families,
    frame::{ACK, PSH, Tcp, checksums as segment_checksums},
    icmp::{IcmpError, checksums},
    kernel::{Action, Family, Kernel, NODE_MAC, OWN_MAC, address, backend_address, backend_mac, family, vip},
};

use lb_lab::clock;

use crate::connections::Connection;

const MODES: [Mode; 2] = [Mode::Nat, Mode::Dnat];

/// Types with their codes.
fn errors() -> Vec<(u8, u8)> {
    let all = |kind: u8, codes: u8| (0..codes).map(move |code| (kind, code));
    match family() {
        Family::V4 => all(3, 16).chain(all(11, 2)).chain(all(12, 3)).collect(),
        Family::V6 => all(1, 8).chain(all(2, 1)).chain(all(3, 2)).chain(all(4, 3)).collect(),
    }
}

fn router() -> IpAddr {
    address([198, 51, 100, 7])
}

fn ip_header() -> usize {
    match family() {
        Family::V4 => 20,
        Family::V6 => 40,
    }
}

/// "Fragmentation needed" or "packet too big": the only error that a stack remembers for all its connections to an
/// address.
pub(crate) fn too_big() -> (u8, u8) {
    match family() {
        Family::V4 => (3, 4),
        Family::V6 => (2, 0),
    }
}

/// An error about a segment, to its sender: the host is not reachable.
pub(crate) fn about(quoted: &[u8], to: IpAddr) -> IcmpError {
    let (kind, code) = match family() {
        Family::V4 => (3, 1),
        Family::V6 => (1, 3),
    };
    IcmpError {
        to_mac: NODE_MAC,
        from_mac: [0x02, 0, 0, 0, 0, 0x33],
        src: router(),
        dst: to,
        kind,
        code,
        rest: [0, 0, 0x05, 0x00],
        ttl: 61,
        quoted: quoted.to_vec(),
    }
}

pub(crate) fn segment(from: SocketAddr, to: SocketAddr) -> Tcp {
    let mut tcp = Tcp::new(from, to, ACK | PSH).numbers(77_000, 88_000).payload(&[0x5a; 301]);
    // As it was where the path ended.
    tcp.ttl = 57;
    tcp
}

/// From its IP header on.
pub(crate) fn datagram(tcp: &Tcp) -> Vec<u8> {
    tcp.bytes()[14..].to_vec()
}

/// The frame that comes, the frame that it must become, and how it must leave: one for each side of a
/// connection.
fn both_ways(connection: &Connection) -> [(Tcp, Tcp, Action); 2] {
    let backend = backend_address(connection.backend);
    let (client, nat) = (connection.client, connection.nat);
    let in_flight = |tcp: Tcp| tcp.numbers(connection.backend_next, connection.client_next);
    [
        (in_flight(segment(vip(), client)), in_flight(segment(backend, nat)), Action::Redirect),
        (segment(nat, backend), segment(client, vip()), Action::Tx),
    ]
}

/// Runs one that must be sent on, and compares all of it.
fn goes(kernel: &mut Kernel, connection: &Connection, sent: &IcmpError, to: &Tcp, action: Action) {
    let frame = sent.bytes();
    let (got, out) = kernel.run(&frame);
    let what = format!("{sent:?}");
    assert_eq!((got, checksums(&out)), (action, (true, true)), "{what}");
    let kept = connection.nat == connection.client;
    let (to_mac, from_mac, src) = match action {
        Action::Redirect if kept => (backend_mac(connection.backend), OWN_MAC, router()),
        Action::Redirect => (backend_mac(connection.backend), OWN_MAC, connection.nat.ip()),
        // By the way that the client's own packets came.
        _ => ([0x02, 0, 0, 0, 0, 0x22], [0x02, 0, 0, 0, 0, 0x11], vip().ip()),
    };
    let mut quoted = datagram(to)[..sent.quoted.len()].to_vec();
    if sent.quoted.len() == ip_header() + 17 {
        // Half a checksum is none.
        quoted[ip_header() + 16] = sent.quoted[ip_header() + 16];
    }
    let wanted =
        IcmpError { to_mac, from_mac, src, dst: to.src.ip(), ttl: sent.ttl - 1, quoted, ..sent.clone() };
    assert_eq!(IcmpError::read(&out), Some(wanted), "{what}");
    assert_eq!(out.len(), frame.len());
}

both_families!(each_kind_in_both_directions);
fn each_kind_in_both_directions() {
    for mode in MODES {
        let mut kernel = Kernel::new(3);
        kernel.mode(mode);
        let connection = Connection::open(&mut kernel, 4);
        for (quoted, to, action) in both_ways(&connection) {
            for (kind, code) in errors() {
                // In mode `nat` the backend does not get this one: see `path_mtu.rs`.
                if mode == Mode::Nat && quoted.src == vip() && (kind, code) == too_big() {
                    continue;
                }
                let sent = IcmpError { kind, code, ..about(&datagram(&quoted), quoted.src.ip()) };
                goes(&mut kernel, &connection, &sent, &to, action);
            }
        }
    }
}

both_families!(whatever_is_quoted_of_it);
fn whatever_is_quoted_of_it() {
    for mode in MODES {
        let mut kernel = Kernel::new(3);
        kernel.mode(mode);
        for n in 0..20 {
            let connection = Connection::open(&mut kernel, n);
            for (quoted, to, action) in both_ways(&connection) {
                let whole = datagram(&quoted);
                // Four bytes are the ports, eight the least that a router sends, the checksum ends at 18.
                for tcp in [4, 8, 12, 16, 17, 18, 20, 33, 321] {
                    let mut sent = about(&whole[..ip_header() + tcp], quoted.src.ip());
                    // Nonsense is passed on as it is.
                    sent.rest = [0, 0, 0, n as u8];
                    if quoted.src == vip() && tcp < 8 {
                        let (action, _) = kernel.run(&sent.bytes());
                        assert_eq!(action, Action::Drop, "nobody knows about which segment");
                        continue;
                    }
                    goes(&mut kernel, &connection, &sent, &to, action);
                }
            }
        }
    }
}

both_families!(padding_is_no_checksum);
fn padding_is_no_checksum() {
    let mut kernel = Kernel::new(1);
    let connection = Connection::open(&mut kernel, 4);
    let (quoted, to, _) = both_ways(&connection)[0].clone();
    let mut frame = about(&datagram(&quoted)[..ip_header() + 8], vip().ip()).bytes();
    let end = frame.len();
    frame.resize(end + 40, 0xee);
    let (action, out) = kernel.run(&frame);
    assert_eq!((action, checksums(&out)), (Action::Redirect, (true, true)));
    assert!(out[end..].iter().all(|byte| *byte == 0xee));
    let got = IcmpError::read(&out).expect("an error");
    assert_eq!(got.quoted, datagram(&to)[..ip_header() + 8]);
}

#[test]
fn options_in_the_quoted_header() {
    let mut kernel = Kernel::new(1);
    let connection = Connection::open(&mut kernel, 4);
    for (quoted, to, action) in both_ways(&connection) {
        for words in 1..=10 {
            // A router on the way may have seen options that we did not: what is quoted has its own header
            // sum.
            let with_options = |tcp: &Tcp| {
                let mut bytes = datagram(tcp);
                bytes[0] = 0x45 + words as u8;
                bytes.splice(20..20, vec![1u8; words * 4]);
                let length = bytes.len() as u16;
                bytes[2..4].copy_from_slice(&length.to_be_bytes());
                bytes[10..12].fill(0);
                let check = !lb_tests::frame::sum(&bytes[..20 + words * 4], 0);
                bytes[10..12].copy_from_slice(&check.to_be_bytes());
                bytes
            };
            let sent = about(&with_options(&quoted), quoted.src.ip());
            let (got, out) = kernel.run(&sent.bytes());
            assert_eq!((got, checksums(&out)), (action, (true, true)), "{words} words");
            assert_eq!(IcmpError::read(&out).expect("an error").quoted, with_options(&to), "{words} words");
        }
    }
}

both_families!(a_reply_of_no_connection_passes);
fn a_reply_of_no_connection_passes() {
    for mode in MODES {
        let mut kernel = Kernel::new(2);
        kernel.mode(mode);
        let connection = Connection::open(&mut kernel, 4);
        let (mine, _, _) = both_ways(&connection)[0].clone();
        let (theirs, _, _) = both_ways(&connection)[1].clone();
        let with = |tcp: &Tcp, change: &dyn Fn(&mut Tcp)| {
            let mut tcp = tcp.clone();
            change(&mut tcp);
            about(&datagram(&tcp), tcp.src.ip())
        };
        let kind = |kind| IcmpError { kind, ..about(&datagram(&mine), vip().ip()) };
        let mut cases = vec![
            ("another client port", with(&mine, &|tcp| tcp.dst.set_port(1))),
            ("another client", with(&mine, &|tcp| tcp.dst.set_ip(address([10, 1, 9, 9])))),
            ("another port of the VIP", with(&mine, &|tcp| tcp.src.set_port(81))),
            ("another address", with(&mine, &|tcp| tcp.src.set_ip(address([203, 0, 113, 77])))),
            ("another NAT port", with(&theirs, &|tcp| tcp.src.set_port(tcp.src.port() ^ 1))),
            ("another backend", with(&theirs, &|tcp| tcp.dst.set_ip(address([10, 9, 1, 200])))),
            (
                "of the host's own",
                with(&theirs, &|tcp| tcp.src = SocketAddr::new(address([10, 9, 0, 1]), 50_000)),
            ),
            ("to somebody else", about(&datagram(&mine), address([203, 0, 113, 12]))),
        ];
        let others: &[u8] =
            if family() == Family::V4 { &[0, 4, 5, 8, 13] } else { &[0, 5, 128, 129, 135, 136] };
        cases.extend(others.iter().map(|number| ("no such error", kind(*number))));
        let mut udp = about(&datagram(&mine), vip().ip());
        udp.quoted[if family() == Family::V4 { 9 } else { 6 }] = 17;
        cases.push(("about UDP", udp));
        let mut later = about(&datagram(&mine), vip().ip());
        if family() == Family::V4 {
            later.quoted[7] = 2;
            cases.push(("about a later fragment", later));
        }
        for (name, sent) in cases {
            let frame = sent.bytes();
            assert_eq!(kernel.run(&frame), (Action::Pass, frame), "{name}");
        }
        // The ports are at the end of the shortest quote that names a connection.
        let frame = about(&datagram(&mine), vip().ip()).bytes();
        for len in 14..14 + 2 * ip_header() + 8 + 4 {
            assert_eq!(kernel.run(&frame[..len]), (Action::Pass, frame[..len].to_vec()), "{len} bytes");
        }
        if family() == Family::V4 {
            let (mut options, mut fragment) = (frame.clone(), frame.clone());
            options[14] = 0x46;
            fragment[20] = 0x20;
            for frame in [options, fragment] {
                assert_eq!(kernel.run(&frame), (Action::Pass, frame));
            }
        }
        let counters = kernel.counters();
        assert!(counters.drops.is_empty(), "{:?}", counters.drops);
    }
}

both_families!(what_is_wrong_stays_wrong);
fn what_is_wrong_stays_wrong() {
    let mut kernel = Kernel::new(1);
    let connection = Connection::open(&mut kernel, 4);
    for (quoted, _, action) in both_ways(&connection) {
        let sent = about(&datagram(&quoted), quoted.src.ip());
        let mut frame = sent.bytes();
        let last = frame.len() - 1;
        frame[last] ^= 0x10;
        let (got, out) = kernel.run(&frame);
        assert_eq!((got, checksums(&out)), (action, (true, false)), "a bad ICMP checksum");
        if family() == Family::V4 {
            let mut frame = sent.bytes();
            frame[15] ^= 0x10;
            let (_, out) = kernel.run(&frame);
            assert_eq!(checksums(&out), (false, true), "a bad IP header checksum");
        }
        // Damaged before the router quoted it: its own checksum is wrong, and stays wrong.
        let mut damaged = sent.clone();
        *damaged.quoted.last_mut().expect("a payload") ^= 0x10;
        let (_, out) = kernel.run(&damaged.bytes());
        assert_eq!(checksums(&out), (true, true));
        let inner = IcmpError::read(&out).expect("an error").quoted;
        let ethernet = if family() == Family::V4 { [0x08, 0x00] } else { [0x86, 0xdd] };
        let inner: Vec<u8> = [0; 12].into_iter().chain(ethernet).chain(inner).collect();
        assert_eq!(segment_checksums(&inner), (true, false), "the quoted segment's checksum");
        assert_eq!(kernel.run(&IcmpError { ttl: 1, ..sent }.bytes()).0, Action::Drop);
    }
    assert_eq!(kernel.drops(Reason::Ttl), 2);
}

both_families!(a_thousand_at_once_then_a_hundred_in_a_second);
fn a_thousand_at_once_then_a_hundred_in_a_second() {
    let mut kernel = Kernel::new(1);
    let connection = Connection::open(&mut kernel, 4);
    let [to_backend, to_client] =
        both_ways(&connection).map(|(quoted, _, _)| about(&datagram(&quoted), quoted.src.ip()).bytes());
    let begun = clock::now();
    let mut through = 0;
    for n in 0..1500 {
        let action = kernel.run(if n % 2 == 0 { &to_backend } else { &to_client }).0;
        through += u64::from(action != Action::Drop);
    }
    // The program's clock is a tick old, at most.
    let most = 1001 + (clock::now() - begun).as_millis() as u64 / 10 + 1;
    assert!((1000..=most).contains(&through), "{through} of at most {most}");
    assert_eq!(kernel.drops(Reason::IcmpRate), 1500 - through);
    // Traffic is none of this.
    assert_eq!(connection.send(&mut kernel, ACK, b"x"), Action::Redirect);
}

both_families!(an_error_about_a_connection_that_is_over_or_gone_goes_nowhere);
fn an_error_about_a_connection_that_is_over_or_gone_goes_nowhere() {
    let mut kernel = Kernel::new(1);
    let connection = Connection::open(&mut kernel, 4);
    assert_eq!(connection.send(&mut kernel, lb_tests::frame::RST, b""), Action::Redirect);
    for (quoted, _, _) in both_ways(&connection) {
        let frame = about(&datagram(&quoted), quoted.src.ip()).bytes();
        assert_eq!(kernel.run(&frame), (Action::Pass, frame));
    }
    let connection = Connection::open(&mut kernel, 5);
    let unknown = lb_common::abi::Link::new([0; 6], OWN_MAC);
    kernel.next_hop(0, unknown, lb_tests::kernel::ELSEWHERE);
    let (quoted, _, _) = both_ways(&connection)[0].clone();
    assert_eq!(
        kernel.run(&about(&datagram(&quoted), vip().ip()).bytes()).0,
        Action::Drop,
        "never a zero MAC"
    );
    assert_eq!(kernel.drops(Reason::Neighbour), 1);
}
