//! Exchanges that have no response: refused, reset, closed; and the time that responses take.

use std::time::Duration;

use lb_common::abi::{ExchangeKind, TTFB_BUCKETS};
use lb_lab::clock;
use lb_tests::{
    both_families,
    frame::{ACK, FIN, PSH, RST, SYN, Tcp},
    kernel::{Action, Kernel, SERVICE, backend_address},
};

use crate::connections::{BACKEND_ISN, CLIENT_ISN, Connection};

pub(crate) const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const NOTHING: [ExchangeKind; 0] = [];
/// A TLS record of 16 bytes, whole.
pub(crate) const HELLO: &[u8] = b"\x16\x03\x01\x00\x10\x01\x00\x00\x0c\x03\x03 and so on";

/// One connection, and what the backend does with it.
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

    fn ask(mut self, payload: &[u8]) -> Self {
        assert_eq!(self.connection.send(&mut self.kernel, ACK | PSH, payload), Action::Redirect);
        self.connection.client_next = self.connection.client_next.wrapping_add(payload.len() as u32);
        self
    }

    fn client(mut self, flags: u8) -> Self {
        assert_eq!(self.connection.send(&mut self.kernel, flags, b""), Action::Redirect);
        self.connection.client_next = self.connection.client_next.wrapping_add(u32::from(flags & FIN != 0));
        self
    }

    fn respond(mut self, flags: u8, payload: &[u8]) -> Self {
        assert_eq!(self.connection.reply(&mut self.kernel, flags, payload), Action::Redirect);
        let moved = payload.len() as u32 + u32::from(flags & FIN != 0);
        self.connection.backend_next = self.connection.backend_next.wrapping_add(moved);
        self
    }

    /// The backend sends this without having seen the last `unseen` bytes of the client.
    fn respond_early(mut self, flags: u8, unseen: usize) -> Self {
        let next = self.connection.client_next;
        self.connection.client_next = next.wrapping_sub(unseen as u32);
        self = self.respond(flags, b"");
        self.connection.client_next = next;
        self
    }

    /// Flags of the records without a head.
    fn recorded(mut self) -> Vec<ExchangeKind> {
        let records = self.kernel.heads();
        let kinds = records.iter().filter(|record| record.len == 0).map(|record| {
            assert_eq!(record.flags, 0);
            record.kind().expect("a kind of the program's")
        });
        kinds.collect()
    }
}

both_families!(a_reset_to_a_syn_is_a_refusal);
fn a_reset_to_a_syn_is_a_refusal() {
    let mut kernel = Kernel::new(1);
    let connection = Connection::begin(&mut kernel, 1);
    assert_eq!(connection.reply(&mut kernel, RST | ACK, b""), Action::Redirect, "the client gets it");
    let records = kernel.heads();
    let [record] = &records[..] else { panic!("one record") };
    assert_eq!((record.kind(), record.flags, record.len), (Some(ExchangeKind::ConnectRefused), 0, 0));
    assert_eq!((record.service, record.backend, record.generation), (SERVICE.0, 0, 1));
    let client = lb_common::abi::socket_addr(record.client, record.client_port);
    assert_eq!(client, connection.client);
    assert_eq!(connection.reply(&mut kernel, RST | ACK, b""), Action::Pass, "once");
    assert_eq!(kernel.heads().len(), 0);
}

both_families!(a_reset_that_does_not_answer_the_syn_is_none);
fn a_reset_that_does_not_answer_the_syn_is_none() {
    let mut kernel = Kernel::new(1);
    let connection = Connection::begin(&mut kernel, 1);
    let stray = Tcp::new(backend_address(0), connection.nat, RST | ACK).numbers(0, CLIENT_ISN);
    kernel.run(&stray.bytes());
    assert_eq!(kernel.heads().len(), 0);

    let connection = Connection::begin(&mut kernel, 2);
    let answer = Tcp::new(backend_address(0), connection.nat, SYN | ACK)
        .numbers(BACKEND_ISN, CLIENT_ISN.wrapping_add(1));
    kernel.run(&answer.bytes());
    assert_eq!(connection.reply(&mut kernel, RST | ACK, b""), Action::Redirect);
    assert_eq!(kernel.heads().len(), 0, "it had accepted");
}

both_families!(a_service_without_evidence_makes_no_record);
fn a_service_without_evidence_makes_no_record() {
    let mut kernel = Kernel::new(1);
    kernel.evidence(false);
    let connection = Connection::begin(&mut kernel, 1);
    connection.reply(&mut kernel, RST | ACK, b"");
    let connection = Connection::open(&mut kernel, 2);
    connection.send(&mut kernel, ACK | PSH, GET);
    connection.reply(&mut kernel, RST, b"");
    assert_eq!(kernel.heads().len(), 0);
}

/// A request that is not HTTP/1 is owed an answer just the same.
fn requests() -> [&'static [u8]; 2] {
    [GET, HELLO]
}

both_families!(a_reset_when_an_answer_is_due);
fn a_reset_when_an_answer_is_due() {
    for request in requests() {
        let asked = || Case::open().ask(request);
        assert_eq!(asked().respond(RST | ACK, b"").recorded(), [ExchangeKind::Reset]);
        // Without an acknowledgement in it, one before it must have been of the request.
        assert_eq!(asked().respond(ACK, b"").respond(RST, b"").recorded(), [ExchangeKind::Reset]);
        assert_eq!(asked().respond(RST, b"").recorded(), NOTHING);
        assert_eq!(asked().respond_early(ACK, 1).respond(RST, b"").recorded(), NOTHING);
    }
}

both_families!(a_close_when_an_answer_is_due);
fn a_close_when_an_answer_is_due() {
    for request in requests() {
        let case = Case::open().ask(request).respond(ACK | FIN, b"");
        assert_eq!(case.recorded(), [ExchangeKind::NoResponse]);
        // And no second failure for what follows.
        let case =
            Case::open().ask(request).respond(ACK | FIN, b"").client(ACK).ask(b"more").respond(RST, b"");
        assert_eq!(case.recorded(), [ExchangeKind::NoResponse]);
    }
}

both_families!(an_answer_is_no_failure_whatever_follows);
fn an_answer_is_no_failure_whatever_follows() {
    for end in [RST, RST | ACK, ACK | FIN] {
        assert_eq!(Case::open().ask(GET).respond(ACK, OK).respond(end, b"").recorded(), NOTHING);
        assert_eq!(
            Case::open().ask(HELLO).respond(ACK, b"\x16\x03").respond(end, b"").recorded(),
            [ExchangeKind::Answered]
        );
        // In one segment with the response.
        assert_eq!(Case::open().ask(GET).respond(end, OK).recorded(), NOTHING);
    }
}

both_families!(only_the_first_answer_of_an_unreadable_connection_is_recorded);
fn only_the_first_answer_of_an_unreadable_connection_is_recorded() {
    let case =
        Case::open().ask(HELLO).respond(ACK, b"hello").ask(HELLO).respond(ACK, b"again").respond(RST, b"");
    assert_eq!(case.recorded(), [ExchangeKind::Answered]);
}

both_families!(a_connection_on_which_nothing_was_asked_owes_nothing);
fn a_connection_on_which_nothing_was_asked_owes_nothing() {
    for end in [RST, RST | ACK, ACK | FIN] {
        assert_eq!(Case::open().respond(end, b"").recorded(), NOTHING);
    }
}

both_families!(a_backend_need_not_answer_a_client_that_has_closed);
fn a_backend_need_not_answer_a_client_that_has_closed() {
    for end in [RST | ACK, ACK | FIN] {
        assert_eq!(Case::open().ask(GET).client(ACK | FIN).respond(end, b"").recorded(), NOTHING);
    }
}

both_families!(an_idle_connection_may_be_closed_while_the_next_request_is_on_its_way);
fn an_idle_connection_may_be_closed_while_the_next_request_is_on_its_way() {
    // The FIN was sent before the request arrived, whichever of them passes here first.
    let kept = || Case::open().ask(GET).respond(ACK, OK);
    let crossed = kept().respond(ACK | FIN, b"").ask(GET).respond(RST, b"");
    assert_eq!(crossed.recorded(), NOTHING);
    let crossed = kept().ask(GET).respond_early(ACK | FIN, GET.len()).respond(RST, b"");
    assert_eq!(crossed.recorded(), NOTHING);
    // But one that has the request and closes has failed.
    assert_eq!(kept().ask(GET).respond(ACK | FIN, b"").recorded(), [ExchangeKind::NoResponse]);
    assert_eq!(kept().ask(GET).respond(RST | ACK, b"").recorded(), [ExchangeKind::Reset]);
}

both_families!(a_backend_that_accepts_and_closes_has_failed_its_first_client);
fn a_backend_that_accepts_and_closes_has_failed_its_first_client() {
    let closed = Case::open().respond(ACK | FIN, b"").ask(GET).respond(RST, b"");
    assert_eq!(closed.recorded(), [ExchangeKind::Reset]);
    let closed = Case::open().ask(GET).respond_early(ACK | FIN, GET.len()).respond(RST, b"");
    assert_eq!(closed.recorded(), [ExchangeKind::Reset]);
}

/// A probe of the peer: one byte that was sent before (RFC 9293 section 3.8.4).
fn keep_alive(case: Case, byte: &[u8]) -> Case {
    let next = case.connection.client_next;
    let mut case = case;
    case.connection.client_next = next.wrapping_sub(1);
    let mut case = case.ask(byte);
    case.connection.client_next = next;
    case
}

both_families!(a_keep_alive_asks_for_nothing);
fn a_keep_alive_asks_for_nothing() {
    let kept = || Case::open().ask(GET).respond(ACK, OK);
    assert_eq!(keep_alive(kept(), b"\n").respond(ACK | FIN, b"").recorded(), NOTHING);
    assert_eq!(keep_alive(kept(), b"\0").respond(RST, b"").recorded(), NOTHING);
    assert_eq!(keep_alive(Case::open(), b"\0").respond(ACK | FIN, b"").recorded(), NOTHING);
    // And spoils nothing that follows.
    let case = keep_alive(Case::open(), b"\0").ask(HELLO).respond(ACK, b"hello");
    assert_eq!(case.recorded(), [ExchangeKind::Answered]);
}

both_families!(half_a_request_is_owed_no_answer);
fn half_a_request_is_owed_no_answer() {
    for half in [b"GET / HTTP/1.1\r\nHost:".as_slice(), b"GET", &HELLO[..7], b"PRI * HTTP/2.0\r\n"] {
        for end in [RST, RST | ACK, ACK | FIN] {
            assert_eq!(Case::open().ask(half).respond(end, b"").recorded(), NOTHING, "{half:?}");
        }
    }
    // The rest of it makes it whole.
    let whole = || Case::open().ask(b"GET / HTTP/1.1\r\n").ask(b"Host: x\r\n\r\n");
    assert_eq!(whole().respond(ACK | FIN, b"").recorded(), [ExchangeKind::NoResponse]);
    assert_eq!(whole().respond(RST | ACK, b"").recorded(), [ExchangeKind::Reset]);
    // A request with a body need not end like a head.
    let posted = || Case::open().ask(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(posted().respond(ACK | FIN, b"").recorded(), [ExchangeKind::NoResponse]);
    // Asked again on the same connection, half of it is owed nothing again.
    let again = Case::open().ask(GET).respond(ACK, OK).ask(b"GET / HTTP/1.1\r\n").respond(ACK | FIN, b"");
    assert_eq!(again.recorded(), NOTHING);
}

both_families!(a_one_way_protocol_is_owed_no_answer);
fn a_one_way_protocol_is_owed_no_answer() {
    for end in [RST, RST | ACK, ACK | FIN] {
        assert_eq!(Case::open().ask(b"<13>a line of syslog\n").respond(end, b"").recorded(), NOTHING);
    }
    // One that does answer has answered.
    let case = Case::open().ask(b"*1\r\n$4\r\nPING\r\n").respond(ACK, b"+PONG\r\n");
    assert_eq!(case.recorded(), [ExchangeKind::Answered]);
}

both_families!(a_reset_that_has_not_seen_the_request_is_no_answer_to_it);
fn a_reset_that_has_not_seen_the_request_is_no_answer_to_it() {
    let kept = || Case::open().ask(GET).respond(ACK, OK);
    assert_eq!(kept().ask(GET).respond_early(RST | ACK, GET.len()).recorded(), NOTHING);
    assert_eq!(kept().ask(GET).respond(RST | ACK, b"").recorded(), [ExchangeKind::Reset]);
}

both_families!(after_a_change_of_protocol_nothing_is_a_request);
fn after_a_change_of_protocol_nothing_is_a_request() {
    let upgrade = b"GET /chat HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
    let upgraded = || Case::open().ask(upgrade).respond(ACK, b"HTTP/1.1 101 Switching Protocols\r\n\r\n");
    for end in [RST, RST | ACK, ACK | FIN] {
        assert_eq!(upgraded().ask(b"GET / HTTP/1.1\r\n\r\n").respond(end, b"").recorded(), NOTHING);
    }
}

both_families!(a_body_in_small_pieces_or_capitals_is_no_pipeline);
fn a_body_in_small_pieces_or_capitals_is_no_pipeline() {
    let head = b"POST / HTTP/1.1\r\nContent-Length: 20\r\n\r\n";
    let mut case =
        Case::open().ask(head).ask(b"ab").ask(b"c").ask(b"QUJDREVGR0g=").ask(b"ABCDE").respond(ACK, OK);
    assert_eq!(case.kernel.counters().backends[0].1.pipelined, 0);
    // The same after an early answer.
    let mut case =
        Case::open().ask(head).respond(ACK, OK).ask(b"QUJDRA==").ask(b"ABCDE").respond(RST | ACK, b"");
    assert_eq!(case.kernel.counters().backends[0].1.pipelined, 0);
    assert_eq!(case.recorded(), NOTHING);
}

both_families!(a_fin_that_overtakes_the_response_is_no_failure);
fn a_fin_that_overtakes_the_response_is_no_failure() {
    let mut case = Case::open().ask(GET);
    case.connection.backend_next = case.connection.backend_next.wrapping_add(OK.len() as u32);
    let mut case = case.respond(ACK | FIN, b"");
    case.connection.backend_next = case.connection.backend_next.wrapping_sub(OK.len() as u32 + 1);
    let mut case = case.respond(ACK, OK);
    let heads = case.kernel.heads();
    assert_eq!(heads.len(), 1);
    assert!(heads[0].data.starts_with(b"HTTP/1.1 200"));
}

both_families!(first_bytes_are_timed);
fn first_bytes_are_timed() {
    let mut case = Case::open();
    for _ in 0..3 {
        case = case.ask(GET).respond(ACK, OK);
    }
    let before = case.ask(GET);
    let started = clock::now();
    while clock::now() - started < Duration::from_millis(5) {
        std::hint::spin_loop();
    }
    let mut case = before.respond(ACK, OK);
    let ttfb = case.kernel.counters().backends[0].1.ttfb;
    assert_eq!(ttfb.iter().sum::<u64>(), 4);
    // 5 ms is in the bucket from 4.096 ms on, or above if this machine dozed.
    let slow: u64 = ttfb[7..TTFB_BUCKETS].iter().sum();
    assert!(slow >= 1, "{ttfb:?}");
}
