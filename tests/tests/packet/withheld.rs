//! A client makes no backend look bad by what it leaves out, or by asking a backend that has closed.

use std::{thread, time::Duration};

use lb_common::abi::{ExchangeKind, record_flags};
use lb_tests::{
    both_families,
    frame::{ACK, FIN, RST},
    kernel::Action,
};

use crate::evidence::{GET, Talk};

const NOTHING: [(ExchangeKind, u16); 0] = [];

impl Talk {
    fn backend(&mut self, flags: u8) {
        assert_eq!(self.connection.reply(&mut self.kernel, flags, b""), Action::Redirect);
        let moved = u32::from(flags & FIN != 0);
        self.connection.backend_next = self.connection.backend_next.wrapping_add(moved);
    }

    fn failures(&mut self) -> Vec<(ExchangeKind, u16)> {
        let records = self.kernel.heads();
        let failures = records.iter().filter(|record| record.len == 0);
        failures.map(|record| (record.kind().expect("a kind of the program's"), record.flags)).collect()
    }
}

/// The records when the client has sent these segments, and the backend has them and closes, or resets.
fn closed_after(parts: &[&[u8]]) -> [Vec<(ExchangeKind, u16)>; 2] {
    [ACK | FIN, RST | ACK].map(|end| {
        let mut talk = Talk::new();
        for part in parts {
            talk.ask(part);
        }
        talk.backend(end);
        talk.failures()
    })
}

fn both() -> [Vec<(ExchangeKind, u16)>; 2] {
    [vec![(ExchangeKind::NoResponse, 0)], vec![(ExchangeKind::Reset, 0)]]
}

both_families!(a_head_that_has_not_ended_is_owed_nothing);
fn a_head_that_has_not_ended_is_owed_nothing() {
    let long = [b"POST / HTTP/1.1\r\nX: ".as_slice(), &[b'y'; 1300]].concat();
    for half in
        [b"POST /up HTTP/1.1\r\nHost: x\r\n".as_slice(), b"PUT / HTTP/1.1\r\n\n\r\r", b"PATCH / H", &long]
    {
        assert_eq!(closed_after(&[half]), [NOTHING; 2]);
    }
    let head = b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n".as_slice();
    // Wherever the head ends, and whatever follows it.
    for body in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 500, 1300] {
        let whole = [head, &vec![b'z'; body]].concat();
        assert_eq!(closed_after(&[&whole]), both(), "{body}");
    }
    for filler in 0..20 {
        let whole = [b"POST / HTTP/1.1\r\nX: ".as_slice(), &vec![b'x'; filler], b"\r\n\r\nbody"].concat();
        assert_eq!(closed_after(&[&whole]), both(), "{filler}");
    }
    assert_eq!(closed_after(&[&head[..20], &head[20..]]), both());
    assert_eq!(closed_after(&[&long, b"\r\n\r\nand a body"]), both());
    // Another method with a body in one segment is not known to be whole.
    assert_eq!(closed_after(&[b"GET / HTTP/1.1\r\n\r\nbody"]), [NOTHING; 2]);
}

/// A hello of so many bytes in a record of so many.
fn hello(message: u32, record: u16, sent: usize) -> Vec<u8> {
    let [_, a, b, c] = message.to_be_bytes();
    let mut hello = [&[0x16, 3, 1][..], &record.to_be_bytes(), &[1, a, b, c, 3, 3]].concat();
    hello.resize(sent, 7);
    hello
}

both_families!(a_hello_that_is_not_whole_is_owed_nothing);
fn a_hello_that_is_not_whole_is_owed_nothing() {
    // Split over records, a long record that never comes, no hello at all.
    for half in [hello(508, 4, 9), hello(508, 100, 105), hello(0x3ffc, 0x4000, 1100), hello(600, 604, 608)] {
        assert_eq!(closed_after(&[&half]), [NOTHING; 2]);
    }
    let mut other = hello(96, 100, 105);
    other[5] = 2;
    assert_eq!(closed_after(&[&other]), [NOTHING; 2]);
    assert_eq!(closed_after(&[&hello(96, 100, 105)]), both());
    // One with keys too large for a segment continues in the next one.
    let large = hello(1700, 1704, 1709);
    assert_eq!(closed_after(&[&large[..1400], &large[1400..]]), both());
    assert_eq!(closed_after(&[&large[..1400], &large[1400..1700]]), [NOTHING; 2]);
}

both_families!(a_backend_that_has_closed_owes_nothing);
fn a_backend_that_has_closed_owes_nothing() {
    // It has closed because nobody asked. `late.py` does this to a server that closes idle connections.
    let mut talk = Talk::new();
    thread::sleep(Duration::from_millis(1100));
    talk.backend(FIN | ACK);
    talk.ask(GET);
    talk.backend(RST);
    assert_eq!(talk.failures(), NOTHING);
    // The request crosses the FIN.
    let mut talk = Talk::new();
    thread::sleep(Duration::from_millis(1100));
    talk.ask(GET);
    let next = talk.connection.client_next;
    talk.connection.client_next = next.wrapping_sub(GET.len() as u32);
    talk.backend(FIN | ACK);
    talk.connection.client_next = next;
    talk.backend(RST);
    assert_eq!(talk.failures(), NOTHING);
}

both_families!(a_backend_that_closes_at_once_has_failed);
fn a_backend_that_closes_at_once_has_failed() {
    // Before the request, or crossing it: on either side of Shunt.
    for (behind, before) in [(true, false), (true, true), (false, false)] {
        let mut talk = Talk::new();
        let number = talk.connection.backend_next;
        if behind {
            talk.backend(FIN | ACK);
        }
        if before {
            talk.connection.backend_next = number;
        }
        talk.ask(GET);
        let next = talk.connection.client_next;
        if !behind {
            talk.connection.client_next = next.wrapping_sub(GET.len() as u32);
            talk.backend(FIN | ACK);
            talk.connection.client_next = next;
        }
        talk.backend(RST);
        assert_eq!(talk.failures(), [(ExchangeKind::Reset, 0)], "{behind} {before}");
    }
}

both_families!(a_late_end_says_so);
fn a_late_end_says_so() {
    for (end, kind) in [(ACK | FIN, ExchangeKind::NoResponse), (RST | ACK, ExchangeKind::Reset)] {
        let mut talk = Talk::new();
        talk.ask(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n");
        talk.backend(ACK);
        thread::sleep(Duration::from_millis(1100));
        talk.backend(end);
        assert_eq!(talk.failures(), [(kind, record_flags::LATE)]);
    }
}
