//! Frames that are not ours pass byte for byte; frames that are ours but wrong are dropped and counted.

use lb_common::reason::Reason;
use lb_tests::{
    both_families,
    frame::{ACK, FIN, RST, SYN, Tcp, checksums, set_checksums},
    kernel::{Action, Kernel, backend_address, nat_source, vip},
};

use crate::steering::{client, syn};

/// Where TCP begins in a plain IPv4 frame.
const TCP: usize = 34;

fn passes(kernel: &mut Kernel, name: &str, frame: &[u8]) {
    let (action, out) = kernel.run(frame);
    assert_eq!(action, Action::Pass, "{name}");
    assert_eq!(out, frame, "{name}");
}

#[test]
fn not_ours() {
    let mut kernel = Kernel::new(2);
    let plain = syn(1).payload(b"0123456789").bytes();
    let with = |at: usize, bytes: &[u8]| {
        let mut frame = plain.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let cases: [(&str, Vec<u8>); 14] = [
        ("ARP", with(12, &[0x08, 0x06])),
        ("LLDP", with(12, &[0x88, 0xcc])),
        ("IPv6 ethertype", with(12, &[0x86, 0xdd])),
        ("802.1Q", with(12, &[0x81, 0x00])),
        ("802.3 length", with(12, &[0x00, 0x40])),
        ("UDP", with(23, &[17])),
        ("ICMP", with(23, &[1])),
        ("GRE", with(23, &[47])),
        ("another address", with(30, &[203, 0, 113, 11])),
        ("another port of the VIP", with(TCP + 2, &[0, 81])),
        ("version 6 in an IPv4 frame", with(14, &[0x65])),
        ("header length below 20", with(14, &[0x44])),
        ("a later fragment for the VIP", with(20, &[0x00, 0x10])),
        ("options, another address", {
            let mut frame = with(14, &[0x46]);
            frame[30..34].copy_from_slice(&[203, 0, 113, 11]);
            frame
        }),
    ];
    for (name, frame) in cases {
        passes(&mut kernel, name, &frame);
    }
}

both_families!(the_hosts_own_connections_are_not_ours);
fn the_hosts_own_connections_are_not_ours() {
    let mut kernel = Kernel::new(1);
    let own = |port| std::net::SocketAddr::new(nat_source(), port);
    // A probe's answer to an ephemeral port, and to a port of the NAT range without a flow.
    for port in [45_000, 20_000] {
        for flags in [SYN | ACK, ACK, FIN | ACK, RST] {
            let reply = Tcp::new(backend_address(0), own(port), flags).payload(b"HTTP/1.1 500 \r\n\r\n");
            passes(&mut kernel, "reply to the host", &reply.bytes());
        }
    }
    assert!(kernel.heads().is_empty());
}

#[test]
fn every_truncation() {
    let mut kernel = Kernel::new(1);
    let whole = syn(1).payload(b"hello").bytes();
    let mut malformed = 0;
    // The kernel's test runs take no frame shorter than an Ethernet header.
    for len in 14..whole.len() {
        let (action, out) = kernel.run(&whole[..len]);
        if len < 38 {
            assert_eq!((action, out.as_slice()), (Action::Pass, &whole[..len]), "{len}");
        } else {
            assert_eq!(action, Action::Drop, "{len}");
            malformed += 1;
        }
    }
    assert_eq!(kernel.drops(Reason::Malformed), malformed);
}

#[test]
fn wrong_about_the_vip() {
    let mut kernel = Kernel::new(1);
    let with = |at: usize, value: u8| {
        let mut frame = syn(1).payload(b"hello").bytes();
        frame[at] = value;
        frame
    };
    let from = |ip: [u8; 4]| {
        let mut frame = syn(1).bytes();
        frame[26..30].copy_from_slice(&ip);
        set_checksums(&mut frame);
        frame
    };
    let flags = |flags| Tcp::new(client(1), vip(), flags).bytes();
    let options = {
        // Ports behind four bytes of options.
        let mut frame = syn(1).bytes();
        frame[14] = 0x46;
        frame[16..18].copy_from_slice(&44u16.to_be_bytes());
        for byte in [1u8; 4] {
            frame.insert(TCP, byte);
        }
        frame
    };
    let cases: [(&str, Vec<u8>, Reason); 15] = [
        ("options", options, Reason::IpOptions),
        ("first fragment", with(20, 0x20), Reason::Fragment),
        ("TTL 1", with(22, 1), Reason::Ttl),
        ("TTL 0", with(22, 0), Reason::Ttl),
        ("data offset 4", with(TCP + 12, 0x40), Reason::Malformed),
        ("data offset beyond the datagram", with(TCP + 12, 0xf0), Reason::Malformed),
        ("datagram beyond the frame", with(16, 0x10), Reason::Malformed),
        ("no flags", flags(0), Reason::Flags),
        ("SYN and FIN", flags(SYN | FIN), Reason::Flags),
        ("SYN and RST", flags(SYN | RST), Reason::Flags),
        ("from the VIP", from([203, 0, 113, 10]), Reason::Martian),
        ("from loopback", from([127, 0, 0, 1]), Reason::Martian),
        ("from 0.0.0.0", from([0, 0, 0, 0]), Reason::Martian),
        ("from multicast", from([239, 1, 1, 1]), Reason::Martian),
        ("from broadcast", from([255, 255, 255, 255]), Reason::Martian),
    ];
    for (name, frame, reason) in cases {
        let before = kernel.drops(reason);
        assert_eq!(kernel.run(&frame).0, Action::Drop, "{name}");
        assert_eq!(kernel.drops(reason), before + 1, "{name}");
    }
    let counters = kernel.counters();
    assert_eq!(counters.backends[0].1.connections, 0, "none of it made a connection");
}

both_families!(of_no_connection);
fn of_no_connection() {
    let mut kernel = Kernel::new(1);
    for (flags, payload) in [(ACK, b"".as_slice()), (ACK, b"GET / HTTP/1.1\r\n\r\n"), (ACK | FIN, b"")] {
        let sent = Tcp::new(client(1), vip(), flags).numbers(5000, 7000).payload(payload);
        let (action, out) = kernel.run(&sent.bytes());
        assert_eq!(action, Action::Tx);
        let reset = Tcp::read(&out).expect("tcp");
        assert_eq!((reset.seq, reset.flags), (7000, RST), "SEQ = SEG.ACK (RFC 9293 section 3.10.7.1)");
        assert_eq!((reset.src, reset.dst), (vip(), client(1)));
        assert_eq!((reset.to_mac, reset.from_mac), (sent.from_mac, sent.to_mac));
        assert_eq!(checksums(&out), (true, true));
        assert!(out.len() <= 74);
    }
    let rst = Tcp::new(client(1), vip(), RST);
    assert_eq!(kernel.run(&rst.bytes()).0, Action::Drop, "a reset is never answered by one");
    assert_eq!(kernel.drops(Reason::NoFlow), 4);
}

both_families!(padding_is_neither_payload_nor_kept_in_a_reset);
fn padding_is_neither_payload_nor_kept_in_a_reset() {
    let mut kernel = Kernel::new(1);
    let mut frame = Tcp::new(client(1), vip(), ACK).bytes();
    let len = frame.len();
    frame.resize(80, 0xee);
    let (action, out) = kernel.run(&frame);
    assert_eq!(action, Action::Tx);
    assert!(out[len..].iter().all(|byte| *byte == 0), "nothing of the padding leaks");
    assert_eq!(out.len(), len.max(60));
}
