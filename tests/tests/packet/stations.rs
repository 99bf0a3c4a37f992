//! Frames for this node and for other stations, by their MAC address. The table has the other cases.

use std::collections::BTreeMap;

use lb_common::abi::OwnMac;
use lb_core::config::Mode;
use lb_tests::{
    both_families,
    frame::{ACK, RST, SYN, Tcp},
    kernel::{
        Action, ELSEWHERE, INGRESS, Kernel, NODE_MAC, OTHER_NODE_MAC, backend_address, nat_source,
        usual_macs, vip,
    },
};

use crate::{
    connections::{CLIENT_ISN, Connection},
    icmp::about,
    steering::client,
};

fn syn(n: u16, to_mac: [u8; 6]) -> Tcp {
    Tcp { to_mac, ..Tcp::new(client(n), vip(), SYN).numbers(CLIENT_ISN, 0) }
}

both_families!(answers_leave_from_the_usual_address);
/// Also those to a client that uses another one, such as the virtual address of a router.
fn answers_leave_from_the_usual_address() {
    let mut kernel = Kernel::new(1);
    let (action, out) = kernel.run(&syn(1, OTHER_NODE_MAC).bytes());
    assert_eq!(action, Action::Redirect);
    let nat = Tcp::read(&out).expect("tcp").src;
    let answer = Tcp::new(backend_address(0), nat, SYN | ACK).numbers(7, CLIENT_ISN.wrapping_add(1));
    for to_mac in [NODE_MAC, OTHER_NODE_MAC] {
        let (action, out) = kernel.run(&Tcp { to_mac, ..answer.clone() }.bytes());
        let got = Tcp::read(&out).expect("tcp");
        assert_eq!((action, got.to_mac, got.from_mac), (Action::Redirect, answer.from_mac, NODE_MAC));
    }
}

both_families!(a_reset_leaves_from_the_address_that_it_answers);
fn a_reset_leaves_from_the_address_that_it_answers() {
    let mut kernel = Kernel::new(1);
    let stray = Tcp { to_mac: OTHER_NODE_MAC, ..Tcp::new(client(1), vip(), ACK) };
    let (action, out) = kernel.run(&stray.bytes());
    let got = Tcp::read(&out).expect("tcp");
    assert_eq!((action, got.flags, got.from_mac), (Action::Tx, RST, OTHER_NODE_MAC));
}

both_families!(the_addresses_of_an_interface_change);
fn the_addresses_of_an_interface_change() {
    const NEW: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
    let mut kernel = Kernel::new(1);
    let begun = Connection::open(&mut kernel, 1);
    kernel.own_macs(BTreeMap::from([(OwnMac::new(INGRESS, NEW), NEW)]));
    for former in [NODE_MAC, OTHER_NODE_MAC] {
        assert_eq!(kernel.run(&syn(2, former).bytes()).0, Action::Pass, "it has that no more");
    }
    assert_eq!(kernel.run(&syn(2, NEW).bytes()).0, Action::Redirect);
    let sent = Tcp::new(begun.client, vip(), ACK).numbers(begun.client_next, begun.backend_next);
    assert_eq!(kernel.run(&Tcp { to_mac: NEW, ..sent }.bytes()).0, Action::Redirect, "connections go on");
}

both_families!(an_address_is_that_of_one_interface);
fn an_address_is_that_of_one_interface() {
    let mut kernel = Kernel::new(1);
    let mut macs = usual_macs();
    macs.remove(&OwnMac::new(INGRESS, OTHER_NODE_MAC));
    kernel.own_macs(macs);
    let frame = syn(1, OTHER_NODE_MAC).bytes();
    assert_eq!(kernel.run_by(&frame, INGRESS).0, Action::Pass);
    assert_eq!(kernel.run_by(&frame, ELSEWHERE).0, Action::Tx);
}

both_families!(an_error_to_another_station_is_not_ours);
fn an_error_to_another_station_is_not_ours() {
    for mode in [Mode::Nat, Mode::Dnat] {
        let mut kernel = Kernel::new(1);
        kernel.mode(mode);
        let begun = Connection::open(&mut kernel, 1);
        let to_client = Tcp::new(vip(), begun.client, ACK).numbers(begun.backend_next, begun.client_next);
        let mut error = about(&to_client.bytes()[14..], vip().ip());
        error.to_mac = [2, 0, 0, 0, 0, 0x99];
        assert_eq!(kernel.run(&error.bytes()), (Action::Pass, error.bytes()), "{mode:?}");
        error.to_mac = NODE_MAC;
        assert_eq!(kernel.run(&error.bytes()).0, Action::Redirect, "{mode:?}");
    }
}

both_families!(a_reply_without_a_flow_to_another_station_is_not_ours);
/// Of a node that stands by for another one, and hears what is for that.
fn a_reply_without_a_flow_to_another_station_is_not_ours() {
    let mut kernel = Kernel::new(1);
    kernel.mode(Mode::Dnat);
    let begun = Connection::open(&mut kernel, 1);
    assert_ne!(begun.nat.ip(), nat_source());
    let sent = Tcp::new(begun.client, vip(), ACK).numbers(begun.client_next, begun.backend_next);
    kernel.forget_connections();
    let foreign = Tcp { to_mac: [2, 0, 0, 0, 0, 0x99], ..sent.clone() }.bytes();
    assert_eq!(kernel.run(&foreign), (Action::Pass, foreign));
    assert_eq!(kernel.run(&sent.bytes()).0, Action::Redirect, "ours still finds its backend");
}
