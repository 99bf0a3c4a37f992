//! The life of a connection, from handshake to the last acknowledgement.

use std::net::SocketAddr;

use lb_common::reason::Reason;
use lb_core::io::{Admit, BackendId, ServiceId, Step};
use lb_tests::{
    both_families,
    frame::{ACK, FIN, RST, SYN, Tcp, checksums},
    kernel::{Action, Kernel, NAT_PORTS, ServiceSettings, backend_address, backend_mac, vip},
};

use crate::steering::{backend_of, client};

pub(crate) const CLIENT_ISN: u32 = 0xffff_fff0; // Wraps soon.
pub(crate) const BACKEND_ISN: u32 = 0xffff_ffe0;

/// Both ends of one connection through the program.
pub(crate) struct Connection {
    pub(crate) client: SocketAddr,
    /// Our side as the backend sees it.
    pub(crate) nat: SocketAddr,
    pub(crate) backend: u16,
    pub(crate) client_next: u32,
    pub(crate) backend_next: u32,
}

impl Connection {
    /// SYN only.
    pub(crate) fn begin(kernel: &mut Kernel, n: u16) -> Self {
        Self::try_begin(kernel, n).expect("a connection begins")
    }

    /// The error is the action for a SYN that was not sent on.
    pub(crate) fn try_begin(kernel: &mut Kernel, n: u16) -> Result<Self, Action> {
        let syn = Tcp::new(client(n), vip(), SYN).numbers(CLIENT_ISN, 0);
        let (action, out) = kernel.run(&syn.bytes());
        if action != Action::Redirect {
            return Err(action);
        }
        let nat = Tcp::read(&out).expect("tcp").src;
        Ok(Self {
            client: client(n),
            nat,
            backend: backend_of(&out),
            client_next: CLIENT_ISN.wrapping_add(1),
            backend_next: BACKEND_ISN.wrapping_add(1),
        })
    }

    pub(crate) fn open(kernel: &mut Kernel, n: u16) -> Self {
        Self::begin(kernel, n).complete(kernel)
    }

    /// The rest of the handshake.
    pub(crate) fn complete(self, kernel: &mut Kernel) -> Self {
        self.answer(kernel);
        assert_eq!(self.send(kernel, ACK, b""), Action::Redirect);
        self
    }

    /// The backend's SYN-ACK, seen by the client as the VIP's.
    fn answer(&self, kernel: &mut Kernel) {
        let reply = Tcp::new(backend_address(self.backend), self.nat, SYN | ACK)
            .numbers(BACKEND_ISN, CLIENT_ISN.wrapping_add(1));
        let (action, out) = kernel.run(&reply.bytes());
        // The client's SYN came in by the interface that test runs come from.
        assert_eq!(action, Action::Redirect);
        let got = Tcp::read(&out).expect("tcp");
        assert_eq!((got.src, got.dst), (vip(), self.client));
        let syn = Tcp::new(self.client, vip(), SYN);
        assert_eq!((got.to_mac, got.from_mac), (syn.from_mac, syn.to_mac), "back by the way it came");
        assert_eq!((got.seq, got.ack, got.ttl), (reply.seq, reply.ack, reply.ttl - 1));
        assert_eq!(checksums(&out), (true, true));
    }

    /// A segment of the client at its present numbers, which do not move.
    pub(crate) fn send(&self, kernel: &mut Kernel, flags: u8, payload: &[u8]) -> Action {
        let sent =
            Tcp::new(self.client, vip(), flags).numbers(self.client_next, self.backend_next).payload(payload);
        let (action, out) = kernel.run(&sent.bytes());
        let got = Tcp::read(&out).expect("tcp");
        // Not where a reset answers it.
        if action == Action::Redirect && got.src != vip() {
            let wanted = Tcp {
                to_mac: backend_mac(self.backend),
                from_mac: lb_tests::kernel::OWN_MAC,
                src: self.nat,
                dst: backend_address(self.backend),
                ttl: sent.ttl - 1,
                ..sent
            };
            assert_eq!(got, wanted);
            assert_eq!(checksums(&out), (true, true));
        }
        action
    }

    /// The same for the backend.
    pub(crate) fn reply(&self, kernel: &mut Kernel, flags: u8, payload: &[u8]) -> Action {
        let sent = Tcp::new(backend_address(self.backend), self.nat, flags)
            .numbers(self.backend_next, self.client_next)
            .payload(payload);
        let (action, out) = kernel.run(&sent.bytes());
        if action == Action::Redirect {
            let got = Tcp::read(&out).expect("tcp");
            assert_eq!((got.src, got.dst, got.payload.as_slice()), (vip(), self.client, payload));
            assert_eq!((got.seq, got.ack), (sent.seq, sent.ack));
            assert_eq!(checksums(&out), (true, true));
        }
        action
    }
}

fn established(kernel: &mut Kernel) -> u64 {
    kernel.counters().backends.iter().map(|(_, counters)| counters.established).sum()
}

both_families!(as_many_as_there_may_be_find_a_place);
/// Nobody is there who would give way.
fn as_many_as_there_may_be_find_a_place() {
    const FLOWS: u16 = 32_768;
    let mut kernel = Kernel::with(8, NAT_PORTS, FLOWS.into());
    let refused = (0..FLOWS).filter(|n| match Connection::try_begin(&mut kernel, *n) {
        Ok(connection) => {
            connection.complete(&mut kernel);
            false
        }
        Err(_) => true,
    });
    assert_eq!(refused.count(), 0, "are refused, of {FLOWS}");
    assert_eq!(kernel.flows().counts().established, u64::from(FLOWS));
    assert_eq!(kernel.flows().inconsistencies(), Vec::<String>::new());
}

both_families!(opens_carries_and_closes);
fn opens_carries_and_closes() {
    let mut kernel = Kernel::new(3);
    let mut connection = Connection::open(&mut kernel, 1);
    assert_eq!(established(&mut kernel), 1);
    assert_eq!(connection.send(&mut kernel, ACK, b"hello"), Action::Redirect);
    connection.client_next = connection.client_next.wrapping_add(5);
    assert_eq!(connection.reply(&mut kernel, ACK, b"world"), Action::Redirect);
    connection.backend_next = connection.backend_next.wrapping_add(5);
    // The client closes, the backend still sends, then closes too.
    assert_eq!(connection.send(&mut kernel, ACK | FIN, b""), Action::Redirect);
    connection.client_next = connection.client_next.wrapping_add(1);
    assert_eq!(connection.reply(&mut kernel, ACK, b"half-closed"), Action::Redirect);
    connection.backend_next = connection.backend_next.wrapping_add(11);
    assert_eq!(connection.reply(&mut kernel, ACK | FIN, b""), Action::Redirect);
    // An acknowledgement that does not cover the FIN ends nothing.
    assert_eq!(connection.send(&mut kernel, ACK, b""), Action::Redirect);
    assert_eq!(connection.reply(&mut kernel, ACK | FIN, b""), Action::Redirect, "retransmitted");
    connection.backend_next = connection.backend_next.wrapping_add(1);
    assert_eq!(connection.send(&mut kernel, ACK, b""), Action::Redirect);
    // Now it is over, and forgotten.
    assert_eq!(connection.send(&mut kernel, ACK, b""), Action::Tx, "answered by a reset");
    assert_eq!(connection.reply(&mut kernel, ACK, b""), Action::Pass, "no business of ours");
}

both_families!(a_reset_ends_it_from_either_side);
fn a_reset_ends_it_from_either_side() {
    let mut kernel = Kernel::new(1);
    let connection = Connection::open(&mut kernel, 1);
    assert_eq!(connection.send(&mut kernel, RST, b""), Action::Redirect);
    assert_eq!(connection.send(&mut kernel, ACK, b""), Action::Tx);
    assert_eq!(connection.reply(&mut kernel, ACK, b""), Action::Pass);

    let connection = Connection::open(&mut kernel, 2);
    assert_eq!(connection.reply(&mut kernel, RST | ACK, b""), Action::Redirect);
    assert_eq!(connection.reply(&mut kernel, ACK, b""), Action::Pass);
    assert_eq!(connection.send(&mut kernel, ACK, b""), Action::Tx);
}

both_families!(a_refusal_reaches_the_client);
fn a_refusal_reaches_the_client() {
    let mut kernel = Kernel::new(1);
    let connection = Connection::begin(&mut kernel, 1);
    assert_eq!(connection.reply(&mut kernel, RST | ACK, b""), Action::Redirect);
    assert_eq!(established(&mut kernel), 0);
    assert_eq!(connection.reply(&mut kernel, RST | ACK, b""), Action::Pass, "forgotten");
}

both_families!(only_the_right_acknowledgement_completes_a_handshake);
fn only_the_right_acknowledgement_completes_a_handshake() {
    let mut kernel = Kernel::new(1);
    let mut connection = Connection::begin(&mut kernel, 1);
    assert_eq!(connection.send(&mut kernel, ACK, b""), Action::Redirect, "before the SYN-ACK");
    assert_eq!(established(&mut kernel), 0);
    connection.answer(&mut kernel);
    connection.backend_next = connection.backend_next.wrapping_add(77);
    assert_eq!(connection.send(&mut kernel, ACK, b""), Action::Redirect, "a guess");
    assert_eq!(established(&mut kernel), 0);
    connection.backend_next = connection.backend_next.wrapping_sub(77);
    assert_eq!(connection.send(&mut kernel, ACK, b""), Action::Redirect);
    assert_eq!(established(&mut kernel), 1);
}

both_families!(established_flows_outlive_an_ejection_but_not_a_removal);
fn established_flows_outlive_an_ejection_but_not_a_removal() {
    let mut kernel = Kernel::new(2);
    let connection = Connection::open(&mut kernel, 1);
    let (id, other) = (connection.backend, 1 - connection.backend);
    kernel.admit(id, 1, Admit::None);
    kernel.table(&[other]);
    assert_eq!(connection.send(&mut kernel, ACK, b"x"), Action::Redirect, "to the same backend");

    kernel.apply(&Step::RemoveBackend { id: BackendId(id) });
    assert_eq!(connection.send(&mut kernel, ACK, b"x"), Action::Tx, "answered by a reset");
    assert_eq!(kernel.drops(Reason::NoFlow), 1);
}

both_families!(a_client_that_begins_again_on_an_ejected_backend_is_steered_elsewhere);
fn a_client_that_begins_again_on_an_ejected_backend_is_steered_elsewhere() {
    let mut kernel = Kernel::new(2);
    let connection = Connection::open(&mut kernel, 1);
    kernel.admit(connection.backend, 1, Admit::None);
    kernel.table(&[1 - connection.backend]);
    // Its backend forgot the connection, say in a reboot: it would take the SYN for a new one. The program
    // challenges the client, and a client that really begins again answers with a reset.
    let Connection { client, client_next, backend_next, .. } = connection;
    let syn = Tcp::new(client, vip(), SYN).numbers(CLIENT_ISN.wrapping_add(7777), 0);
    let (action, out) = kernel.run(&syn.bytes());
    let got = Tcp::read(&out).expect("tcp");
    assert_eq!((action, checksums(&out)), (Action::Tx, (true, true)));
    assert_eq!((got.src, got.dst, got.flags), (vip(), client, ACK));
    assert_eq!((got.seq, got.ack), (backend_next, client_next));
    assert_eq!(kernel.drops(Reason::Ejected), 1);
    assert_eq!(connection.send(&mut kernel, RST, b""), Action::Redirect);
    let again = Connection::begin(&mut kernel, 1);
    assert_eq!(again.backend, 1 - connection.backend);
}

both_families!(an_old_handshake_takes_no_trial);
fn an_old_handshake_takes_no_trial() {
    let mut kernel = Kernel::new(2);
    let first = Connection::begin(&mut kernel, 1);
    // Ejected and half-open again before the client repeats its SYN, and no budget is left.
    kernel.admit(first.backend, 1, Admit::Trials);
    kernel.table(&[1 - first.backend]);
    kernel.service(lb_core::config::NoBackend::Reset, &[first.backend]);
    let again = Connection::begin(&mut kernel, 1);
    assert_eq!(again.backend, 1 - first.backend);
}

both_families!(a_port_rests_after_its_connection);
fn a_port_rests_after_its_connection() {
    let mut kernel = Kernel::with(1, 20_000..=20_001, 4096);
    let first = Connection::open(&mut kernel, 1);
    assert_eq!(first.send(&mut kernel, RST, b""), Action::Redirect);
    // The other port is taken first; then the tired one rather than none.
    let second = Connection::open(&mut kernel, 2);
    assert_ne!(second.nat.port(), first.nat.port());
    let third = Connection::open(&mut kernel, 3);
    assert_eq!(third.nat.port(), first.nat.port());
    assert_eq!(third.reply(&mut kernel, ACK, b"x"), Action::Redirect);
}

both_families!(a_port_of_a_removed_backend_is_free_at_once);
fn a_port_of_a_removed_backend_is_free_at_once() {
    let mut kernel = Kernel::with(1, 20_000..=20_000, 4096);
    let first = Connection::open(&mut kernel, 1);
    kernel.admit(0, 2, Admit::All);
    let second = Connection::open(&mut kernel, 2);
    assert_eq!(second.nat, first.nat);
    assert_eq!(first.send(&mut kernel, ACK, b"x"), Action::Tx, "the former owner is answered by a reset");
    assert_eq!(second.send(&mut kernel, ACK, b"x"), Action::Redirect, "and takes nothing with it");
    assert_eq!(second.reply(&mut kernel, ACK, b"x"), Action::Redirect);
}

both_families!(a_port_that_is_a_vips_is_never_used);
fn a_port_that_is_a_vips_is_never_used() {
    // A VIP on the node's own address, inside the NAT range.
    let mut kernel = Kernel::with(1, 20_000..=20_003, 4096);
    let own = SocketAddr::from((lb_tests::kernel::nat_source(), 20_002));
    kernel.serve(ServiceSettings { id: ServiceId(9), vip: own, ..ServiceSettings::default() });
    let mut ports: Vec<u16> = Vec::new();
    for n in 0..60 {
        if let Ok(begun) = Connection::try_begin(&mut kernel, n) {
            ports.push(begun.complete(&mut kernel).nat.port());
        }
    }
    ports.sort_unstable();
    assert_eq!(ports, [20_000, 20_001, 20_003]);
}

both_families!(the_next_owner_of_an_id_gets_none_of_the_former_flows);
fn the_next_owner_of_an_id_gets_none_of_the_former_flows() {
    let mut kernel = Kernel::new(1);
    let connection = Connection::open(&mut kernel, 1);
    kernel.admit(0, 2, Admit::All);
    assert_eq!(connection.send(&mut kernel, ACK, b"x"), Action::Tx, "a reset");
    let begun = Connection::begin(&mut kernel, 1);
    assert_eq!(begun.client, connection.client, "the client may begin again at once");
}

both_families!(a_syn_on_a_closing_tuple_decides_afresh);
fn a_syn_on_a_closing_tuple_decides_afresh() {
    let mut kernel = Kernel::new(2);
    let mut connection = Connection::open(&mut kernel, 1);
    assert_eq!(connection.send(&mut kernel, ACK | FIN, b""), Action::Redirect);
    connection.client_next = connection.client_next.wrapping_add(1);
    assert_eq!(connection.reply(&mut kernel, ACK | FIN, b""), Action::Redirect);
    let id = connection.backend;
    kernel.admit(id, 1, Admit::None);
    kernel.table(&[1 - id]);
    let again = Connection::begin(&mut kernel, 1);
    assert_eq!(again.backend, 1 - id);
}

both_families!(a_syn_on_a_living_connection_stays_with_it);
fn a_syn_on_a_living_connection_stays_with_it() {
    let mut kernel = Kernel::new(2);
    let connection = Connection::open(&mut kernel, 1);
    let (_, out) = kernel.run(&Tcp::new(connection.client, vip(), SYN).bytes());
    let got = Tcp::read(&out).expect("tcp");
    assert_eq!((got.src, got.dst), (connection.nat, backend_address(connection.backend)));
}
