//! Handshakes that their backend refuses or ignores continue with another backend.

use std::{thread, time::Duration};

use lb_common::abi::ExchangeKind;
use lb_tests::{
    both_families,
    frame::{ACK, RST, SYN, Tcp},
    kernel::{Action, Kernel, backend_address, vip},
};

use crate::connections::{CLIENT_ISN, Connection};

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
    let records: Vec<_> = kernel.heads().iter().map(|record| (record.kind(), record.flags)).collect();
    assert_eq!(records, [(Some(ExchangeKind::ConnectRefused), 0)]);
    let next = again(&mut kernel, &connection);
    assert_ne!(next, connection.backend);
    let counters = kernel.counters();
    let of = |id: u16| counters.backends.iter().find(|(of, _)| of.0 == id).expect("it is known").1;
    assert_eq!((of(connection.backend).redispatched, of(next).connections), (1, 1));
    assert_eq!(kernel.flows().counts().handshakes, 1);
    assert_eq!(kernel.flows().inconsistencies(), [""; 0]);
}

both_families!(without_redispatch_the_client_gets_the_reset);
fn without_redispatch_the_client_gets_the_reset() {
    let mut kernel = Kernel::new(4);
    let connection = Connection::begin(&mut kernel, 1);
    assert_eq!(connection.reply(&mut kernel, RST | ACK, b""), Action::Redirect);
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
    let records: Vec<_> =
        kernel.heads().iter().map(|record| (record.kind(), record.flags, record.backend)).collect();
    assert_eq!(records, [(Some(ExchangeKind::ConnectTimeout), 0, connection.backend)]);
}

both_families!(an_answered_handshake_stays);
fn an_answered_handshake_stays() {
    let (mut kernel, connection) = begun();
    let answer = Tcp::new(backend_address(connection.backend), connection.nat, SYN | ACK)
        .numbers(9, CLIENT_ISN.wrapping_add(1));
    assert_eq!(kernel.run(&answer.bytes()).0, Action::Redirect);
    thread::sleep(Duration::from_millis(800));
    assert_eq!(again(&mut kernel, &connection), connection.backend);
    assert_eq!(connection.reply(&mut kernel, RST | ACK, b""), Action::Redirect, "it may change its mind");
}

both_families!(the_backend_that_answered_last_is_next);
fn the_backend_that_answered_last_is_next() {
    let mut kernel = Kernel::new(4);
    kernel.redispatch();
    let answering = Connection::open(&mut kernel, 0).backend;
    // Any backend may refuse: then the one that is known to answer gets the SYN.
    for n in 1..40 {
        let connection = Connection::begin(&mut kernel, n);
        if connection.backend != answering {
            connection.reply(&mut kernel, RST | ACK, b"");
            assert_eq!(again(&mut kernel, &connection), answering, "client {n}");
        }
    }
}
