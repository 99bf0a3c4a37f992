//! Reads the status of an HTTP/1 response from its first bytes.

use httparse::{EMPTY_HEADER, Error, Response, Status};
use lb_core::io::Outcome;

/// `HTTP/1.1 500 ` or, without a reason phrase, with the line's end in place of the blank.
const STATUS_BYTES: usize = 13;

/// Header fields that the parser skips. A status line with more fields behind it is read all the same; an
/// interim head with more fields is not.
const MOST_HEADERS: usize = 64;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Decided(Outcome),
    /// The status needs more bytes. Of those that are here, it needs the ones from `rest` on.
    Wanting {
        rest: usize,
    },
}

/// Skips interim responses and returns the final status. `bytes` begin at a head.
pub(super) fn read(bytes: &[u8]) -> Verdict {
    let mut rest = 0;
    loop {
        match read_one(&bytes[rest..]) {
            One::Final(status) => return Verdict::Decided(Outcome::Status(status)),
            One::Interim { len } => rest += len,
            One::Partial => return Verdict::Wanting { rest },
            One::Unreadable => return Verdict::Decided(Outcome::Opaque),
        }
    }
}

enum One {
    Final(u16),
    /// A complete interim head. Another head follows it.
    Interim {
        len: usize,
    },
    Partial,
    Unreadable,
}

fn read_one(bytes: &[u8]) -> One {
    // httparse accepts empty lines before a head. Here the first byte is always the first byte of the head.
    if bytes.first().is_some_and(|&byte| byte != b'H') {
        return One::Unreadable;
    }
    let mut headers = [EMPTY_HEADER; MOST_HEADERS];
    let mut response = Response::new(&mut headers);
    let parsed = response.parse(bytes);
    let code = response.code;
    // A byte that ends the three digits decides the status, also before a broken reason phrase: in a later
    // segment nobody would have seen that phrase.
    let ended = matches!(bytes.get(STATUS_BYTES - 1), Some(b' ' | b'\r' | b'\n'));
    match (code, parsed) {
        (None, Err(_)) | (Some(0..100), _) => One::Unreadable,
        (Some(_), Err(Error::Status)) if !ended => One::Unreadable,
        // The byte after the three digits is missing: `HTTP/1.1 500` may still become 5000.
        (_, Ok(Status::Partial)) if bytes.len() < STATUS_BYTES => One::Partial,
        (Some(100 | 102..200), Ok(Status::Complete(len))) => One::Interim { len },
        (Some(100 | 102..200), Ok(Status::Partial)) | (None, Ok(_)) => One::Partial,
        (Some(100 | 102..200), Err(_)) => One::Unreadable,
        (Some(status), Ok(_) | Err(_)) => One::Final(status),
    }
}
