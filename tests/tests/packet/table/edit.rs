//! Edits that make segments that no stack sends.

use lb_tests::frame::{Tcp, layout, set_checksums};

/// With other bytes, counted from the IP header on.
pub(crate) fn with(tcp: Tcp, changes: &[(usize, u8)]) -> Vec<u8> {
    let mut frame = tcp.bytes();
    let ip = layout(&frame).expect("tcp").ip;
    for (at, byte) in changes {
        frame[ip + at] = *byte;
    }
    frame
}

/// The same, counted from the TCP header on, with right checksums.
pub(crate) fn with_tcp(tcp: Tcp, changes: &[(usize, u8)]) -> Vec<u8> {
    let mut frame = tcp.bytes();
    let at = layout(&frame).expect("tcp").tcp;
    for (place, byte) in changes {
        frame[at + place] = *byte;
    }
    set_checksums(&mut frame);
    frame
}

/// With so many words of IPv4 options.
pub(crate) fn optioned(mut frame: Vec<u8>, words: u8) -> Vec<u8> {
    let ip = layout(&frame).expect("tcp").ip;
    frame[ip] = 0x45 + words;
    let total = u16::from_be_bytes([frame[ip + 2], frame[ip + 3]]) + 4 * u16::from(words);
    frame[ip + 2..ip + 4].copy_from_slice(&total.to_be_bytes());
    let options = vec![1; 4 * usize::from(words)];
    frame.splice(ip + 20..ip + 20, options);
    frame
}

/// With another word of flags and fragment offset in its IPv4 header.
pub(crate) fn fragment(mut frame: Vec<u8>, word: u16) -> Vec<u8> {
    let ip = layout(&frame).expect("tcp").ip;
    frame[ip + 6..ip + 8].copy_from_slice(&word.to_be_bytes());
    frame
}

/// With these IPv6 extension headers.
pub(crate) fn extended(mut tcp: Tcp, extensions: &[(u8, &[u8])]) -> Vec<u8> {
    tcp.extensions = extensions.iter().map(|(kind, content)| (*kind, content.to_vec())).collect();
    tcp.bytes()
}

/// With another TCP checksum.
pub(crate) fn summed(tcp: Tcp, checksum: u16) -> Vec<u8> {
    let mut frame = tcp.bytes();
    let at = layout(&frame).expect("tcp").tcp;
    frame[at + 16..at + 18].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// With so much behind its end as makes it so long.
pub(crate) fn padded(tcp: Tcp, length: usize) -> Vec<u8> {
    let mut frame = tcp.bytes();
    frame.resize(frame.len().max(length), 0xee);
    frame
}

/// With a payload that makes its right checksum 0, which is the same as 0xffff.
pub(crate) fn zero_sum(mut tcp: Tcp) -> Tcp {
    // The urgent pointer means nothing without its flag, and is a word of the sum.
    tcp.urgent = 0;
    let frame = tcp.bytes();
    let at = layout(&frame).expect("tcp").tcp;
    tcp.urgent = u16::from_be_bytes([frame[at + 16], frame[at + 17]]);
    tcp
}
