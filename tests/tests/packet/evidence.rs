//! Exactly one record for each response, however it is cut into segments.

use lb_common::abi::{ExchangeKind, ExchangeRecord, record_flags};
use lb_tests::{
    both_families,
    frame::{ACK, PSH},
    kernel::{Action, Kernel},
};

use crate::connections::Connection;

pub(crate) const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
pub(crate) const BAD: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";

/// Client and backend take turns; each knows what the other has sent.
pub(crate) struct Talk {
    pub(crate) kernel: Kernel,
    pub(crate) connection: Connection,
}

impl Talk {
    pub(crate) fn new() -> Self {
        let mut kernel = Kernel::new(1);
        let connection = Connection::open(&mut kernel, 1);
        Self { kernel, connection }
    }

    pub(crate) fn ask(&mut self, payload: &[u8]) {
        assert_eq!(self.connection.send(&mut self.kernel, ACK | PSH, payload), Action::Redirect);
        self.connection.client_next = self.connection.client_next.wrapping_add(payload.len() as u32);
    }

    pub(crate) fn respond(&mut self, payload: &[u8]) {
        assert_eq!(self.connection.reply(&mut self.kernel, ACK | PSH, payload), Action::Redirect);
        self.connection.backend_next = self.connection.backend_next.wrapping_add(payload.len() as u32);
    }

    /// The same bytes again, as if the acknowledgement had been lost.
    fn respond_again(&mut self, payload: &[u8]) {
        self.connection.backend_next = self.connection.backend_next.wrapping_sub(payload.len() as u32);
        self.respond(payload);
    }

    fn ask_again(&mut self, payload: &[u8]) {
        self.connection.client_next = self.connection.client_next.wrapping_sub(payload.len() as u32);
        self.ask(payload);
    }

    /// First bytes and flags of what was mirrored since.
    pub(crate) fn heads(&mut self) -> Vec<(String, u16)> {
        self.kernel.heads().iter().map(|head| (text(head, 12), head.flags)).collect()
    }
}

fn text(head: &ExchangeRecord, most: usize) -> String {
    String::from_utf8_lossy(&head.data[..usize::from(head.len).min(most)]).into_owned()
}

pub(crate) fn plain(statuses: &[&str]) -> Vec<(String, u16)> {
    statuses.iter().map(|status| (format!("HTTP/1.1 {status}"), 0)).collect()
}

both_families!(keep_alive);
fn keep_alive() {
    let mut talk = Talk::new();
    for _ in 0..50 {
        talk.ask(GET);
        talk.respond(OK);
        talk.ask(GET);
        talk.respond(BAD);
    }
    let wanted: Vec<_> = (0..50).flat_map(|_| plain(&["200", "500"])).collect();
    assert_eq!(talk.heads(), wanted);
}

both_families!(a_record_says_who_and_when);
fn a_record_says_who_and_when() {
    let mut talk = Talk::new();
    talk.ask(GET);
    talk.respond(BAD);
    let heads = talk.kernel.heads();
    let head = &heads[0];
    assert_eq!(text(head, 256).as_bytes(), BAD);
    assert_eq!((head.service, head.backend, head.generation), (3, 0, 1));
    let client = lb_common::abi::socket_addr(head.client, head.client_port);
    assert_eq!(client, talk.connection.client);
    assert!(head.at_ns > 0 && head.since_request_ns > 0 && head.since_request_ns < 1_000_000_000);
}

both_families!(a_body_that_looks_like_a_head);
fn a_body_that_looks_like_a_head() {
    let mut talk = Talk::new();
    talk.ask(GET);
    talk.respond(b"HTTP/1.1 200 OK\r\nContent-Length: 59\r\n\r\n");
    talk.respond(BAD);
    talk.ask(GET);
    talk.respond(OK);
    assert_eq!(talk.heads(), plain(&["200", "200"]));
}

both_families!(a_large_body_in_many_segments);
fn a_large_body_in_many_segments() {
    let mut talk = Talk::new();
    talk.ask(GET);
    talk.respond(OK);
    for _ in 0..100 {
        talk.respond(BAD);
        // The client acknowledges without payload.
        assert_eq!(talk.connection.send(&mut talk.kernel, ACK, b""), Action::Redirect);
    }
    assert_eq!(talk.heads(), plain(&["200"]));
}

both_families!(retransmissions_count_once);
fn retransmissions_count_once() {
    let mut talk = Talk::new();
    talk.ask(GET);
    talk.ask_again(GET);
    talk.respond(BAD);
    talk.respond_again(BAD);
    // The response was lost behind us: the client asks again with the same numbers.
    talk.connection.backend_next = talk.connection.backend_next.wrapping_sub(BAD.len() as u32);
    talk.ask_again(GET);
    talk.respond(BAD);
    assert_eq!(talk.heads(), plain(&["500"]));
    talk.ask(GET);
    talk.respond(OK);
    assert_eq!(talk.heads(), plain(&["200"]));
}

both_families!(a_retransmission_that_carries_more);
fn a_retransmission_that_carries_more() {
    let mut talk = Talk::new();
    talk.ask(GET);
    talk.respond(OK);
    talk.ask(GET);
    // The end of the first response again, and the second behind it, in one segment.
    talk.connection.backend_next = talk.connection.backend_next.wrapping_sub(OK.len() as u32);
    let both = [OK, BAD].concat();
    talk.respond(&both);
    assert_eq!(talk.heads(), plain(&["200", "500"]));
}

both_families!(a_status_line_in_two_segments);
fn a_status_line_in_two_segments() {
    for cut in 1..BAD.len() {
        let mut talk = Talk::new();
        talk.ask(GET);
        talk.respond(&BAD[..cut]);
        talk.respond(&BAD[cut..]);
        talk.ask(GET);
        talk.respond(OK);
        let heads = talk.kernel.heads();
        let flags: Vec<u16> = heads.iter().map(|head| head.flags).collect();
        if cut < 13 {
            assert_eq!(flags, [record_flags::UNFINISHED, record_flags::CONTINUES, 0], "cut at {cut}");
            assert_eq!(text(&heads[0], 256) + &text(&heads[1], 256), String::from_utf8_lossy(BAD));
        } else {
            assert_eq!(flags, [0, 0], "cut at {cut}");
        }
    }
}

both_families!(interim_responses);
fn interim_responses() {
    const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    let (unfinished, continues) = (record_flags::UNFINISHED, record_flags::CONTINUES);
    let head = |status: &str, flags| (format!("HTTP/1.1 {status}"), flags);

    let mut talk = Talk::new();
    talk.ask(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n");
    talk.respond(CONTINUE);
    talk.ask(b"some body");
    talk.respond(BAD);
    talk.ask(GET);
    talk.respond(OK);
    assert_eq!(talk.heads(), [head("100", unfinished), head("500", continues), head("200", 0)]);

    // Early hints, twice, then the response.
    talk.ask(GET);
    talk.respond(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n");
    talk.respond(b"HTTP/1.1 103 Early Hints\r\nLink: b\r\n\r\n");
    talk.respond(OK);
    let wanted = [head("103", unfinished), head("103", unfinished | continues), head("200", continues)];
    assert_eq!(talk.heads(), wanted);

    // Both in one segment: the reader finds the second; the next exchange begins afresh.
    talk.ask(GET);
    talk.respond(&[CONTINUE, BAD].concat());
    talk.ask(GET);
    talk.respond(OK);
    assert_eq!(talk.heads(), [head("100", unfinished), head("200", 0)]);
}

both_families!(switching_protocols_is_final);
fn switching_protocols_is_final() {
    let mut talk = Talk::new();
    talk.ask(b"GET /chat HTTP/1.1\r\nUpgrade: websocket\r\n\r\n");
    talk.respond(b"HTTP/1.1 101 Switching Protocols\r\n\r\n");
    talk.ask(b"\x81\x05hello");
    talk.respond(b"\x81\x05world");
    assert_eq!(talk.heads(), plain(&["101"]));
}

both_families!(responses_without_a_body);
fn responses_without_a_body() {
    let mut talk = Talk::new();
    for (request, response) in [
        (
            b"HEAD / HTTP/1.1\r\n\r\n".as_slice(),
            b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n".as_slice(),
        ),
        (GET, b"HTTP/1.1 204 No Content\r\n\r\n"),
        (GET, b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"),
        (GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHTTP/\r\n0\r\n\r\n"),
        (GET, BAD),
    ] {
        talk.ask(request);
        talk.respond(response);
    }
    assert_eq!(talk.heads(), plain(&["200", "204", "304", "200", "500"]));
}

both_families!(a_request_in_several_segments);
fn a_request_in_several_segments() {
    let mut talk = Talk::new();
    talk.ask(b"POST / HTTP/1.1\r\nContent-Length: 20\r\n\r\n");
    talk.ask(b"0123456789");
    talk.ask(b"0123456789");
    talk.respond(BAD);
    assert_eq!(talk.heads(), plain(&["500"]));
}

both_families!(an_early_response_while_the_body_still_comes);
fn an_early_response_while_the_body_still_comes() {
    let mut talk = Talk::new();
    talk.ask(b"POST / HTTP/1.1\r\nContent-Length: 20\r\n\r\n");
    talk.respond(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 59\r\n\r\n");
    talk.ask(b"0123456789");
    talk.respond(BAD);
    talk.ask(GET);
    talk.respond(OK);
    assert_eq!(talk.heads(), plain(&["413", "200"]));
}

both_families!(opaque_connections_make_a_record_that_they_were_answered);
fn opaque_connections_make_a_record_that_they_were_answered() {
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for first in [hello.as_slice(), preface, b"\x00\x01\x02\x03"] {
        let mut talk = Talk::new();
        talk.ask(first);
        talk.respond(BAD);
        talk.ask(GET);
        talk.respond(BAD);
        let records = talk.kernel.heads();
        let [record] = &records[..] else { panic!("one record") };
        assert_eq!((record.kind(), record.flags, record.len), (Some(ExchangeKind::Answered), 0, 0));
        assert_eq!(talk.kernel.counters().backends[0].1.opaque, 1);
    }
}

both_families!(a_pipelining_client_is_recognised);
fn a_pipelining_client_is_recognised() {
    let mut talk = Talk::new();
    talk.ask(GET);
    talk.ask(GET);
    talk.respond(OK);
    assert_eq!(talk.heads(), [("HTTP/1.1 200".to_owned(), record_flags::PIPELINED)]);
    assert_eq!(talk.kernel.counters().backends[0].1.pipelined, 1);
}

both_families!(a_client_cannot_choose_what_is_taken_for_a_head);
fn a_client_cannot_choose_what_is_taken_for_a_head() {
    let mut talk = Talk::new();
    talk.ask(GET);
    let body = [b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n".as_slice(), BAD].concat();
    // It asks again, and acknowledges exactly up to where the body looks like a head.
    let cut = body.len() - BAD.len();
    talk.respond(&body[..cut]);
    talk.respond(BAD);
    talk.connection.backend_next = talk.connection.backend_next.wrapping_sub(BAD.len() as u32);
    talk.ask(GET);
    talk.respond(BAD);
    // Or ahead of all that was sent.
    talk.connection.backend_next = talk.connection.backend_next.wrapping_add(500);
    talk.ask(GET);
    talk.connection.backend_next = talk.connection.backend_next.wrapping_sub(500);
    talk.respond(BAD);
    assert_eq!(talk.heads(), plain(&["200"]));
    assert_eq!(talk.kernel.counters().backends[0].1.pipelined, 1);
}

both_families!(a_full_ring_loses_heads_not_packets);
fn a_full_ring_loses_heads_not_packets() {
    let mut talk = Talk::new();
    for _ in 0..20_000 {
        talk.ask(GET);
        talk.respond(OK);
    }
    let counters = talk.kernel.counters().backends[0].1;
    assert_eq!(counters.heads + counters.heads_lost, 20_000);
    assert!(counters.heads_lost > 0, "the ring holds them all: raise the count");
    assert_eq!(talk.kernel.heads().len() as u64, counters.heads);
    // The next record says what is missing before it.
    talk.ask(GET);
    talk.respond(OK);
    let lost: u32 = talk.kernel.heads().iter().map(|head| head.lost).max().expect("a record");
    assert!(lost > 0 && u64::from(lost) <= counters.heads_lost);
}
