//! Requests that the backend cannot have, or whose answer the client holds up, convict no backend.

use std::{
    collections::{BTreeMap, HashSet},
    thread,
    time::Duration,
};

use lb_common::abi::ExchangeKind;
use lb_core::{engine::Timeouts, io::L4Failure, time::Millis};
use lb_tests::{
    both_families,
    frame::{ACK, FIN, PSH, RST, SYN, Tcp},
    kernel::{Action, Kernel, SERVICE, backend_address, vip},
};
use lb_userspace::dataplane::bpf::{Limits, Now};

use crate::{
    connections::{BACKEND_ISN, CLIENT_ISN, Connection},
    evidence::{BAD, GET, OK, Talk},
    failures::HELLO,
};

/// How many exchanges the scanner would report.
fn timed_out(talk: &Talk) -> usize {
    thread::sleep(Duration::from_millis(60));
    let limits: Limits = BTreeMap::from([(SERVICE, Timeouts { connect: Millis(0), response: Millis(50) })]);
    let scan = talk.kernel.timeout_scanner().scan(&limits, Some(&HashSet::new()), Now::read());
    assert!(scan.new.iter().all(|found| found.failure == L4Failure::ResponseTimeout));
    scan.new.len()
}

/// The backend acknowledges so many bytes of what the client has sent.
fn acknowledges(talk: &mut Talk, all_but: usize) {
    let next = talk.connection.client_next;
    talk.connection.client_next = next.wrapping_sub(all_but as u32);
    assert_eq!(talk.connection.reply(&mut talk.kernel, ACK, b""), Action::Redirect);
    talk.connection.client_next = next;
}

fn sends(talk: &mut Talk, seq: u32, window: u16, payload: &[u8]) {
    let sent = Tcp::new(talk.connection.client, vip(), ACK | PSH)
        .numbers(seq, talk.connection.backend_next)
        .payload(payload);
    let mut frame = sent.bytes();
    let tcp = lb_tests::frame::layout(&frame).expect("tcp").tcp;
    frame[tcp + 14..tcp + 16].copy_from_slice(&window.to_be_bytes());
    lb_tests::frame::set_checksums(&mut frame);
    assert_eq!(talk.kernel.run(&frame).0, Action::Redirect);
}

/// Since the request, in the only record. 0: not known.
fn since(talk: &mut Talk) -> u64 {
    let records = talk.kernel.heads();
    let [record] = &records[..] else { panic!("one record, not {}", records.len()) };
    record.since_request_ns
}

both_families!(a_request_that_the_backend_has_not_acknowledged_does_not_time_out);
fn a_request_that_the_backend_has_not_acknowledged_does_not_time_out() {
    for request in [GET, HELLO] {
        let mut talk = Talk::new();
        // It may have had a bad checksum, or too low a TTL, or lie outside the backend's window.
        talk.ask(request);
        assert_eq!(timed_out(&talk), 0);
        acknowledges(&mut talk, 1);
        assert_eq!(timed_out(&talk), 0, "not all of it");
        acknowledges(&mut talk, 0);
        assert_eq!(timed_out(&talk), 1);
        // Nor is its end a failure while it is not acknowledged.
        for end in [RST, FIN | ACK] {
            let mut talk = Talk::new();
            talk.ask(request);
            acknowledges(&mut talk, 1);
            talk.connection.client_next = talk.connection.client_next.wrapping_sub(1);
            talk.connection.reply(&mut talk.kernel, end, b"");
            assert_eq!(talk.kernel.heads().len(), 0);
        }
    }
}

both_families!(a_repeated_request_has_no_time);
fn a_repeated_request_has_no_time() {
    for request in [GET, HELLO] {
        let mut talk = Talk::new();
        let seq = talk.connection.client_next;
        talk.ask(request);
        sends(&mut talk, seq, 0x2000, request);
        acknowledges(&mut talk, 0);
        assert_eq!(timed_out(&talk), 0);
        talk.respond(OK);
        assert_eq!(since(&mut talk), 0);
        assert_eq!(talk.kernel.counters().backends[0].1.ttfb.iter().sum::<u64>(), 0);
    }
    // The next one has one again.
    let mut talk = Talk::new();
    let seq = talk.connection.client_next;
    talk.ask(GET);
    sends(&mut talk, seq, 0x2000, GET);
    talk.respond(OK);
    assert_eq!(since(&mut talk), 0);
    talk.ask(GET);
    talk.respond(OK);
    assert!(since(&mut talk) > 0);
}

both_families!(a_request_behind_a_gap_is_owed_and_timed_nothing);
fn a_request_behind_a_gap_is_owed_and_timed_nothing() {
    let mut talk = Talk::new();
    let seq = talk.connection.client_next;
    sends(&mut talk, seq.wrapping_add(1000), 0x2000, GET);
    assert_eq!(timed_out(&talk), 0);
    talk.connection.reply(&mut talk.kernel, FIN | ACK, b"");
    assert_eq!(talk.kernel.heads().len(), 0);
    // A gap in the middle of a request.
    let mut talk = Talk::new();
    let seq = talk.connection.client_next;
    sends(&mut talk, seq, 0x2000, &GET[..10]);
    sends(&mut talk, seq.wrapping_add(20), 0x2000, &GET[20..]);
    sends(&mut talk, seq.wrapping_add(10), 0x2000, &GET[10..20]);
    talk.connection.client_next = seq.wrapping_add(GET.len() as u32);
    acknowledges(&mut talk, 0);
    assert_eq!(timed_out(&talk), 0);
    talk.respond(BAD);
    assert_eq!(since(&mut talk), 0, "it counts, without a time");
}

both_families!(a_closed_window_has_no_time);
fn a_closed_window_has_no_time() {
    for (before, after) in [(0, 0x2000), (1023, 0x2000), (0x2000, 0)] {
        let mut talk = Talk::new();
        let seq = talk.connection.client_next;
        sends(&mut talk, seq, before, GET);
        talk.connection.client_next = seq.wrapping_add(GET.len() as u32);
        acknowledges(&mut talk, 0);
        let next = talk.connection.client_next;
        sends(&mut talk, next, after, b"");
        assert_eq!(timed_out(&talk), 0, "{before} {after}");
        talk.respond(OK);
        assert_eq!(since(&mut talk), 0);
    }
}

both_families!(windows_are_scaled_as_both_ends_agreed);
fn windows_are_scaled_as_both_ends_agreed() {
    const LINUX: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
    const WINDOWS: [u8; 12] = [2, 4, 5, 0xb4, 1, 3, 3, 7, 1, 1, 4, 2];
    for (offers, answers, timed) in [
        (&LINUX[..], &LINUX[..], true),
        (&WINDOWS, &LINUX, true),
        (&LINUX, &LINUX[..4], false),
        (&LINUX[..4], &LINUX, false),
    ] {
        let mut kernel = Kernel::new(1);
        let client = crate::steering::client(1);
        let mut syn = Tcp::new(client, vip(), SYN).numbers(CLIENT_ISN, 0);
        syn.options = offers.to_vec();
        let nat = Tcp::read(&kernel.run(&syn.bytes()).1).expect("tcp").src;
        let mut answer = Tcp::new(backend_address(0), nat, SYN | ACK);
        answer = answer.numbers(BACKEND_ISN, CLIENT_ISN.wrapping_add(1));
        answer.options = answers.to_vec();
        assert_eq!(kernel.run(&answer.bytes()).0, Action::Redirect);
        let (client_next, backend_next) = (CLIENT_ISN.wrapping_add(1), BACKEND_ISN.wrapping_add(1));
        let mut talk =
            Talk { kernel, connection: Connection { client, nat, backend: 0, client_next, backend_next } };
        sends(&mut talk, client_next, 502, b"");
        sends(&mut talk, client_next, 502, GET);
        talk.connection.client_next = client_next.wrapping_add(GET.len() as u32);
        acknowledges(&mut talk, 0);
        assert_eq!(timed_out(&talk), usize::from(timed), "{offers:?} {answers:?}");
        talk.respond(OK);
        assert_eq!(since(&mut talk) > 0, timed);
    }
}

both_families!(a_client_that_waits_makes_no_success_slow);
fn a_client_that_waits_makes_no_success_slow() {
    let mut talk = Talk::new();
    talk.kernel.count_successes(0);
    talk.ask(GET);
    talk.respond(OK);
    let before = talk.kernel.counters().backends[0].1;
    talk.kernel.forget_heads();
    let seq = talk.connection.client_next;
    sends(&mut talk, seq, 0, GET);
    talk.connection.client_next = seq.wrapping_add(GET.len() as u32);
    thread::sleep(Duration::from_millis(600));
    talk.respond(OK);
    let after = talk.kernel.counters().backends[0].1;
    assert_eq!((talk.kernel.heads().len(), after.heads - before.heads), (0, 1), "it is only counted");
    assert_eq!((after.ttfb, after.untimed), (before.ttfb, before.untimed));
}

both_families!(what_only_repeats_does_not_answer_for_the_backend);
fn what_only_repeats_does_not_answer_for_the_backend() {
    // A client that repeats its request withholds no failure of a backend that has it.
    let mut talk = Talk::new();
    let seq = talk.connection.client_next;
    talk.ask(GET);
    sends(&mut talk, seq, 0x2000, GET);
    talk.connection.reply(&mut talk.kernel, FIN | ACK, b"");
    let kinds: Vec<_> = talk.kernel.heads().iter().map(|record| record.kind()).collect();
    assert_eq!(kinds, [Some(ExchangeKind::NoResponse)]);
}
