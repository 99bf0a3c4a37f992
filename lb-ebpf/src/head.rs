//! Which segments show a request or a response, by their first bytes.

/// Bytes that decide what a client says.
pub const REQUEST_BYTES: usize = 3;

/// Bytes of `HTTP/1.x NNN` and the one after it: shorter, the status is not decided.
pub const STATUS_BYTES: u32 = 13;

/// What a client's segment begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// A method in capital letters, as all registered ones are (RFC 9110 section 16.1).
    Request,
    /// The preface of HTTP/2 (RFC 9113 section 3.4).
    Http2,
    /// Anything else: the inside of a request body, TLS, another protocol.
    Other,
}

#[inline(always)]
pub const fn speech(first: [u8; REQUEST_BYTES]) -> Speech {
    if first[0].is_ascii_uppercase() && first[1].is_ascii_uppercase() && first[2].is_ascii_uppercase() {
        if first[0] == b'P' && first[1] == b'R' && first[2] == b'I' { Speech::Http2 } else { Speech::Request }
    } else {
        Speech::Other
    }
}

/// Whether the status in a response's first bytes is one that more follows:
/// 1xx, but not 101, after which HTTP ends (RFC 9110 section 15.2).
#[inline(always)]
pub const fn is_interim(class: u8, rest: [u8; 2]) -> bool {
    class == b'1' && !(rest[0] == b'0' && rest[1] == b'1')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_speaks() {
        for method in [b"GET", b"POS", b"PUT", b"ACL", b"HEA"] {
            assert_eq!(speech(*method), Speech::Request);
        }
        assert_eq!(speech(*b"PRI"), Speech::Http2);
        for other in [[0x16, 3, 1], *b"get", *b"G T", [0; 3]] {
            assert_eq!(speech(other), Speech::Other);
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
