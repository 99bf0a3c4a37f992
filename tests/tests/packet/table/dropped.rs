//! Frames for a VIP that are wrong or unwelcome.

use std::net::SocketAddr;

use lb_common::reason::Reason;
use lb_tests::{
    frame::{ACK, CWR, ECE, FIN, PSH, RST, SYN, Tcp, URG, layout},
    kernel::{Family, address, backend_address, family, vip},
};

use super::{
    edit::{extended, fragment, optioned, with, with_tcp},
    harness::{Case, Outcome, Stage},
    world::{ALLOWS, DENIES, EMPTY_SILENT, INNER, SWAPPING, Size, UNREACHABLE, World, other_vip},
};
use crate::steering::client;

fn drop(name: &'static str, reason: Reason, frames: fn(&World) -> Vec<Vec<u8>>) -> Case {
    Case::all(name, Stage::Nothing, Outcome::Drop(reason, 80), frames)
}

fn later(name: &'static str, reason: Reason, frames: fn(&World) -> Vec<Vec<u8>>) -> Case {
    Case::all(name, Stage::Established, Outcome::Drop(reason, 80), frames)
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = lengths();
    cases.extend(headers());
    cases.extend(flags());
    cases.extend(sources());
    cases.extend(unwelcome());
    cases.extend(of_connections());
    cases
}

/// Where the length of the datagram, or of its payload, is.
fn length() -> usize {
    if family() == Family::V4 { 2 } else { 4 }
}

fn of_length(tcp: Tcp, length: impl Fn(u16) -> u16) -> Vec<u8> {
    let frame = tcp.bytes();
    let at = layout(&frame).expect("tcp").ip + self::length();
    let now = u16::from_be_bytes([frame[at], frame[at + 1]]);
    let [a, b] = length(now).to_be_bytes();
    with(tcp, &[(self::length(), a), (self::length() + 1, b)])
}

/// Length of the headers behind which the payload begins, as the length field counts.
fn headers_of(tcp: &Tcp) -> u16 {
    20 + if tcp.src.is_ipv4() { 20 } else { 0 }
}

fn lengths() -> Vec<Case> {
    vec![
        drop("cut anywhere behind the ports", Reason::Malformed, |w| {
            let frame = w.syn().bytes();
            let first = layout(&frame).expect("tcp").tcp + 4;
            (first..frame.len())
                .step_by(if w.size == Size::Mtu { 37 } else { 1 })
                .map(|len| frame[..len].to_vec())
                .collect()
        }),
        drop("data offset below 5", Reason::Malformed, |w| {
            (0..5).map(|words| with_tcp(w.syn(), &[(12, words << 4)])).collect()
        }),
        drop("data offset beyond the datagram", Reason::Malformed, |w| {
            vec![with_tcp(w.syn(), &[(12, 0xf0)])]
        })
        .sizes(&[Size::Least, Size::Odd]),
        drop("a datagram longer than its frame", Reason::Malformed, |w| {
            [1, 2, 100, 1000].map(|more| of_length(w.syn(), |now| now + more)).into()
        }),
        drop("a datagram of the greatest length", Reason::Malformed, |w| {
            vec![of_length(w.syn(), |_| u16::MAX)]
        }),
        drop("a datagram that ends inside its headers", Reason::Malformed, |w| {
            (1..=20).map(|less| of_length(w.syn(), |_| headers_of(&w.syn()) - less)).collect()
        }),
        drop("a datagram of length 0", Reason::Malformed, |w| vec![of_length(w.syn(), |_| 0)]),
        drop("a datagram longer than its frame without padding", Reason::Malformed, |w| {
            let mut frame = of_length(w.syn(), |now| now + 40);
            frame.resize(frame.len() + 39, 0);
            vec![frame]
        }),
    ]
}

fn headers() -> Vec<Case> {
    vec![
        drop("TTL 1", Reason::Ttl, |w| vec![Tcp { ttl: 1, ..w.syn() }.bytes()]),
        drop("TTL 0", Reason::Ttl, |w| vec![Tcp { ttl: 0, ..w.syn() }.bytes()]),
        drop("the first fragment", Reason::Fragment, |w| vec![fragment(w.syn().bytes(), 0x2000)]).v4(),
        drop("the first fragment that may not be one", Reason::Fragment, |w| {
            vec![fragment(w.syn().bytes(), 0x6000)]
        })
        .v4(),
        drop("the first fragment with options", Reason::Fragment, |w| {
            vec![fragment(w.syn().bytes(), 0x2000)]
                .into_iter()
                .map(|frame| {
                    // Its ports lie behind the options.
                    let mut frame = frame;
                    let ip = layout(&frame).map_or(if w.tag.is_some() { 18 } else { 14 }, |at| at.ip);
                    frame[ip] = 0x46;
                    frame.splice(ip + 20..ip + 20, [1; 4]);
                    frame
                })
                .collect()
        })
        .v4(),
        drop("the only fragment of an IPv6 datagram", Reason::Fragment, |w| {
            vec![extended(w.syn(), &[(44, &[0, 0, 0, 0, 0, 7])])]
        })
        .v6(),
        drop("the first fragment of an IPv6 datagram", Reason::Fragment, |w| {
            vec![extended(w.syn(), &[(44, &[0, 1, 0, 0, 0, 7])])]
        })
        .v6(),
        drop("IPv4 options of any length", Reason::IpOptions, |w| {
            (1..=10).map(|words| optioned(w.syn().bytes(), words)).collect()
        })
        .v4(),
        drop("the reserved bit of a fragment's word is no fragment, but TTL 1 is", Reason::Ttl, |w| {
            vec![fragment(Tcp { ttl: 1, ..w.syn() }.bytes(), 0x8000)]
        })
        .v4(),
    ]
}

fn flags() -> Vec<Case> {
    fn sent(w: &World, flags: u8) -> Vec<Vec<u8>> {
        vec![w.segment(w.client(), vip(), flags).bytes()]
    }
    vec![
        drop("no flags", Reason::Flags, |w| sent(w, 0)),
        drop("SYN and FIN", Reason::Flags, |w| sent(w, SYN | FIN)),
        drop("SYN, FIN and ACK", Reason::Flags, |w| sent(w, SYN | FIN | ACK)),
        drop("SYN and RST", Reason::Flags, |w| sent(w, SYN | RST)),
        drop("FIN and RST", Reason::Flags, |w| sent(w, FIN | RST)),
        drop("FIN, RST and ACK", Reason::Flags, |w| sent(w, FIN | RST | ACK)),
        drop("FIN alone", Reason::Flags, |w| sent(w, FIN)),
        drop("PSH alone", Reason::Flags, |w| sent(w, PSH)),
        drop("URG alone", Reason::Flags, |w| sent(w, URG)),
        drop("a Christmas tree", Reason::Flags, |w| sent(w, FIN | PSH | URG)),
        drop("all flags", Reason::Flags, |w| sent(w, 0xff)),
        drop("congestion flags alone", Reason::Flags, |w| sent(w, ECE | CWR)),
    ]
}

fn sources() -> Vec<Case> {
    fn from(w: &World, v4: &str, v6: &str) -> Vec<Vec<u8>> {
        let source = if family() == Family::V4 { v4 } else { v6 };
        vec![w.segment(format!("{source}:40000").parse().expect("an address"), vip(), SYN).bytes()]
    }
    let drop = |name, frames| drop(name, Reason::Martian, frames);
    vec![
        drop("from the VIP itself", |w| vec![w.segment(vip(), vip(), SYN).bytes()]),
        drop("from another port of the VIP's address", |w| {
            vec![w.segment(SocketAddr::new(vip().ip(), 5555), vip(), SYN).bytes()]
        }),
        drop("from another VIP", |w| vec![w.segment(other_vip(), vip(), SYN).bytes()]),
        drop("an ACK from another VIP", |w| vec![w.segment(other_vip(), vip(), ACK).bytes()]),
        drop("from a backend, on the client's side", |w| {
            vec![w.segment(SocketAddr::new(backend_address(0).ip(), 40_000), vip(), SYN).bytes()]
        }),
        drop("from an ejected backend, on the client's side", |w| {
            vec![w.segment(SocketAddr::new(backend_address(2).ip(), 40_000), vip(), SYN).bytes()]
        }),
        drop("from port 0", |w| vec![w.segment(SocketAddr::new(w.client().ip(), 0), vip(), SYN).bytes()]),
        drop("from nowhere", |w| from(w, "0.0.0.0", "[::]")),
        drop("from loopback", |w| from(w, "127.0.0.1", "[::1]")),
        drop("from multicast", |w| from(w, "239.1.1.1", "[ff02::1]")),
        drop("from this network", |w| from(w, "0.1.2.3", "[::]")).v4(),
        drop("from loopback's end", |w| from(w, "127.255.255.254", "[::1]")).v4(),
        drop("from a reserved address", |w| from(w, "240.0.0.1", "[::]")).v4(),
        drop("from broadcast", |w| from(w, "255.255.255.255", "[::]")).v4(),
        drop("from an IPv4 address written as IPv6", |w| from(w, "", "[::ffff:10.1.2.3]")).v6(),
    ]
}

fn unwelcome() -> Vec<Case> {
    fn to(name: &'static str, reason: Reason, port: u16, frames: fn(&World) -> Vec<Vec<u8>>) -> Case {
        Case::all(name, Stage::Nothing, Outcome::Drop(reason, port), frames)
    }
    fn syn(w: &World, number: u16, port: u16) -> Vec<Vec<u8>> {
        vec![w.segment(client(number), SocketAddr::new(vip().ip(), port), SYN).bytes()]
    }
    vec![
        to("nobody serves, and silence is asked for", Reason::NoBackend, EMPTY_SILENT, |w| {
            syn(w, w.number, EMPTY_SILENT)
        }),
        to("the next hop does not answer", Reason::Neighbour, UNREACHABLE, |w| syn(w, w.number, UNREACHABLE)),
        to("all are ejected but still in the table", Reason::Swapping, SWAPPING, |w| {
            syn(w, w.number, SWAPPING)
        }),
        to("denied by a longer prefix", Reason::Denied, ALLOWS, |w| syn(w, INNER | w.number, ALLOWS)),
        to("not listed where some are allowed", Reason::Denied, ALLOWS, |w| {
            let stranger = SocketAddr::new(address([11, 1, 0, 1]), 40_000);
            vec![w.segment(stranger, SocketAddr::new(vip().ip(), ALLOWS), SYN).bytes()]
        }),
        to("denied by the only prefix", Reason::Denied, DENIES, |w| syn(w, w.number, DENIES)),
        to("denied, with data in its SYN", Reason::Denied, DENIES, |w| {
            let tcp = w.segment(client(w.number), SocketAddr::new(vip().ip(), DENIES), SYN);
            vec![tcp.payload(b"GET / HTTP/1.1\r\n\r\n").bytes()]
        }),
        drop("a reset of no connection", Reason::NoFlow, |w| vec![w.sent(RST).bytes()]),
        drop("a reset with ACK of no connection", Reason::NoFlow, |w| vec![w.sent(RST | ACK).bytes()]),
    ]
}

fn of_connections() -> Vec<Case> {
    vec![
        later("TTL 1 on a connection", Reason::Ttl, |w| vec![Tcp { ttl: 1, ..w.sent(ACK) }.bytes()]),
        later("no flags on a connection", Reason::Flags, |w| vec![w.sent(0).bytes()]),
        later("SYN and FIN on a connection", Reason::Flags, |w| vec![w.sent(SYN | FIN).bytes()]),
        later("a fragment of a connection", Reason::Fragment, |w| {
            vec![fragment(w.sent(ACK).bytes(), 0x2000)]
        })
        .v4(),
        later("options on a connection", Reason::IpOptions, |w| vec![optioned(w.sent(ACK).bytes(), 2)]).v4(),
        later("a segment of a connection that is cut", Reason::Malformed, |w| {
            let mut frame = w.sent(ACK).bytes();
            frame.pop();
            vec![frame]
        }),
        later("data offset 4 on a connection", Reason::Malformed, |w| {
            vec![with_tcp(w.sent(ACK), &[(12, 0x40)])]
        }),
        later("a reply with TTL 1", Reason::Ttl, |w| vec![Tcp { ttl: 1, ..w.answered(ACK) }.bytes()]),
        later("a reply without flags", Reason::Flags, |w| vec![w.answered(0).bytes()]),
        later("a reply with SYN and RST", Reason::Flags, |w| vec![w.answered(SYN | RST).bytes()]),
        later("a fragment of a reply", Reason::Fragment, |w| vec![fragment(w.answered(ACK).bytes(), 0x2000)])
            .v4(),
        later("a reply with options", Reason::IpOptions, |w| vec![optioned(w.answered(ACK).bytes(), 1)]).v4(),
        later("a reply that is cut", Reason::Malformed, |w| {
            let mut frame = w.answered(ACK).bytes();
            frame.pop();
            vec![frame]
        }),
    ]
}
