//! TCP fast open: a backend answers before the client's acknowledgement has passed (RFC 7413).

use lb_tests::{
    both_families,
    frame::{ACK, FIN, PSH, SYN, Tcp},
    kernel::{Action, Kernel, backend_address, vip},
};

use crate::{
    connections::{BACKEND_ISN, CLIENT_ISN, Connection},
    evidence::{BAD, GET, OK, Talk, plain},
    steering::client,
};

/// A connection whose request came with the SYN, and whose backend has sent its SYN-ACK and `answer`.
fn answered(answer: &[u8], flags: u8) -> Talk {
    let mut kernel = Kernel::new(1);
    let syn = Tcp::new(client(1), vip(), SYN).numbers(CLIENT_ISN, 0).payload(GET);
    let (action, out) = kernel.run(&syn.bytes());
    assert_eq!(action, Action::Redirect);
    let nat = Tcp::read(&out).expect("tcp").src;
    let client_next = CLIENT_ISN.wrapping_add(1).wrapping_add(GET.len() as u32);
    let connection = Connection {
        client: client(1),
        nat,
        backend: 0,
        client_next,
        backend_next: BACKEND_ISN.wrapping_add(1),
    };
    let mut talk = Talk { kernel, connection };
    syn_ack(&mut talk);
    assert_eq!(talk.connection.reply(&mut talk.kernel, ACK | PSH | flags, answer), Action::Redirect);
    let end = u32::from(flags & FIN != 0);
    talk.connection.backend_next = talk.connection.backend_next.wrapping_add(answer.len() as u32 + end);
    talk
}

fn syn_ack(talk: &mut Talk) {
    let Connection { nat, client_next, .. } = talk.connection;
    let syn_ack = Tcp::new(backend_address(0), nat, SYN | ACK).numbers(BACKEND_ISN, client_next);
    assert_eq!(talk.kernel.run(&syn_ack.bytes()).0, Action::Redirect);
}

fn established(talk: &Talk) -> u64 {
    talk.kernel.flows().counts().established
}

/// An acknowledgement that covers this much of what the backend has sent less.
fn acknowledge(talk: &mut Talk, less: u32) {
    let Connection { client, client_next, backend_next, .. } = talk.connection;
    let ack = Tcp::new(client, vip(), ACK).numbers(client_next, backend_next.wrapping_sub(less));
    assert_eq!(talk.kernel.run(&ack.bytes()).0, Action::Redirect);
}

both_families!(any_acknowledgement_of_early_data_completes_the_handshake);
fn any_acknowledgement_of_early_data_completes_the_handshake() {
    // The SYN-ACK alone, a part of the answer, all of it.
    for less in [OK.len() as u32, OK.len() as u32 - 1, 5, 0] {
        let mut talk = answered(OK, 0);
        assert_eq!(established(&talk), 0);
        acknowledge(&mut talk, less);
        assert_eq!(established(&talk), 1, "{less}");
        talk.ask(GET);
        talk.respond(BAD);
        assert_eq!(talk.heads(), plain(&["500"]), "evidence as usual: {less}");
    }
}

both_families!(no_other_acknowledgement_does);
fn no_other_acknowledgement_does() {
    // Beyond what was sent, the SYN itself, far before.
    for less in [u32::MAX, OK.len() as u32 + 1, 1 << 20, 1 << 31] {
        let mut talk = answered(OK, 0);
        acknowledge(&mut talk, less);
        assert_eq!(established(&talk), 0, "{less}");
    }
}

both_families!(a_repeated_syn_ack_takes_nothing_back);
fn a_repeated_syn_ack_takes_nothing_back() {
    let mut talk = answered(OK, 0);
    talk.connection.backend_next = BACKEND_ISN.wrapping_add(1);
    syn_ack(&mut talk);
    talk.connection.backend_next = talk.connection.backend_next.wrapping_add(OK.len() as u32);
    acknowledge(&mut talk, 0);
    assert_eq!(established(&talk), 1);
}

both_families!(a_backend_may_close_before_the_handshake_is_complete);
fn a_backend_may_close_before_the_handshake_is_complete() {
    for less in [0, 1, OK.len() as u32 + 1] {
        let mut talk = answered(OK, FIN);
        acknowledge(&mut talk, less);
        assert_eq!(established(&talk), 1, "{less}");
        acknowledge(&mut talk, 0);
        assert_eq!(talk.connection.send(&mut talk.kernel, ACK | FIN, b""), Action::Redirect);
        talk.connection.client_next = talk.connection.client_next.wrapping_add(1);
        assert_eq!(talk.connection.reply(&mut talk.kernel, ACK, b""), Action::Redirect);
        let counts = talk.kernel.flows().counts();
        assert_eq!((counts.established, counts.time_wait), (0, 1), "both ends have closed: {less}");
    }
}
