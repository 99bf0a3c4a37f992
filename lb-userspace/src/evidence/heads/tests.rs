use lb_common::abi::Port;
use proptest::prelude::*;

use super::*;

const FIRST: u16 = 0;
const UNFINISHED: u16 = record_flags::UNFINISHED;
const CONTINUES: u16 = record_flags::CONTINUES;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

fn record_of(port: u16, flags: u16, bytes: &[u8]) -> ExchangeRecord {
    let mut data = [0; HEAD_BYTES];
    let len = bytes.len().min(HEAD_BYTES);
    data[..len].copy_from_slice(&bytes[..len]);
    ExchangeRecord {
        cpu: 0,
        lost: 0,
        at_ns: 7_000,
        since_request_ns: 500,
        client: std::net::IpAddr::from([192, 0, 2, 1]).into(),
        client_port: Port::new(port),
        service: 0,
        backend: 3,
        len: len as u16,
        generation: 9,
        kind: ExchangeKind::Head as u16,
        flags,
        data,
    }
}

fn record(flags: u16, bytes: &[u8]) -> ExchangeRecord {
    record_of(40_000, flags, bytes)
}

/// The outcomes of these records on one connection.
fn outcomes(records: &[(u16, &[u8])]) -> Vec<Option<Outcome>> {
    let mut heads = Heads::new();
    let outcomes = records
        .iter()
        .map(|(flags, bytes)| heads.read(&record(*flags, bytes)).map(|reading| reading.outcome));
    outcomes.collect()
}

/// The flags that the program sets in the first record of a head.
fn flags_of(first: &[u8]) -> u16 {
    let interim = first.len() >= 13 && first[9] == b'1' && &first[9..12] != b"101";
    if first.len() < 13 || interim { UNFINISHED } else { FIRST }
}

fn status(status: u16) -> Option<Outcome> {
    Some(Outcome::Status(status))
}

const OPAQUE: Option<Outcome> = Some(Outcome::Opaque);

#[test]
fn a_reading_names_its_backend_and_client() {
    let flags = record_flags::TRIAL | record_flags::PIPELINED;
    let reading = Heads::new().read(&record(flags, b"HTTP/1.1 503 Service Unavailable\r\n\r\n"));
    let expected = Reading {
        backend: BackendId(3),
        generation: Generation(9),
        client: "192.0.2.1:40000".parse().expect("literal"),
        outcome: Outcome::Status(503),
        at_ns: 7_000,
        since_request_ns: 500,
        trial: true,
        pipelined: true,
        late: false,
    };
    assert_eq!(reading, Some(expected));
}

#[test]
fn one_record_decides_a_whole_status_line() {
    for (bytes, expected) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"[..], status(200)),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", status(404)),
        (b"HTTP/1.1 500 \r\n\r\n", status(500)),
        (b"HTTP/1.1 500\r\n\r\n", status(500)),
        (b"HTTP/1.1 500 ", status(500)),
        (b"HTTP/1.1 500\n\n", status(500)),
        (b"HTTP/1.1 204 No Content\r\n", status(204)),
        (b"HTTP/1.1 502 Bad Gateway\r\nServer: ngi", status(502)),
        (b"HTTP/1.1 500 Fehler \xe4\xf6\xfc\r\n\r\n", status(500)),
        (b"HTTP/1.1 500 Oops\r\nbad header line\r\n\r\n", status(500)),
        // Decided by its first 13 bytes, however the line goes on.
        (b"HTTP/1.1 500 \x01\r\n\r\n", status(500)),
        (b"HTTP/1.1 500\r\r\r\n", status(500)),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", status(101)),
        (b"HTTP/1.1 999 Odd\r\n\r\n", status(999)),
        // A body that looks like a head is never the start of a record's head.
        (b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHTTP/1.1 500 ", status(200)),
    ] {
        assert_eq!(outcomes(&[(FIRST, bytes)]), [expected], "{}", bytes.escape_ascii());
    }
}

#[test]
fn what_is_not_http_1_is_opaque() {
    for bytes in [
        // TLS 1.2 ServerHello, HTTP/2 SETTINGS, an h2 preface, SSH, text.
        &b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03aaaaaaaa"[..],
        b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 5000 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 000 OK\r\n\r\n",
        b"http/1.1 200 OK\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        &[0xff; 256],
        b"x",
    ] {
        assert_eq!(outcomes(&[(FIRST, bytes)]), [OPAQUE], "{}", bytes.escape_ascii());
        assert_eq!(outcomes(&[(UNFINISHED, bytes)]), [OPAQUE], "{}", bytes.escape_ascii());
    }
}

#[test]
fn keep_alive_gives_one_outcome_for_each_head() {
    let sequence: Vec<_> = [200, 500, 304, 500, 500]
        .iter()
        .map(|code| format!("HTTP/1.1 {code} X\r\nContent-Length: 0\r\n\r\n").into_bytes())
        .collect();
    let records: Vec<_> = sequence.iter().map(|bytes| (FIRST, &bytes[..])).collect();
    assert_eq!(outcomes(&records), [status(200), status(500), status(304), status(500), status(500)]);
}

#[test]
fn a_head_may_be_split_anywhere() {
    let head = b"HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\n";
    for at in 1..head.len() {
        let (first, second) = head.split_at(at);
        let decided_by_first = at >= 13;
        let expected = if decided_by_first { [status(503), None] } else { [None, status(503)] };
        let records = [(flags_of(first), first), (CONTINUES, second)];
        assert_eq!(outcomes(&records), expected, "split at {at}");
    }
}

#[test]
fn a_status_line_may_come_byte_by_byte() {
    let head = b"HTTP/1.1 500 X";
    let records: Vec<_> = (0..head.len())
        .map(|at| {
            let goes_on = if at == 0 { FIRST } else { CONTINUES };
            (goes_on | if at < 12 { UNFINISHED } else { 0 }, &head[at..=at])
        })
        .collect();
    let outcomes = outcomes(&records);
    assert_eq!(outcomes.iter().flatten().count(), 1);
    assert_eq!(outcomes[12], status(500));
}

#[test]
fn a_status_that_never_ends_is_opaque() {
    assert_eq!(outcomes(&[(UNFINISHED, b"HTTP/1.1 5"), (CONTINUES, b"0")]), [None, OPAQUE]);
    assert_eq!(outcomes(&[(UNFINISHED, b"HTTP/1.1 500"), (CONTINUES, b"0 X\r\n\r\n")]), [None, OPAQUE]);
    assert_eq!(outcomes(&[(FIRST, b"HTTP/1.1 5")]), [OPAQUE]);
}

#[test]
fn an_interim_response_is_not_the_outcome() {
    let both = [CONTINUE, b"HTTP/1.1 500 Oops\r\n\r\n"].concat();
    // In one record the final head decides; what the program mirrors next is body.
    let body = (CONTINUES, &b"HTTP/1.1 200 OK\r\n\r\n"[..]);
    assert_eq!(outcomes(&[(UNFINISHED, &both), body]), [status(500), None]);
    for at in 13..both.len() {
        let (first, second) = both.split_at(at);
        let expected = if at >= CONTINUE.len() + 13 { [status(500), None] } else { [None, status(500)] };
        assert_eq!(outcomes(&[(UNFINISHED, first), (CONTINUES, second)]), expected, "split at {at}");
    }
}

#[test]
fn an_interim_response_may_have_headers() {
    let interim = b"HTTP/1.1 100 Continue\r\nServer: x\r\nX-A: 1\r\n\r\n";
    let last = b"HTTP/1.1 500 Oops\r\n\r\n";
    assert_eq!(outcomes(&[(UNFINISHED, interim), (CONTINUES, last)]), [None, status(500)]);
    assert_eq!(outcomes(&[(UNFINISHED, &[&interim[..], last].concat())]), [status(500)]);
}

#[test]
fn early_hints_may_come_twice() {
    let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
    let last = b"HTTP/1.1 200 OK\r\n\r\n";
    let goes_on = CONTINUES | UNFINISHED;
    assert_eq!(
        outcomes(&[(UNFINISHED, hints), (goes_on, hints), (CONTINUES, last)]),
        [None, None, status(200)]
    );
    assert_eq!(outcomes(&[(UNFINISHED, &hints.repeat(2)), (CONTINUES, last)]), [None, status(200)]);
}

#[test]
fn what_was_cut_off_is_not_guessed() {
    let head = |code: u16, link: usize| {
        format!("HTTP/1.1 {code} X\r\nLink: {}\r\n\r\n", "a".repeat(link)).into_bytes()
    };
    // The status of a final head is in front, however long the rest is.
    assert_eq!(outcomes(&[(FIRST, &head(500, 1000))]), [status(500)]);
    // Behind a cut interim head may stand the final one, and then this is its body.
    assert_eq!(outcomes(&[(UNFINISHED, &head(103, 1000)), (CONTINUES, &head(500, 0))]), [OPAQUE, None]);
    let exactly = head(103, 256 - head(103, 0).len());
    assert_eq!(exactly.len(), 256);
    assert_eq!(outcomes(&[(UNFINISHED, &exactly), (CONTINUES, &head(500, 0))]), [OPAQUE, None]);
    // One byte less is a segment that was seen to its end.
    assert_eq!(outcomes(&[(UNFINISHED, &exactly[..255]), (CONTINUES, b"\n")]), [None, OPAQUE]);
    let records =
        [(UNFINISHED, &exactly[..255]), (CONTINUES | UNFINISHED, b"\n"), (CONTINUES, b"HTTP/1.1 500 X")];
    assert_eq!(outcomes(&records), [None, None, status(500)]);
}

#[test]
fn a_continuation_that_nobody_waits_for_is_ignored() {
    assert_eq!(outcomes(&[(CONTINUES, b"HTTP/1.1 500 Oops\r\n\r\n")]), [None]);
    assert_eq!(outcomes(&[(CONTINUES | UNFINISHED, b"HTTP"), (CONTINUES, b"/1.1 500 X")]), [None, None]);
}

#[test]
fn a_continuation_belongs_to_its_own_connection() {
    let mut heads = Heads::new();
    assert_eq!(heads.read(&record_of(1, UNFINISHED, b"HTTP/1.1 5")), None);
    assert_eq!(heads.unfinished(), 1);
    assert_eq!(heads.read(&record_of(2, CONTINUES, b"00 X\r\n")), None);
    let other_generation = ExchangeRecord { generation: 10, ..record_of(1, CONTINUES, b"00 X\r\n") };
    assert_eq!(heads.read(&other_generation), None);
    let other_backend = ExchangeRecord { backend: 4, ..record_of(1, CONTINUES, b"00 X\r\n") };
    assert_eq!(heads.read(&other_backend), None);
    let reading = heads.read(&record_of(1, CONTINUES, b"00 X\r\n"));
    assert_eq!(reading.map(|reading| reading.outcome), status(500));
    assert_eq!(heads.unfinished(), 0);
}

#[test]
fn a_new_head_replaces_one_that_was_never_finished() {
    let records: [(u16, &[u8]); 3] =
        [(UNFINISHED, b"HTTP/1.1 5"), (UNFINISHED, b"HTTP/1.1 2"), (CONTINUES, b"00 OK\r\n\r\n")];
    assert_eq!(outcomes(&records), [None, None, status(200)]);
}

#[test]
fn empty_records_say_nothing() {
    assert_eq!(outcomes(&[(FIRST, b"")]), [None]);
    assert_eq!(outcomes(&[(UNFINISHED, b""), (CONTINUES, b"HTTP/1.1 500 X")]), [None, status(500)]);
    let lying = ExchangeRecord { len: u16::MAX, ..record(FIRST, b"HTTP/1.1 500 X\r\n\r\n") };
    assert_eq!(Heads::new().read(&lying).map(|reading| reading.outcome), status(500));
}

#[test]
fn the_number_of_unfinished_heads_is_bounded() {
    let mut heads = Heads::new();
    for port in 0..=MOST as u16 {
        assert_eq!(heads.read(&record_of(port, UNFINISHED, b"HTTP/1.1 5")), None);
    }
    assert_eq!((heads.unfinished.len(), heads.by_age.len()), (MOST, MOST));
    // The oldest was given up. The newest is there.
    assert_eq!(heads.read(&record_of(0, CONTINUES, b"00 X\r\n")), None);
    let newest = heads.read(&record_of(MOST as u16, CONTINUES, b"00 X\r\n"));
    assert_eq!(newest.map(|reading| reading.outcome), status(500));
    assert_eq!((heads.unfinished.len(), heads.by_age.len()), (MOST - 1, MOST - 1));
}

#[test]
fn the_size_of_an_unfinished_head_is_bounded() {
    let mut heads = Heads::new();
    assert_eq!(heads.read(&record(UNFINISHED, b"HTTP/1.1 100 Continue\r\nA: ")), None);
    let more = record(UNFINISHED | CONTINUES, &[b'a'; 200]);
    let outcome = (0..10).find_map(|_| heads.read(&more));
    assert_eq!(outcome.map(|reading| reading.outcome), OPAQUE);
    assert_eq!(heads.unfinished(), 0);
}

#[test]
fn an_unfinished_head_is_given_up_after_its_time() {
    for (later, expected) in [(OLDEST_NS, status(500)), (OLDEST_NS + 1, None)] {
        let mut heads = Heads::new();
        assert_eq!(heads.read(&record(UNFINISHED, b"HTTP/1.1 5")), None);
        let last = ExchangeRecord { at_ns: 7_000 + later, ..record(CONTINUES, b"00 X\r\n") };
        assert_eq!(heads.read(&last).map(|reading| reading.outcome), expected);
        assert_eq!(heads.unfinished(), 0);
    }
}

proptest! {
    #[test]
    fn arbitrary_records_never_panic(
        records in prop::collection::vec((0..16u16, 0..3u16, any::<u16>(), http_like()), 0..40)
    ) {
        let mut heads = Heads::new();
        for (flags, port, len, bytes) in records {
            let mut record = record_of(port, flags, &bytes);
            if len < 300 {
                record.len = len;
            }
            heads.read(&record);
            prop_assert_eq!(heads.unfinished.len(), heads.by_age.len());
            prop_assert!(heads.unfinished() <= 3);
        }
    }

    /// However a stream of interim heads and a final one falls into short
    /// segments, its final status comes out, once.
    #[test]
    fn any_segmentation_gives_the_same_status(
        code in 200..600u16, interims in 0..3usize, cuts in prop::collection::vec(1..100usize, 0..6)
    ) {
        let mut stream = CONTINUE.repeat(interims);
        stream.extend_from_slice(format!("HTTP/1.1 {code} X\r\n\r\n").as_bytes());
        let mut heads = Heads::new();
        let (mut rest, mut cuts, mut flags) = (&stream[..], cuts.into_iter(), UNFINISHED);
        let mut seen = Vec::new();
        while !rest.is_empty() {
            let (segment, after) = rest.split_at(cuts.next().unwrap_or(stream.len()).min(rest.len()));
            seen.extend(heads.read(&record(flags, segment)).map(|reading| reading.outcome));
            (rest, flags) = (after, UNFINISHED | CONTINUES);
        }
        prop_assert_eq!(seen, [Outcome::Status(code)]);
    }
}

fn http_like() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&'static [u8]> = vec![
        b"HTTP/1.1 ",
        b"HTTP/1.0 ",
        b"100",
        b"500",
        b" ",
        b"X",
        b"\r\n",
        b"\r\n\r\n",
        b"A: b",
        b"\0",
        b"\xff",
    ];
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..HEAD_BYTES),
        prop::collection::vec(prop::sample::select(pieces), 0..40).prop_map(|pieces| pieces.concat()),
    ]
}

#[test]
fn a_record_without_a_head_is_read_by_its_kind_and_ends_an_unfinished_head() {
    for (kind, outcome) in [
        (ExchangeKind::ConnectRefused, Outcome::Failure(L4Failure::ConnectRefused)),
        (ExchangeKind::Reset, Outcome::Failure(L4Failure::Reset)),
        (ExchangeKind::NoResponse, Outcome::Failure(L4Failure::NoResponse)),
        (ExchangeKind::Answered, Outcome::Answered),
    ] {
        let mut heads = Heads::new();
        assert_eq!(heads.read(&record(UNFINISHED, b"HTTP/1.")), None);
        let reading = heads
            .read(&ExchangeRecord { kind: kind as u16, ..record(record_flags::TRIAL, b"") })
            .expect("an outcome");
        assert_eq!((reading.outcome, reading.trial, reading.since_request_ns), (outcome, true, 500));
        assert_eq!(heads.unfinished(), 0);
    }
}
