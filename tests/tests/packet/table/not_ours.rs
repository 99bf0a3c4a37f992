//! Frames that the host gets as they came.

use std::net::SocketAddr;

use lb_tests::{
    frame::{ACK, FIN, IP, PSH, RST, SYN, Tcp, layout, set_checksums},
    kernel::{Family, NAT_PORTS, address, backend_address, family, nat_source, vip},
};

use super::{
    edit::{extended, fragment, optioned, with},
    harness::{Case, Outcome, Stage},
    world::{Size, World},
};

fn pass(name: &'static str, frames: fn(&World) -> Vec<Vec<u8>>) -> Case {
    Case::all(name, Stage::Nothing, Outcome::Pass, frames)
}

/// With another type in the link header, or behind the tag.
fn typed(world: &World, kind: u16) -> Vec<Vec<u8>> {
    let mut frame = world.syn().bytes();
    let at = layout(&frame).expect("tcp").ip - 2;
    frame[at..at + 2].copy_from_slice(&kind.to_be_bytes());
    vec![frame]
}

/// With another protocol, or next header.
fn protocol(world: &World, protocol: u8) -> Vec<Vec<u8>> {
    vec![with(world.syn(), &[(if family() == Family::V4 { 9 } else { 6 }, protocol)])]
}

fn to(world: &World, ip: [u8; 4], port: u16) -> Tcp {
    world.segment(world.client(), SocketAddr::new(address(ip), port), SYN)
}

/// Another server of the VIP's network.
const NEIGHBOUR: [u8; 4] = [203, 0, 113, 11];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = stations();
    cases.extend(link());
    cases.extend(protocols());
    cases.extend(addresses());
    cases.extend(parts());
    cases.extend(own());
    cases
}

/// Addresses of other stations: one that is no neighbour of ours, neighbours of ours, and those of many.
const STATIONS: [[u8; 6]; 8] = [
    [0x02, 0, 0, 0, 0, 0x99],
    [0x02, 0, 0, 0, 0, 0x10],
    [0x03, 0, 0, 0, 0, 0x11],
    [0x02, 1, 0, 0, 0, 0x11],
    [0; 6],
    [0xff; 6],
    [0x01, 0, 0x5e, 0x00, 0x00, 0x12],
    [0x33, 0x33, 0, 0, 0, 1],
];

fn to_stations(tcp: &Tcp) -> Vec<Vec<u8>> {
    STATIONS.map(|to_mac| Tcp { to_mac, ..tcp.clone() }.bytes()).into()
}

fn stations() -> Vec<Case> {
    use Stage::{Begun, Established};
    let of = |name, stage, frames| Case::all(name, stage, Outcome::Pass, frames);
    vec![
        pass("a SYN to another station", |w| to_stations(&w.syn())),
        pass("a segment of no connection to another station", |w| to_stations(&w.sent(ACK))),
        pass("nonsense to another station", |w| to_stations(&Tcp { flags: 0, ttl: 0, ..w.syn() })),
        of("a client's segment to another station", Established, |w| to_stations(&w.sent(ACK))),
        of("a client's end to another station", Established, |w| to_stations(&w.sent(ACK | FIN))),
        of("a client's reset to another station", Established, |w| to_stations(&w.sent(RST))),
        of("a backend's segment to another station", Established, |w| to_stations(&w.answered(ACK | PSH))),
        of("a backend's reset to another station", Established, |w| to_stations(&w.answered(RST))),
        of("a handshake's SYN to another station", Begun, |w| to_stations(&w.syn())),
        of("a refusal to another station", Begun, |w| to_stations(&w.answered(RST | ACK))),
    ]
}

fn link() -> Vec<Case> {
    vec![
        pass("ARP", |w| typed(w, 0x0806)),
        pass("reverse ARP", |w| typed(w, 0x8035)),
        pass("LLDP", |w| typed(w, 0x88cc)),
        pass("slow protocols (LACP)", |w| typed(w, 0x8809)),
        pass("EAPOL", |w| typed(w, 0x888e)),
        pass("MACsec", |w| typed(w, 0x88e5)),
        pass("PTP", |w| typed(w, 0x88f7)),
        pass("PPPoE discovery", |w| typed(w, 0x8863)),
        pass("PPPoE session", |w| typed(w, 0x8864)),
        pass("MPLS unicast", |w| typed(w, 0x8847)),
        pass("MPLS multicast", |w| typed(w, 0x8848)),
        pass("wake on LAN", |w| typed(w, 0x0842)),
        pass("loopback test", |w| typed(w, 0x9000)),
        pass("a length instead of a type", |w| typed(w, 0x0040)),
        pass("type 0", |w| typed(w, 0)),
        pass("type 0xffff", |w| typed(w, 0xffff)),
        pass("every sixteenth type", |w| {
            let kinds = (0..=0xfff0u16).step_by(16).filter(|kind| ![0x0800, 0x8100].contains(kind));
            kinds.flat_map(|kind| typed(w, kind)).collect()
        })
        .sizes(&[Size::Least])
        .tags(&[None]),
        pass("the other family's type", |w| typed(w, if family() == Family::V4 { 0x86dd } else { 0x0800 })),
        pass("an 802.1Q tag in front of what is none", |w| typed(w, 0x8100)).tags(&[None]),
    ]
}

fn protocols() -> Vec<Case> {
    vec![
        pass("UDP", |w| protocol(w, 17)),
        pass("UDP-Lite", |w| protocol(w, 136)),
        pass("SCTP", |w| protocol(w, 132)),
        pass("DCCP", |w| protocol(w, 33)),
        pass("ICMP of IPv4", |w| protocol(w, 1)).v4(),
        pass("ICMP of IPv6", |w| protocol(w, 58)).v6(),
        pass("echo request for the VIP", |w| {
            let (at, kind, first) = if family() == Family::V4 { (9, 1, 20) } else { (6, 58, 40) };
            let kind_of_echo = if family() == Family::V4 { 8 } else { 128 };
            vec![with(w.syn(), &[(at, kind), (first, kind_of_echo), (first + 1, 0)])]
        }),
        pass("IGMP", |w| protocol(w, 2)).v4(),
        pass("IPv4 in IP", |w| protocol(w, 4)),
        pass("IPv6 in IP", |w| protocol(w, 41)),
        pass("GRE", |w| protocol(w, 47)),
        pass("ESP", |w| protocol(w, 50)),
        pass("AH", |w| protocol(w, 51)),
        pass("OSPF", |w| protocol(w, 89)),
        pass("PIM", |w| protocol(w, 103)),
        pass("VRRP", |w| protocol(w, 112)),
        pass("L2TP", |w| protocol(w, 115)),
        pass("RSVP", |w| protocol(w, 46)),
        pass("no next header", |w| protocol(w, 59)).v6(),
        pass("mobility header", |w| protocol(w, 135)).v6(),
        pass("every protocol but TCP", |w| {
            // Those that are extension headers of IPv6 have cases of their own.
            let others = (0..=255).filter(|number| ![6, 0, 43, 44, 60].contains(number));
            others.flat_map(|number| protocol(w, number)).collect()
        })
        .sizes(&[Size::Odd])
        .tags(&[None]),
    ]
}

fn addresses() -> Vec<Case> {
    vec![
        pass("another port of the VIP's address", |w| vec![to(w, [203, 0, 113, 10], 79).bytes()]),
        pass("port 0 of the VIP's address", |w| vec![to(w, [203, 0, 113, 10], 0).bytes()]),
        pass("port 65535 of the VIP's address", |w| vec![to(w, [203, 0, 113, 10], 65_535).bytes()]),
        pass("SSH to the VIP's address", |w| vec![to(w, [203, 0, 113, 10], 22).bytes()]),
        pass("a port of the NAT range at the VIP's address", |w| {
            vec![to(w, [203, 0, 113, 10], 2000).bytes()]
        }),
        pass("another VIP's port at an address that lacks it", |w| {
            vec![to(w, [203, 0, 113, 20], 81).bytes()]
        }),
        pass("another address, the VIP's port", |w| vec![to(w, NEIGHBOUR, 80).bytes()]),
        pass("our own address, the VIP's port", |w| vec![to(w, [10, 9, 0, 1], 80).bytes()]),
        pass("a backend's address, the VIP's port", |w| vec![to(w, [10, 9, 1, 0], 80).bytes()]),
        pass("a backend from outside", |w| vec![to(w, [10, 9, 1, 0], 8080).bytes()]),
        pass("an address that differs in one bit", |w| vec![to(w, [203, 0, 113, 8], 80).bytes()]),
        pass("an answer of the VIP, seen on the wire", |w| {
            vec![w.segment(vip(), w.client(), SYN | ACK).bytes()]
        }),
        pass("a segment of somebody else's connection", |w| {
            let mut others = to(w, NEIGHBOUR, 80);
            others.flags = ACK | PSH;
            vec![others.bytes()]
        }),
        pass("TTL 1 to another address", |w| {
            let mut others = to(w, NEIGHBOUR, 80);
            others.ttl = 1;
            vec![others.bytes()]
        }),
        pass("no flags to another address", |w| {
            let mut others = to(w, NEIGHBOUR, 80);
            others.flags = 0;
            vec![others.bytes()]
        }),
        pass("a martian to another address", |w| {
            let to = SocketAddr::new(address(NEIGHBOUR), 80);
            let loopback = if family() == Family::V4 { "127.0.0.1:5" } else { "[::1]:5" };
            vec![w.segment(loopback.parse().expect("an address"), to, SYN).bytes()]
        }),
        pass("a wrong checksum to another address", |w| {
            let mut frame = to(w, NEIGHBOUR, 80).bytes();
            let at = layout(&frame).expect("tcp");
            frame[at.tcp + 16] ^= 0xff;
            vec![frame]
        }),
    ]
}

fn parts() -> Vec<Case> {
    vec![
        pass("cut anywhere before the ports are whole", |w| {
            let frame = w.syn().bytes();
            // The kernel's test runs take no frame shorter than an Ethernet header.
            (IP..layout(&frame).expect("tcp").tcp + 4).map(|length| frame[..length].to_vec()).collect()
        }),
        pass("cut anywhere, to another address", |w| {
            let frame = to(w, NEIGHBOUR, 80).bytes();
            (IP..frame.len().min(120)).map(|length| frame[..length].to_vec()).collect()
        })
        .sizes(&[Size::Odd]),
        pass("another version of IP", |w| {
            let others = (0..16).filter(|version| *version != if family() == Family::V4 { 4 } else { 6 });
            others.map(|version| with(w.syn(), &[(0, version << 4 | 5)])).collect()
        }),
        pass("an IPv4 header shorter than one", |w| {
            (0..5).map(|words| with(w.syn(), &[(0, 0x40 | words)])).collect()
        })
        .v4(),
        pass("the first fragment for another address", |w| {
            vec![fragment(to(w, NEIGHBOUR, 80).bytes(), 0x2000)]
        })
        .v4(),
        pass("a later fragment for another address", |w| {
            [0x2001, 0x0001, 0x00b9, 0x1fff].map(|word| fragment(to(w, NEIGHBOUR, 80).bytes(), word)).into()
        })
        .v4(),
        pass("a later fragment for the VIP's address, which says no port", |w| {
            [0x2001, 0x0001, 0x00b9, 0x1fff].map(|word| fragment(w.syn().bytes(), word)).into()
        })
        .v4(),
        pass("IPv4 options to another address", |w| vec![optioned(to(w, NEIGHBOUR, 80).bytes(), 1)]).v4(),
        pass("IPv4 options to another port", |w| vec![optioned(to(w, [203, 0, 113, 10], 79).bytes(), 1)])
            .v4(),
        pass("IPv4 options that the frame does not hold", |w| vec![with(w.syn(), &[(0, 0x4f)])])
            .v4()
            .sizes(&[Size::Least]),
    ]
}

fn own() -> Vec<Case> {
    fn reply(w: &World, port: u16, flags: u8) -> Vec<Vec<u8>> {
        vec![w.segment(backend_address(0), SocketAddr::new(nat_source(), port), flags).bytes()]
    }
    vec![
        pass("the answer to a probe's SYN", |w| reply(w, 45_000, SYN | ACK)),
        pass("the answer to a probe", |w| reply(w, 45_000, ACK | PSH)),
        pass("the end of a probe", |w| reply(w, 45_000, ACK | FIN)),
        pass("the refusal of a probe", |w| reply(w, 45_000, RST | ACK)),
        pass("a reply to a port of the NAT range that nobody has", |w| {
            reply(w, *NAT_PORTS.start(), SYN | ACK)
        }),
        pass("the same at its end", |w| reply(w, *NAT_PORTS.end(), ACK)),
        pass("a reset to a port of the NAT range that nobody has", |w| reply(w, 20_000, RST)),
        pass("a SYN to our own address", |w| reply(w, 22, SYN)),
        Case::all("of a stranger, to the NAT port of a connection", Stage::Established, Outcome::Pass, |w| {
            vec![w.segment(backend_address(1), w.nat, ACK).bytes()]
        }),
        Case::all("of another port of the backend, likewise", Stage::Established, Outcome::Pass, |w| {
            vec![w.segment(SocketAddr::new(backend_address(0).ip(), 8081), w.nat, ACK).bytes()]
        }),
        Case::all("UDP with a connection's numbers", Stage::Established, Outcome::Pass, |w| {
            let mut frame = w.sent(ACK).bytes();
            let ip = layout(&frame).expect("tcp").ip;
            frame[ip + if family() == Family::V4 { 9 } else { 6 }] = 17;
            vec![frame]
        }),
        Case::all("a connection's numbers the other way round", Stage::Established, Outcome::Pass, |w| {
            let mut frame = w.segment(vip(), w.client(), ACK).bytes();
            set_checksums(&mut frame);
            vec![frame]
        }),
        pass("extension headers to another address", |w| {
            vec![extended(to(w, NEIGHBOUR, 80), &[(0, &[0; 6]), (60, &[0; 6]), (60, &[0; 6])])]
        })
        .v6(),
        pass("a fragment header to another address", |w| {
            vec![extended(to(w, NEIGHBOUR, 80), &[(44, &[0, 1, 0, 0, 0, 9])])]
        })
        .v6(),
    ]
}
