//! Connections of a backend that is out: ended where the client asks for something new, and not before. Handshakes
//! that come to nothing: taken up by another backend.

use std::{net::SocketAddr, thread, time::Duration};

use lb_common::{
    abi::{BackendCounters, ExchangeKind},
    reason::Reason,
};
use lb_core::io::{Admit, FlowReset};
use lb_tests::{
    both_families,
    frame::{ACK, FIN, PSH, RST, SYN, Tcp, checksums},
    kernel::{Action, ELSEWHERE, INGRESS, Kernel, backend_address, backend_mac, vip},
};
use lb_userspace::dataplane::{ResetCounts, bpf::FlowCounts};

use crate::connections::{CLIENT_ISN, Connection};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const POST: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 8\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nok";
const HELLO: &[u8] = b"\x16\x03\x01\x00\x10\x01\x00\x00\x0c\x03\x03 and so on";

/// One connection of a backend, which stays alone.
struct Case {
    kernel: Kernel,
    connection: Connection,
}

impl Case {
    fn open() -> Self {
        let mut kernel = Kernel::new(1);
        let connection = Connection::open(&mut kernel, 1);
        Self { kernel, connection }
    }

    /// The backend is out.
    fn cut(&mut self, cut: FlowReset) {
        self.kernel.backend(0, 1, Admit::None, cut);
    }

    /// A segment of the client that the backend gets.
    fn sends(&mut self, flags: u8, payload: &[u8]) {
        assert_eq!(self.connection.send(&mut self.kernel, flags, payload), Action::Redirect);
        let moved = payload.len() as u32 + u32::from(flags & FIN != 0);
        self.connection.client_next = self.connection.client_next.wrapping_add(moved);
    }

    /// One that is answered by a reset: exactly this client's, and nothing reaches the backend.
    fn is_reset(&mut self, flags: u8, payload: &[u8]) {
        let Connection { client, client_next, backend_next, .. } = self.connection;
        let sent = Tcp::new(client, vip(), flags).numbers(client_next, backend_next).payload(payload);
        let (action, out) = self.kernel.run(&sent.bytes());
        assert_eq!(action, Action::Tx);
        let got = Tcp::read(&out).expect("tcp");
        assert_eq!((got.src, got.dst), (vip(), client));
        assert_eq!((got.to_mac, got.from_mac), (sent.from_mac, sent.to_mac), "back by the way it came");
        assert_eq!((got.seq, got.ack, got.flags), (backend_next, 0, RST));
        assert!(got.payload.is_empty());
        assert_eq!(checksums(&out), (true, true));
    }

    fn replies(&mut self, flags: u8, payload: &[u8]) {
        assert_eq!(self.connection.reply(&mut self.kernel, flags, payload), Action::Tx);
        let moved = payload.len() as u32 + u32::from(flags & FIN != 0);
        self.connection.backend_next = self.connection.backend_next.wrapping_add(moved);
    }

    fn counters(&mut self) -> BackendCounters {
        self.kernel.counters().backends[0].1
    }

    fn ended(&mut self) -> ResetCounts {
        self.kernel.counters().resets[0].1
    }

    fn resets(&mut self) -> u64 {
        dropped(&mut self.kernel, Reason::Ejected)
    }
}

fn dropped(kernel: &mut Kernel, reason: Reason) -> u64 {
    kernel.counters().drops.iter().filter(|(_, of, _)| *of == reason).map(|(_, _, count)| count).sum()
}

both_families!(the_next_request_is_answered_by_a_reset);
fn the_next_request_is_answered_by_a_reset() {
    let mut case = Case::open();
    case.sends(ACK | PSH, GET);
    case.replies(ACK | PSH, OK);
    case.cut(FlowReset::AtRequest);
    case.sends(ACK, b"");
    case.is_reset(ACK | PSH, GET);
    case.is_reset(ACK | PSH, GET);
    assert_eq!((case.counters().resets, case.resets()), (1, 2));
    case.is_reset(ACK, b"");
    case.is_reset(ACK | FIN, b"");
    // The client's stack says by a reset that there is nobody: that is for the backend.
    assert_eq!(case.connection.send(&mut case.kernel, RST, b""), Action::Redirect);
    assert_eq!(case.kernel.flows().inconsistencies(), [""; 0]);
}

both_families!(the_first_request_too_whatever_its_language);
fn the_first_request_too_whatever_its_language() {
    for first in [GET, HELLO, b"E"] {
        let mut case = Case::open();
        case.cut(FlowReset::AtRequest);
        case.is_reset(ACK | PSH, first);
        assert_eq!(case.counters().resets, 1);
        assert_eq!(case.kernel.heads().len(), 0, "nobody is told");
    }
}

both_families!(a_response_in_flight_completes);
fn a_response_in_flight_completes() {
    let mut case = Case::open();
    case.sends(ACK | PSH, GET);
    case.cut(FlowReset::AtRequest);
    case.sends(ACK, b"");
    case.replies(ACK | PSH, OK);
    case.sends(ACK, b"");
    case.replies(ACK, &[b'x'; 57]);
    case.sends(ACK, b"");
    assert_eq!(case.counters().resets, 0);
    case.is_reset(ACK | PSH, GET);
}

both_families!(a_request_in_parts_goes_whole);
fn a_request_in_parts_goes_whole() {
    let mut case = Case::open();
    case.sends(ACK | PSH, POST);
    case.cut(FlowReset::AtRequest);
    case.sends(ACK | PSH, b"a=1&");
    case.sends(ACK | PSH, b"b=2\n");
    case.replies(ACK | PSH, OK);
    case.is_reset(ACK | PSH, GET);
}

both_families!(a_request_that_comes_again_is_no_new_one);
fn a_request_that_comes_again_is_no_new_one() {
    let mut case = Case::open();
    case.sends(ACK | PSH, GET);
    case.cut(FlowReset::AtRequest);
    case.connection.client_next = case.connection.client_next.wrapping_sub(GET.len() as u32);
    case.sends(ACK | PSH, GET);
    assert_eq!(case.counters().resets, 0);
}

both_families!(who_pipelines_is_left_alone);
fn who_pipelines_is_left_alone() {
    let mut case = Case::open();
    case.sends(ACK | PSH, GET);
    case.sends(ACK | PSH, GET);
    case.replies(ACK | PSH, OK);
    case.cut(FlowReset::AtRequest);
    case.sends(ACK | PSH, GET);
    assert_eq!(case.counters().resets, 0);
}

both_families!(what_is_not_read_has_no_boundaries);
fn what_is_not_read_has_no_boundaries() {
    let mut case = Case::open();
    case.sends(ACK | PSH, HELLO);
    case.replies(ACK | PSH, HELLO);
    case.cut(FlowReset::AtRequest);
    case.sends(ACK | PSH, HELLO);
    assert_eq!(case.counters().resets, 0);
    case.cut(FlowReset::Now);
    case.is_reset(ACK, b"");
    assert_eq!(case.counters().resets, 1);
}

both_families!(whoever_closes_may_do_so);
fn whoever_closes_may_do_so() {
    let mut case = Case::open();
    case.sends(ACK | PSH, GET);
    case.replies(ACK | PSH, OK);
    case.cut(FlowReset::AtRequest);
    case.sends(ACK | FIN, b"");
    case.replies(ACK | FIN, b"");
    case.sends(ACK, b"");
    assert_eq!((case.counters().resets, case.kernel.flows().counts().time_wait), (0, 1));
}

both_families!(a_client_that_begins_anew_is_steered_anew);
fn a_client_that_begins_anew_is_steered_anew() {
    let mut kernel = Kernel::new(2);
    let connection = Connection::open(&mut kernel, 1);
    kernel.backend(connection.backend, 1, Admit::None, FlowReset::AtRequest);
    kernel.table(&[1 - connection.backend]);
    assert_eq!(connection.send(&mut kernel, ACK | PSH, GET), Action::Tx, "a reset");
    let again = Connection::open(&mut kernel, 1);
    assert_ne!(again.backend, connection.backend);
    assert_eq!(kernel.flows().inconsistencies(), [""; 0]);
}

both_families!(readmitted_before_the_next_request_nothing_happens);
fn readmitted_before_the_next_request_nothing_happens() {
    let mut case = Case::open();
    case.sends(ACK | PSH, GET);
    case.replies(ACK | PSH, OK);
    case.cut(FlowReset::AtRequest);
    case.kernel.admit(0, 1, Admit::All);
    case.sends(ACK | PSH, GET);
    assert_eq!(case.counters().resets, 0);
}

/// What is sent to end connections, as if so many ticks had passed: by which interface, and the segment.
fn ended(kernel: &Kernel, later: u32) -> Vec<(u32, Tcp)> {
    let mut sent = Vec::new();
    kernel.endings().scan_once(later, |ifindex, frame| {
        assert_eq!(checksums(frame), (true, true));
        sent.push((ifindex, Tcp::read(frame).expect("tcp")));
    });
    sent
}

/// Later than anything is idle before it ends, and earlier.
const LATE: u32 = 16;
const SOON: u32 = 0;

/// Of a reset that is sent: interface, next hop, addresses, sequence and acknowledgement numbers, flags.
type End = (u32, [u8; 6], SocketAddr, SocketAddr, u32, u32, u8);

impl Case {
    /// The reset that this client gets: by the way its own frames came, at its next number.
    fn to_client(&self) -> End {
        let of = &self.connection;
        let mac = Tcp::new(of.client, vip(), ACK).from_mac;
        (INGRESS, mac, vip(), of.client, of.backend_next, of.client_next, RST | ACK)
    }

    fn to_backend(&self) -> End {
        let of = &self.connection;
        let address = backend_address(of.backend);
        (ELSEWHERE, backend_mac(of.backend), of.nat, address, of.client_next, of.backend_next, RST | ACK)
    }

    fn ends(&mut self, later: u32) -> Vec<End> {
        let of =
            |(ifindex, tcp): (u32, Tcp)| (ifindex, tcp.to_mac, tcp.src, tcp.dst, tcp.seq, tcp.ack, tcp.flags);
        ended(&self.kernel, later).into_iter().map(of).collect()
    }
}

both_families!(whose_client_was_told_is_reset_at_the_backend);
fn whose_client_was_told_is_reset_at_the_backend() {
    let mut case = Case::open();
    case.sends(ACK | PSH, GET);
    case.replies(ACK | PSH, OK);
    case.cut(FlowReset::AtRequest);
    assert_eq!(case.ends(SOON), []);
    case.is_reset(ACK | PSH, GET);
    // At the number behind the request that the backend has, not the one that it never got.
    assert_eq!(case.ends(SOON), [case.to_backend()]);
    assert_eq!(case.kernel.flows().counts(), FlowCounts::default());
    assert_eq!(case.kernel.flows().inconsistencies(), [""; 0]);
    // Counted where its client was told, and not again.
    assert_eq!((case.counters().resets, case.ended()), (1, ResetCounts::default()));
    assert_eq!(case.ends(LATE), [], "once");
    case.is_reset(ACK | PSH, GET);
}

both_families!(a_backend_that_is_back_is_told_what_its_client_was);
fn a_backend_that_is_back_is_told_what_its_client_was() {
    let mut case = Case::open();
    case.sends(ACK | PSH, GET);
    case.replies(ACK | PSH, OK);
    let other = Connection::open(&mut case.kernel, 2);
    case.cut(FlowReset::AtRequest);
    case.is_reset(ACK | PSH, GET);
    // Before anybody has looked.
    case.kernel.backend(0, 1, Admit::All, FlowReset::Never);
    assert_eq!(case.ends(SOON), [case.to_backend()]);
    assert_eq!(case.ends(LATE), [], "the other one goes on, however idle");
    assert_eq!(other.send(&mut case.kernel, ACK | PSH, GET), Action::Redirect);
    assert_eq!(case.kernel.flows().counts().established, 1);
}

both_families!(who_comes_back_during_a_look_keeps_the_rest);
fn who_comes_back_during_a_look_keeps_the_rest() {
    let mut kernel = Kernel::new(1);
    for n in 1..=3 {
        Connection::open(&mut kernel, n);
    }
    kernel.backend(0, 1, Admit::None, FlowReset::Now);
    let mut sent = 0;
    kernel.endings().scan_once(SOON, |_, _| {
        sent += 1;
        kernel.backend(0, 1, Admit::All, FlowReset::Never);
    });
    assert_eq!(sent, 2, "both ends of the first");
    assert_eq!(kernel.flows().counts().established, 2);
}

both_families!(what_is_idle_is_reset_at_both_ends);
fn what_is_idle_is_reset_at_both_ends() {
    for (ask, answer) in [(&b""[..], &b""[..]), (GET, OK), (HELLO, HELLO), (HELLO, OK)] {
        let mut case = Case::open();
        case.sends(ACK | PSH, ask);
        case.replies(ACK | PSH, answer);
        case.sends(ACK, b"");
        assert_eq!(case.ends(LATE), [], "its backend serves");
        case.cut(FlowReset::AtRequest);
        assert_eq!(case.ends(SOON), []);
        assert_eq!(case.ends(LATE), [case.to_client(), case.to_backend()]);
        assert_eq!(case.kernel.flows().counts(), FlowCounts::default());
        assert_eq!(case.ended(), ResetCounts { idle: 1, drained: 0 });
    }
}

both_families!(what_waits_for_an_answer_is_not_idle);
fn what_waits_for_an_answer_is_not_idle() {
    let mut first = Case::open();
    first.sends(ACK | PSH, GET);
    let mut unread = Case::open();
    unread.sends(ACK | PSH, HELLO);
    let mut later = Case::open();
    later.sends(ACK | PSH, HELLO);
    later.replies(ACK | PSH, HELLO);
    later.sends(ACK | PSH, HELLO);
    for mut case in [first, unread, later] {
        case.cut(FlowReset::AtRequest);
        assert_eq!(case.ends(LATE), []);
        case.replies(ACK | PSH, OK);
        assert_eq!(case.ends(LATE), [case.to_client(), case.to_backend()]);
    }
}

both_families!(all_is_ended_at_last);
fn all_is_ended_at_last() {
    let mut case = Case::open();
    case.sends(ACK | PSH, GET);
    let embryo = Connection::begin(&mut case.kernel, 2);
    case.cut(FlowReset::Now);
    let mut ends = case.ends(SOON);
    ends.sort_by_key(|end| (end.2, end.3));
    let mut wanted = vec![case.to_client(), case.to_backend()];
    // A client that waits for the answer to its SYN believes what acknowledges that.
    let begun = Case { kernel: Kernel::new(1), connection: Connection { backend_next: 0, ..embryo } };
    wanted.extend([begun.to_client(), begun.to_backend()]);
    wanted.sort_by_key(|end| (end.2, end.3));
    assert_eq!(ends, wanted);
    assert_eq!(case.kernel.flows().counts(), FlowCounts::default());
    assert_eq!(case.ended(), ResetCounts { idle: 0, drained: 2 });
}

both_families!(nobody_elses_is_ended);
fn nobody_elses_is_ended() {
    let mut kernel = Kernel::new(2);
    let mut both = [Connection::open(&mut kernel, 1), Connection::open(&mut kernel, 2)];
    let mut n = 3;
    while both[0].backend == both[1].backend {
        both[1] = Connection::open(&mut kernel, n);
        n += 1;
    }
    // The id has changed hands since.
    kernel.backend(both[0].backend, 2, Admit::None, FlowReset::Now);
    assert_eq!(ended(&kernel, LATE).len(), 0);
    assert_eq!(both[1].send(&mut kernel, ACK, b"x"), Action::Redirect);
}

/// Four backends of which one is the first choice of this client.
fn begun() -> (Kernel, Connection) {
    let mut kernel = Kernel::new(4);
    kernel.redispatch();
    let connection = Connection::begin(&mut kernel, 1);
    (kernel, connection)
}

/// The backend that gets the client's SYN when that comes again.
fn again(kernel: &mut Kernel, connection: &Connection) -> u16 {
    let syn = Tcp::new(connection.client, vip(), SYN).numbers(CLIENT_ISN, 0);
    let (action, out) = kernel.run(&syn.bytes());
    assert_eq!(action, Action::Redirect);
    let to = Tcp::read(&out).expect("tcp").dst;
    (0..4).find(|id| backend_address(*id) == to).expect("one of them")
}

both_families!(a_refusal_is_kept_from_the_client);
fn a_refusal_is_kept_from_the_client() {
    let (mut kernel, connection) = begun();
    assert_eq!(connection.reply(&mut kernel, RST | ACK, b""), Action::Drop);
    let told: Vec<_> = kernel.heads().iter().map(|record| (record.kind(), record.flags)).collect();
    assert_eq!(told, [(Some(ExchangeKind::ConnectRefused), 0)]);
    let next = again(&mut kernel, &connection);
    assert_ne!(next, connection.backend);
    let counters = kernel.counters();
    let of = |id: u16| counters.backends.iter().find(|(of, _)| of.0 == id).expect("it is known").1;
    assert_eq!((of(connection.backend).redispatched, of(next).connections), (1, 1));
    assert_eq!(kernel.flows().counts().handshakes, 1);
    assert_eq!(kernel.flows().inconsistencies(), [""; 0]);
}

both_families!(without_redispatch_the_client_is_told);
fn without_redispatch_the_client_is_told() {
    let mut kernel = Kernel::new(4);
    let connection = Connection::begin(&mut kernel, 1);
    assert_eq!(connection.reply(&mut kernel, RST | ACK, b""), Action::Tx);
}

both_families!(silence_is_answered_by_another_backend);
fn silence_is_answered_by_another_backend() {
    let (mut kernel, connection) = begun();
    assert_eq!(again(&mut kernel, &connection), connection.backend, "a moment is no silence");
    assert_eq!(kernel.heads().len(), 0);
    // Less than any stack waits before it sends a SYN again.
    thread::sleep(Duration::from_millis(800));
    let next = again(&mut kernel, &connection);
    assert_ne!(next, connection.backend);
    let told: Vec<_> =
        kernel.heads().iter().map(|record| (record.kind(), record.flags, record.backend)).collect();
    assert_eq!(told, [(Some(ExchangeKind::ConnectTimeout), 0, connection.backend)]);
}

both_families!(an_answered_handshake_stays);
fn an_answered_handshake_stays() {
    let (mut kernel, connection) = begun();
    let answer = Tcp::new(backend_address(connection.backend), connection.nat, SYN | ACK)
        .numbers(9, CLIENT_ISN.wrapping_add(1));
    assert_eq!(kernel.run(&answer.bytes()).0, Action::Tx);
    thread::sleep(Duration::from_millis(800));
    assert_eq!(again(&mut kernel, &connection), connection.backend);
    assert_eq!(connection.reply(&mut kernel, RST | ACK, b""), Action::Tx, "it may change its mind");
}

both_families!(who_has_answered_last_is_next);
fn who_has_answered_last_is_next() {
    let mut kernel = Kernel::new(4);
    kernel.redispatch();
    let answering = Connection::open(&mut kernel, 0).backend;
    // Whoever refuses, it is the one that is known to answer that gets the SYN then.
    for n in 1..40 {
        let connection = Connection::begin(&mut kernel, n);
        if connection.backend != answering {
            connection.reply(&mut kernel, RST | ACK, b"");
            assert_eq!(again(&mut kernel, &connection), answering, "client {n}");
        }
    }
}
