//! Frames that continue to a backend.

use std::net::SocketAddr;

use lb_tests::{
    frame::{ACK, CWR, ECE, FIN, PSH, RST, SYN, Tcp, URG, layout},
    kernel::{Family, backend_address, family, vip},
};

use super::{
    edit::{padded, summed, with, with_tcp, zero_sum},
    harness::{Case, Outcome, Stage},
    world::{Size, World, other_vip},
};

fn begins(name: &'static str, frames: fn(&World) -> Vec<Vec<u8>>) -> Case {
    Case::all(name, Stage::Nothing, Outcome::Begins, frames)
}

fn goes_on(name: &'static str, frames: fn(&World) -> Vec<Vec<u8>>) -> Case {
    Case::all(name, Stage::Established, Outcome::ToBackend, frames)
}

/// Options that fill a TCP header: MSS, SACK permitted, time stamps, window scale, and padding.
pub(crate) const FULL: [u8; 40] = [
    2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 1, 3, 3, 7, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 0,
];
/// Time stamps as data segments have them.
pub(crate) const STAMPS: [u8; 12] = [1, 1, 8, 10, 0, 1, 2, 3, 9, 8, 7, 6];
/// Two blocks of a selective acknowledgement.
pub(crate) const SACK: [u8; 20] = [1, 1, 5, 18, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0];
/// A cookie of TCP fast open (RFC 7413), and the wish for one.
const COOKIE: [u8; 12] = [34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1];
const WISH: [u8; 4] = [34, 2, 1, 1];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = first();
    cases.extend(ends());
    cases.extend(further());
    cases.extend(sums());
    cases
}

fn first() -> Vec<Case> {
    vec![
        begins("a plain SYN", |w| vec![w.syn().bytes()]),
        begins("a SYN that asks for ECN", |w| vec![Tcp { flags: SYN | ECE | CWR, ..w.syn() }.bytes()]),
        begins("a SYN with PSH", |w| vec![Tcp { flags: SYN | PSH, ..w.syn() }.bytes()]),
        begins("a SYN with the usual options", |w| {
            vec![Tcp { options: FULL[..20].to_vec(), ..w.syn() }.bytes()]
        }),
        begins("a SYN with forty bytes of options", |w| {
            vec![Tcp { options: FULL.to_vec(), ..w.syn() }.bytes()]
        }),
        begins("fast open: a SYN with cookie and request", |w| {
            vec![Tcp { options: COOKIE.to_vec(), ..w.syn() }.bytes()]
        }),
        begins("fast open: a SYN that wishes for a cookie", |w| {
            vec![Tcp { options: WISH.to_vec(), ..w.syn() }.bytes()]
        }),
        begins("every DSCP and ECN", |w| (0..=255).map(|tos| Tcp { tos, ..w.syn() }.bytes()).collect())
            .sizes(&[Size::Odd]),
        begins("TTL 2", |w| vec![Tcp { ttl: 2, ..w.syn() }.bytes()]),
        begins("TTL 255", |w| vec![Tcp { ttl: 255, ..w.syn() }.bytes()]),
        begins("sequence number 0", |w| vec![Tcp { seq: 0, ..w.syn() }.bytes()]),
        begins("the last sequence number", |w| vec![Tcp { seq: u32::MAX, ..w.syn() }.bytes()]),
        begins("an acknowledgement number without ACK", |w| {
            vec![Tcp { ack: 0xdead_beef, ..w.syn() }.bytes()]
        }),
        begins("window 0", |w| vec![with_tcp(w.syn(), &[(14, 0), (15, 0)])]),
        begins("reserved bits of TCP", |w| vec![with_tcp(w.syn(), &[(12, 0x5f)])]),
        begins("fragments allowed, another identification", |w| {
            vec![sum(with(w.syn(), &[(4, 0xab), (5, 0xcd), (6, 0)]))]
        })
        .v4(),
        begins("the reserved bit of IPv4", |w| vec![sum(with(w.syn(), &[(6, 0x80)]))]).v4(),
        begins("a flow label", |w| vec![with(w.syn(), &[(1, 0x0b), (2, 0xad), (3, 0xee)])]).v6(),
    ]
}

/// With a right IPv4 checksum again.
fn sum(mut frame: Vec<u8>) -> Vec<u8> {
    lb_tests::frame::set_checksums(&mut frame);
    frame
}

fn ends() -> Vec<Case> {
    fn from(w: &World, v4: &str, v6: &str) -> Vec<Vec<u8>> {
        let source = if family() == Family::V4 { v4 } else { v6 };
        // A port of its own for each, so that none is another's connection.
        let from: SocketAddr = format!("{source}:{}", 10_000 + w.number).parse().expect("an address");
        vec![w.segment(from, vip(), SYN).bytes()]
    }
    vec![
        begins("from a privileged port", |w| {
            vec![w.segment(SocketAddr::new(w.client().ip(), 1), vip(), SYN).bytes()]
        }),
        begins("from the last port", |w| {
            vec![w.segment(SocketAddr::new(w.client().ip(), 65_535), vip(), SYN).bytes()]
        }),
        begins("from the VIP's own port number", |w| {
            vec![w.segment(SocketAddr::new(w.client().ip(), 80), vip(), SYN).bytes()]
        }),
        begins("from a public address", |w| from(w, "198.51.100.7", "[2001:db8:ffff::7]")),
        begins("from a private address", |w| from(w, "192.168.1.7", "[fd00::7]")),
        begins("from a link-local address", |w| from(w, "169.254.1.7", "[fe80::7]")),
        begins("from a shared address", |w| from(w, "100.64.1.7", "[64:ff9b::1.2.3.7]")),
        begins("from an address that ends in zeros", |w| from(w, "10.0.0.0", "[2001:db8::]")),
        begins("from the last unicast address", |w| from(w, "223.255.255.255", "[fdff::ffff]")),
    ]
}

fn further() -> Vec<Case> {
    vec![
        Case::all("a repeated SYN", Stage::Begun, Outcome::ToBackend, |w| vec![w.syn().bytes()]),
        goes_on("a SYN on a living connection", |w| vec![w.syn().bytes()]),
        goes_on("an acknowledgement", |w| vec![w.sent(ACK).bytes()]),
        goes_on("data", |w| vec![w.sent(ACK | PSH).bytes()]),
        goes_on("data with time stamps", |w| vec![Tcp { options: STAMPS.to_vec(), ..w.sent(ACK) }.bytes()]),
        goes_on("a selective acknowledgement", |w| {
            vec![Tcp { options: SACK.to_vec(), ..w.sent(ACK) }.bytes()]
        }),
        goes_on("urgent data", |w| vec![Tcp { urgent: 3, ..w.sent(ACK | URG) }.bytes()]),
        goes_on("a congestion echo", |w| vec![Tcp { tos: 3, ..w.sent(ACK | ECE) }.bytes()]),
        goes_on("a reduced window", |w| vec![Tcp { tos: 2, ..w.sent(ACK | CWR) }.bytes()]),
        goes_on("a keep-alive", |w| {
            let tcp = w.sent(ACK);
            vec![Tcp { seq: tcp.seq.wrapping_sub(1), ..tcp }.bytes()]
        }),
        goes_on("data far outside of the window", |w| vec![w.sent(ACK).numbers(7, 9).bytes()]),
        goes_on("the client's end", |w| vec![w.sent(ACK | FIN).bytes()]),
        goes_on("a reset", |w| vec![w.sent(RST).bytes()]),
        goes_on("a reset with ACK", |w| vec![w.sent(RST | ACK).bytes()]),
        goes_on("a SYN-ACK of a client", |w| vec![w.sent(SYN | ACK).bytes()]),
        goes_on("TTL 2 on a connection", |w| vec![Tcp { ttl: 2, ..w.sent(ACK) }.bytes()]),
        goes_on("the same from another neighbour", |w| {
            vec![Tcp { from_mac: [2, 0, 0, 9, 9, 9], ..w.sent(ACK) }.bytes()]
        }),
    ]
}

fn sums() -> Vec<Case> {
    vec![
        begins("a frame that is padded to 60 bytes", |w| vec![padded(w.syn(), 60)]),
        begins("a frame with bytes behind its datagram", |w| {
            let length = w.syn().bytes().len();
            [1, 2, 3, 4, 46].map(|more| padded(w.syn(), length + more)).into()
        }),
        goes_on("a padded acknowledgement", |w| vec![padded(w.sent(ACK), 64)]),
        begins("a wrong TCP checksum", |w| vec![summed(w.syn(), 0x1234), summed(w.syn(), 0x4321)]),
        begins("checksum 0 where that is wrong", |w| vec![summed(w.syn(), 0)]),
        begins("checksum 0xffff where that is wrong", |w| vec![summed(w.syn(), 0xffff)]),
        begins("a right checksum of 0", |w| vec![summed(zero_sum(w.syn()), 0)]),
        begins("the same written as 0xffff", |w| vec![summed(zero_sum(w.syn()), 0xffff)]),
        goes_on("a right checksum of 0 on a connection", |w| vec![summed(zero_sum(w.sent(ACK)), 0)]),
        goes_on("a wrong checksum on a connection", |w| vec![summed(w.sent(ACK), 0xbad0)]),
        begins("every wrong bit of the TCP checksum", |w| {
            let frame = w.syn().bytes();
            let at = layout(&frame).expect("tcp").tcp + 16;
            let right = u16::from_be_bytes([frame[at], frame[at + 1]]);
            (0..16).map(|bit| summed(w.syn(), right ^ 1 << bit)).collect()
        })
        .sizes(&[Size::Odd]),
        begins("a wrong IPv4 checksum", |w| {
            [0x0000, 0xffff, 0x5555u16]
                .map(|sum| {
                    let [a, b] = sum.to_be_bytes();
                    with(w.syn(), &[(10, a), (11, b)])
                })
                .into()
        })
        .v4(),
        begins("payloads of every length up to 64", |w| {
            (0..=64).map(|length| w.syn().payload(&vec![0xa5; length]).bytes()).collect()
        })
        .sizes(&[Size::Odd]),
    ]
}

/// A backend that is a client of another service sends by its own interface, and the program accepts it.
#[test]
fn a_backend_may_be_a_client_by_its_own_way() {
    use lb_common::{abi::Link, reason::Reason};
    use lb_tests::kernel::{Action, ELSEWHERE, INGRESS, OWN_MAC, at_tc, backend_mac, in_family};
    for family in [Family::V4, Family::V6] {
        in_family(family, || {
            let mut kernel = super::world::kernel();
            let from = SocketAddr::new(backend_address(0).ip(), 40_000);
            let frame = Tcp::new(from, other_vip(), SYN).bytes();
            assert_eq!(kernel.run(&frame).0, Action::Drop);
            assert_eq!(kernel.drops(Reason::Martian), 1);
            let link = Link::new(backend_mac(0), OWN_MAC);
            kernel.next_hop_in(0, link, INGRESS, 10);
            assert_eq!(kernel.run(&frame).0, Action::Drop, "in another VLAN");
            // No test run at tc has a tag.
            let tagged = |port| {
                let from = SocketAddr::new(from.ip(), port);
                Tcp { vlan: Some(10), ..Tcp::new(from, other_vip(), SYN) }.bytes()
            };
            if !at_tc() {
                assert_eq!(kernel.run(&tagged(40_002)).0, Action::Tx);
            }
            kernel.next_hop(0, link, INGRESS);
            assert_eq!(kernel.run(&frame).0, Action::Tx);
            if !at_tc() {
                assert_eq!(kernel.run(&tagged(40_003)).0, Action::Drop, "the VLAN leads there no more");
            }
            kernel.next_hop(0, link, ELSEWHERE);
            let again = Tcp::new(SocketAddr::new(from.ip(), 40_001), other_vip(), SYN).bytes();
            assert_eq!(kernel.run(&again).0, Action::Drop);
        });
    }
}
