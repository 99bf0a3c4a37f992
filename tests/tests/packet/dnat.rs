//! `dnat`: the client's address and port are kept.

use std::net::SocketAddr;

use lb_common::{
    abi::{FlowKey, Link, Port},
    reason::Reason,
};
use lb_core::{
    config::Mode,
    io::{Admit, BackendId, FlowReset, Generation, Member, ServiceId, Step},
};
use lb_lab::Lab;
use lb_tests::{
    both_families,
    frame::{ACK, FIN, PSH, RST, SYN, Tcp, checksums},
    kernel::{
        Action, Family, INGRESS, Kernel, OWN_MAC, ServiceSettings, address, backend_address, backend_mac,
        family, in_family, nat_source, vip,
    },
    lab::skipped,
};
use lb_userspace::dataplane::steering::Choice;

use crate::{
    connections::{BACKEND_ISN, Connection},
    steering::{backend_of, client, syn},
};

const OTHER: ServiceId = ServiceId(4);

fn other_vip() -> SocketAddr {
    SocketAddr::new(address([203, 0, 113, 11]), 443)
}

fn dnat(backends: u16) -> Kernel {
    let mut kernel = Kernel::new(backends);
    kernel.mode(Mode::Dnat);
    kernel
}

both_families!(the_source_stays_and_replies_get_the_vip);
fn the_source_stays_and_replies_get_the_vip() {
    let mut kernel = dnat(3);
    for n in 0..200 {
        let sent = syn(n);
        let (action, out) = kernel.run(&sent.bytes());
        assert_eq!((action, checksums(&out)), (Action::Redirect, (true, true)));
        let id = backend_of(&out);
        let wanted = Tcp {
            to_mac: backend_mac(id),
            from_mac: OWN_MAC,
            dst: backend_address(id),
            ttl: 63,
            ..sent.clone()
        };
        assert_eq!(Tcp::read(&out), Some(wanted), "only the destination changes");
        let reply = Tcp::new(backend_address(id), sent.src, SYN | ACK).numbers(9, sent.seq + 1);
        let (action, out) = kernel.run(&reply.bytes());
        assert_eq!((action, checksums(&out)), (Action::Redirect, (true, true)));
        let wanted = Tcp { to_mac: sent.from_mac, from_mac: sent.to_mac, src: vip(), ttl: 63, ..reply };
        assert_eq!(Tcp::read(&out), Some(wanted));
    }
    assert_eq!(kernel.flows().inconsistencies(), Vec::<String>::new());
}

both_families!(a_connection_lives_and_ends_as_in_nat);
fn a_connection_lives_and_ends_as_in_nat() {
    let mut kernel = dnat(2);
    let connection = Connection::open(&mut kernel, 5);
    assert_eq!(connection.nat, connection.client);
    assert_eq!(
        connection.send(&mut kernel, ACK | PSH, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        Action::Redirect
    );
    assert_eq!(connection.reply(&mut kernel, ACK | PSH, b"HTTP/1.1 503 No\r\n\r\n"), Action::Redirect);
    let heads = kernel.heads();
    assert_eq!(heads.len(), 1, "evidence is read");
    assert_eq!((heads[0].backend, &heads[0].data[9..12]), (connection.backend, b"503".as_slice()));
    assert_eq!(connection.send(&mut kernel, RST, b""), Action::Redirect);
    assert_eq!(kernel.flows().counts().time_wait, 1);
    // The same client port at once: nothing else would do, so the place is taken again.
    Connection::open(&mut kernel, 5);
    assert_eq!(kernel.flows().inconsistencies(), Vec::<String>::new());
}

both_families!(two_services_on_one_backend_are_distinguished_by_their_flows);
fn two_services_on_one_backend_are_distinguished_by_their_flows() {
    let mut kernel = dnat(1);
    let id = BackendId(1);
    kernel.apply(&Step::Backend {
        id,
        service: OTHER,
        address: backend_address(0),
        generation: Generation(1),
        admit: Admit::All,
        flow_reset: FlowReset::Never,
        count_successes: false,
        redispatch: false,
        max_connections: 0,
    });
    let members = vec![Member { id, weight: 100, address: backend_address(0) }];
    kernel.apply(&Step::Table { service: OTHER, members });
    kernel.serve(ServiceSettings {
        id: OTHER,
        vip: other_vip(),
        mode: Mode::Dnat,
        ..ServiceSettings::default()
    });

    let from = |n, to| Tcp::new(client(n), to, SYN);
    for (n, to) in [(1, vip()), (2, other_vip())] {
        let (action, out) = kernel.run(&from(n, to).bytes());
        assert_eq!(
            (action, Tcp::read(&out).map(|tcp| tcp.dst)),
            (Action::Redirect, Some(backend_address(0)))
        );
    }
    for (n, to) in [(1, vip()), (2, other_vip())] {
        let (action, out) =
            kernel.run(&Tcp::new(backend_address(0), client(n), SYN | ACK).numbers(9, 1001).bytes());
        assert_eq!((action, Tcp::read(&out).map(|tcp| tcp.src)), (Action::Redirect, Some(to)));
    }
    // Established, its tuple is not given to the other service's connection: the backend has one of that
    // name.
    kernel.run(&Tcp::new(client(1), vip(), ACK).numbers(1001, 10).bytes());
    assert_eq!(kernel.flows().counts().established, 1);
    assert_eq!(kernel.run(&from(1, other_vip()).bytes()).0, Action::Drop);
    assert_eq!(kernel.flows().counts().established, 1);
    // Without a flow it could be of either: the client gets a reset and may begin again, and a reply is left
    // alone.
    let (action, out) = kernel.run(&Tcp::new(client(3), vip(), ACK).numbers(5, 7).bytes());
    assert_eq!((action, Tcp::read(&out).map(|tcp| tcp.flags)), (Action::Tx, Some(RST)));
    let reply = Tcp::new(backend_address(0), client(3), ACK).bytes();
    assert_eq!(kernel.run(&reply), (Action::Pass, reply));
    assert_eq!(kernel.flows().inconsistencies(), Vec::<String>::new());
}

both_families!(a_client_that_is_its_own_backend_is_refused);
fn a_client_that_is_its_own_backend_is_refused() {
    let mut kernel = dnat(1);
    // From anywhere else nobody has this address.
    kernel.next_hop(0, Link::new(backend_mac(0), OWN_MAC), INGRESS);
    // By its own way; by another one it would be a martian.
    kernel.next_hop(0, Link::new(backend_mac(0), OWN_MAC), INGRESS);
    let itself = SocketAddr::new(backend_address(0).ip(), 40_000);
    for flags in [SYN, ACK] {
        let (action, out) = kernel.run(&Tcp::new(itself, vip(), flags).bytes());
        let reset = Tcp::read(&out).expect("a reset");
        assert_eq!((action, reset.src, reset.dst, reset.flags & RST), (Action::Tx, vip(), itself, RST));
    }
    assert_eq!(kernel.drops(Reason::Hairpin), 2);
    let key = FlowKey {
        src: itself.ip().into(),
        dst: vip().ip().into(),
        sport: Port::new(itself.port()),
        dport: Port::new(vip().port()),
    };
    let said = kernel.steering(&key, &[]).expect("it is the VIP");
    assert_eq!(said.choice, Choice::Nobody(Reason::Hairpin), "and `explain` says so");
    assert_eq!(kernel.flows().counts(), Default::default(), "nothing is kept of it");
    assert_eq!(kernel.flows().inconsistencies(), Vec::<String>::new());
    // In `nat` a backend may be a client of its own service.
    kernel.mode(Mode::Nat);
    assert_eq!(kernel.run(&Tcp::new(itself, vip(), SYN).bytes()).0, Action::Tx);
}

both_families!(in_nat_our_own_address_is_no_backend);
fn in_nat_our_own_address_is_no_backend() {
    let mut kernel = Kernel::new(0);
    let here = SocketAddr::new(nat_source(), 8080);
    let hop = lb_userspace::dataplane::NextHop {
        also: Default::default(),
        vlan: 0,
        ifindex: 2,
        link: Link::new(backend_mac(0), OWN_MAC),
        source: here.ip(),
        routed: false,
        path_warning: None,
    };
    kernel.next_hop_to(here.ip(), hop);
    let (id, service) = (BackendId(0), lb_tests::kernel::SERVICE);
    kernel.apply(&Step::Backend {
        id,
        service,
        address: here,
        generation: Generation(1),
        admit: Admit::All,
        flow_reset: FlowReset::Never,
        count_successes: false,
        redispatch: false,
        max_connections: 0,
    });
    kernel.apply(&Step::Table { service, members: vec![Member { id, weight: 1, address: here }] });
    assert_eq!(kernel.run(&syn(1).bytes()).0, Action::Tx);
    assert_eq!(kernel.drops(Reason::Hairpin), 1);
}

both_families!(changing_the_mode_leaves_connections_as_they_are);
fn changing_the_mode_leaves_connections_as_they_are() {
    let mut kernel = Kernel::new(2);
    let translated = Connection::open(&mut kernel, 1);
    kernel.mode(Mode::Dnat);
    let kept = Connection::open(&mut kernel, 2);
    assert_ne!(translated.nat, translated.client);
    assert_eq!(kept.nat, kept.client);
    for mode in [Mode::Dnat, Mode::Nat] {
        kernel.mode(mode);
        for connection in [&translated, &kept] {
            assert_eq!(connection.send(&mut kernel, ACK | PSH, b"x"), Action::Redirect);
            assert_eq!(connection.reply(&mut kernel, ACK | PSH, b"y"), Action::Redirect);
        }
    }
}

// Each reply tuple has two sets, so few are refused for want of a place there.
both_families!(nearly_all_find_a_place_and_handshakes_give_theirs);
fn nearly_all_find_a_place_and_handshakes_give_theirs() {
    const MAX: u16 = 6000;
    let mut kernel = Kernel::with(1, lb_tests::kernel::NAT_PORTS, u32::from(MAX));
    kernel.mode(Mode::Dnat);
    let mut begins = |n: u16| {
        let from = SocketAddr::new(address([10, 7, 0, 1]), 1025 + n);
        kernel.run(&Tcp::new(from, vip(), SYN).bytes()).0 == Action::Redirect
    };
    // Half as many again as may live: no handshake is refused, older ones give way.
    assert_eq!((0..MAX * 3 / 2).filter(|n| !begins(*n)).count(), 0);
    assert_eq!(kernel.flows().inconsistencies(), Vec::<String>::new());
    kernel.forget_connections();
    let living = (0..MAX).filter(|n| {
        let from = SocketAddr::new(address([10, 7, 0, 1]), 1025 + n);
        if kernel.run(&Tcp::new(from, vip(), SYN).bytes()).0 != Action::Redirect {
            return false;
        }
        kernel.run(&Tcp::new(backend_address(0), from, SYN | ACK).numbers(9, 1001).bytes());
        kernel.run(&Tcp::new(from, vip(), ACK).numbers(1001, 10).bytes());
        true
    });
    let living = living.count();
    assert!(living >= usize::from(MAX - MAX / 500), "{living} of {MAX}");
    assert_eq!(kernel.flows().counts().established, living as u64);
    assert_eq!(kernel.flows().inconsistencies(), Vec::<String>::new());
}

#[test]
fn without_a_flow_both_ways_are_known() {
    if skipped("without_a_flow_both_ways_are_known", &[]) {
        return;
    }
    let mut lab = Lab::new("stateless").expect("a lab");
    let (node, far) = (lab.host("node").expect("a host"), lab.host("far").expect("a host"));
    let [here, there] = lab.link((&node, "10.1.0.1/16"), (&far, "10.1.0.2/16")).expect("a link");
    let six = |n: u16| format!("2001:db8:a:1:5a::{n:x}");
    node.ip(&format!("address add {}/64 dev {} nodad", six(1), here.device)).expect("an address");
    for to in ["10.1.0.7".to_owned(), six(7)] {
        node.ip(&format!("neighbour replace {to} lladdr {} dev {} nud permanent", there.mac, here.device))
            .expect("a neighbour");
    }
    node.sysctl("net/ipv4/ip_forward", "1").expect("a setting");
    node.sysctl("net/ipv6/conf/all/forwarding", "1").expect("a setting");
    for family in [Family::V4, Family::V6] {
        node.enter(|| in_family(family, stateless)).expect("the host is there");
    }
    node.sysctl("net/ipv4/ip_forward", "0").expect("a setting");
    node.sysctl("net/ipv6/conf/all/forwarding", "0").expect("a setting");
    for family in [Family::V4, Family::V6] {
        let unrouted = || {
            let reply = Tcp::new(backend_address(0), client(7), ACK).bytes();
            let mut kernel = dnat(1);
            kernel.come_by(INGRESS);
            assert_eq!(
                kernel.run(&reply),
                (Action::Pass, reply),
                "a host that does not route leaves it alone"
            );
        };
        node.enter(|| in_family(family, unrouted)).expect("the host is there");
    }
}

fn stateless() {
    let mut kernel = dnat(3);
    // The routes are those of this host.
    kernel.come_by(INGRESS);
    for (flags, payload) in
        [(ACK, b"".as_slice()), (ACK | PSH, b"GET / HTTP/1.1\r\n\r\n"), (FIN | ACK, b""), (RST, b"")]
    {
        let sent = Tcp::new(client(7), vip(), flags).numbers(5000, 7000).payload(payload);
        let (action, out) = kernel.run(&sent.bytes());
        assert_eq!(
            (action, checksums(&out)),
            (Action::Redirect, (true, true)),
            "{family:?}",
            family = family()
        );
        let id = backend_of(&out);
        let wanted = Tcp {
            to_mac: backend_mac(id),
            from_mac: OWN_MAC,
            dst: backend_address(id),
            ttl: 63,
            ..sent.clone()
        };
        assert_eq!(Tcp::read(&out), Some(wanted));
        let reply = Tcp::new(backend_address(id), client(7), ACK | PSH)
            .numbers(BACKEND_ISN, 5000)
            .payload(b"HTTP/1.1 500 \r\n\r\n");
        let (action, out) = kernel.run_here(&reply.bytes(), INGRESS);
        assert_eq!((action, checksums(&out)), (Action::Redirect, (true, true)));
        let got = Tcp::read(&out).expect("tcp");
        let wanted = Tcp { to_mac: got.to_mac, from_mac: got.from_mac, src: vip(), ttl: 63, ..reply };
        assert_ne!(got.to_mac, [0; 6]);
        assert_eq!(got, wanted);
    }
    assert!(kernel.heads().is_empty(), "nothing of it is evidence");
    let counters = kernel.counters();
    let of = |field: fn(&lb_common::abi::BackendCounters) -> u64| -> u64 {
        counters.backends.iter().map(|(_, counters)| field(counters)).sum()
    };
    assert_eq!((of(|c| c.packets_to), of(|c| c.packets_from), of(|c| c.connections)), (4, 4, 0));
    assert_eq!(kernel.flows().counts(), Default::default(), "and nothing is kept");
    // The host's own connections to the backend, and a client whose next hop is silent.
    let own = Tcp::new(backend_address(0), SocketAddr::new(address([10, 1, 0, 1]), 45_000), ACK).bytes();
    assert_eq!(kernel.run(&own), (Action::Pass, own));
    let silent = Tcp::new(backend_address(0), client(9), ACK).bytes();
    assert_eq!(kernel.run(&silent).0, Action::Drop, "never a zero MAC");
    assert_eq!(kernel.drops(Reason::Neighbour), 1);
    // Another port of the backend, and another host's.
    for from in
        [SocketAddr::new(backend_address(0).ip(), 8081), SocketAddr::new(address([10, 8, 0, 1]), 8080)]
    {
        let frame = Tcp::new(from, client(7), ACK).bytes();
        assert_eq!(kernel.run(&frame), (Action::Pass, frame));
    }
}

/// The connection's client sends on, as if it had not got its reset.
fn is_reset_again(kernel: &mut Kernel, connection: &Connection) {
    for flags in [ACK, ACK | PSH, ACK | FIN] {
        assert_eq!(connection.send(kernel, flags, b"late"), Action::Tx, "{flags:#x}");
    }
}

both_families!(what_a_reset_client_still_sends_reaches_no_other_backend);
fn what_a_reset_client_still_sends_reaches_no_other_backend() {
    let mut kernel = dnat(2);
    let connection = Connection::open(&mut kernel, 1);
    let (id, other) = (connection.backend, 1 - connection.backend);
    kernel.table(&[other]);
    kernel.backend(id, 1, Admit::None, FlowReset::Now);
    let mut resets = 0;
    kernel.reset_sender().scan_once(0, |_, _| resets += 1);
    assert_eq!((resets, kernel.flows().counts().time_wait), (2, 1), "both ends");
    is_reset_again(&mut kernel, &connection);
    // The backend and its flows are forgotten by and by.
    kernel.apply(&Step::RemoveBackend { id: BackendId(id) });
    is_reset_again(&mut kernel, &connection);
    assert_eq!(kernel.flows().counts().time_wait, 1);
    let again = Connection::open(&mut kernel, 1);
    assert_eq!(again.backend, other, "a new connection goes elsewhere");
    assert_eq!(kernel.flows().inconsistencies(), Vec::<String>::new());
}

both_families!(a_client_of_a_removed_backend_reaches_no_other_one);
fn a_client_of_a_removed_backend_reaches_no_other_one() {
    let mut kernel = dnat(2);
    let connection = Connection::open(&mut kernel, 1);
    kernel.table(&[1 - connection.backend]);
    kernel.apply(&Step::RemoveBackend { id: BackendId(connection.backend) });
    is_reset_again(&mut kernel, &connection);
    is_reset_again(&mut kernel, &connection);
    assert_eq!(kernel.flows().counts().time_wait, 1);
}

both_families!(a_client_of_a_connection_that_is_over_reaches_no_other_backend);
/// It was closed, or reset by its client or its backend.
fn a_client_of_a_connection_that_is_over_reaches_no_other_backend() {
    for by_client in [true, false] {
        let mut kernel = dnat(2);
        let connection = Connection::open(&mut kernel, 1);
        kernel.table(&[1 - connection.backend]);
        let action = match by_client {
            true => connection.send(&mut kernel, RST, b""),
            false => connection.reply(&mut kernel, RST | ACK, b""),
        };
        assert_eq!(action, Action::Redirect);
        is_reset_again(&mut kernel, &connection);
    }
}
