//! The status of an HTTP/1 response out of its first bytes.

use httparse::{EMPTY_HEADER, Error, Response, Status};
use lb_core::io::Outcome;

/// `HTTP/1.1 500 ` or, without a reason phrase, with the line's end in place of the blank.
const STATUS_BYTES: usize = 13;

/// Header fields that are looked past. A status line with more behind it is read
/// all the same; an interim head with more is not.
const MOST_HEADERS: usize = 64;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Decided(Outcome),
    /// More bytes are needed, and of those that are here only the ones from `rest` on.
    Wanting {
        rest: usize,
    },
}

/// Reads past interim responses to the status that counts. `bytes` begin at a head.
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
    /// A complete head that another one follows.
    Interim {
        len: usize,
    },
    Partial,
    Unreadable,
}

fn read_one(bytes: &[u8]) -> One {
    // httparse forgives empty lines ahead of a head. Here they would be something
    // else: the first byte is that of the head.
    if bytes.first().is_some_and(|&byte| byte != b'H') {
        return One::Unreadable;
    }
    let mut headers = [EMPTY_HEADER; MOST_HEADERS];
    let mut response = Response::new(&mut headers);
    let parsed = response.parse(bytes);
    let code = response.code;
    // What ends the three digits. Then the status is decided, whatever the reason phrase is like: in another
    // segment it would not have been seen.
    let ended = matches!(bytes.get(STATUS_BYTES - 1), Some(b' ' | b'\r' | b'\n'));
    match (code, parsed) {
        (None, Err(_)) | (Some(0..100), _) => One::Unreadable,
        (Some(_), Err(Error::Status)) if !ended => One::Unreadable,
        // Three digits and what ends them: `HTTP/1.1 500` may yet turn out as 5000.
        (_, Ok(Status::Partial)) if bytes.len() < STATUS_BYTES => One::Partial,
        (Some(100 | 102..200), Ok(Status::Complete(len))) => One::Interim { len },
        (Some(100 | 102..200), Ok(Status::Partial)) | (None, Ok(_)) => One::Partial,
        (Some(100 | 102..200), Err(_)) => One::Unreadable,
        (Some(status), Ok(_) | Err(_)) => One::Final(status),
    }
}
