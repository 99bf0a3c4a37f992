//! A half-open backend's budget: what a client that repeats itself, and one that is none, can do to it.

use std::{collections::BTreeMap, thread, time::Duration};

use lb_common::{
    abi::{BackendCounters, ExchangeKind, record_flags},
    reason::Reason,
};
use lb_core::{
    config::NoBackend,
    engine::Timeouts,
    io::{Admit, BackendId, Step},
    time::Millis,
};
use lb_tests::{
    both_families,
    frame::{ACK, RST, SYN, Tcp, layout},
    kernel::{Action, Kernel, SERVICE, backend_address, vip},
};
use lb_userspace::dataplane::bpf::{Limits, Now};

use crate::{
    connections::{BACKEND_ISN, CLIENT_ISN, Connection},
    steering::{backend_of, client},
};

/// Less than any stack waits before it sends a SYN again, and longer than a silence is excused for.
const A_RETRANSMISSION: Duration = Duration::from_millis(800);

/// Half-open.
const TRIAL: u16 = 1;

/// Three backends, of which one is tried.
fn tried(tokens: u32) -> Kernel {
    let mut kernel = Kernel::new(3);
    kernel.admit(TRIAL, 1, Admit::Trials);
    kernel.table(&[0, 2]);
    kernel.apply(&Step::Budget { id: BackendId(TRIAL), tokens });
    kernel.service(NoBackend::Reset, &[TRIAL]);
    kernel
}

fn of_trial(kernel: &mut Kernel) -> BackendCounters {
    let counters = kernel.counters();
    counters.backends.iter().find(|(id, _)| id.0 == TRIAL).map(|(_, counters)| *counters).unwrap_or_default()
}

/// The backend that gets this client's SYN.
fn syn(kernel: &mut Kernel, n: u16) -> u16 {
    let (action, out) = kernel.run(&Tcp::new(client(n), vip(), SYN).numbers(CLIENT_ISN, 0).bytes());
    assert_eq!(action, Action::Redirect);
    backend_of(&out)
}

both_families!(a_syn_that_comes_again_costs_nothing_and_goes_the_same_way);
fn a_syn_that_comes_again_costs_nothing_and_goes_the_same_way() {
    let mut kernel = tried(2);
    let trial = Connection::begin(&mut kernel, 1);
    assert_eq!(trial.backend, TRIAL);
    // Twice as late as it would be without an answer, and again once there is one.
    for _ in 0..2 {
        thread::sleep(A_RETRANSMISSION);
        assert_eq!(syn(&mut kernel, 1), TRIAL);
    }
    let answer = Tcp::new(backend_address(TRIAL), trial.nat, SYN | ACK)
        .numbers(BACKEND_ISN, CLIENT_ISN.wrapping_add(1));
    assert_eq!(kernel.run(&answer.bytes()).0, Action::Redirect);
    assert_eq!(syn(&mut kernel, 1), TRIAL);
    assert_eq!((of_trial(&mut kernel).trials, of_trial(&mut kernel).connections), (1, 1));
    assert_eq!(syn(&mut kernel, 2), TRIAL, "the second token is there");
    assert_ne!(syn(&mut kernel, 3), TRIAL, "and no third");
}

both_families!(a_trial_that_failed_goes_on_elsewhere_and_costs_nothing_more);
fn a_trial_that_failed_goes_on_elsewhere_and_costs_nothing_more() {
    for refuses in [false, true] {
        let mut kernel = tried(2);
        kernel.redispatch_to(&[TRIAL]);
        let trial = Connection::begin(&mut kernel, 1);
        assert_eq!(trial.backend, TRIAL);
        let expected = if refuses {
            assert_eq!(trial.reply(&mut kernel, RST | ACK, b""), Action::Drop);
            ExchangeKind::ConnectRefused
        } else {
            assert_eq!(syn(&mut kernel, 1), TRIAL, "a moment is no silence");
            thread::sleep(A_RETRANSMISSION);
            ExchangeKind::ConnectTimeout
        };
        assert_ne!(syn(&mut kernel, 1), TRIAL);
        let records: Vec<_> =
            kernel.heads().iter().map(|record| (record.kind(), record.flags, record.backend)).collect();
        assert_eq!(records, [(Some(expected), record_flags::TRIAL, TRIAL)], "the trial has failed, once");
        let counters = of_trial(&mut kernel);
        assert_eq!((counters.trials, counters.redispatched), (1, 1));
        assert_eq!(syn(&mut kernel, 2), TRIAL, "the second token is there");
    }
}

both_families!(with_nobody_else_a_trial_that_failed_costs_nothing_more);
fn with_nobody_else_a_trial_that_failed_costs_nothing_more() {
    let mut kernel = tried(2);
    for id in [0, 2] {
        kernel.admit(id, 1, Admit::None);
    }
    kernel.redispatch_to(&[TRIAL]);
    assert_eq!(syn(&mut kernel, 1), TRIAL);
    thread::sleep(A_RETRANSMISSION);
    kernel.run(&Tcp::new(client(1), vip(), SYN).numbers(CLIENT_ISN, 0).bytes());
    assert_eq!(of_trial(&mut kernel).trials, 1, "one client, one token");
}

both_families!(a_client_that_never_acknowledges_takes_tokens_and_decides_nothing);
fn a_client_that_never_acknowledges_takes_tokens_and_decides_nothing() {
    const TOKENS: u16 = 3;
    let mut kernel = tried(TOKENS.into());
    kernel.redispatch_to(&[TRIAL]);
    for n in 0..TOKENS {
        let spoofed = Connection::begin(&mut kernel, n);
        assert_eq!(spoofed.backend, TRIAL);
        let answer = Tcp::new(backend_address(TRIAL), spoofed.nat, SYN | ACK)
            .numbers(BACKEND_ISN, CLIENT_ISN.wrapping_add(1));
        assert_eq!(kernel.run(&answer.bytes()).0, Action::Redirect);
        // A client that has never seen the SYN-ACK does not know its number.
        let guess = Tcp::new(client(n), vip(), ACK).numbers(CLIENT_ISN.wrapping_add(1), 0x1234_5678);
        kernel.run(&guess.payload(b"GET / HTTP/1.1\r\n\r\n").bytes());
    }
    // From the address's real owner, or from a host that claims to be it.
    kernel.run(&Tcp::new(client(0), vip(), RST).numbers(CLIENT_ISN.wrapping_add(1), 0).bytes());
    thread::sleep(A_RETRANSMISSION);
    for n in 1..TOKENS {
        assert_eq!(syn(&mut kernel, n), TRIAL, "answered, so not abandoned");
    }
    assert_ne!(syn(&mut kernel, 9), TRIAL, "others are served meanwhile");
    let records: Vec<_> = kernel.heads().iter().map(|record| record.flags).collect();
    assert!(records.is_empty(), "{records:?}");
    let waits = Timeouts { connect: Millis(100), response: Millis(100) };
    let limits: Limits = BTreeMap::from([(SERVICE, waits)]);
    let look = kernel.timeout_scanner().scan(&limits, Some(&Default::default()), Now::read());
    assert!(look.new.iter().all(|timed_out| timed_out.backend != BackendId(TRIAL)), "{:?}", look.new);
    assert_eq!(of_trial(&mut kernel).established, 0);
    assert_eq!(kernel.trial_budgets().left(BackendId(TRIAL)), 0);
    // Their tokens come back, and the clients that never answered are no trials.
    let later = Now { us: Now::read().us.wrapping_add(3_500_000), ..Now::read() };
    let scanner = kernel.timeout_scanner();
    for _ in 0..2 {
        scanner.scan(&limits, Some(&Default::default()), later);
        assert_eq!(kernel.trial_budgets().left(BackendId(TRIAL)), i64::from(TOKENS) - 1, "one was reset");
    }
    // As full as it was given, and yet tried: once, until the next token is taken.
    let given = u32::from(TOKENS) - 1;
    for tried in [vec![BackendId(TRIAL)], vec![]] {
        assert_eq!(scanner.trial_budgets().tried([(BackendId(TRIAL), given)].into_iter()), tried);
    }
    assert_eq!(Connection::open(&mut kernel, 10).backend, TRIAL);
    scanner.scan(&limits, Some(&Default::default()), later);
    assert_eq!(
        kernel.trial_budgets().left(BackendId(TRIAL)),
        i64::from(TOKENS) - 2,
        "a client that answers is one"
    );
    // The next client may use the next budget.
    kernel.apply(&Step::Budget { id: BackendId(TRIAL), tokens: 1 });
    assert_eq!(Connection::open(&mut kernel, 20).backend, TRIAL);
    assert_eq!(kernel.drops(Reason::NoBackend), 0);
}

both_families!(a_segment_that_a_backend_rightly_ignores_is_no_silence);
fn a_segment_that_a_backend_rightly_ignores_is_no_silence() {
    let mut kernel = tried(1);
    kernel.redispatch_to(&[TRIAL]);
    let mut frame = Tcp::new(client(1), vip(), SYN).numbers(CLIENT_ISN, 0).bytes();
    let at = layout(&frame).expect("tcp");
    // No system answers a segment with a wrong checksum, and anybody can send one.
    frame[at.tcp + 16] ^= 0x55;
    kernel.run(&frame);
    thread::sleep(A_RETRANSMISSION);
    kernel.run(&frame);
    let records: Vec<_> =
        kernel.heads().iter().map(|record| (record.kind(), record.flags, record.backend)).collect();
    assert!(records.is_empty(), "two frames of anybody decide a trial: {records:?}");
}
