//! No source prefix takes all of a flow table, or of a backend's NAT ports.

use std::net::SocketAddr;

use lb_common::{abi::flow_state, reason::Reason};
use lb_tests::{
    both_families,
    frame::{ACK, SYN, Tcp},
    kernel::{Action, Kernel, MAX_SOURCE_SHARE, backend_address, vip},
};
use lb_userspace::dataplane::{
    bpf::{Limits, Now},
    steering::Choice,
};

use crate::{
    connections::{BACKEND_ISN, CLIENT_ISN},
    explain::{explain, members},
    readers::client,
    steering::backend_of,
};

/// One end of a handshake.
fn begin(kernel: &mut Kernel, client: SocketAddr) -> Option<(u16, SocketAddr)> {
    let (action, out) = kernel.run(&Tcp::new(client, vip(), SYN).numbers(CLIENT_ISN, 0).bytes());
    (action == Action::Redirect).then(|| (backend_of(&out), Tcp::read(&out).expect("tcp").src))
}

fn complete(kernel: &mut Kernel, client: SocketAddr, (backend, nat): (u16, SocketAddr)) -> bool {
    let answer =
        Tcp::new(backend_address(backend), nat, SYN | ACK).numbers(BACKEND_ISN, CLIENT_ISN.wrapping_add(1));
    kernel.run(&answer.bytes());
    kernel.run(&says(client).bytes()).0 == Action::Redirect
}

fn says(client: SocketAddr) -> Tcp {
    Tcp::new(client, vip(), ACK).numbers(CLIENT_ISN.wrapping_add(1), BACKEND_ISN.wrapping_add(1))
}

fn open(kernel: &mut Kernel, client: SocketAddr) -> bool {
    begin(kernel, client).is_some_and(|at| complete(kernel, client, at))
}

fn scan(kernel: &Kernel) -> bool {
    kernel.timeout_scanner().scan(&Limits::new(), Some(&Default::default()), Now::read()).is_filling
}

/// So many clients of one prefix.
fn of(prefix: u8) -> impl Iterator<Item = SocketAddr> {
    (0..250u8).flat_map(move |host| (1..=200).map(move |port| client(prefix, host, port)))
}

/// Opens connections of one prefix until one is refused, with a scan after each `pace`. Returns how many it opened.
fn as_many_as_possible(kernel: &mut Kernel, prefix: u8, pace: usize) -> usize {
    for (opened, client) in of(prefix).enumerate() {
        if !open(kernel, client) {
            return opened;
        }
        if opened % pace == 0 {
            scan(kernel);
        }
    }
    panic!("nobody is refused")
}

const FLOWS: usize = 4096;
/// With so many ports for each connection there may be, the flow table is what is short.
const PLENTY: std::ops::RangeInclusive<u16> = 1024..=60_000;

both_families!(one_prefix_does_not_take_the_flow_table);
fn one_prefix_does_not_take_the_flow_table() {
    const PACE: usize = 64;
    let mut kernel = Kernel::with(2, PLENTY, FLOWS as u32);
    let held = as_many_as_possible(&mut kernel, 1, PACE);
    // The sets are whole, so there is space for a few more flows than asked for.
    assert!((FLOWS * 3 / 4..FLOWS * 3 / 4 + PACE + 16).contains(&held), "{held}");
    assert_eq!(kernel.drops(Reason::SourceShare), 1);
    assert!(scan(&kernel));
    // Another prefix begins connections up to its own share.
    let share = FLOWS * usize::from(MAX_SOURCE_SHARE) / 100;
    let held_too = as_many_as_possible(&mut kernel, 2, 1);
    assert!((share..share + 16).contains(&held_too), "{held_too}");
    for prefix in 3..6 {
        assert!(open(&mut kernel, client(prefix, 1, 1)));
    }
    // Living connections stay, and may go on.
    assert!(of(1).take(held).all(|client| kernel.run(&says(client).bytes()).0 == Action::Redirect));
    let more = client(1, 251, 1);
    let said = explain(&mut kernel, more, &members(0..2));
    assert_eq!(said.choice, Choice::Nobody(Reason::SourceShare));
    assert!(!open(&mut kernel, more), "still nothing new");
    assert_eq!(kernel.drops(Reason::TableFull), 0);
    // The connections end, and the rule with them.
    kernel.forget_connections();
    assert!(!scan(&kernel));
    assert!(open(&mut kernel, client(1, 251, 1)));
}

both_families!(one_prefix_does_not_take_a_backends_nat_ports);
fn one_prefix_does_not_take_a_backends_nat_ports() {
    const PORTS: u16 = 400;
    let mut kernel = Kernel::with(2, 20_000..=20_000 + PORTS - 1, FLOWS as u32);
    kernel.table(&[0]);
    let held = as_many_as_possible(&mut kernel, 1, 8);
    assert!((300..310).contains(&held), "{held}");
    assert_eq!((kernel.drops(Reason::SourceShare), kernel.drops(Reason::NatPorts)), (1, 0));
    assert!(open(&mut kernel, client(2, 1, 1)), "another prefix");
    kernel.table(&[1]);
    assert!(open(&mut kernel, client(1, 251, 1)), "another backend");
    kernel.table(&[0]);
    let said = explain(&mut kernel, client(1, 251, 2), &members([0]));
    assert_eq!(said.choice, Choice::Nobody(Reason::SourceShare));
    assert!(!open(&mut kernel, client(1, 251, 2)));
    assert!(of(1).take(held).all(|client| kernel.run(&says(client).bytes()).0 == Action::Redirect));
}

both_families!(handshakes_that_wait_do_not_complete_all_at_once);
fn handshakes_that_wait_do_not_complete_all_at_once() {
    const PORTS: u16 = 400;
    let mut kernel = Kernel::with(1, 20_000..=20_000 + PORTS - 1, FLOWS as u32);
    let held: Vec<_> = of(1).take(290).collect();
    assert!(held.iter().all(|client| open(&mut kernel, *client)));
    // Few ports are left: a handshake may find none, or take that of another one.
    let (waiting, begun): (Vec<_>, Vec<_>) =
        of(1).skip(290).filter_map(|client| Some((client, begin(&mut kernel, client)?))).take(100).unzip();
    assert!(scan(&kernel), "half-open handshakes count for nothing");
    let mut completed = 0;
    for (number, (client, at)) in waiting.iter().zip(&begun).enumerate() {
        completed += usize::from(complete(&mut kernel, *client, *at));
        if number % 8 == 0 {
            scan(&kernel);
        }
    }
    assert!((10..=24).contains(&completed), "{completed}");
    let refused = kernel.drops(Reason::SourceShare);
    assert!((70..=100 - completed as u64).contains(&refused), "{refused}");
    assert!(
        of(2).take(20).any(|client| open(&mut kernel, client)),
        "another prefix takes their ports, if need be"
    );
    // Others end, and the client's acknowledgement comes again.
    kernel.flows().remove_all(|state| state & flow_state::ESTABLISHED != 0);
    scan(&kernel);
    assert!(waiting.iter().zip(&begun).any(|(client, at)| complete(&mut kernel, *client, *at)));
}

both_families!(handshakes_that_nobody_completes_are_nobodys_share);
fn handshakes_that_nobody_completes_are_nobodys_share() {
    // Anybody can send SYNs with a source of this prefix.
    let mut kernel = Kernel::with(1, PLENTY, FLOWS as u32);
    for spoofed in of(1).take(FLOWS) {
        begin(&mut kernel, spoofed);
    }
    assert!(!scan(&kernel));
    assert!(open(&mut kernel, client(1, 251, 1)));
    assert_eq!(kernel.drops(Reason::SourceShare), 0);
}
