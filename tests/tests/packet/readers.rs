//! The daemon reads these maps of the program as its own memory: SYN-ACKs, clients, trial budgets.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    thread,
    time::Duration,
};

use lb_core::{
    config::NoBackend,
    io::{Admit, BackendId, ServiceId, Step},
};
use lb_tests::{
    both_families,
    frame::{ACK, RST, SYN, Tcp},
    kernel::{Action, Kernel, SERVICE, address, backend_address, vip},
};
use lb_userspace::dataplane::bpf::ClientsSeen;
use nix::time::{ClockId, clock_gettime};

use crate::{
    connections::{BACKEND_ISN, CLIENT_ISN, Connection},
    steering::backend_of,
};

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has this clock");
    u64::try_from(Duration::from(now).as_nanos()).expect("584 years")
}

/// Longer than the clock of the program may be late.
const LATER: Duration = Duration::from_millis(50);

both_families!(the_daemon_sees_when_a_backend_answered_a_syn);
fn the_daemon_sees_when_a_backend_answered_a_syn() {
    let mut kernel = Kernel::new(2);
    let answers = kernel.syn_acks();
    let before = monotonic_ns();
    assert!(![0, 1].into_iter().any(|id| answers.answered_since(BackendId(id), 0)), "nobody has asked");
    let begun = Connection::begin(&mut kernel, 1);
    let asked = BackendId(begun.backend);
    assert!(!answers.answered_since(asked, 0), "a SYN is no answer");
    begun.reply(&mut kernel, RST | ACK, b"");
    assert!(!answers.answered_since(asked, 0), "nor is a refusal");
    let mut others = (2..100).map(|n| Connection::open(&mut kernel, n));
    let open = others.find(|open| open.backend == asked.0).expect("half of them go there");
    drop(others);
    let answered = monotonic_ns();
    assert!(answers.answered_since(asked, before));
    thread::sleep(LATER);
    assert!(answers.answered_since(asked, answered), "in doubt it has");
    let later = monotonic_ns();
    open.reply(&mut kernel, ACK, b"more");
    assert!(!answers.answered_since(asked, later), "data is no SYN-ACK");
}

/// A client completes a handshake.
fn visit(kernel: &mut Kernel, client: SocketAddr) -> bool {
    let (action, out) = kernel.run(&Tcp::new(client, vip(), SYN).numbers(CLIENT_ISN, 0).bytes());
    assert_eq!(action, Action::Redirect);
    let (backend, nat) = (backend_of(&out), Tcp::read(&out).expect("tcp").src);
    let answer =
        Tcp::new(backend_address(backend), nat, SYN | ACK).numbers(BACKEND_ISN, CLIENT_ISN.wrapping_add(1));
    assert_eq!(kernel.run(&answer.bytes()).0, Action::Redirect);
    let end = Tcp::new(client, vip(), ACK).numbers(CLIENT_ISN.wrapping_add(1), BACKEND_ISN.wrapping_add(1));
    kernel.run(&end.bytes()).0 == Action::Redirect
}

/// A client of prefix `prefix`.
pub(crate) fn client(prefix: u8, host: u8, port: u16) -> SocketAddr {
    let ip = match address([10, prefix, 0, host]) {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => {
            let mut words = v6.segments();
            words[2] = u16::from(prefix);
            Ipv6Addr::from(words).into()
        }
    };
    SocketAddr::new(ip, port)
}

both_families!(clients_that_complete_a_handshake_are_counted_by_prefix_and_address);
fn clients_that_complete_a_handshake_are_counted_by_prefix_and_address() {
    let mut kernel = Kernel::new(1);
    let mut clients = kernel.clients_seen();
    let seen = |clients: &ClientsSeen| clients.seen(SERVICE);
    assert_eq!(seen(&clients), (0, 0));
    // Anybody can send a SYN, and an acknowledgement of a made-up number.
    for host in 0..50 {
        let spoofed = client(1, host, 4000);
        kernel.run(&Tcp::new(spoofed, vip(), SYN).numbers(CLIENT_ISN, 0).bytes());
        kernel.run(&Tcp::new(spoofed, vip(), ACK).numbers(CLIENT_ISN.wrapping_add(1), 77).bytes());
    }
    assert_eq!(seen(&clients), (0, 0));
    for port in 1..=40 {
        assert!(visit(&mut kernel, client(2, 1, port)));
    }
    assert_eq!(seen(&clients), (1, 1), "one client is one, however often it comes");
    for host in 2..=40 {
        assert!(visit(&mut kernel, client(2, host, 5)));
    }
    let (prefixes, addresses) = seen(&clients);
    // Forty that fall into 64 bits at random: 30 on average, and fewer than 18 in one of a million runs.
    assert!(prefixes == 1 && (18..=40).contains(&addresses), "{prefixes} {addresses}");
    for prefix in 3..=41 {
        assert!(visit(&mut kernel, client(prefix, 1, 5)));
    }
    let all = seen(&clients);
    assert!((18..=40).contains(&all.0) && all.1 >= addresses, "{all:?}");
    assert_eq!(clients.seen(ServiceId(SERVICE.0 + 1)), (0, 0), "another service");
    clients.turn();
    assert_eq!(seen(&clients), all, "the period before counts");
    assert!(visit(&mut kernel, client(2, 1, 50)));
    assert_eq!(seen(&clients), all);
    clients.turn();
    assert_eq!(seen(&clients), (1, 1));
    clients.turn();
    assert_eq!(seen(&clients), (0, 0));
}

both_families!(the_daemon_sees_what_is_left_of_a_budget);
fn the_daemon_sees_what_is_left_of_a_budget() {
    let mut kernel = Kernel::new(2);
    kernel.admit(1, 1, Admit::Trials);
    kernel.table(&[0]);
    let budgets = kernel.trial_budgets();
    assert_eq!(budgets.left(BackendId(1)), 0);
    kernel.apply(&Step::Budget { id: BackendId(1), tokens: 3 });
    kernel.service(NoBackend::Reset, &[1]);
    for (n, left) in [(1, 2), (2, 1), (3, 0), (4, 0)] {
        Connection::begin(&mut kernel, n);
        assert_eq!(budgets.left(BackendId(1)), left);
    }
}
