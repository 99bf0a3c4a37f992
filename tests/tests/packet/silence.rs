//! Connections that say nothing any more: who is forgotten, after how long, and who is not.

use std::collections::{BTreeMap, HashSet};

use lb_common::reason::Reason;
use lb_core::{
    config::Mode,
    engine::Timeouts,
    io::{Admit, L4Failure},
    time::Millis,
};
use lb_tests::{
    both_families,
    frame::{ACK, FIN, PSH, RST, SYN, Tcp},
    kernel::{Action, Kernel, SERVICE, backend_address, vip},
};
use lb_userspace::dataplane::{
    ExpiredFlows,
    bpf::{FlowCounts, Limits, Now, Scan, TimeoutScanner},
};

use crate::connections::{BACKEND_ISN, Connection};

/// The look through the tables that the daemon's thread takes, at a time of the test's choice.
/// It is made before the first segment.
struct Sweep {
    scanner: TimeoutScanner,
    start: Now,
    limits: Limits,
}

impl Sweep {
    /// `connect`: the service's time-out, in milliseconds.
    fn new(kernel: &Kernel, connect: u64) -> Self {
        let timeouts = Timeouts { connect: Millis(connect), response: Millis(0) };
        Self {
            scanner: kernel.timeout_scanner(),
            start: Now::read(),
            limits: BTreeMap::from([(SERVICE, timeouts)]),
        }
    }

    /// Scans at a moment so early that no segment of the test is so many seconds old.
    ///
    /// Returns the failures that it reports.
    fn before(&self, seconds: u32) -> Vec<L4Failure> {
        failures(&self.scan(self.start, seconds))
    }

    /// Scans at a moment so late that each segment of the test is so many seconds old, however
    /// long the machine took over them. Returns the failures that it reports.
    fn after(&self, seconds: u32) -> Vec<L4Failure> {
        failures(&self.scan(Now::read(), seconds))
    }

    fn scan(&self, from: Now, seconds: u32) -> Scan {
        let now = Now {
            us: from.us.wrapping_add(seconds * 1_000_000),
            ticks: from.ticks.wrapping_add(((u64::from(seconds) * 1_000_000_000) >> 30) as u32),
        };
        self.scanner.scan(&self.limits, Some(&HashSet::new()), now)
    }

    fn forgotten(&self) -> ExpiredFlows {
        self.scanner.expired_flows()
    }
}

fn failures(scan: &Scan) -> Vec<L4Failure> {
    scan.new.iter().map(|timed_out| timed_out.failure).collect()
}

/// The segments that it sends.
fn resets(scan: &Scan) -> Vec<Tcp> {
    scan.resets.iter().map(|(_, frame)| Tcp::read(frame).expect("tcp")).collect()
}

#[track_caller]
fn holds(kernel: &Kernel, established: u64, handshakes: u64, resting: u64) {
    assert_eq!(kernel.flows().counts(), FlowCounts { established, handshakes, time_wait: resting });
    assert_eq!(kernel.flows().inconsistencies(), Vec::<String>::new());
}

/// The client's FIN, and the backend's.
fn close(kernel: &mut Kernel, connection: &mut Connection, client: bool, backend: bool) {
    if client {
        assert_eq!(connection.send(kernel, ACK | FIN, b""), Action::Redirect);
        connection.client_next = connection.client_next.wrapping_add(1);
    }
    if backend {
        // It acknowledges nothing of the client's FIN, so that both are under way.
        let before = connection.client_next;
        connection.client_next = connection.client_next.wrapping_sub(u32::from(client));
        assert_eq!(connection.reply(kernel, ACK | FIN, b""), Action::Redirect);
        connection.client_next = before;
    }
}

both_families!(each_is_forgotten_in_its_time_and_not_before);
fn each_is_forgotten_in_its_time_and_not_before() {
    let mut kernel = Kernel::new(2);
    let sweep = Sweep::new(&kernel, 0);
    let open = Connection::open(&mut kernel, 1);
    let mut half = Connection::open(&mut kernel, 2);
    close(&mut kernel, &mut half, true, false);
    let mut other_half = Connection::open(&mut kernel, 3);
    close(&mut kernel, &mut other_half, false, true);
    let mut closing = Connection::open(&mut kernel, 4);
    close(&mut kernel, &mut closing, true, true);
    Connection::begin(&mut kernel, 5);
    let reset = Connection::open(&mut kernel, 6);
    reset.send(&mut kernel, RST, b"");
    holds(&kernel, 4, 1, 1);

    sweep.before(4);
    holds(&kernel, 4, 1, 1);
    sweep.after(8);
    holds(&kernel, 4, 0, 1);
    sweep.before(29);
    holds(&kernel, 4, 0, 1);
    sweep.after(33);
    holds(&kernel, 3, 0, 1);
    assert_eq!(closing.reply(&mut kernel, ACK, b""), Action::Pass, "no business of ours any more");
    sweep.before(59);
    holds(&kernel, 3, 0, 1);
    sweep.after(63);
    holds(&kernel, 3, 0, 0);
    // A connection that is open in one direction is as open as any.
    sweep.before(899);
    holds(&kernel, 3, 0, 0);
    assert_eq!(half.reply(&mut kernel, ACK, b"still sending"), Action::Redirect);
    assert_eq!(other_half.send(&mut kernel, ACK, b"still sending"), Action::Redirect);
    assert_eq!(open.send(&mut kernel, ACK, b"x"), Action::Redirect);
    sweep.after(903);
    holds(&kernel, 0, 0, 0);
    assert_eq!(sweep.forgotten(), ExpiredFlows { handshakes: 1, established: 3, closing: 1, rested: 1 });
    assert_eq!(open.send(&mut kernel, ACK, b"x"), Action::Tx, "answered by a reset");
    assert_eq!(kernel.drops(Reason::NoFlow), 1);
}

both_families!(both_ends_of_an_idle_connection_are_reset);
fn both_ends_of_an_idle_connection_are_reset() {
    let mut kernel = Kernel::new(1);
    let sweep = Sweep::new(&kernel, 0);
    let mut open = Connection::open(&mut kernel, 1);
    assert_eq!(open.send(&mut kernel, ACK | PSH, b"GET / HTTP/1.1\r\n\r\n"), Action::Redirect);
    open.client_next = open.client_next.wrapping_add(18);
    let mut closing = Connection::open(&mut kernel, 2);
    close(&mut kernel, &mut closing, true, true);
    assert_eq!(resets(&sweep.scan(sweep.start, 899)), [], "and a connection that closes gets none");
    let [to_client, to_backend] = resets(&sweep.scan(Now::read(), 903)).try_into().expect("one for each end");
    let backend = backend_address(open.backend);
    for (got, (from, to), (seq, ack)) in [
        (to_client, (vip(), open.client), (open.backend_next, open.client_next)),
        (to_backend, (open.nat, backend), (open.client_next, open.backend_next)),
    ] {
        assert_eq!((got.src, got.dst, got.flags), (from, to, RST | ACK));
        assert_eq!((got.seq, got.ack), (seq, ack), "exactly what that end expects");
    }
    holds(&kernel, 0, 0, 0);
}

#[test]
fn a_connection_that_the_table_joins_too_is_only_forgotten() {
    let mut kernel = Kernel::new(1);
    kernel.mode(Mode::Dnat);
    let sweep = Sweep::new(&kernel, 0);
    Connection::open(&mut kernel, 1);
    assert_eq!(resets(&sweep.scan(Now::read(), 903)), []);
    holds(&kernel, 0, 0, 0);
}

both_families!(a_dead_handshake_leaves_once_it_was_reported);
fn a_dead_handshake_leaves_once_it_was_reported() {
    let mut kernel = Kernel::new(1);
    // Longer than a handshake may take.
    let sweep = Sweep::new(&kernel, 20_000);
    Connection::begin(&mut kernel, 1);
    let answered = Connection::begin(&mut kernel, 2);
    let syn_ack = SYN | ACK;
    let reply = Tcp::new(backend_address(answered.backend), answered.nat, syn_ack)
        .numbers(BACKEND_ISN, answered.client_next);
    assert_eq!(kernel.run(&reply.bytes()).0, Action::Redirect);
    // Nothing is reported about the one that was answered.
    assert_eq!(sweep.before(10), []);
    holds(&kernel, 0, 1, 0);
    assert_eq!(sweep.after(21), [L4Failure::ConnectTimeout]);
    holds(&kernel, 0, 0, 0);
    assert_eq!(sweep.after(25), []);
    assert_eq!(sweep.forgotten().handshakes, 2);
}

both_families!(a_syn_in_time_wait_decides_afresh);
fn a_syn_in_time_wait_decides_afresh() {
    let mut kernel = Kernel::new(2);
    let mut connection = Connection::open(&mut kernel, 1);
    close(&mut kernel, &mut connection, true, true);
    connection.backend_next = connection.backend_next.wrapping_add(1);
    assert_eq!(connection.send(&mut kernel, ACK, b""), Action::Redirect);
    assert_eq!(connection.reply(&mut kernel, ACK, b""), Action::Redirect);
    holds(&kernel, 0, 0, 1);
    let id = connection.backend;
    kernel.admit(id, 1, Admit::None);
    kernel.table(&[1 - id]);
    let again = Connection::begin(&mut kernel, 1).complete(&mut kernel);
    assert_eq!((again.client, again.backend), (connection.client, 1 - id));
    holds(&kernel, 1, 0, 0);
    // And the same while nothing has changed: a whole connection, not the rest of the former.
    assert_eq!(again.send(&mut kernel, RST, b""), Action::Redirect);
    let third = Connection::begin(&mut kernel, 1).complete(&mut kernel);
    assert_eq!(third.client, again.client);
    holds(&kernel, 1, 0, 0);
}

both_families!(an_expired_flow_gives_its_port_and_way_back);
fn an_expired_flow_gives_its_port_and_way_back() {
    let mut kernel = Kernel::with(1, 20_000..=20_000, 4096);
    let sweep = Sweep::new(&kernel, 0);
    let first = Connection::open(&mut kernel, 1);
    assert_eq!(Connection::try_begin(&mut kernel, 2).err(), Some(Action::Drop), "there is one port only");
    sweep.after(903);
    let second = Connection::open(&mut kernel, 2);
    assert_eq!(second.nat, first.nat);
    assert_eq!(second.reply(&mut kernel, ACK, b"x"), Action::Redirect);
    holds(&kernel, 1, 0, 0);
}
