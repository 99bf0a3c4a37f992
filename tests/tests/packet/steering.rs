//! Which backend a SYN goes to, and that everything else about the VIP stays as it is.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    abi::{Addr, Address, FlowKey, Link, Port, V4},
    hash::{flow_hash, slot},
    reason::Reason,
};
use lb_core::{
    config::NoBackend,
    io::{Admit, BackendId, Member, Step},
    maglev,
};
use lb_tests::{
    both_families,
    frame::{ACK, RST, SYN, Tcp, checksums, layout},
    kernel::{
        Action, ELSEWHERE, Family, INGRESS, Kernel, NAT_PORTS, OWN_MAC, address, backend_address,
        backend_mac, family, nat_source, vip,
    },
};

use crate::connections::Connection;

const NOTHING: [String; 0] = [];

pub(crate) fn client(n: u16) -> SocketAddr {
    SocketAddr::new(address([10, 1, (n >> 8) as u8, n as u8]), 40_000 + n % 1000)
}

pub(crate) fn syn(n: u16) -> Tcp {
    Tcp::new(client(n), vip(), SYN)
}

/// The slot that userspace computes for a client's tuple.
fn slot_of(tcp: &Tcp) -> usize {
    fn slot_of<A: Address>(tcp: &Tcp, narrow: impl Fn(IpAddr) -> A) -> usize {
        let key = FlowKey {
            src: narrow(tcp.src.ip()),
            dst: narrow(tcp.dst.ip()),
            sport: Port::new(tcp.src.port()),
            dport: Port::new(tcp.dst.port()),
        };
        slot(flow_hash(&key)) as usize
    }
    match tcp.src {
        SocketAddr::V4(_) => slot_of(tcp, |ip| V4::narrow(&ip.into())),
        SocketAddr::V6(_) => slot_of(tcp, Addr::from),
    }
}

/// The backend a forwarded frame went to, by its destination.
pub(crate) fn backend_of(frame: &[u8]) -> u16 {
    let tcp = Tcp::read(frame).expect("a forwarded segment");
    (0..64).find(|id| backend_address(*id) == tcp.dst).expect("the destination is a backend")
}

both_families!(a_syn_is_translated_and_nothing_else_of_it_changes);
fn a_syn_is_translated_and_nothing_else_of_it_changes() {
    let mut kernel = Kernel::new(4);
    for n in 0..200 {
        let mut sent = syn(n);
        sent.tos = (n % 256) as u8;
        sent.options = vec![2, 4, 5, 0xb4, 1, 3, 3, 7];
        sent.payload = vec![0x5a; usize::from(n) * 7 % 1400];
        let (action, out) = kernel.run(&sent.bytes());
        assert_eq!(action, Action::Redirect);
        assert_eq!(checksums(&out), (true, true), "case {n}");
        let got = Tcp::read(&out).expect("tcp");
        let id = backend_of(&out);
        assert!(NAT_PORTS.contains(&got.src.port()));
        let wanted = Tcp {
            to_mac: backend_mac(id),
            from_mac: OWN_MAC,
            src: SocketAddr::new(nat_source(), got.src.port()),
            dst: backend_address(id),
            ttl: sent.ttl - 1,
            ..sent
        };
        assert_eq!(got, wanted);
    }
}

both_families!(the_slot_is_the_one_that_userspace_computes);
fn the_slot_is_the_one_that_userspace_computes() {
    let mut kernel = Kernel::new(5);
    let members: Vec<Member> =
        (0..5).map(|id| Member { id: BackendId(id), weight: 100, address: backend_address(id) }).collect();
    let table = maglev::build(&members);
    for n in 0..500 {
        let sent = syn(n);
        let (_, out) = kernel.run(&sent.bytes());
        assert_eq!(backend_of(&out), table.0[slot_of(&sent)]);
    }
}

both_families!(a_bad_checksum_stays_bad);
fn a_bad_checksum_stays_bad() {
    let mut kernel = Kernel::new(1);
    let mut frame = syn(1).bytes();
    let at = layout(&frame).expect("tcp");
    frame[at.tcp + 6] ^= 0x55;
    let (_, out) = kernel.run(&frame);
    assert_eq!(checksums(&out), (true, false));
    if family() == Family::V4 {
        let mut frame = syn(2).bytes();
        frame[24] ^= 0x55;
        let (_, out) = kernel.run(&frame);
        assert_eq!(checksums(&out), (false, true));
    }
}

both_families!(a_backend_on_the_same_interface_is_answered_in_place);
fn a_backend_on_the_same_interface_is_answered_in_place() {
    let mut kernel = Kernel::new(1);
    kernel.next_hop(0, Link::new(backend_mac(0), OWN_MAC), INGRESS);
    assert_eq!(kernel.run(&syn(1).bytes()).0, Action::Tx);
}

both_families!(an_ejected_backend_gets_nothing_even_before_the_table_is_swapped);
fn an_ejected_backend_gets_nothing_even_before_the_table_is_swapped() {
    let mut kernel = Kernel::new(4);
    kernel.admit(2, 1, Admit::None);
    let mut seen = BTreeMap::<u16, u32>::new();
    for n in 0..1000 {
        let (action, out) = kernel.run(&syn(n).bytes());
        assert_eq!(action, Action::Redirect, "the others take its share");
        *seen.entry(backend_of(&out)).or_default() += 1;
    }
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [0, 1, 3]);
    assert!(seen.values().all(|count| *count > 200), "{seen:?}");
}

both_families!(all_ejected_but_still_in_the_table_drops_and_says_so);
fn all_ejected_but_still_in_the_table_drops_and_says_so() {
    let mut kernel = Kernel::new(2);
    kernel.admit(0, 1, Admit::None);
    kernel.admit(1, 1, Admit::None);
    assert_eq!(kernel.run(&syn(1).bytes()).0, Action::Drop);
    assert_eq!(kernel.drops(Reason::Swapping), 1);
}

both_families!(a_repeated_syn_keeps_its_backend_unless_that_was_ejected);
fn a_repeated_syn_keeps_its_backend_unless_that_was_ejected() {
    let mut kernel = Kernel::new(4);
    let (_, first) = kernel.run(&syn(7).bytes());
    let (_, second) = kernel.run(&syn(7).bytes());
    assert_eq!(first, second, "same backend, same port");
    let id = backend_of(&first);
    kernel.admit(id, 1, Admit::None);
    let (action, third) = kernel.run(&syn(7).bytes());
    assert_eq!(action, Action::Redirect);
    assert_ne!(backend_of(&third), id);
}

both_families!(nobody_serves);
fn nobody_serves() {
    let mut kernel = Kernel::new(1);
    kernel.table(&[]);
    let (action, out) = kernel.run(&syn(1).bytes());
    assert_eq!(action, Action::Tx);
    let reset = Tcp::read(&out).expect("tcp");
    assert_eq!((reset.src, reset.dst, reset.flags), (vip(), client(1), RST | ACK));
    assert_eq!((reset.seq, reset.ack), (0, 1001));
    assert_eq!(checksums(&out), (true, true));
    assert_eq!(out.len(), syn(1).bytes().len(), "the frame was no longer than the answer");

    kernel.service(NoBackend::Drop, &[]);
    assert_eq!(kernel.run(&syn(2).bytes()).0, Action::Drop);
    assert_eq!(kernel.drops(Reason::NoBackend), 2);
}

both_families!(half_open_takes_its_budget_and_no_more);
fn half_open_takes_its_budget_and_no_more() {
    let mut kernel = Kernel::new(3);
    kernel.admit(1, 1, Admit::Trials);
    kernel.table(&[0, 2]);
    kernel.apply(&Step::Budget { id: BackendId(1), tokens: 3 });
    kernel.service(NoBackend::Reset, &[1]);
    let mut to_trial = 0;
    for n in 0..200 {
        let (_, out) = kernel.run(&syn(n).bytes());
        if backend_of(&out) == 1 {
            to_trial += 1;
            // Its client repeats the SYN: no second token, same backend.
            let (_, again) = kernel.run(&syn(n).bytes());
            assert_eq!(out, again);
        }
    }
    assert_eq!(to_trial, 3);
    kernel.apply(&Step::Budget { id: BackendId(1), tokens: 2 });
    let more = (200..400).filter(|n| backend_of(&kernel.run(&syn(*n).bytes()).1) == 1).count();
    assert_eq!(more, 2);
    let counters = kernel.counters();
    let trial = counters.backends.iter().find(|(id, _)| *id == BackendId(1)).expect("counted").1;
    assert_eq!((trial.trials, trial.connections), (5, 5));
}

both_families!(an_unresolved_next_hop_sends_nothing);
fn an_unresolved_next_hop_sends_nothing() {
    let mut kernel = Kernel::new(1);
    kernel.next_hop(0, Link::new([0; 6], OWN_MAC), ELSEWHERE);
    assert_eq!(kernel.run(&syn(1).bytes()).0, Action::Drop);
    assert_eq!(kernel.drops(Reason::Neighbour), 1);
    kernel.next_hop(0, Link::new(backend_mac(0), OWN_MAC), ELSEWHERE);
    assert_eq!(kernel.run(&syn(1).bytes()).0, Action::Redirect);
}

both_families!(a_backend_without_a_next_hop_leaves_its_share_to_the_others);
fn a_backend_without_a_next_hop_leaves_its_share_to_the_others() {
    let mut kernel = Kernel::new(3);
    kernel.next_hop(1, Link::new([0; 6], OWN_MAC), ELSEWHERE);
    let mut seen = BTreeMap::<u16, u32>::new();
    for n in 0..300 {
        let (action, out) = kernel.run(&syn(n).bytes());
        assert_eq!(action, Action::Redirect);
        *seen.entry(backend_of(&out)).or_default() += 1;
    }
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [0, 2]);
    assert_eq!(kernel.drops(Reason::Neighbour), 0);
}

both_families!(nat_ports_run_out_and_are_counted);
fn nat_ports_run_out_and_are_counted() {
    let mut kernel = Kernel::with(1, 20_000..=20_003, 4096);
    let mut ports = Vec::new();
    let mut refused = 0;
    for n in 0..40 {
        match Connection::try_begin(&mut kernel, n) {
            Ok(begun) => ports.push(begun.complete(&mut kernel).nat.port()),
            Err(Action::Drop) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    ports.sort_unstable();
    assert_eq!(ports, [20_000, 20_001, 20_002, 20_003], "each port once");
    assert_eq!(kernel.drops(Reason::NatPorts), refused);
    assert_eq!(kernel.flows().inconsistencies(), NOTHING);
}

both_families!(several_nat_addresses_add_up);
fn several_nat_addresses_add_up() {
    let addresses = [[10, 9, 0, 5], [10, 9, 0, 6], [10, 9, 0, 7]].map(address);
    let mut kernel = Kernel::with_nat(1, 20_000..=20_003, &addresses, 4096);
    let mut sources = std::collections::BTreeSet::new();
    for n in 0..200 {
        if let Ok(begun) = Connection::try_begin(&mut kernel, n) {
            let nat = begun.complete(&mut kernel).nat;
            assert!(addresses.contains(&nat.ip()) && (20_000..=20_003).contains(&nat.port()));
            assert!(sources.insert(nat), "{nat} is another connection's");
        }
    }
    assert_eq!(sources.len(), 12, "every port of every address");
    assert_eq!(kernel.drops(Reason::NatPorts), 188);
}

both_families!(half_open_handshakes_give_their_ports_to_connections_that_find_none);
fn half_open_handshakes_give_their_ports_to_connections_that_find_none() {
    // Few of the ports belong to connections: the last twelve tries take one of any half-open handshake, and
    // all miss once in 10^10 SYNs.
    let mut kernel = Kernel::with(1, 20_000..=20_015, 4096);
    let living = [0, 1].map(|n| Connection::open(&mut kernel, n));
    for n in 2..100 {
        assert_eq!(kernel.run(&syn(n).bytes()).0, Action::Redirect, "never refused");
    }
    for connection in living {
        assert_eq!(connection.send(&mut kernel, ACK, b"x"), Action::Redirect);
        assert_eq!(connection.reply(&mut kernel, ACK, b"x"), Action::Redirect);
    }
    let census = kernel.flows().counts();
    assert_eq!((census.established, census.handshakes), (2, 14));
    assert_eq!(kernel.flows().inconsistencies(), NOTHING);
}
