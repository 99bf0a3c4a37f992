//! Clients that are proxies and announce their own client first (the PROXY protocol), and clients that connect early
//! and say nothing: no backend owes them anything.

use lb_common::abi::ExchangeKind;
use lb_tests::{
    both_families,
    frame::{ACK, FIN, RST},
    kernel::Action,
};

use crate::evidence::{BAD, GET, OK, Talk, plain};

const V1: &[u8] = b"PROXY TCP4 198.51.100.7 203.0.113.1 40000 80\r\n";
const V1_UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x07\xcb\0\x71\x01\x9c\x40\0\x50";

fn kinds(talk: &mut Talk) -> Vec<u16> {
    talk.kernel.heads().iter().map(|record| record.kind).collect()
}

/// The end of a connection by the backend, after the client's last word.
fn ends(talk: &mut Talk, flags: u8) {
    assert_eq!(talk.connection.reply(&mut talk.kernel, ACK, b""), Action::Redirect);
    assert_eq!(talk.connection.reply(&mut talk.kernel, flags | ACK, b""), Action::Redirect);
}

both_families!(a_line_of_a_proxy_is_no_request);
fn a_line_of_a_proxy_is_no_request() {
    for preamble in [V1, V1_UNKNOWN, V2] {
        for flags in [FIN, RST] {
            let mut talk = Talk::new();
            talk.ask(preamble);
            ends(&mut talk, flags);
            assert_eq!(kinds(&mut talk), [0u16; 0], "{preamble:?}");
        }
    }
}

both_families!(a_request_behind_a_line_of_a_proxy_is_no_evidence);
/// The connection is opaque, as TLS is: the answer says that the backend lives, and nothing else.
fn a_request_behind_a_line_of_a_proxy_is_no_evidence() {
    for (first, second) in [
        ([V1, GET].concat(), None),
        (V1.to_vec(), Some(GET)),
        (V2.to_vec(), Some(GET)),
        ([V2, GET].concat(), None),
    ] {
        let mut talk = Talk::new();
        talk.ask(&first);
        if let Some(second) = second {
            talk.ask(second);
        }
        talk.respond(BAD);
        assert_eq!(kinds(&mut talk), [ExchangeKind::Answered as u16], "{first:?}");
        talk.ask(GET);
        ends(&mut talk, RST);
        assert_eq!(kinds(&mut talk), [0u16; 0], "{first:?}");
    }
}

both_families!(a_line_in_pieces_owes_nothing);
fn a_line_in_pieces_owes_nothing() {
    for at in [1, 3, 5, 6, 11, 20] {
        let mut talk = Talk::new();
        talk.ask(&V1[..at]);
        talk.ask(&V1[at..]);
        ends(&mut talk, FIN);
        assert_eq!(kinds(&mut talk), [0u16; 0], "{at}");
    }
}

both_families!(a_silent_connection_owes_nothing);
fn a_silent_connection_owes_nothing() {
    for flags in [FIN, RST] {
        let mut talk = Talk::new();
        ends(&mut talk, flags);
        assert_eq!(kinds(&mut talk), [0u16; 0]);
    }
}

both_families!(a_method_that_looks_like_a_line_is_a_request);
fn a_method_that_looks_like_a_line_is_a_request() {
    let mut talk = Talk::new();
    for method in ["PROXIES", "PROX", "PROPFIND", "PRO"] {
        talk.ask(format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        talk.respond(OK);
    }
    assert_eq!(talk.heads(), plain(&["200", "200", "200", "200"]));
}
