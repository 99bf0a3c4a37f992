//! The way back to a client moves: its gateway fails over, another uplink takes its place.

use lb_core::config::Mode;
use lb_tests::{
    both_families,
    frame::{ACK, FIN, PSH, RST, SYN, Tcp},
    kernel::{Action, ELSEWHERE, INGRESS, Kernel, NODE_MAC, OTHER_NODE_MAC, at_tc, backend_address, vip},
};

use crate::{
    connections::{BACKEND_ISN, CLIENT_ISN, Connection},
    evidence::GET,
    steering::client,
};

const FIRST: [u8; 6] = [0x02, 0, 0, 0, 0, 0x22];
const SECOND: [u8; 6] = [0x02, 0, 0, 0, 7, 0x22];

/// By which gateway, interface and VLAN frames go to the client.
type Way = ([u8; 6], u32, Option<u16>);

fn by(way: Way, sent: Tcp) -> Tcp {
    Tcp { from_mac: way.0, vlan: way.2, ..sent }
}

fn send(kernel: &mut Kernel, way: Way, sent: Tcp) -> Action {
    kernel.run_by(&by(way, sent).bytes(), way.1).0
}

fn of_client(connection: &Connection, flags: u8) -> Tcp {
    Tcp::new(connection.client, vip(), flags).numbers(connection.client_next, connection.backend_next)
}

/// The way by which an answer of the backend leaves.
fn way_of(kernel: &mut Kernel, connection: &Connection) -> Way {
    let answer = Tcp::new(backend_address(connection.backend), connection.nat, ACK | PSH)
        .numbers(connection.backend_next, connection.client_next)
        .payload(b"x");
    let (action, out) = kernel.run(&answer.bytes());
    let got = Tcp::read(&out).expect("tcp");
    assert_eq!(got.from_mac, NODE_MAC);
    // The answer comes by the other interface.
    let ifindex = match action {
        Action::Tx if !at_tc() => ELSEWHERE,
        Action::Redirect if !at_tc() => INGRESS,
        action => panic!("{action:?}"),
    };
    (got.to_mac, ifindex, got.vlan)
}

const BEFORE: Way = (FIRST, INGRESS, None);

both_families!(answers_follow_the_next_segment_of_the_client);
fn answers_follow_the_next_segment_of_the_client() {
    if at_tc() {
        return;
    }
    // First all at once, then each by itself.
    let ways: [Way; 9] = [
        (SECOND, ELSEWHERE, Some(10)),
        (FIRST, INGRESS, None),
        (SECOND, INGRESS, None),
        (SECOND, ELSEWHERE, None),
        (SECOND, ELSEWHERE, Some(10)),
        (SECOND, ELSEWHERE, Some(20)),
        (SECOND, INGRESS, Some(20)),
        (FIRST, INGRESS, Some(20)),
        ([0x06, 0, 0, 0, 0, 0x22], INGRESS, Some(20)),
    ];
    for mode in [Mode::Nat, Mode::Dnat] {
        let mut kernel = Kernel::new(1);
        kernel.mode(mode);
        let connection = Connection::open(&mut kernel, 1);
        assert_eq!(way_of(&mut kernel, &connection), BEFORE);
        for way in ways.into_iter().chain([BEFORE]) {
            let action = send(&mut kernel, way, of_client(&connection, ACK));
            assert!([Action::Tx, Action::Redirect].contains(&action), "{mode:?} {way:?}");
            assert_eq!(way_of(&mut kernel, &connection), way, "{mode:?}");
        }
    }
}

both_families!(a_stranger_diverts_nothing);
fn a_stranger_diverts_nothing() {
    if at_tc() {
        return;
    }
    let mut kernel = Kernel::new(1);
    let connection = Connection::open(&mut kernel, 1);
    let stranger = (SECOND, INGRESS, Some(10));
    let (seq, ack) = (connection.client_next, connection.backend_next);
    let numbers = [
        (seq.wrapping_add(1 << 30), ack),
        (seq, ack.wrapping_sub(1 << 25)),
        (seq, ack.wrapping_add(9)),
        (seq.wrapping_add(20_000), ack.wrapping_sub(20_000)),
        (seq.wrapping_sub(1 << 20), ack.wrapping_sub(1 << 20)),
        (0, 0),
    ];
    for (seq, ack) in numbers {
        for flags in [ACK, ACK | PSH, ACK | FIN] {
            send(&mut kernel, stranger, of_client(&connection, flags).numbers(seq, ack).payload(b"stray"));
            assert_eq!(way_of(&mut kernel, &connection), BEFORE, "{flags:#x} {seq} {ack}");
        }
    }
    for flags in [SYN, SYN | ACK, RST | ACK] {
        let off = if flags == SYN { 5 } else { 1 };
        send(&mut kernel, stranger, of_client(&connection, flags).numbers(seq.wrapping_add(off), ack));
        assert_eq!(way_of(&mut kernel, &connection), BEFORE, "{flags:#x}");
    }
    // To another station, with the right numbers.
    let foreign = Tcp { to_mac: SECOND, ..of_client(&connection, ACK) };
    assert_eq!(send(&mut kernel, stranger, foreign), Action::Pass);
    assert_eq!(way_of(&mut kernel, &connection), BEFORE);
}

both_families!(a_request_that_is_repeated_moves_the_way);
/// The gateway failed after the request: request, acknowledgement and answer have passed, and the client has seen
/// nothing of it.
fn a_request_that_is_repeated_moves_the_way() {
    if at_tc() {
        return;
    }
    for length in [1, 1000, 100_000u32] {
        let mut kernel = Kernel::new(1);
        let mut connection = Connection::open(&mut kernel, 1);
        let request = of_client(&connection, ACK | PSH).payload(GET);
        assert_eq!(send(&mut kernel, BEFORE, request.clone()), Action::Redirect);
        connection.client_next = connection.client_next.wrapping_add(GET.len() as u32);
        for sent in (0..length).step_by(1000) {
            let payload = vec![b'x'; 1000.min(length - sent) as usize];
            assert_eq!(connection.reply(&mut kernel, ACK | PSH, &payload), Action::Redirect);
            connection.backend_next = connection.backend_next.wrapping_add(payload.len() as u32);
        }
        let way = (SECOND, INGRESS, None);
        assert_eq!(send(&mut kernel, way, request), Action::Redirect);
        assert_eq!(way_of(&mut kernel, &connection), way, "{length}");
    }
}

both_families!(a_handshake_moves_with_its_syn);
fn a_handshake_moves_with_its_syn() {
    if at_tc() {
        return;
    }
    let mut kernel = Kernel::new(1);
    let begun = Connection::begin(&mut kernel, 1);
    let answer = Tcp::new(backend_address(0), begun.nat, SYN | ACK)
        .numbers(BACKEND_ISN, CLIENT_ISN.wrapping_add(1))
        .bytes();
    let syn = Tcp::new(client(1), vip(), SYN).numbers(CLIENT_ISN, 0);
    for way in [(SECOND, INGRESS, Some(20)), BEFORE] {
        // Once before the answer, once after it was lost.
        send(&mut kernel, way, syn.clone());
        let (_, out) = kernel.run(&answer);
        let got = Tcp::read(&out).expect("tcp");
        assert_eq!((got.to_mac, got.vlan), (way.0, way.2));
    }
    let other = Tcp { from_mac: SECOND, ..syn }.numbers(CLIENT_ISN.wrapping_add(9), 0);
    kernel.run(&other.bytes());
    assert_eq!(Tcp::read(&kernel.run(&answer).1).expect("tcp").to_mac, FIRST, "another SYN moves nothing");
}

both_families!(before_the_answer_only_the_syn_moves_a_handshake);
/// Nobody has a number of the backend yet, so no number can be near to it.
fn before_the_answer_only_the_syn_moves_a_handshake() {
    if at_tc() {
        return;
    }
    let mut kernel = Kernel::new(1);
    let begun = Connection::begin(&mut kernel, 1);
    for (off, ack) in [(0, 0), (5, 0), (1 << 20, 0), (0, u32::MAX - 9)] {
        for flags in [ACK, ACK | PSH, ACK | FIN] {
            let stray = of_client(&begun, flags).numbers(begun.client_next.wrapping_add(off), ack);
            send(&mut kernel, (SECOND, INGRESS, Some(10)), stray.payload(b"stray"));
        }
    }
    let answer = Tcp::new(backend_address(0), begun.nat, SYN | ACK).numbers(BACKEND_ISN, begun.client_next);
    let got = Tcp::read(&kernel.run(&answer.bytes()).1).expect("tcp");
    assert_eq!((got.to_mac, got.vlan), (FIRST, None));
}

both_families!(the_nodes_own_address_moves_nothing);
fn the_nodes_own_address_moves_nothing() {
    let mut kernel = Kernel::new(1);
    let connection = Connection::open(&mut kernel, 1);
    let sent = Tcp { to_mac: OTHER_NODE_MAC, ..of_client(&connection, ACK) };
    assert_eq!(kernel.run(&sent.bytes()).0, Action::Redirect);
    if !at_tc() {
        assert_eq!(way_of(&mut kernel, &connection), BEFORE);
    }
}
