//! ICMP errors that a stack acts on for an address and not for a connection, and forged ones.

use lb_common::{abi::BackendCounters, reason::Reason};
use lb_core::config::Mode;
use lb_tests::{
    both_families,
    frame::{ACK, IP, PSH, RST, SYN, Tcp, checksums},
    icmp::{self, IcmpError},
    kernel::{Action, Family, Kernel, backend_address, family, vip},
};

use crate::{
    connections::{BACKEND_ISN, CLIENT_ISN, Connection},
    icmp::{about, datagram, segment, too_big},
    steering::client,
};

const MODES: [Mode; 2] = [Mode::Nat, Mode::Dnat];

/// The smallest that passes.
fn least() -> u16 {
    match family() {
        Family::V4 => 552,
        Family::V6 => 1280,
    }
}

/// The quoted segment of a VIP to its client.
fn reported(connection: &Connection, seq: u32, mtu: u16) -> IcmpError {
    let quoted = segment(vip(), connection.client).numbers(seq, connection.client_next);
    let (kind, code) = too_big();
    let [high, low] = mtu.to_be_bytes();
    IcmpError { kind, code, rest: [0, 0, high, low], ..about(&datagram(&quoted), vip().ip()) }
}

/// The backend sends a segment of this size.
fn reply(kernel: &mut Kernel, connection: &Connection, size: usize) -> (Action, Vec<u8>) {
    let sent = Tcp::new(backend_address(connection.backend), connection.nat, ACK | PSH)
        .numbers(connection.backend_next, connection.client_next)
        .payload(&vec![0x5a; size]);
    kernel.run(&sent.bytes())
}

both_families!(an_error_about_a_segment_that_is_not_in_flight_is_dropped);
fn an_error_about_a_segment_that_is_not_in_flight_is_dropped() {
    for mode in MODES {
        let mut kernel = Kernel::new(2);
        kernel.mode(mode);
        let mut connection = Connection::open(&mut kernel, 4);
        reply(&mut kernel, &connection, 1000);
        connection.backend_next = connection.backend_next.wrapping_add(1000);
        let end = connection.backend_next;
        let stray = [
            end.wrapping_add(1),
            end.wrapping_add(1 << 20),
            end.wrapping_sub((1 << 24) + 1),
            0x8765_4321,
            0x1234_5678,
        ];
        for (number, seq) in stray.into_iter().enumerate() {
            for about_size in [false, true] {
                let quoted = segment(vip(), connection.client).numbers(seq, 0);
                let error = match about_size {
                    true => reported(&connection, seq, 1400),
                    false => about(&datagram(&quoted), vip().ip()),
                };
                assert_eq!(kernel.run(&error.bytes()).0, Action::Drop, "{mode:?} {seq}");
            }
            assert_eq!(kernel.drops(Reason::IcmpStray), 2 * (number as u64 + 1));
        }
        for seq in [end, end.wrapping_sub(1), end.wrapping_sub(1000), end.wrapping_sub(1 << 24)] {
            let quoted = segment(vip(), connection.client).numbers(seq, 0);
            let error = about(&datagram(&quoted), vip().ip());
            assert_eq!(kernel.run(&error.bytes()).0, Action::Redirect, "{mode:?} {seq}");
        }
        // A backend that has not answered has sent nothing.
        let half_open = Connection::begin(&mut kernel, 5);
        for seq in [0, 1, u32::MAX, BACKEND_ISN] {
            assert_eq!(kernel.run(&reported(&half_open, seq, 1400).bytes()).0, Action::Drop);
        }
        assert_eq!(kernel.drops(Reason::IcmpStray), 14);
        assert_eq!(reply(&mut kernel, &connection, 1000).0, Action::Redirect, "nothing has changed");
    }
}

both_families!(a_path_mtu_below_the_floor_is_dropped);
fn a_path_mtu_below_the_floor_is_dropped() {
    for mode in MODES {
        let mut kernel = Kernel::new(2);
        kernel.mode(mode);
        let connection = Connection::open(&mut kernel, 4);
        let to_client = |mtu| {
            let quoted = segment(connection.nat, backend_address(connection.backend));
            let error = reported(&connection, connection.backend_next, mtu);
            IcmpError { quoted: datagram(&quoted), dst: connection.nat.ip(), ..error }
        };
        for mtu in [0, 68, least() - 1] {
            for error in [reported(&connection, connection.backend_next, mtu), to_client(mtu)] {
                assert_eq!(kernel.run(&error.bytes()).0, Action::Drop, "{mtu}");
            }
        }
        assert_eq!(kernel.drops(Reason::PathMtu), 6);
        let (action, out) = kernel.run(&to_client(least()).bytes());
        assert_eq!((action, icmp::checksums(&out)), (Action::Tx, (true, true)));
        if mode == Mode::Dnat {
            let error = reported(&connection, connection.backend_next, least());
            assert_eq!(kernel.run(&error.bytes()).0, Action::Redirect);
        }
        assert_eq!(kernel.drops(Reason::PathMtu), 6);
    }
}

/// Flags and identification of an IPv4 header.
fn fragmentation(frame: &[u8]) -> (bool, u16) {
    (frame[IP + 6] & 0x40 != 0, u16::from_be_bytes([frame[IP + 4], frame[IP + 5]]))
}

#[test]
fn in_nat_routers_fragment_the_segments_of_that_flow_alone() {
    let mut kernel = Kernel::new(1);
    let narrow = Connection::open(&mut kernel, 4);
    let other = Connection::open(&mut kernel, 5);
    let before = |kernel: &mut Kernel, connection| {
        let (_, out) = reply(kernel, connection, 1400);
        fragmentation(&out).0
    };
    assert!(before(&mut kernel, &narrow) && before(&mut kernel, &other));
    let error = reported(&narrow, narrow.backend_next, 1280).bytes();
    assert_eq!(kernel.run(&error).0, Action::Drop, "the backend has one path MTU for all clients");
    let sent = Tcp::new(backend_address(0), narrow.nat, ACK | PSH)
        .numbers(narrow.backend_next, narrow.client_next)
        .payload(&[0x5a; 1400]);
    for id in [0u16, 0x1234] {
        let mut frame = sent.bytes();
        frame[IP + 4..IP + 6].copy_from_slice(&id.to_be_bytes());
        lb_tests::frame::set_checksums(&mut frame);
        let (action, out) = kernel.run(&frame);
        assert_eq!((action, checksums(&out)), (Action::Redirect, (true, true)));
        let (kept_whole, got) = fragmentation(&out);
        assert!(!kept_whole);
        // Fragments of two segments must not be put together.
        assert!(if id == 0 { got != 0 } else { got == id }, "{got:#x}");
        let got = Tcp::read(&out).expect("tcp");
        assert_eq!((got.seq, &got.payload), (sent.seq, &sent.payload), "nothing else has changed");
    }
    assert!(before(&mut kernel, &other), "another client's");
    let next = Connection::open(&mut kernel, 6);
    assert!(before(&mut kernel, &next));
    assert_eq!(narrow.send(&mut kernel, ACK, b""), Action::Redirect);
}

/// The options that the backend gets of a SYN with these.
fn offered(kernel: &mut Kernel, n: u16, options: &[u8]) -> Vec<u8> {
    let mut syn = Tcp::new(client(n), vip(), SYN).numbers(CLIENT_ISN.wrapping_add(77), 0);
    syn.options = options.to_vec();
    let (action, out) = kernel.run(&syn.bytes());
    assert_eq!((action, checksums(&out)), (Action::Redirect, (true, true)));
    Tcp::read(&out).expect("tcp").options
}

fn resets(kernel: &mut Kernel) -> u64 {
    let counters = kernel.counters();
    let of = |counters: &BackendCounters| counters.resets;
    counters.backends.iter().map(|(_, counters)| of(counters)).sum()
}

#[test]
fn in_nat_an_ipv6_client_begins_again_with_smaller_segments() {
    lb_tests::kernel::in_family(Family::V6, || {
        let mut kernel = Kernel::new(1);
        let large = [2, 4, 0x05, 0xa0, 1, 3, 3, 7];
        assert_eq!(offered(&mut kernel, 4, &large), large);
        kernel.forget_connections();
        let narrow = Connection::open(&mut kernel, 4);
        // The backend has sent two segments, and the client has none of them.
        reply(&mut kernel, &narrow, 1400);
        let first = narrow.backend_next;
        let second =
            Connection { backend_next: first.wrapping_add(1400), ..Connection::open(&mut kernel, 7) };
        let second = Connection { client: narrow.client, nat: narrow.nat, ..second };
        reply(&mut kernel, &second, 1400);
        // A number that somebody has guessed is that of no segment that comes again.
        let guessed = reported(&narrow, first.wrapping_sub(1 << 23), 1380).bytes();
        assert_eq!(kernel.run(&guessed).0, Action::Drop);
        let goes = |kernel: &mut Kernel, connection, size| {
            let (action, out) = reply(kernel, connection, size);
            assert_eq!((action, Tcp::read(&out).expect("tcp").payload.len()), (Action::Redirect, size));
        };
        goes(&mut kernel, &narrow, 1400);
        let report = reported(&narrow, first, 1380).bytes();
        assert_eq!(kernel.run(&report).0, Action::Drop, "the backend has one path MTU for all clients");
        goes(&mut kernel, &second, 1400);
        goes(&mut kernel, &narrow, 1200);
        // The reported byte comes again, in a segment that is too big.
        let (action, out) = reply(&mut kernel, &narrow, 1400);
        assert_eq!((action, checksums(&out)), (Action::Redirect, (true, true)));
        let reset = Tcp::read(&out).expect("tcp");
        let syn = Tcp::new(narrow.client, vip(), SYN);
        assert_eq!((reset.to_mac, reset.from_mac), (syn.from_mac, syn.to_mac));
        assert_eq!((reset.src, reset.dst), (vip(), narrow.client));
        assert_eq!((reset.flags, reset.seq, reset.payload.len()), (RST, narrow.backend_next, 0));
        assert_eq!(out.len(), IP + 60);
        assert_eq!(resets(&mut kernel), 1);
        // The host has no such connection either, and says so to the backend.
        assert_eq!(reply(&mut kernel, &narrow, 1400).0, Action::Pass);
        // A client that has not got the reset gets another one.
        let late = Tcp::new(narrow.client, vip(), ACK).numbers(narrow.client_next, narrow.backend_next);
        assert_eq!(Tcp::read(&kernel.run(&late.bytes()).1).expect("tcp").seq, narrow.backend_next);
        // 40 and 20 bytes are headers.
        let lower = [2, 4, 0x05, 0x28, 1, 3, 3, 7];
        assert_eq!(offered(&mut kernel, 4, &large), lower);
        assert_eq!(offered(&mut kernel, 1004, &large), large, "another client");
        kernel.forget_connections();
        for small in [&[2, 4, 0x05, 0x28][..], &[2, 4, 0x02, 0x00], &[1, 3, 3, 7], &[]] {
            assert_eq!(offered(&mut kernel, 4, small), small);
            kernel.forget_connections();
        }
        // In mode `dnat` backends see the client, and get the error.
        kernel.mode(Mode::Dnat);
        assert_eq!(offered(&mut kernel, 4, &large), large);
    });
}
