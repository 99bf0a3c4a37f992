//! FIN, RST, SYN and ACK count at the exact number: who does not see a connection cannot end it.

use lb_common::abi::ExchangeKind;
use lb_core::io::Admit;
use lb_tests::{
    both_families,
    frame::{ACK, FIN, PSH, RST, SYN, Tcp},
    kernel::{Action, Kernel, backend_address, vip},
    noise::Noise,
};

use crate::{
    connections::Connection,
    evidence::{GET, OK, Talk, plain},
};

/// A segment of somebody who knows the client's address and port.
fn blind(talk: &mut Talk, flags: u8, (seq, ack): (u32, u32)) -> Action {
    let forged = Tcp::new(talk.connection.client, vip(), flags).numbers(seq, ack);
    talk.kernel.run(&forged.bytes()).0
}

/// The connection lives, and the next exchange is counted.
fn lives(mut talk: Talk) {
    assert_eq!(talk.kernel.flows().counts().established, 1);
    talk.ask(GET);
    talk.respond(OK);
    assert_eq!(talk.heads(), plain(&["200"]));
}

both_families!(blind_segments_end_nothing);
fn blind_segments_end_nothing() {
    let mut noise = Noise::new(14);
    for flags in [RST, RST | ACK, FIN | ACK, FIN | PSH | ACK, ACK] {
        let mut talk = Talk::new();
        for _ in 0..200 {
            let numbers = (noise.word() as u32, noise.word() as u32);
            assert_eq!(blind(&mut talk, flags, numbers), Action::Redirect, "the backend judges");
        }
        lives(talk);
    }
}

both_families!(numbers_near_the_right_one_end_nothing);
fn numbers_near_the_right_one_end_nothing() {
    for flags in [RST, RST | ACK, FIN | ACK] {
        for distance in [1u32, 2, 1000, 60_000, 1 << 24, 1 << 31] {
            let mut talk = Talk::new();
            let (seq, ack) = (talk.connection.client_next, talk.connection.backend_next);
            blind(&mut talk, flags, (seq.wrapping_add(distance), ack));
            blind(&mut talk, flags, (seq.wrapping_sub(distance).wrapping_sub(2), ack));
            lives(talk);
        }
    }
}

both_families!(a_blind_fin_and_a_syn_end_nothing);
fn a_blind_fin_and_a_syn_end_nothing() {
    let mut talk = Talk::new();
    let mut noise = Noise::new(15);
    for _ in 0..50 {
        let (seq, ack) = (noise.word() as u32, noise.word() as u32);
        blind(&mut talk, FIN | ACK, (seq, ack));
        assert_eq!(blind(&mut talk, SYN, (seq, 0)), Action::Redirect, "to the same backend");
    }
    lives(talk);
}

both_families!(a_blind_syn_ends_nothing_when_the_backend_is_out);
fn a_blind_syn_ends_nothing_when_the_backend_is_out() {
    let mut talk = Talk::new();
    talk.kernel.admit(0, 1, Admit::None);
    let Connection { client, client_next, backend_next, .. } = talk.connection;
    for _ in 0..50 {
        let syn = Tcp::new(client, vip(), SYN).numbers(7777, 0);
        let (action, out) = talk.kernel.run(&syn.bytes());
        assert_eq!(action, Action::Tx, "a challenge");
        let challenge = Tcp::read(&out).expect("tcp");
        assert_eq!((challenge.src, challenge.dst, challenge.flags), (vip(), client, ACK));
        assert_eq!((challenge.seq, challenge.ack), (backend_next, client_next));
    }
    lives(talk);
}

both_families!(an_acknowledgement_of_what_was_never_sent_changes_nothing);
fn an_acknowledgement_of_what_was_never_sent_changes_nothing() {
    for distance in [1u32, 500, 1 << 31, (1u32 << 24).wrapping_add(1).wrapping_neg()] {
        let mut talk = Talk::new();
        let Connection { client, client_next, backend_next, .. } = talk.connection;
        let guess = Tcp::new(client, vip(), ACK | PSH | FIN)
            .numbers(client_next, backend_next.wrapping_add(distance))
            .payload(GET);
        assert_eq!(talk.kernel.run(&guess.bytes()).0, Action::Redirect);
        talk.connection.reply(&mut talk.kernel, ACK | FIN, b"");
        assert_eq!(talk.heads(), [], "nothing was asked");
    }
}

both_families!(a_reset_at_the_number_that_the_backend_expects_ends_it);
fn a_reset_at_the_number_that_the_backend_expects_ends_it() {
    // Of a client that is gone: it answers a segment of the backend and takes its number.
    let mut talk = Talk::new();
    let first = talk.connection.client_next;
    talk.ask(GET);
    blind(&mut talk, RST, (first, 0));
    assert_eq!(talk.kernel.flows().counts().time_wait, 1, "the backend has acknowledged up to there");
    let mut talk = Talk::new();
    talk.ask(GET);
    talk.respond(OK);
    blind(&mut talk, RST, (first, 0));
    assert_eq!(talk.kernel.flows().counts().established, 1, "and now more");
    blind(&mut talk, RST | ACK, (first.wrapping_add(GET.len() as u32), 0));
    assert_eq!(talk.kernel.flows().counts().time_wait, 1);
}

both_families!(a_half_open_handshake_ends_at_the_exact_number);
fn a_half_open_handshake_ends_at_the_exact_number() {
    let mut kernel = Kernel::new(1);
    let begun = Connection::begin(&mut kernel, 1);
    for seq in [0, begun.client_next.wrapping_add(1), begun.client_next.wrapping_sub(1)] {
        kernel.run(&Tcp::new(begun.client, vip(), RST).numbers(seq, 0).bytes());
        kernel.run(&Tcp::new(backend_address(0), begun.nat, RST | ACK).numbers(0, seq).bytes());
        assert_eq!(kernel.flows().counts().handshakes, 1);
    }
    assert_eq!(begun.send(&mut kernel, RST, b""), Action::Redirect);
    assert_eq!(kernel.flows().counts().handshakes, 0);
}

both_families!(a_reset_of_a_backend_counts_at_the_exact_number);
fn a_reset_of_a_backend_counts_at_the_exact_number() {
    for (distance, ends) in [(0u32, true), (1, false), (1u32.wrapping_neg(), false), (1 << 20, false)] {
        let mut talk = Talk::new();
        talk.ask(GET);
        talk.connection.backend_next = talk.connection.backend_next.wrapping_add(distance);
        assert_eq!(talk.connection.reply(&mut talk.kernel, RST | ACK, b""), Action::Redirect);
        talk.connection.backend_next = talk.connection.backend_next.wrapping_sub(distance);
        let records: Vec<_> = talk.kernel.heads().iter().map(|record| record.kind()).collect();
        let wanted = if ends { vec![Some(ExchangeKind::Reset)] } else { vec![] };
        assert_eq!(
            (records, talk.kernel.flows().counts().time_wait),
            (wanted, u64::from(ends)),
            "{distance}"
        );
    }
    // A backend that has sent a FIN and is gone answers a segment that has not seen it.
    let mut talk = Talk::new();
    assert_eq!(talk.connection.reply(&mut talk.kernel, FIN | ACK, b""), Action::Redirect);
    assert_eq!(talk.connection.reply(&mut talk.kernel, RST, b""), Action::Redirect);
    assert_eq!(talk.kernel.flows().counts().time_wait, 1);
}

both_families!(a_fin_that_overtakes_data_counts_once_it_is_acknowledged);
fn a_fin_that_overtakes_data_counts_once_it_is_acknowledged() {
    let mut talk = Talk::new();
    let Connection { client, nat, client_next, backend_next, .. } = talk.connection;
    let end = client_next.wrapping_add(GET.len() as u32);
    let mut run = |tcp: Tcp| assert_eq!(talk.kernel.run(&tcp.bytes()).0, Action::Redirect);
    let from_client = |flags, seq, ack| Tcp::new(client, vip(), flags).numbers(seq, ack);
    let from_backend = |flags, seq, ack| Tcp::new(backend_address(0), nat, flags).numbers(seq, ack);
    let last = backend_next.wrapping_add(OK.len() as u32);
    run(from_client(FIN | ACK, end, backend_next));
    run(from_client(ACK | PSH, client_next, backend_next).payload(GET));
    run(from_backend(FIN | ACK, last, end.wrapping_add(1)));
    run(from_backend(ACK, backend_next, end.wrapping_add(1)).payload(OK));
    run(from_client(ACK, end.wrapping_add(1), last));
    assert_eq!(talk.kernel.flows().counts().established, 1, "nobody has the backend's FIN");
    let mut run = |tcp: Tcp| assert_eq!(talk.kernel.run(&tcp.bytes()).0, Action::Redirect);
    run(from_client(ACK, end.wrapping_add(1), last.wrapping_add(1)));
    assert_eq!(talk.kernel.flows().counts().time_wait, 1);
    assert_eq!(talk.heads(), plain(&["200"]));
}

both_families!(an_acknowledgement_that_overtakes_its_request_moves_nothing);
fn an_acknowledgement_that_overtakes_its_request_moves_nothing() {
    let mut talk = Talk::new();
    talk.ask(GET);
    talk.respond(OK);
    let mut ahead = Tcp::new(talk.connection.client, vip(), ACK)
        .numbers(talk.connection.client_next.wrapping_add(GET.len() as u32), talk.connection.backend_next);
    assert_eq!(talk.kernel.run(&ahead.bytes()).0, Action::Redirect);
    talk.ask(GET);
    talk.respond(OK);
    ahead.ack = talk.connection.backend_next;
    assert_eq!(talk.kernel.run(&ahead.bytes()).0, Action::Redirect);
    assert_eq!(talk.heads(), plain(&["200", "200"]));
}

both_families!(a_backend_that_has_lost_the_connection_begins_it_again);
fn a_backend_that_has_lost_the_connection_begins_it_again() {
    let mut talk = Talk::new();
    talk.ask(GET);
    talk.respond(OK);
    assert_eq!(talk.heads(), plain(&["200"]));
    let Connection { client, nat, .. } = talk.connection;
    // A late copy of the first SYN-ACK changes nothing.
    let copy = Tcp::new(backend_address(0), nat, SYN | ACK);
    let first =
        copy.clone().numbers(crate::connections::BACKEND_ISN, crate::connections::CLIENT_ISN.wrapping_add(1));
    assert_eq!(talk.kernel.run(&first.bytes()).0, Action::Redirect);
    lives_on(&mut talk);
    assert_eq!(talk.kernel.run(&Tcp::new(client, vip(), SYN).numbers(500, 0).bytes()).0, Action::Redirect);
    assert_eq!(talk.kernel.run(&copy.numbers(900, 501).bytes()).0, Action::Redirect);
    (talk.connection.client_next, talk.connection.backend_next) = (501, 901);
    assert_eq!(talk.connection.send(&mut talk.kernel, ACK, b""), Action::Redirect);
    for _ in 0..2 {
        lives_on(&mut talk);
    }
    assert_eq!(talk.connection.send(&mut talk.kernel, RST, b""), Action::Redirect);
    assert_eq!(talk.kernel.flows().counts().time_wait, 1);
}

fn lives_on(talk: &mut Talk) {
    talk.ask(GET);
    talk.respond(OK);
    assert_eq!(talk.heads(), plain(&["200"]));
}
