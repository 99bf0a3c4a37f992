//! Connections of a backend that is out: the program resets one where its client begins a new request, and
//! not before.

use lb_common::{abi::BackendCounters, reason::Reason};
use lb_core::io::{Admit, FlowReset};
use lb_tests::{
    both_families,
    frame::{ACK, FIN, PSH, RST, Tcp, checksums},
    kernel::{Action, Kernel, vip},
};
use lb_userspace::dataplane::ResetCounts;

use crate::connections::Connection;

pub(crate) const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const POST: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 8\r\n\r\n";
pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nok";
pub(crate) const HELLO: &[u8] = b"\x16\x03\x01\x00\x10\x01\x00\x00\x0c\x03\x03 and so on";

/// One connection of a backend, which stays alone.
pub(crate) struct Case {
    pub(crate) kernel: Kernel,
    pub(crate) connection: Connection,
}

impl Case {
    pub(crate) fn open() -> Self {
        let mut kernel = Kernel::new(1);
        let connection = Connection::open(&mut kernel, 1);
        Self { kernel, connection }
    }

    /// The backend is out.
    pub(crate) fn eject(&mut self, flow_reset: FlowReset) {
        self.kernel.backend(0, 1, Admit::None, flow_reset);
    }

    /// A segment of the client that the backend gets.
    pub(crate) fn sends(&mut self, flags: u8, payload: &[u8]) {
        assert_eq!(self.connection.send(&mut self.kernel, flags, payload), Action::Redirect);
        let moved = payload.len() as u32 + u32::from(flags & FIN != 0);
        self.connection.client_next = self.connection.client_next.wrapping_add(moved);
    }

    /// One that is answered by a reset: exactly this client's, and nothing reaches the backend.
    pub(crate) fn is_reset(&mut self, flags: u8, payload: &[u8]) {
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

    pub(crate) fn replies(&mut self, flags: u8, payload: &[u8]) {
        assert_eq!(self.connection.reply(&mut self.kernel, flags, payload), Action::Redirect);
        let moved = payload.len() as u32 + u32::from(flags & FIN != 0);
        self.connection.backend_next = self.connection.backend_next.wrapping_add(moved);
    }

    pub(crate) fn counters(&mut self) -> BackendCounters {
        self.kernel.counters().backends[0].1
    }

    pub(crate) fn ended(&mut self) -> ResetCounts {
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
    case.eject(FlowReset::AtRequest);
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
        case.eject(FlowReset::AtRequest);
        case.is_reset(ACK | PSH, first);
        assert_eq!(case.counters().resets, 1);
        assert_eq!(case.kernel.heads().len(), 0, "no record");
    }
}

both_families!(a_response_in_flight_completes);
fn a_response_in_flight_completes() {
    let mut case = Case::open();
    case.sends(ACK | PSH, GET);
    case.eject(FlowReset::AtRequest);
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
    case.eject(FlowReset::AtRequest);
    case.sends(ACK | PSH, b"a=1&");
    case.sends(ACK | PSH, b"b=2\n");
    case.replies(ACK | PSH, OK);
    case.is_reset(ACK | PSH, GET);
}

both_families!(a_request_that_comes_again_is_no_new_one);
fn a_request_that_comes_again_is_no_new_one() {
    let mut case = Case::open();
    case.sends(ACK | PSH, GET);
    case.eject(FlowReset::AtRequest);
    case.connection.client_next = case.connection.client_next.wrapping_sub(GET.len() as u32);
    case.sends(ACK | PSH, GET);
    assert_eq!(case.counters().resets, 0);
}

both_families!(a_client_that_pipelines_is_left_alone);
fn a_client_that_pipelines_is_left_alone() {
    let mut case = Case::open();
    case.sends(ACK | PSH, GET);
    case.sends(ACK | PSH, GET);
    case.replies(ACK | PSH, OK);
    case.eject(FlowReset::AtRequest);
    case.sends(ACK | PSH, GET);
    assert_eq!(case.counters().resets, 0);
}

both_families!(an_unreadable_connection_has_no_boundaries);
fn an_unreadable_connection_has_no_boundaries() {
    let mut case = Case::open();
    case.sends(ACK | PSH, HELLO);
    case.replies(ACK | PSH, HELLO);
    case.eject(FlowReset::AtRequest);
    case.sends(ACK | PSH, HELLO);
    assert_eq!(case.counters().resets, 0);
    case.eject(FlowReset::Now);
    case.is_reset(ACK, b"");
    assert_eq!(case.counters().resets, 1);
}

both_families!(a_client_that_closes_may_do_so);
fn a_client_that_closes_may_do_so() {
    let mut case = Case::open();
    case.sends(ACK | PSH, GET);
    case.replies(ACK | PSH, OK);
    case.eject(FlowReset::AtRequest);
    case.sends(ACK | FIN, b"");
    case.replies(ACK | FIN, b"");
    case.sends(ACK, b"");
    assert_eq!((case.counters().resets, case.kernel.flows().counts().time_wait), (0, 1));
}

both_families!(a_client_that_begins_again_is_steered_again);
fn a_client_that_begins_again_is_steered_again() {
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
    case.eject(FlowReset::AtRequest);
    case.kernel.admit(0, 1, Admit::All);
    case.sends(ACK | PSH, GET);
    assert_eq!(case.counters().resets, 0);
}
