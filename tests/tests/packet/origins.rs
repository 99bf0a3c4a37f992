//! Replies count only if they come by a way that leads to their backend.

use std::net::SocketAddr;

use lb_common::{
    abi::{Link, OwnWay},
    reason::Reason,
};
use lb_lab::Lab;
use lb_tests::{
    both_families,
    frame::{ACK, FIN, PSH, RST, SYN, Tcp},
    kernel::{
        Action, ELSEWHERE, Family, INGRESS, Kernel, OWN_MAC, at_tc, backend_address, backend_mac, in_family,
        nat_source, vip,
    },
    lab::skipped,
};
use lb_userspace::dataplane::NextHop;

use crate::{
    connections::{BACKEND_ISN, CLIENT_ISN, Connection},
    evidence::{BAD, GET, OK, Talk, plain},
};

fn reply(connection: &Connection, flags: u8, payload: &[u8]) -> Tcp {
    Tcp::new(backend_address(connection.backend), connection.nat, flags)
        .numbers(connection.backend_next, connection.client_next)
        .payload(payload)
}

both_families!(forged_replies_from_the_clients_side_are_dropped);
fn forged_replies_from_the_clients_side_are_dropped() {
    let mut talk = Talk::new();
    talk.ask(GET);
    for (flags, payload) in
        [(ACK | PSH, BAD), (RST, b""), (RST | ACK, b""), (FIN | ACK, b""), (SYN | ACK, b""), (ACK, b"")]
    {
        let forged = reply(&talk.connection, flags, payload);
        assert_eq!(talk.kernel.run_by(&forged.bytes(), INGRESS).0, Action::Drop, "{flags:#x}");
        // Or in a VLAN that does not lead there. No test run at tc has a tag.
        let tagged = Tcp { vlan: Some(10), ..forged };
        let dropped = if at_tc() { Action::Pass } else { Action::Drop };
        assert_eq!(talk.kernel.run_by(&tagged.bytes(), ELSEWHERE).0, dropped, "{flags:#x}");
    }
    assert_eq!(talk.kernel.drops(Reason::Martian), if at_tc() { 6 } else { 12 });
    assert_eq!(talk.heads(), []);
    talk.respond(OK);
    assert_eq!(talk.heads(), plain(&["200"]));
}

both_families!(a_forged_answer_to_a_syn_is_dropped);
fn a_forged_answer_to_a_syn_is_dropped() {
    let mut kernel = Kernel::new(1);
    let begun = Connection::begin(&mut kernel, 1);
    for flags in [SYN | ACK, RST | ACK] {
        let forged =
            Tcp::new(backend_address(0), begun.nat, flags).numbers(BACKEND_ISN, CLIENT_ISN.wrapping_add(1));
        assert_eq!(kernel.run_by(&forged.bytes(), INGRESS).0, Action::Drop);
    }
    assert_eq!((kernel.heads().len(), kernel.flows().counts().handshakes), (0, 1));
}

both_families!(replies_follow_the_next_hop_of_their_backend);
fn replies_follow_the_next_hop_of_their_backend() {
    let mut talk = Talk::new();
    let link = Link::new(backend_mac(0), OWN_MAC);
    // The daemon has seen that the route has changed.
    talk.kernel.next_hop(0, link, INGRESS);
    let Connection { client, client_next, backend_next, .. } = talk.connection;
    let request = Tcp::new(client, vip(), ACK | PSH).numbers(client_next, backend_next).payload(GET);
    assert_eq!(talk.kernel.run(&request.bytes()).0, Action::Tx, "by the new way");
    talk.connection.client_next = client_next.wrapping_add(GET.len() as u32);
    let answer = reply(&talk.connection, ACK | PSH, OK).bytes();
    assert_eq!(talk.kernel.run_by(&answer, INGRESS).0, Action::Tx);
    assert_eq!(talk.heads(), plain(&["200"]));
    if at_tc() {
        return;
    }
    talk.kernel.next_hop_in(0, link, ELSEWHERE, 20);
    let tagged = Tcp { vlan: Some(20), ..reply(&talk.connection, ACK, b"") };
    assert_eq!(talk.kernel.run_by(&tagged.bytes(), ELSEWHERE).0, Action::Redirect);
    assert_eq!(talk.kernel.drops(Reason::Martian), 0);
}

both_families!(a_backend_may_come_by_each_way_that_leads_to_it);
/// Two uplinks, and the fabric chooses for each packet.
fn a_backend_may_come_by_each_way_that_leads_to_it() {
    let mut kernel = Kernel::new(2);
    let also = [OwnWay { ifindex: INGRESS, vlan: 0, zero: 0 }, OwnWay::default(), OwnWay::default()];
    for id in [0, 1] {
        let link = Link::new(backend_mac(id), OWN_MAC);
        let (source, routed) = (nat_source(), true);
        let hop = NextHop { ifindex: ELSEWHERE, vlan: 0, also, link, source, routed, path_warning: None };
        kernel.next_hop_to(backend_address(id).ip(), hop);
    }
    // As a server, in turns.
    let begun = Connection::begin(&mut kernel, 1);
    let answer = Tcp::new(backend_address(begun.backend), begun.nat, SYN | ACK)
        .numbers(BACKEND_ISN, CLIENT_ISN.wrapping_add(1));
    assert_eq!(kernel.run_by(&answer.bytes(), INGRESS).0, Action::Tx);
    assert_eq!(kernel.run_by(&answer.bytes(), ELSEWHERE).0, Action::Redirect);
    assert_eq!(kernel.run_by(&answer.bytes(), INGRESS).0, Action::Tx);
    // As a client of the VIP.
    for (port, by) in [(4000, INGRESS), (4001, ELSEWHERE)] {
        let from = SocketAddr::new(backend_address(1).ip(), port);
        let syn = Tcp::new(from, vip(), SYN).numbers(CLIENT_ISN, 0).bytes();
        assert!([Action::Tx, Action::Redirect].contains(&kernel.run_by(&syn, by).0), "{by}");
    }
    assert_eq!(kernel.drops(Reason::Martian), 0);
    if !at_tc() {
        let tagged = Tcp { vlan: Some(10), ..answer.clone() }.bytes();
        assert_eq!(kernel.run_by(&tagged, ELSEWHERE).0, Action::Drop, "no route has that VLAN");
    }
    kernel.next_hop(begun.backend, Link::new(backend_mac(begun.backend), OWN_MAC), ELSEWHERE);
    assert_eq!(kernel.run_by(&answer.bytes(), ELSEWHERE).0, Action::Redirect);
    assert_eq!(kernel.run_by(&answer.bytes(), INGRESS).0, Action::Drop, "the second way is gone");
}

/// Before the daemon sees that a route has changed, the kernel's routes decide.
#[test]
fn a_route_that_has_just_changed_is_asked_for() {
    if skipped("a_route_that_has_just_changed_is_asked_for", &[]) {
        return;
    }
    let mut lab = Lab::new("origins").expect("a lab");
    let node = lab.host("node").expect("a host");
    let (first, second) = (lab.host("first").expect("a host"), lab.host("second").expect("a host"));
    let [near, _] = lab.link((&node, "192.0.2.1/30"), (&first, "192.0.2.2/30")).expect("a link");
    let [other, _] = lab.link((&node, "192.0.2.5/30"), (&second, "192.0.2.6/30")).expect("a link");
    let index = |device: &str| {
        node.enter(|| nix::net::if_::if_nametoindex(device)).expect("the host is there").expect("a device")
    };
    let (near, other) = ((index(&near.device), near.device), (index(&other.device), other.device));
    node.sysctl("net/ipv4/ip_forward", "1").expect("a setting");
    node.sysctl("net/ipv6/conf/all/forwarding", "1").expect("a setting");
    for family in [Family::V4, Family::V6] {
        let moves = || {
            let to = backend_address(0).ip();
            node.ip(&format!("route replace {to} dev {}", near.1)).expect("a route");
            let mut kernel = Kernel::new(1);
            kernel.come_by(INGRESS);
            kernel.next_hop(0, Link::new(backend_mac(0), OWN_MAC), near.0);
            let begun = Connection::begin(&mut kernel, 1);
            let answer = Tcp::new(backend_address(0), begun.nat, SYN | ACK);
            let answer = answer.numbers(BACKEND_ISN, CLIENT_ISN.wrapping_add(1)).bytes();
            assert_eq!(kernel.run_here(&answer, other.0).0, Action::Drop, "no route leads there");
            node.ip(&format!("route replace {to} dev {}", other.1)).expect("a route");
            assert_eq!(kernel.run_here(&answer, other.0).0, Action::Redirect, "now it does");
            assert_eq!(kernel.drops(Reason::Martian), 1);
        };
        node.enter(|| in_family(family, moves)).expect("the host is there");
    }
}
