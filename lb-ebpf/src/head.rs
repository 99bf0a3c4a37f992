//! Which segments show a request or a response, by their first bytes.

/// Bytes that decide what a client speaks: `MKCALENDAR` is the longest method that fits with its space.
pub const REQUEST_BYTES: usize = 12;

/// Bytes that can show that a segment is no request.
pub const PREFIX_BYTES: usize = 3;

/// Bytes of `HTTP/1.x NNN` and the one after it. Fewer bytes do not decide the status.
pub const STATUS_BYTES: u32 = 13;

/// The protocol that a client's segment begins with. The variants have no fields: the compiler would also
/// move the unset parts of a value, and the verifier refuses that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// A method in capital letters, as all registered ones are (RFC 9110 section 16.1), a space, and more.
    Request,
    /// The preface of HTTP/2 (RFC 9113 section 3.4).
    Http2,
    /// A record of a TLS handshake (RFC 8446 section 5.1).
    Tls,
    /// Anything else: the inside of a request body, another protocol.
    Other,
}

#[inline(always)]
pub const fn speech(first: [u8; REQUEST_BYTES]) -> Speech {
    if first[0] == 0x16 && first[1] == 3 {
        return Speech::Tls;
    }
    if !first[0].is_ascii_uppercase() || !first[1].is_ascii_uppercase() || !first[2].is_ascii_uppercase() {
        return Speech::Other;
    }
    if first[0] == b'P' && first[1] == b'R' && first[2] == b'I' && first[3] == b' ' {
        return Speech::Http2;
    }
    let mut at = 3;
    while at < REQUEST_BYTES {
        if first[at] == b' ' {
            let goes_on = at + 1 == REQUEST_BYTES || first[at + 1] > b' ';
            return if goes_on { Speech::Request } else { Speech::Other };
        }
        if !first[at].is_ascii_uppercase() && first[at] != b'-' {
            return Speech::Other;
        }
        at += 1;
    }
    Speech::Other
}

/// Length of a TLS record without the five bytes of its header.
#[inline(always)]
pub const fn record_length(first: [u8; REQUEST_BYTES]) -> u16 {
    u16::from_be_bytes([first[3], first[4]])
}

/// The protocol of a segment with no more bytes than these. `None`: it may become a request.
#[inline(always)]
pub const fn speech_of_few(first: [u8; PREFIX_BYTES]) -> Option<Speech> {
    if first[0] == 0x16 && first[1] == 3 {
        return Some(Speech::Tls);
    }
    let letters =
        first[0].is_ascii_uppercase() && first[1].is_ascii_uppercase() && first[2].is_ascii_uppercase();
    if letters { None } else { Some(Speech::Other) }
}

/// Whether the client has sent the whole request, so that a response is due. `record` is the length of a TLS
/// record, `length` that of the segment. A hello that does not fit into one segment continues in the next one
/// at once.
#[inline(always)]
pub const fn is_whole(speech: Speech, record: u16, length: u32) -> bool {
    match speech {
        Speech::Tls => record as u32 + 5 <= length || length > 1000,
        Speech::Http2 => length >= PREFACE,
        // The last bytes of a request decide, not the first. Other protocols are not known.
        Speech::Request | Speech::Other => false,
    }
}

/// `PRI * HTTP/2.0`, an empty line, `SM`, another one.
const PREFACE: u32 = 24;

/// Whether more responses follow a response with this status: 1xx, but not 101, after which HTTP ends (RFC
/// 9110 section 15.2).
#[inline(always)]
pub const fn is_interim(class: u8, rest: [u8; 2]) -> bool {
    class == b'1' && !(rest[0] == b'0' && rest[1] == b'1')
}

/// Whether a response begins as one of HTTP/1 with a status of 2xx.
#[inline(always)]
pub const fn is_success(first: [u8; STATUS_BYTES as usize]) -> bool {
    const HTTP: u32 = u32::from_ne_bytes(*b"HTTP");
    const ONE_ONE: u32 = u32::from_ne_bytes(*b"/1.1");
    const ONE_ZERO: u32 = u32::from_ne_bytes(*b"/1.0");
    let [h, t, u, p, slash, one, dot, minor, before, class, tens, units, after] = first;
    u32::from_ne_bytes([h, t, u, p]) == HTTP
        && matches!(u32::from_ne_bytes([slash, one, dot, minor]), ONE_ONE | ONE_ZERO)
        && before == b' '
        && class == b'2'
        && tens.is_ascii_digit()
        && units.is_ascii_digit()
        && after == b' '
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_speaks() {
        for method in [
            b"GET / HTTP/1",
            b"POST /a HTTP",
            b"PUT http://x",
            b"ACL /x HTTP/",
            b"OPTIONS * HT",
            b"PROPFIND /a ",
            b"MKCALENDAR /",
            b"BASELINE-C /",
        ] {
            assert_eq!(speech(*method), Speech::Request, "{method:?}");
        }
        assert_eq!(speech(*b"PRI * HTTP/2"), Speech::Http2);
        let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 9];
        assert_eq!((speech(hello), record_length(hello)), (Speech::Tls, 512));
        // Base64 among them, as the inside of a body may be.
        for other in
            [b"get / HTTP/1", b"G T / HTTP/1", &[0; 12], b"QUJDREVGR0hJ", b"GET  / HTTP/", b"ABC\r\nABCDEFG"]
        {
            assert_eq!(speech(*other), Speech::Other, "{other:?}");
        }
        for (few, said) in [
            (*b"GET", None),
            (*b"PRI", None),
            (*b"get", Some(Speech::Other)),
            ([0, 1, 2], Some(Speech::Other)),
            ([0x16, 3, 1], Some(Speech::Tls)),
        ] {
            assert_eq!(speech_of_few(few), said, "{few:?}");
        }
    }

    #[test]
    fn what_is_whole() {
        for (said, record, length, whole) in [
            (Speech::Tls, 512, 517, true),
            (Speech::Tls, 512, 516, false),
            (Speech::Tls, 1700, 1448, true),
            (Speech::Http2, 0, 24, true),
            (Speech::Http2, 0, 23, false),
            (Speech::Request, 0, 1000, false),
            (Speech::Other, 0, 1000, false),
        ] {
            assert_eq!(is_whole(said, record, length), whole, "{said:?} {length}");
        }
    }

    #[test]
    fn successes() {
        for good in [b"HTTP/1.1 200 ", b"HTTP/1.0 200 ", b"HTTP/1.1 204 ", b"HTTP/1.1 299 "] {
            assert!(is_success(*good), "{good:?}");
        }
        for other in [
            b"HTTP/1.1 500 ",
            b"HTTP/1.1 304 ",
            b"HTTP/1.1 101 ",
            b"HTTP/1.1 2000",
            b"HTTP/1.1 2:0 ",
            b"HTTP/1.1 20\r\n",
            b"HTTP/1.2 200 ",
            b"XTTP/1.1 200 ",
            b"HTTP/1.1x200 ",
            b"HTTP/1.1  200",
        ] {
            assert!(!is_success(*other), "{other:?}");
        }
    }

    #[test]
    fn interim_statuses() {
        assert!(is_interim(b'1', *b"00"));
        assert!(is_interim(b'1', *b"03"));
        assert!(!is_interim(b'1', *b"01"));
        assert!(!is_interim(b'5', *b"00"));
    }
}
