//! Response heads as the XDP program mirrors them: any sequence of records is bounded and harmless, and a
//! head means the same however it is cut into segments.

use std::net::IpAddr;

use lb_common::abi::{ExchangeKind, ExchangeRecord, HEAD_BYTES, Port, record_flags};
use lb_core::io::Outcome;
use lb_userspace::evidence::{Heads, Reading};

/// More than the reader keeps; the bound itself is its own.
const MOST: usize = 4096;

pub(crate) fn run(data: &[u8]) {
    let [cut, rest @ ..] = data else { return };
    one_head_in_two_segments(rest, usize::from(*cut));
    many_records(rest);
}

/// Reading segment by segment decides the same as reading the whole.
fn one_head_in_two_segments(bytes: &[u8], cut: usize) {
    // One byte less than a record takes: a full one counts as cut off.
    let bytes = &bytes[..bytes.len().min(HEAD_BYTES - 1)];
    let (first, second) = bytes.split_at(cut.min(bytes.len()));
    let whole = Heads::new().read(&record(bytes, record_flags::UNFINISHED, 1));
    let mut heads = Heads::new();
    let early = heads.read(&record(first, record_flags::UNFINISHED, 1));
    let late = heads.read(&record(second, record_flags::UNFINISHED | record_flags::CONTINUES, 1));
    let outcome = |reading: Option<Reading>| reading.map(|reading| reading.outcome);
    // An early decision stays.
    assert!(early.is_none() || late.is_none(), "{early:?} {late:?}");
    assert_eq!(
        outcome(early.or(late)),
        outcome(whole),
        "cut at {cut}: {:?}",
        bytes.escape_ascii().to_string()
    );
}

/// Each record: a byte of flags and kind, a byte of whose it is and of its length, the bytes.
fn many_records(mut data: &[u8]) {
    let mut heads = Heads::new();
    while let [flags, whose, rest @ ..] = data {
        // Up to 256 bytes, of one of four clients.
        let length = usize::from(whose >> 2) * 4 + 4;
        let (bytes, next) = rest.split_at(length.min(rest.len()));
        data = next;
        let reading = heads.read(&ExchangeRecord {
            // The upper half of the byte: a kind, or a number that the program does not write.
            kind: u16::from(*flags >> 4),
            ..record(bytes, u16::from(*flags & 0xf), u16::from(whose & 3))
        });
        assert!(heads.unfinished() <= MOST);
        if let Some(Outcome::Status(status)) = reading.map(|reading| reading.outcome) {
            assert!(status == 101 || (200..1000).contains(&status), "{status} is no final status");
        }
    }
}

fn record(bytes: &[u8], flags: u16, client: u16) -> ExchangeRecord {
    let mut data = [0; HEAD_BYTES];
    data[..bytes.len()].copy_from_slice(bytes);
    ExchangeRecord {
        at_ns: 7000,
        since_request_ns: 500,
        client: IpAddr::from([192, 0, 2, 1]).into(),
        client_port: Port::new(40_000 + client),
        service: 0,
        backend: 3,
        len: bytes.len() as u16,
        generation: 9,
        kind: ExchangeKind::Head as u16,
        flags,
        cpu: 0,
        lost: 0,
        data,
    }
}
