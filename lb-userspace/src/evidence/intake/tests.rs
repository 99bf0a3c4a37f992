use std::net::IpAddr;

use lb_common::abi::{ExchangeKind, HEAD_BYTES, Port, QUICK_MS, record_flags};

use super::*;

const BACKEND: BackendId = BackendId(3);
const GENERATION: Generation = Generation(9);
const MS: u64 = 1_000_000;
const SLOW_MS: u64 = QUICK_MS;

/// One exchange of the backend: client port, begin and duration in milliseconds.
#[derive(Clone, Copy)]
struct Exchange(u16, u64, u64);

fn head(Exchange(port, began_ms, took_ms): Exchange, bytes: &[u8]) -> ExchangeRecord {
    let mut data = [0; HEAD_BYTES];
    data[..bytes.len()].copy_from_slice(bytes);
    ExchangeRecord {
        cpu: 0,
        lost: 0,
        at_ns: (began_ms + took_ms) * MS,
        since_request_ns: took_ms * MS,
        client: IpAddr::from([192, 0, 2, 1]).into(),
        client_port: Port::new(port),
        service: 0,
        backend: BACKEND.0,
        len: bytes.len() as u16,
        generation: GENERATION.0,
        kind: ExchangeKind::Head as u16,
        flags: 0,
        data,
    }
}

fn status(exchange: Exchange, status: u16) -> ExchangeRecord {
    head(exchange, format!("HTTP/1.1 {status} X\r\n\r\n").as_bytes())
}

fn flagged(flags: u16, record: ExchangeRecord) -> ExchangeRecord {
    ExchangeRecord { flags, ..record }
}

fn timeout(Exchange(port, began_ms, _): Exchange) -> Timeout {
    Timeout {
        backend: BACKEND,
        generation: GENERATION,
        client: ([192, 0, 2, 1], port).into(),
        failure: L4Failure::ResponseTimeout,
        began_us: (began_ms * 1000) as u32,
    }
}

/// An outcome of that exchange, as a record gives it.
fn outcome(Exchange(port, began_ms, took_ms): Exchange, outcome: Outcome) -> Evidence {
    let input = Input::Outcome {
        backend: BACKEND,
        generation: GENERATION,
        outcome,
        ttfb: (took_ms > 0).then(|| Duration::from_millis(took_ms)),
        client: Some(([192, 0, 2, 1], port).into()),
        context: Context::default(),
    };
    Evidence { input, seen_ns: Some((began_ms + took_ms) * MS) }
}

fn timeout_outcome(Exchange(port, ..): Exchange) -> Evidence {
    without_segment(Input::Outcome {
        backend: BACKEND,
        generation: GENERATION,
        outcome: Outcome::Failure(L4Failure::ResponseTimeout),
        ttfb: None,
        client: Some(([192, 0, 2, 1], port).into()),
        context: Context::default(),
    })
}

fn without_segment(input: Input) -> Evidence {
    Evidence { input, seen_ns: None }
}

fn successes(count: u64) -> Evidence {
    without_segment(Input::Successes { backend: BACKEND, count })
}

/// The good response that ends a run although the program did not mirror it.
fn ends_run(generation: Generation) -> Evidence {
    let outcome = Outcome::Status(200);
    without_segment(Input::outcome(BACKEND, generation, outcome))
}

/// The inputs from a record while the program has counted nothing.
fn given(intake: &mut Intake, record: &ExchangeRecord) -> Vec<Evidence> {
    intake.record(record, None, |_| 0).collect()
}

#[test]
fn a_record_gives_one_outcome_with_the_moment_of_its_segment() {
    let mut intake = Intake::new();
    let exchange = Exchange(7, 100, 2);
    assert_eq!(given(&mut intake, &status(exchange, 503)), [outcome(exchange, Outcome::Status(503))]);
    let unknown = Exchange(8, 100, 0);
    assert_eq!(given(&mut intake, &status(unknown, 200)), [outcome(unknown, Outcome::Status(200))]);
    let other = Exchange(9, 100, 2);
    assert_eq!(given(&mut intake, &head(other, b"SSH-2.0-OpenSSH\r\n")), [outcome(other, Outcome::Opaque)]);
}

#[test]
fn a_record_without_a_head_gives_the_failure_that_it_names() {
    let mut intake = Intake::new();
    for (port, (kind, expected)) in (1..).zip([
        (ExchangeKind::ConnectRefused, Outcome::Failure(L4Failure::ConnectRefused)),
        (ExchangeKind::ConnectTimeout, Outcome::Failure(L4Failure::ConnectTimeout)),
        (ExchangeKind::Reset, Outcome::Failure(L4Failure::Reset)),
        (ExchangeKind::NoResponse, Outcome::Failure(L4Failure::NoResponse)),
        (ExchangeKind::Answered, Outcome::Answered),
    ]) {
        let exchange = Exchange(port, 100, 2);
        let record = ExchangeRecord { kind: kind as u16, ..head(exchange, b"") };
        assert_eq!(given(&mut intake, &record), [outcome(exchange, expected)]);
    }
}

#[test]
fn a_head_in_two_records_gives_one_outcome_and_reads_the_counts_once() {
    let mut intake = Intake::new();
    let exchange = Exchange(7, 100, 2);
    let first = flagged(record_flags::UNFINISHED, head(exchange, b"HTTP/1.1 5"));
    let nothing: Vec<_> = intake.record(&first, None, |_| panic!("nothing is decided yet")).collect();
    assert_eq!(nothing, []);
    let second = flagged(record_flags::CONTINUES, head(exchange, b"03 X\r\n\r\n"));
    let decided: Vec<_> = intake.record(&second, None, |_| 4).collect();
    assert_eq!(decided, [successes(4), outcome(exchange, Outcome::Status(503))]);
    let body = flagged(record_flags::CONTINUES, head(exchange, b"HTTP/1.1 500 X\r\n"));
    assert_eq!(given(&mut intake, &body), [], "a continuation without a head that waits for it");
}

#[test]
fn counted_successes_come_before_the_failure_that_was_mirrored_after_them() {
    let mut intake = Intake::new();
    let exchange = Exchange(7, 100, 2);
    let asked = &mut None;
    let inputs: Vec<_> = intake
        .record(&status(exchange, 500), None, |backend| {
            *asked = Some(backend);
            12
        })
        .collect();
    assert_eq!(inputs, [successes(12), outcome(exchange, Outcome::Status(500))]);
    assert_eq!(*asked, Some(BACKEND));
    let inputs: Vec<_> = intake.successes(BACKEND, 5).collect();
    assert_eq!(inputs, [successes(5)]);
    assert_eq!(intake.successes(BACKEND, 0).count(), 0);
}

#[test]
fn lost_records_are_reported_before_the_record_after_them() {
    let mut intake = Intake::after([(BACKEND, Generation(9), vec![5])]);
    let lost = |lost| without_segment(Input::EvidenceLost { backend: BACKEND, lost });
    let with = |exchange, lost| ExchangeRecord { lost, ..status(exchange, 500) };
    let (first, second) = (Exchange(7, 100, 2), Exchange(8, 100, 2));
    let of = |exchange| outcome(exchange, Outcome::Status(500));
    assert_eq!(given(&mut intake, &with(first, 5)), [of(first)], "an earlier run lost those five");
    let inputs: Vec<_> = intake.record(&with(second, 7), None, |_| 3).collect();
    assert_eq!(inputs, [lost(2), successes(3), of(second)]);
    // Also when the record itself decides nothing.
    let continues = flagged(record_flags::CONTINUES, with(first, 8));
    assert_eq!(given(&mut intake, &continues), [lost(1)]);
}

#[test]
fn lost_records_are_reported_also_with_a_response_after_its_timeout() {
    let mut intake = Intake::new();
    let exchange = Exchange(7, 5000, 2000);
    intake.timed_out(timeout(exchange), None, |_| 0).for_each(drop);
    let late = ExchangeRecord { lost: 4, ..status(exchange, 200) };
    let lost = without_segment(Input::EvidenceLost { backend: BACKEND, lost: 4 });
    assert_eq!(given(&mut intake, &late), [lost]);
}

#[test]
fn a_response_after_its_timeout_is_not_reported_again() {
    let mut intake = Intake::new();
    let exchange = Exchange(7, 5000, 2000);
    let inputs: Vec<_> = intake.timed_out(timeout(exchange), None, |_| 2).collect();
    assert_eq!(inputs, [successes(2), timeout_outcome(exchange)]);
    // The successes that the program counted since are still given, and the first of them ends the run.
    let inputs: Vec<_> = intake.record(&status(exchange, 200), None, |_| 3).collect();
    assert_eq!(inputs, [ends_run(GENERATION), successes(2)]);
    let next = Exchange(7, 8000, 2);
    assert_eq!(given(&mut intake, &status(next, 200)), [outcome(next, Outcome::Status(200))]);
}

#[test]
fn a_timeout_after_its_response_is_not_reported_again() {
    let mut intake = Intake::new();
    let exchange = Exchange(7, 5000, 2000);
    assert_eq!(given(&mut intake, &status(exchange, 200)), [outcome(exchange, Outcome::Status(200))]);
    let inputs = intake.timed_out(timeout(exchange), None, |_| panic!("the engine knows of it")).count();
    assert_eq!(inputs, 0);
}

#[test]
fn the_first_counted_success_after_a_slow_response_ends_the_run() {
    let mut intake = Intake::new();
    let quick = Exchange(7, 100, SLOW_MS - 1);
    given(&mut intake, &status(quick, 500));
    assert_eq!(
        intake.successes(BACKEND, 2).collect::<Vec<_>>(),
        [successes(2)],
        "the program mirrors the next"
    );
    let slow = Exchange(8, 100, SLOW_MS);
    given(&mut intake, &status(slow, 200));
    assert_eq!(intake.successes(BackendId(4), 2).count(), 1, "another backend's");
    assert_eq!(intake.successes(BACKEND, 2).collect::<Vec<_>>(), [ends_run(GENERATION), successes(1)]);
    assert_eq!(intake.successes(BACKEND, 2).collect::<Vec<_>>(), [successes(2)], "once");
}

#[test]
fn the_success_that_ends_a_run_has_the_generation_of_the_last_slow_exchange() {
    let mut intake = Intake::new();
    intake.timed_out(timeout(Exchange(7, 5000, 0)), None, |_| 0);
    let later = Timeout { generation: Generation(10), ..timeout(Exchange(8, 6000, 0)) };
    intake.timed_out(later, None, |_| 0);
    assert_eq!(intake.successes(BACKEND, 1).collect::<Vec<_>>(), [ends_run(Generation(10))]);
}

#[test]
fn a_head_is_not_continued_by_another_generation() {
    let mut intake = Intake::new();
    let exchange = Exchange(7, 100, 2);
    given(&mut intake, &flagged(record_flags::UNFINISHED, head(exchange, b"HTTP/1.1 5")));
    let rest = flagged(record_flags::CONTINUES, head(exchange, b"03 X\r\n\r\n"));
    let newer = ExchangeRecord { generation: GENERATION.0 + 1, ..rest };
    assert_eq!(given(&mut intake, &newer), []);
    assert_eq!(given(&mut intake, &rest), [outcome(exchange, Outcome::Status(503))]);
}

#[test]
fn what_an_intake_remembers_is_bounded() {
    let mut intake = Intake::new();
    let mut out = 0;
    for number in 0..40_000_u64 {
        let slow = Exchange(number as u16, number, SLOW_MS);
        let unfinished = flagged(record_flags::UNFINISHED, head(slow, b"HTTP/1.1 5"));
        out += given(&mut intake, &unfinished).len();
        let other = Exchange(number as u16, 100_000 + number, SLOW_MS);
        let backend = BackendId(number as u16 % 1024);
        out += intake.timed_out(Timeout { backend, ..timeout(other) }, None, |_| 0).count();
    }
    assert_eq!(out, 40_000, "each timeout once, and no unfinished head");
    assert!(intake.heads.unfinished() <= 4096, "{}", intake.heads.unfinished());
    assert!(intake.reported.len() <= 16_384, "{}", intake.reported.len());
    assert!(intake.merge.len() <= 1024, "{}", intake.merge.len());
}
