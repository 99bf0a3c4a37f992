//! Which backend a SYN goes to, and that everything else about the VIP stays as it is.

use std::{collections::BTreeMap, net::SocketAddrV4};

use lb_common::{
    abi::{FlowKey, Link, Port},
    hash::{flow_hash, slot},
    reason::Reason,
};
use lb_core::{
    config::NoBackend,
    io::{Admit, BackendId, Member, Step},
    maglev,
};
use lb_tests::{
    frame::{ACK, RST, SYN, Tcp, checksums},
    kernel::{
        Action, ELSEWHERE, INGRESS, Kernel, NAT_PORTS, NAT_SOURCE, OWN_MAC, backend_address, backend_mac, vip,
    },
};

pub(crate) fn client(n: u16) -> SocketAddrV4 {
    SocketAddrV4::new([10, 1, (n >> 8) as u8, n as u8].into(), 40_000 + n % 1000)
}

pub(crate) fn syn(n: u16) -> Tcp {
    Tcp::new(client(n), vip(), SYN)
}

fn key(tcp: &Tcp) -> FlowKey {
    FlowKey {
        src: std::net::IpAddr::V4(*tcp.src.ip()).into(),
        dst: std::net::IpAddr::V4(*tcp.dst.ip()).into(),
        sport: Port::new(tcp.src.port()),
        dport: Port::new(tcp.dst.port()),
    }
}

/// The backend a forwarded frame went to, by its destination.
pub(crate) fn backend_of(frame: &[u8]) -> u16 {
    let tcp = Tcp::read(frame).expect("a forwarded segment");
    (0..64).find(|id| backend_address(*id) == tcp.dst).expect("the destination is a backend")
}

#[test]
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
            src: SocketAddrV4::new(NAT_SOURCE.into(), got.src.port()),
            dst: backend_address(id),
            ttl: sent.ttl - 1,
            ..sent
        };
        assert_eq!(got, wanted);
    }
}

#[test]
fn the_slot_is_the_one_that_userspace_computes() {
    let mut kernel = Kernel::new(5);
    let members: Vec<Member> = (0..5)
        .map(|id| Member {
            id: BackendId(id),
            weight: 100,
            address: std::net::SocketAddr::V4(backend_address(id)),
        })
        .collect();
    let table = maglev::build(&members);
    for n in 0..500 {
        let sent = syn(n);
        let (_, out) = kernel.run(&sent.bytes());
        assert_eq!(backend_of(&out), table.0[slot(flow_hash(&key(&sent))) as usize]);
    }
}

#[test]
fn a_bad_checksum_stays_bad() {
    let mut kernel = Kernel::new(1);
    let mut frame = syn(1).bytes();
    frame[40] ^= 0x55;
    let (_, out) = kernel.run(&frame);
    assert_eq!(checksums(&out), (true, false));
    let mut frame = syn(2).bytes();
    frame[24] ^= 0x55;
    let (_, out) = kernel.run(&frame);
    assert_eq!(checksums(&out), (false, true));
}

#[test]
fn a_backend_on_the_same_interface_is_answered_in_place() {
    let mut kernel = Kernel::new(1);
    kernel.next_hop(0, Link::new(backend_mac(0), OWN_MAC), INGRESS);
    assert_eq!(kernel.run(&syn(1).bytes()).0, Action::Tx);
}

#[test]
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

#[test]
fn all_ejected_but_still_in_the_table_drops_and_says_so() {
    let mut kernel = Kernel::new(2);
    kernel.admit(0, 1, Admit::None);
    kernel.admit(1, 1, Admit::None);
    assert_eq!(kernel.run(&syn(1).bytes()).0, Action::Drop);
    assert_eq!(kernel.drops(Reason::Swapping), 1);
}

#[test]
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

#[test]
fn nobody_serves() {
    let mut kernel = Kernel::new(1);
    kernel.table(&[]);
    let (action, out) = kernel.run(&syn(1).bytes());
    assert_eq!(action, Action::Tx);
    let reset = Tcp::read(&out).expect("tcp");
    assert_eq!((reset.src, reset.dst, reset.flags), (vip(), client(1), RST | ACK));
    assert_eq!((reset.seq, reset.ack), (0, 1001));
    assert_eq!(checksums(&out), (true, true));
    assert_eq!(out.len(), 54, "the frame was shorter than one that has to be cut");

    kernel.service(NoBackend::Drop, &[]);
    assert_eq!(kernel.run(&syn(2).bytes()).0, Action::Drop);
    assert_eq!(kernel.drops(Reason::NoBackend), 2);
}

#[test]
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

#[test]
fn an_unresolved_next_hop_sends_nothing() {
    let mut kernel = Kernel::new(1);
    kernel.next_hop(0, Link::new([0; 6], OWN_MAC), ELSEWHERE);
    assert_eq!(kernel.run(&syn(1).bytes()).0, Action::Drop);
    assert_eq!(kernel.drops(Reason::Neighbour), 1);
    kernel.next_hop(0, Link::new(backend_mac(0), OWN_MAC), ELSEWHERE);
    assert_eq!(kernel.run(&syn(1).bytes()).0, Action::Redirect);
}

#[test]
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

#[test]
fn nat_ports_run_out_and_are_counted() {
    let mut kernel = Kernel::with(1, 20_000..=20_003, 4096);
    let mut ports = Vec::new();
    let mut refused = 0;
    for n in 0..40 {
        let (action, out) = kernel.run(&syn(n).bytes());
        match action {
            Action::Redirect => ports.push(Tcp::read(&out).expect("tcp").src.port()),
            Action::Drop => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    ports.sort_unstable();
    assert_eq!(ports, [20_000, 20_001, 20_002, 20_003], "each port once");
    assert_eq!(kernel.drops(Reason::NatPorts), refused);
}
