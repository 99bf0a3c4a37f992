//! Which segments show a request or a response, by their first bytes.

/// Bytes that decide what a client speaks: `MKCALENDAR` is the longest method that fits with its space.
pub const REQUEST_BYTES: usize = 12;

/// Bytes that can show that a segment is no request.
pub const PREFIX_BYTES: usize = 3;

/// Bytes of `HTTP/1.x NNN` and the one after it. Fewer bytes do not decide the status.
pub const STATUS_BYTES: u32 = 13;

/// The first eight and the last eight of some bytes, as numbers whose lowest byte is the first. The two may overlap.
pub type Ends = [u64; 2];

/// Both ends of at least eight bytes.
#[inline(always)]
pub const fn ends<const N: usize>(bytes: &[u8; N]) -> Ends {
    let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) else { return [0; 2] };
    [u64::from_le_bytes(*first), u64::from_le_bytes(*last)]
}

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

/// The protocol that a client speaks, by its first [`REQUEST_BYTES`].
#[inline(always)]
pub const fn speech([first, last]: Ends) -> Speech {
    const PREFACE_BEGINS: u32 = u32::from_le_bytes(*b"PRI ");
    const PROXY: u64 = u64::from_le_bytes(*b"PROXY \0\0");
    if first as u16 == 0x0316 {
        return Speech::Tls;
    }
    if !(first as u8).is_ascii_uppercase()
        || !((first >> 8) as u8).is_ascii_uppercase()
        || !((first >> 16) as u8).is_ascii_uppercase()
    {
        return Speech::Other;
    }
    if first as u32 == PREFACE_BEGINS {
        return Speech::Http2;
    }
    // A line of the PROXY protocol, version 1. Version 2 begins with no letter.
    if first & 0xffff_ffff_ffff == PROXY {
        return Speech::Other;
    }
    // From the fourth byte to the eleventh. The twelfth, which has none behind it, follows.
    let mut rest = first >> 24 | last >> 32 << 40;
    let mut at = 3;
    while at < REQUEST_BYTES {
        let byte = rest as u8;
        rest >>= 8;
        if at == REQUEST_BYTES - 2 {
            rest = last >> 56;
        }
        if byte == b' ' {
            let goes_on = at + 1 == REQUEST_BYTES || rest as u8 > b' ';
            return if goes_on { Speech::Request } else { Speech::Other };
        }
        if !byte.is_ascii_uppercase() && byte != b'-' {
            return Speech::Other;
        }
        at += 1;
    }
    Speech::Other
}

/// The length of a TLS hello with the header of its record, in bytes. 0: the record does not hold the whole
/// hello, or holds something else. Then no peer need answer it.
#[inline(always)]
pub const fn hello_length([first, last]: Ends) -> u32 {
    /// Headers of a record, and of a message of the handshake (RFC 8446 sections 4 and 5.1).
    const RECORD: u32 = 5;
    const MESSAGE: u32 = 4;
    const CLIENT_HELLO: u8 = 1;
    let record = ((first >> 24) as u16).swap_bytes() as u32;
    // Bytes 6 to 8 are the third to the fifth of the last eight.
    let message = ((last >> 8) as u32).swap_bytes() & 0xff_ffff;
    if (first >> 40) as u8 == CLIENT_HELLO && message + MESSAGE <= record { RECORD + record } else { 0 }
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

/// How many bytes make the request whole, so that a response is due. 0: nobody knows. `hello`: as
/// [`hello_length`] says.
#[inline(always)]
pub const fn whole_length(speech: Speech, hello: u32) -> u32 {
    match speech {
        Speech::Tls => hello,
        Speech::Http2 => PREFACE,
        // The empty line of a request decides, not its first bytes. Other protocols are not known.
        Speech::Request | Speech::Other => 0,
    }
}

/// `PRI * HTTP/2.0`, an empty line, `SM`, another one.
const PREFACE: u32 = 24;

/// Bytes that [`has_empty_line`] looks at, and by how many it may go on afterwards.
pub const WINDOW: usize = 11;
pub const STRIDE: u32 = 8;

/// Whether the empty line that ends a head begins in the first eight bytes.
#[inline(always)]
pub const fn has_empty_line(bytes: [u8; WINDOW]) -> bool {
    const LOWS: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = LOWS << 7;
    const NEWLINES: u64 = LOWS * b'\n' as u64;
    const EMPTY_LINE: u32 = u32::from_le_bytes(*b"\r\n\r\n");
    let [a, b, c, d, e, f, g, h, i, j, k] = bytes;
    // The last newline of the line lies in these. A word without one is sorted out at once.
    let last = u64::from_le_bytes([d, e, f, g, h, i, j, k]);
    let differs = last ^ NEWLINES;
    if differs.wrapping_sub(LOWS) & !differs & HIGHS == 0 {
        return false;
    }
    let first = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    first as u32 == EMPTY_LINE
        || (first >> 8) as u32 == EMPTY_LINE
        || (first >> 16) as u32 == EMPTY_LINE
        || (first >> 24) as u32 == EMPTY_LINE
        || (first >> 32) as u32 == EMPTY_LINE
        || (last >> 16) as u32 == EMPTY_LINE
        || (last >> 24) as u32 == EMPTY_LINE
        || (last >> 32) as u32 == EMPTY_LINE
}

/// Whether more responses follow a response with this status: 1xx, but not 101, after which HTTP ends (RFC
/// 9110 section 15.2).
#[inline(always)]
pub const fn is_interim(class: u8, rest: [u8; 2]) -> bool {
    class == b'1' && !(rest[0] == b'0' && rest[1] == b'1')
}

/// Whether a response begins as one of HTTP/1 with a status of 2xx, by its first [`STATUS_BYTES`].
#[inline(always)]
pub const fn is_success([first, last]: Ends) -> bool {
    const ONE_ONE: u64 = u64::from_le_bytes(*b"HTTP/1.1");
    const ONE_ZERO: u64 = u64::from_le_bytes(*b"HTTP/1.0");
    const CLASS: u16 = u16::from_le_bytes(*b" 2");
    (first == ONE_ONE || first == ONE_ZERO)
        && (last >> 24) as u16 == CLASS
        && ((last >> 40) as u8).is_ascii_digit()
        && ((last >> 48) as u8).is_ascii_digit()
        && (last >> 56) as u8 == b' '
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
            assert_eq!(speech(ends(method)), Speech::Request, "{method:?}");
        }
        assert_eq!(speech(ends(b"PRI * HTTP/2")), Speech::Http2);
        let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 9];
        assert_eq!((speech(ends(&hello)), hello_length(ends(&hello))), (Speech::Tls, 517));
        assert_eq!(speech(ends(b"PROXY-A / HT")), Speech::Request);
        // Base64 among them, as the inside of a body may be.
        for other in [
            b"PROXY TCP4 1",
            b"PROXY UNKNOW",
            b"\r\n\r\n\0\r\nQUIT\n",
            b"get / HTTP/1",
            b"G T / HTTP/1",
            &[0; 12],
            b"QUJDREVGR0hJ",
            b"GET  / HTTP/",
            b"ABC\r\nABCDEFG",
        ] {
            assert_eq!(speech(ends(other)), Speech::Other, "{other:?}");
        }
        for (few, said) in [
            (*b"GET", None),
            (*b"PRI", None),
            (*b"get", Some(Speech::Other)),
            (*b"gET", Some(Speech::Other)),
            (*b"GeT", Some(Speech::Other)),
            (*b"GEt", Some(Speech::Other)),
            ([0, 1, 2], Some(Speech::Other)),
            ([0x16, 3, 1], Some(Speech::Tls)),
            ([0x16, 2, 1], Some(Speech::Other)),
            ([0x17, 3, 1], Some(Speech::Other)),
        ] {
            assert_eq!(speech_of_few(few), said, "{few:?}");
        }
    }

    /// The same rules byte by byte.
    fn speech_of_bytes(first: &[u8; REQUEST_BYTES]) -> Speech {
        let letters = first.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
        let method = first.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
        match (&first[..], letters) {
            ([0x16, 3, ..], _) => Speech::Tls,
            ([b'P', b'R', b'I', b' ', ..], _) => Speech::Http2,
            ([b'P', b'R', b'O', b'X', b'Y', b' ', ..], _) | (_, 0..=2) => Speech::Other,
            _ if first.get(method) == Some(&b' ')
                && first.get(method + 1).is_none_or(|next| *next > b' ') =>
            {
                Speech::Request
            }
            _ => Speech::Other,
        }
    }

    /// A method of each length, and each byte at each place of it and of the other protocols.
    #[test]
    fn numbers_say_what_bytes_say() {
        let mut beginnings =
            vec![*b"PRI * HTTP/2", *b"PROXY TCP4 1", *b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\0"];
        for length in 0..=REQUEST_BYTES {
            let mut method = *b"ABC-EFGHI-KL";
            if let Some(space) = method.get_mut(length) {
                *space = b' ';
            }
            beginnings.push(method);
        }
        for beginning in beginnings {
            for (at, byte) in (0..REQUEST_BYTES).flat_map(|at| (0..=u8::MAX).map(move |byte| (at, byte))) {
                let mut first = beginning;
                first[at] = byte;
                assert_eq!(speech(ends(&first)), speech_of_bytes(&first), "{first:?}");
            }
        }
    }

    #[test]
    fn how_long_a_whole_request_is() {
        for (said, hello, whole) in
            [(Speech::Tls, 517, 517), (Speech::Http2, 0, 24), (Speech::Request, 9, 0), (Speech::Other, 9, 0)]
        {
            assert_eq!(whole_length(said, hello), whole, "{said:?}");
        }
        // One byte of the hello is in another record; it is no hello; its record has a second message.
        for (record, kind, message, whole) in
            [(512, 1, 509, 0), (512, 2, 508, 0), (513, 1, 508, 518), (4, 1, 0, 9), (0, 1, 0, 0)]
        {
            let [a, b] = u16::to_be_bytes(record);
            let [c, d] = u16::to_be_bytes(message);
            let first = [0x16, 3, 1, a, b, kind, 0, c, d, 3, 3, 9];
            assert_eq!(hello_length(ends(&first)), whole, "{record} {kind} {message}");
        }
        assert_eq!(hello_length(ends(&[0x16, 3, 1, 0xff, 0xff, 1, 1, 0, 0, 3, 3, 9])), 0);
    }

    #[test]
    fn the_empty_line_is_found_wherever_it_is() {
        for at in 0..=7 {
            let mut bytes = *b"abcdefghijk";
            bytes[at..at + 4].copy_from_slice(b"\r\n\r\n");
            assert!(has_empty_line(bytes), "{at}");
            for byte in at..at + 4 {
                let mut bytes = bytes;
                bytes[byte] = b'x';
                assert!(!has_empty_line(bytes), "{at} {byte}");
            }
        }
        for none in [b"\n\r\n\rabcdefg", b"\n\n\n\n\n\n\n\n\n\n\n", b"abcdefgh\r\n\r"] {
            assert!(!has_empty_line(*none), "{none:?}");
        }
    }

    #[test]
    fn successes() {
        for good in [b"HTTP/1.1 200 ", b"HTTP/1.0 200 ", b"HTTP/1.1 204 ", b"HTTP/1.1 299 "] {
            assert!(is_success(ends(good)), "{good:?}");
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
            assert!(!is_success(ends(other)), "{other:?}");
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
