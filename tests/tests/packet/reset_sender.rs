//! Connections of a backend that is out: the daemon resets both ends of those that are idle or out of time.

use std::net::SocketAddr;

use lb_core::io::{Admit, FlowReset};
use lb_tests::{
    both_families,
    frame::{ACK, PSH, RST, Tcp, checksums},
    kernel::{Action, ELSEWHERE, INGRESS, Kernel, backend_address, backend_mac, vip},
};
use lb_userspace::dataplane::{ResetCounts, bpf::FlowCounts};

use crate::{
    connections::Connection,
    resets::{Case, GET, HELLO, OK},
};

/// The resets of a scan, as if so many ticks had passed: the interface, and the segment.
fn ended(kernel: &Kernel, later: u32) -> Vec<(u32, Tcp)> {
    let mut sent = Vec::new();
    kernel.reset_sender().scan_once(later, |ifindex, frame| {
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

both_families!(a_connection_whose_client_was_reset_is_reset_at_the_backend);
fn a_connection_whose_client_was_reset_is_reset_at_the_backend() {
    let mut case = Case::open();
    case.sends(ACK | PSH, GET);
    case.replies(ACK | PSH, OK);
    case.eject(FlowReset::AtRequest);
    assert_eq!(case.ends(SOON), []);
    case.is_reset(ACK | PSH, GET);
    // At the number behind the request that the backend has, not the one that it never got.
    assert_eq!(case.ends(SOON), [case.to_backend()]);
    assert_eq!(case.kernel.flows().counts(), FlowCounts::default());
    assert_eq!(case.kernel.flows().inconsistencies(), [""; 0]);
    // Counted where its client was records, and not again.
    assert_eq!((case.counters().resets, case.ended()), (1, ResetCounts::default()));
    assert_eq!(case.ends(LATE), [], "once");
    case.is_reset(ACK | PSH, GET);
}

both_families!(a_backend_that_is_back_is_reset_where_its_client_was);
fn a_backend_that_is_back_is_reset_where_its_client_was() {
    let mut case = Case::open();
    case.sends(ACK | PSH, GET);
    case.replies(ACK | PSH, OK);
    let other = Connection::open(&mut case.kernel, 2);
    case.eject(FlowReset::AtRequest);
    case.is_reset(ACK | PSH, GET);
    // Before anybody has looked.
    case.kernel.backend(0, 1, Admit::All, FlowReset::Never);
    assert_eq!(case.ends(SOON), [case.to_backend()]);
    assert_eq!(case.ends(LATE), [], "the other one goes on, however idle");
    assert_eq!(other.send(&mut case.kernel, ACK | PSH, GET), Action::Redirect);
    assert_eq!(case.kernel.flows().counts().established, 1);
}

both_families!(a_backend_that_comes_back_during_a_scan_keeps_the_rest);
fn a_backend_that_comes_back_during_a_scan_keeps_the_rest() {
    let mut kernel = Kernel::new(1);
    for n in 1..=3 {
        Connection::open(&mut kernel, n);
    }
    kernel.backend(0, 1, Admit::None, FlowReset::Now);
    let mut sent = 0;
    kernel.reset_sender().scan_once(SOON, |_, _| {
        sent += 1;
        kernel.backend(0, 1, Admit::All, FlowReset::Never);
    });
    assert_eq!(sent, 2, "both ends of the first");
    assert_eq!(kernel.flows().counts().established, 2);
}

both_families!(an_idle_connection_is_reset_at_both_ends);
fn an_idle_connection_is_reset_at_both_ends() {
    for (ask, answer) in [(&b""[..], &b""[..]), (GET, OK), (HELLO, HELLO), (HELLO, OK)] {
        let mut case = Case::open();
        case.sends(ACK | PSH, ask);
        case.replies(ACK | PSH, answer);
        case.sends(ACK, b"");
        assert_eq!(case.ends(LATE), [], "its backend serves");
        case.eject(FlowReset::AtRequest);
        assert_eq!(case.ends(SOON), []);
        assert_eq!(case.ends(LATE), [case.to_client(), case.to_backend()]);
        assert_eq!(case.kernel.flows().counts(), FlowCounts::default());
        assert_eq!(case.ended(), ResetCounts { idle: 1, drained: 0 });
    }
}

both_families!(a_connection_that_waits_for_an_answer_is_not_idle);
fn a_connection_that_waits_for_an_answer_is_not_idle() {
    let mut first = Case::open();
    first.sends(ACK | PSH, GET);
    let mut unread = Case::open();
    unread.sends(ACK | PSH, HELLO);
    let mut later = Case::open();
    later.sends(ACK | PSH, HELLO);
    later.replies(ACK | PSH, HELLO);
    later.sends(ACK | PSH, HELLO);
    for mut case in [first, unread, later] {
        case.eject(FlowReset::AtRequest);
        assert_eq!(case.ends(LATE), []);
        case.replies(ACK | PSH, OK);
        assert_eq!(case.ends(LATE), [case.to_client(), case.to_backend()]);
    }
}

both_families!(all_is_ended_at_last);
fn all_is_ended_at_last() {
    let mut case = Case::open();
    case.sends(ACK | PSH, GET);
    let handshake = Connection::begin(&mut case.kernel, 2);
    case.eject(FlowReset::Now);
    let mut ends = case.ends(SOON);
    ends.sort_by_key(|end| (end.2, end.3));
    let mut wanted = vec![case.to_client(), case.to_backend()];
    // A client that waits for the answer to its SYN believes what acknowledges that.
    let begun = Case { kernel: Kernel::new(1), connection: Connection { backend_next: 0, ..handshake } };
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
