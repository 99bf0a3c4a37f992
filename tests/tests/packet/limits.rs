//! Limits of connections: never more than `max_connections`, and who does not count.
//!
//! One file because each rule is tried on the same small service.

use std::{net::SocketAddr, sync::Barrier, thread};

use lb_common::{abi::Limit, reason::Reason};
use lb_core::{
    config::{Mode, NoBackend, Overflow, ServiceLimit},
    io::{Admit, BackendId, FlowReset, Step},
};
use lb_tests::{
    both_families,
    frame::{ACK, FIN, RST, SYN, Tcp},
    kernel::{Action, Kernel, SERVICE, ServiceSettings, vip},
    maps::Content,
    test_run::Runner,
};
use lb_userspace::dataplane::{
    LimitCounts,
    bpf::{Limits, Now},
};

use crate::{
    connections::{CLIENT_ISN, Connection},
    explain::{explain, members},
    steering::{backend_of, client},
};

const NOTHING: [String; 0] = [];

/// A service with so many backends of this limit each, and one of its own. 0: none.
fn limited(backends: u16, each: u32, max_connections: u32, overflow: Overflow) -> Kernel {
    let mut kernel = Kernel::new(backends);
    for id in 0..backends {
        kernel.limit(id, each);
    }
    serve(&mut kernel, max_connections, overflow);
    kernel
}

fn serve(kernel: &mut Kernel, max_connections: u32, overflow: Overflow) {
    let limit = Some(ServiceLimit { max_connections, overflow });
    kernel.serve(ServiceSettings { limit, ..ServiceSettings::default() });
}

fn of_service(kernel: &Kernel) -> LimitCounts {
    kernel.connection_limits().of_service(SERVICE)
}

fn of_backend(kernel: &Kernel, id: u16) -> LimitCounts {
    kernel.connection_limits().of_backend(BackendId(id))
}

fn spilled(kernel: &mut Kernel) -> u64 {
    kernel.counters().backends.iter().map(|(_, counters)| counters.spilled).sum()
}

/// A client shows that it receives at its address.
fn prove(kernel: &mut Kernel, n: u16) {
    let (action, out) = kernel.run(&Tcp::new(client(n), vip(), SYN).numbers(CLIENT_ISN, 0).bytes());
    assert_ne!(action, Action::Drop);
    let challenge = Tcp::read(&out).expect("tcp");
    assert_eq!((challenge.src, challenge.dst, challenge.flags), (vip(), client(n), ACK));
    assert_ne!(challenge.ack, CLIENT_ISN.wrapping_add(1), "nothing that a client would take for an answer");
    let reset = Tcp::new(client(n), vip(), RST).numbers(challenge.ack, 0);
    assert_eq!(kernel.run(&reset.bytes()).0, Action::Drop, "nobody else gets it");
}

/// Whether a client's SYN is answered by a reset.
fn is_reset(kernel: &mut Kernel, n: u16) -> bool {
    let (action, out) = kernel.run(&Tcp::new(client(n), vip(), SYN).numbers(CLIENT_ISN, 0).bytes());
    action == Action::Tx && Tcp::read(&out).is_some_and(|of| of.flags == RST | ACK)
}

both_families!(a_full_backend_spills_and_at_last_the_client_learns);
fn a_full_backend_spills_and_at_last_the_client_learns() {
    let mut kernel = limited(3, 4, 0, Overflow::Reset);
    let open: Vec<_> = (0..12).map(|n| Connection::open(&mut kernel, n)).collect();
    for id in 0..3 {
        let counts = of_backend(&kernel, id);
        assert_eq!(counts, LimitCounts { used: 4, handshakes: 0, limit: 4 }, "backend {id}");
    }
    assert_eq!(of_service(&kernel), LimitCounts { used: 12, handshakes: 0, limit: 0 });
    assert!(spilled(&mut kernel) > 0, "the slots of twelve clients are not that even");
    let (action, out) = kernel.run(&Tcp::new(client(12), vip(), SYN).numbers(7, 0).bytes());
    assert_eq!(action, Action::Tx);
    let reset = Tcp::read(&out).expect("tcp");
    assert_eq!((reset.dst, reset.flags, reset.ack), (client(12), RST | ACK, 8));
    assert_eq!(kernel.drops(Reason::Full), 1);
    assert_eq!(kernel.connection_limits().refused(SERVICE), 1);
    // A client that goes away leaves its place to the next one.
    assert_eq!(open[5].send(&mut kernel, RST, b""), Action::Redirect);
    assert_eq!(Connection::open(&mut kernel, 13).backend, open[5].backend);
    assert_eq!(of_service(&kernel).used, 12);
    assert_eq!(kernel.flows().inconsistencies(), NOTHING);
}

both_families!(the_second_choice_is_the_same_each_time);
fn the_second_choice_is_the_same_each_time() {
    let choices =
        |kernel: &mut Kernel| -> Vec<u16> { (0..40).map(|n| Connection::open(kernel, n).backend).collect() };
    let first = choices(&mut limited(5, 8, 0, Overflow::Reset));
    assert_eq!(choices(&mut limited(5, 8, 0, Overflow::Reset)), first);
    let mut free = Kernel::new(5);
    let without: Vec<u16> = (0..40).map(|n| Connection::open(&mut free, n).backend).collect();
    let moved = first.iter().zip(&without).filter(|(limited, free)| limited != free).count();
    assert!((1..20).contains(&moved), "only who finds its own backend full goes elsewhere: {moved}");
}

both_families!(a_service_has_a_limit_of_its_own);
fn a_service_has_a_limit_of_its_own() {
    for overflow in [Overflow::Drop, Overflow::Reset] {
        let mut kernel = limited(3, 0, 5, overflow);
        for n in 0..5 {
            Connection::open(&mut kernel, n);
        }
        let syn = Tcp::new(client(5), vip(), SYN).numbers(7, 0);
        let action = kernel.run(&syn.bytes()).0;
        assert_eq!(action, if overflow == Overflow::Drop { Action::Drop } else { Action::Tx });
        assert_eq!(of_service(&kernel), LimitCounts { used: 5, handshakes: 0, limit: 5 });
        assert_eq!(kernel.drops(Reason::Full), 1);
        // A reload changes it for new connections.
        serve(&mut kernel, 6, overflow);
        Connection::open(&mut kernel, 6);
        serve(&mut kernel, 2, overflow);
        assert_eq!(
            of_service(&kernel),
            LimitCounts { used: 6, handshakes: 0, limit: 2 },
            "those that live go on"
        );
        kernel.run(&syn.bytes());
        assert_eq!(kernel.drops(Reason::Full), 2);
        assert_eq!(kernel.flows().inconsistencies(), NOTHING);
    }
}

/// How a connection ends, and whether it ends for the limit.
type End = fn(&mut Kernel, &mut Connection);

both_families!(what_is_over_counts_no_more);
fn what_is_over_counts_no_more() {
    let reset: End = |kernel, of| {
        of.send(kernel, RST, b"");
    };
    let refuse: End = |kernel, of| {
        of.reply(kernel, RST | ACK, b"");
    };
    let close: End = |kernel, of| {
        of.send(kernel, FIN | ACK, b"");
        of.client_next = of.client_next.wrapping_add(1);
        of.reply(kernel, FIN | ACK, b"");
        of.backend_next = of.backend_next.wrapping_add(1);
        of.send(kernel, ACK, b"");
    };
    let leave: End = |kernel, _| {
        let scanner = kernel.timeout_scanner();
        let later = Now { ticks: Now::read().ticks.wrapping_add(3600), ..Now::read() };
        scanner.scan(&Limits::new(), Some(&Default::default()), later);
    };
    let remove: End = |kernel, _| kernel.forget_connections();
    let drain: End = |kernel, of| {
        kernel.backend(of.backend, 1, Admit::None, FlowReset::Now);
        kernel.reset_sender().scan_once(0, |_, _| {});
        kernel.backend(of.backend, 1, Admit::All, FlowReset::Never);
    };
    for mode in [Mode::Nat, Mode::Dnat] {
        for (name, end) in [
            ("reset", reset),
            ("refuse", refuse),
            ("close", close),
            ("silence", leave),
            ("remove", remove),
            ("drain", drain),
        ] {
            let mut kernel = limited(1, 2, 2, Overflow::Reset);
            let limit = Some(ServiceLimit { max_connections: 2, overflow: Overflow::Reset });
            kernel.serve(ServiceSettings { mode, limit, ..ServiceSettings::default() });
            let mut one = Connection::open(&mut kernel, 1);
            assert_eq!((of_backend(&kernel, 0).used, of_service(&kernel).used), (1, 1), "{name} {mode:?}");
            end(&mut kernel, &mut one);
            assert_eq!((of_backend(&kernel, 0).used, of_service(&kernel).used), (0, 0), "{name} {mode:?}");
            assert_eq!(kernel.flows().inconsistencies(), NOTHING, "{name} {mode:?}");
            // Nothing is counted off twice, whatever still comes of it.
            end(&mut kernel, &mut one);
            assert_eq!((of_backend(&kernel, 0).used, of_service(&kernel).used), (0, 0), "{name} {mode:?}");
        }
    }
}

both_families!(a_handshake_counts_until_its_client_gives_up);
fn a_handshake_counts_until_its_client_gives_up() {
    let mut kernel = limited(1, 4, 0, Overflow::Reset);
    let begun = Connection::begin(&mut kernel, 1);
    assert_eq!(of_backend(&kernel, 0), LimitCounts { used: 1, handshakes: 1, limit: 4 });
    // The SYN again changes nothing.
    kernel.run(&Tcp::new(client(1), vip(), SYN).numbers(CLIENT_ISN, 0).bytes());
    assert_eq!(of_backend(&kernel, 0).used, 1);
    Connection::open(&mut kernel, 2);
    assert_eq!(of_backend(&kernel, 0), LimitCounts { used: 2, handshakes: 1, limit: 4 });
    begun.send(&mut kernel, RST, b"");
    assert_eq!(of_backend(&kernel, 0), LimitCounts { used: 1, handshakes: 0, limit: 4 });
    // Given up: nobody says so.
    Connection::begin(&mut kernel, 3);
    let later = Now { ticks: Now::read().ticks.wrapping_add(8), ..Now::read() };
    kernel.timeout_scanner().scan(&Limits::new(), Some(&Default::default()), later);
    assert_eq!(of_backend(&kernel, 0), LimitCounts { used: 1, handshakes: 0, limit: 4 });
    assert_eq!(kernel.flows().inconsistencies(), NOTHING);
}

both_families!(forged_syns_hold_half_at_most);
fn forged_syns_hold_half_at_most() {
    const LIMIT: u32 = 100;
    for (each, service) in [(LIMIT, 0), (0, LIMIT)] {
        let mut kernel = limited(1, each, service, Overflow::Reset);
        let forged = (0..1000).filter(|n| {
            let (_, out) = kernel.run(&Tcp::new(client(*n), vip(), SYN).bytes());
            Tcp::read(&out).expect("tcp").src != vip()
        });
        assert_eq!(forged.count(), 50);
        assert_eq!(kernel.drops(Reason::Unproven), 950);
        // A client that receives at its address gets in, as long as the limit allows.
        for n in 1000..1050 {
            prove(&mut kernel, n);
            Connection::open(&mut kernel, n);
        }
        assert_eq!(of_service(&kernel), LimitCounts { used: LIMIT, handshakes: 50, limit: service });
        assert!(is_reset(&mut kernel, 1050));
        assert_eq!(kernel.drops(Reason::Full), 1);
        // A client that has been here has proven it before.
        kernel.forget_connections();
        for n in 2000..2050 {
            Connection::begin(&mut kernel, n);
        }
        Connection::open(&mut kernel, 1003);
        assert_eq!(kernel.flows().inconsistencies(), NOTHING);
    }
}

both_families!(a_guess_proves_nothing);
fn a_guess_proves_nothing() {
    let mut kernel = limited(1, 1, 0, Overflow::Reset);
    let syn = Tcp::new(client(1), vip(), SYN).numbers(CLIENT_ISN, 0);
    let challenge = |kernel: &mut Kernel| Tcp::read(&kernel.run(&syn.bytes()).1).expect("tcp").ack;
    let number = challenge(&mut kernel);
    for wrong in [number.wrapping_add(1), number.wrapping_sub(1), 0, CLIENT_ISN] {
        kernel.run(&Tcp::new(client(1), vip(), RST).numbers(wrong, 0).bytes());
    }
    // The number of another client.
    kernel.run(&Tcp::new(client(2), vip(), RST).numbers(number, 0).bytes());
    kernel.run(&Tcp::new(client(1), vip(), ACK).numbers(number, 0).bytes());
    assert_eq!(challenge(&mut kernel), number, "still the same question");
    assert_eq!(of_service(&kernel).used, 0);
    prove(&mut kernel, 1);
    Connection::open(&mut kernel, 1);
    assert_eq!(of_service(&kernel).used, 1);
}

both_families!(connections_that_were_there_before_the_limit_count);
fn connections_that_were_there_before_the_limit_count() {
    let mut kernel = Kernel::new(2);
    for n in 0..6 {
        Connection::open(&mut kernel, n);
    }
    let half_open = Connection::begin(&mut kernel, 6);
    assert_eq!(of_service(&kernel).used, 0, "nobody counts");
    for id in 0..2 {
        kernel.limit(id, 100);
    }
    serve(&mut kernel, 8, Overflow::Reset);
    assert_eq!(of_service(&kernel), LimitCounts { used: 7, handshakes: 1, limit: 8 });
    assert_eq!(kernel.flows().inconsistencies(), NOTHING);
    half_open.complete(&mut kernel);
    assert_eq!(of_service(&kernel), LimitCounts { used: 7, handshakes: 0, limit: 8 });
    // One that began between two writes is found by the next scan.
    kernel.service(NoBackend::Reset, &[]);
    Connection::open(&mut kernel, 7);
    assert_eq!(of_service(&kernel).used, 7);
    serve(&mut kernel, 8, Overflow::Reset);
    assert_eq!(of_service(&kernel).used, 8);
    assert!(is_reset(&mut kernel, 8));
    kernel.forget_connections();
    assert_eq!(
        (of_service(&kernel).used, of_backend(&kernel, 0).used, of_backend(&kernel, 1).used),
        (0, 0, 0)
    );
}

both_families!(a_removed_backend_takes_its_connections_along);
fn a_removed_backend_takes_its_connections_along() {
    let mut kernel = limited(2, 0, 100, Overflow::Reset);
    let open: Vec<_> = (0..20).map(|n| Connection::open(&mut kernel, n)).collect();
    let theirs = open.iter().filter(|of| of.backend == 0).count() as u32;
    kernel.apply(&Step::RemoveBackend { id: BackendId(0) });
    kernel.timeout_scanner().scan(&Limits::new(), Some(&Default::default()), Now::read());
    assert_eq!(of_service(&kernel).used, 20 - theirs, "dead flows do not count");
    // The next one with that id begins at nothing, whatever the old flows do.
    kernel.admit(0, 2, Admit::All);
    assert_eq!(of_backend(&kernel, 0).used, 0);
    for of in &open {
        of.send(&mut kernel, RST, b"");
    }
    assert_eq!((of_service(&kernel).used, of_backend(&kernel, 0).used), (0, 0));
    assert_eq!(kernel.flows().inconsistencies(), NOTHING);
}

both_families!(a_wrong_count_is_found_and_repaired);
/// As a daemon leaves it that is killed between the two halves of its work.
fn a_wrong_count_is_found_and_repaired() {
    let mut kernel = limited(2, 0, 10, Overflow::Reset);
    for n in 0..4 {
        Connection::open(&mut kernel, n);
    }
    let place = Limit::of_service(SERVICE.0) as usize * size_of::<Limit>();
    let Content::Values(mut values) = kernel.loaded().contents()["LIMITS"].clone() else {
        panic!("an array")
    };
    values[place] += 3;
    let limits = kernel.loaded().maps().find(|(name, _)| *name == "LIMITS").expect("it is there").1;
    limits.reset(&Content::Values(values));
    assert_eq!(of_service(&kernel).used, 7);
    let scanner = kernel.timeout_scanner();
    for scan in 0..3 {
        assert_eq!(scanner.repaired(), 0, "scan {scan}");
        scanner.scan(&Limits::new(), Some(&Default::default()), Now::read());
    }
    assert_eq!((of_service(&kernel).used, scanner.repaired()), (4, 1));
    for _ in 0..5 {
        scanner.scan(&Limits::new(), Some(&Default::default()), Now::read());
    }
    assert_eq!((of_service(&kernel).used, scanner.repaired()), (4, 1));
    assert_eq!(kernel.flows().inconsistencies(), NOTHING);
}

both_families!(who_has_waited_goes_first);
fn who_has_waited_goes_first() {
    let mut kernel = limited(1, 0, 2, Overflow::QueueByRetry);
    let first = Connection::open(&mut kernel, 1);
    Connection::open(&mut kernel, 2);
    let tries = |kernel: &mut Kernel, n| Connection::try_begin(kernel, n).map(|of| of.backend);
    assert_eq!(tries(&mut kernel, 3), Err(Action::Drop));
    first.send(&mut kernel, RST, b"");
    assert_eq!(tries(&mut kernel, 4), Err(Action::Drop), "a place is free, and another client waits for it");
    assert_eq!(tries(&mut kernel, 3), Ok(0));
    assert_eq!(of_service(&kernel).used, 2);
    assert_eq!(tries(&mut kernel, 3), Ok(0), "its SYN again");
    assert_eq!(kernel.drops(Reason::Full), 2);
    // Nobody waits for ever: a client that does not come again is forgotten.
    kernel.forget_connections();
    thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(tries(&mut kernel, 5), Ok(0));
}

both_families!(half_open_and_redispatched_connections_count_too);
fn half_open_and_redispatched_connections_count_too() {
    let mut kernel = limited(3, 4, 0, Overflow::Reset);
    kernel.admit(1, 1, Admit::Trials);
    kernel.table(&[0, 2]);
    kernel.apply(&Step::Budget { id: BackendId(1), tokens: 3 });
    let limit = Some(ServiceLimit { max_connections: 0, overflow: Overflow::Reset });
    kernel.redispatch_to(&[1]);
    kernel.serve(ServiceSettings { redispatch: true, limit, ..ServiceSettings::default() }.with_trials(&[1]));
    let trials: Vec<_> = (0..3).map(|n| Connection::open(&mut kernel, n)).collect();
    assert!(trials.iter().all(|of| of.backend == 1));
    assert_eq!(of_backend(&kernel, 1).used, 3);
    // A refused handshake continues elsewhere, and counts there.
    let refused = Connection::begin(&mut kernel, 4);
    let before = of_backend(&kernel, refused.backend).used;
    assert_eq!(refused.reply(&mut kernel, RST | ACK, b""), Action::Drop);
    let moved = Connection::begin(&mut kernel, 4);
    assert_ne!(moved.backend, refused.backend);
    assert_eq!(of_backend(&kernel, refused.backend).used, before - 1);
    assert_eq!(of_service(&kernel).used, 4);
    assert_eq!(kernel.flows().inconsistencies(), NOTHING);
}

both_families!(explain_knows_who_is_full);
fn explain_knows_who_is_full() {
    let mut kernel = limited(4, 10, 35, Overflow::Reset);
    let all = members(0..4);
    for n in 0..40 {
        let said = explain(&mut kernel, client(n), &all).choice.backend();
        let (_, out) = kernel.run(&Tcp::new(client(n), vip(), SYN).numbers(CLIENT_ISN, 0).bytes());
        let reset = Tcp::read(&out).expect("tcp").src == vip();
        assert_eq!(said, (!reset).then(|| BackendId(backend_of(&out))), "client {n}");
        if !reset {
            Connection::begin(&mut kernel, n).complete(&mut kernel);
        }
    }
    assert_eq!(of_service(&kernel).used, 35);
}

both_families!(the_limit_is_exact_on_two_cpus);
/// 40 000 SYNs of clients that have been here before, for places of which many become free meanwhile.
fn the_limit_is_exact_on_two_cpus() {
    const LIMIT: u32 = 100;
    const ALL: u32 = 350;
    const ROUNDS: u16 = 20;
    const EACH: u16 = 1000;
    const CLIENTS: u16 = 16;
    let mut kernel = limited(4, LIMIT, ALL, Overflow::Drop);
    for n in 0..CLIENTS {
        Connection::open(&mut kernel, n).send(&mut kernel, RST, b"");
    }
    for round in 0..ROUNDS {
        let frames = |half: u16| -> Vec<Vec<u8>> {
            let client =
                |n: u16| SocketAddr::new(client(n % CLIENTS).ip(), 1024 + (2 * round + half) * EACH + n);
            let syn = |n| Tcp::new(client(n), vip(), SYN).numbers(CLIENT_ISN, 0).bytes();
            let reset = |n| Tcp::new(client(n), vip(), RST).numbers(CLIENT_ISN.wrapping_add(1), 0).bytes();
            // In the last round nobody leaves.
            let leaves = |n: u16| round + 1 < ROUNDS && !n.is_multiple_of(3);
            (0..EACH).flat_map(|n| [Some(syn(n)), leaves(n).then(|| reset(n))]).flatten().collect()
        };
        let (halves, runners) = ([frames(0), frames(1)], [kernel.runner(), kernel.runner()]);
        let (limits, start) = (kernel.connection_limits(), Barrier::new(3));
        let run = |(cpu, (frames, runner)): (usize, (&Vec<Vec<u8>>, Runner))| {
            lb_tests::cpu::stay_on(cpu);
            start.wait();
            let mut out = [0; 256];
            for frame in frames {
                runner.run(frame, &mut out).expect("the kernel runs it");
            }
        };
        let run = &run;
        let most = thread::scope(|scope| {
            let halves = halves.iter().zip(runners).enumerate();
            let runs: Vec<_> = halves.map(|of| scope.spawn(move || run(of))).collect();
            start.wait();
            let mut most = (0, 0);
            while !runs.iter().all(thread::ScopedJoinHandle::is_finished) {
                let of_backends = (0..4).map(|id| limits.of_backend(BackendId(id)).used).max().unwrap_or(0);
                most = (most.0.max(of_backends), most.1.max(limits.of_service(SERVICE).used));
            }
            most
        });
        // A CPU that finds the last connection taken has counted itself for a moment.
        assert!(most.0 <= LIMIT + 2 && most.1 <= ALL + 2, "{most:?} in round {round}");
        let flows = kernel.flows().counts();
        assert!(flows.handshakes + flows.established <= ALL.into(), "{flows:?} in round {round}");
        assert_eq!(kernel.flows().inconsistencies(), NOTHING, "round {round}");
    }
    assert_eq!(of_service(&kernel), LimitCounts { used: ALL, handshakes: ALL, limit: ALL }, "none too few");
}
