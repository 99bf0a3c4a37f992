//! Segments and errors in the names of others: of other clients, and of backends, from the clients' side.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use lb_tests::{
    frame::{ACK, FIN, IP, PSH, RST, SYN, Tcp},
    http::{PATIENCE, connect},
    icmp::IcmpError,
    swarm::{Member, Shape, Swarm},
};

use super::{
    attack::{Attack, Kind, Play},
    stage::Stage,
};

pub(super) const ATTACKS: &[Attack] = &[
    Attack { name: "resets-for-other-clients", service: Kind::Healthy, play: resets },
    Attack { name: "fins-for-other-clients", service: Kind::Healthy, play: fins },
    Attack { name: "syns-for-other-clients", service: Kind::Healthy, play: syns },
    Attack { name: "forged-answers-of-a-backend", service: Kind::Healthy, play: answers },
    Attack { name: "forged-answers-with-dnat", service: Kind::Dnat, play: answers },
    Attack { name: "forged-resets-of-a-backend", service: Kind::Healthy, play: backend_resets },
    Attack { name: "forged-resets-with-dnat", service: Kind::Dnat, play: backend_resets },
    Attack { name: "forged-icmp-errors", service: Kind::Healthy, play: icmp },
];

const SHORT: Duration = Duration::from_millis(300);
/// Connections of a backend, and of the swarm, that segments are forged for.
const MOST: usize = 60;

/// Connections of a host that asks, waits, and asks again.
fn victims(play: &Play<'_>, between: impl FnOnce(&[SocketAddr])) {
    let client = &play.stage.topology.client;
    let streams: Vec<TcpStream> =
        (0..20).filter_map(|_| connect(client, play.vip(), PATIENCE).ok()).collect();
    let ask = |mut stream: &TcpStream| {
        let asked = stream.write_all(b"GET /work HTTP/1.1\r\nHost: x\r\n\r\n");
        let _ = asked.and_then(|()| stream.read(&mut [0; 512]));
    };
    streams.iter().for_each(ask);
    let addresses: Vec<_> = streams.iter().filter_map(|stream| stream.local_addr().ok()).collect();
    between(&addresses);
    streams.iter().for_each(ask);
}

/// With numbers that nobody on the side can know.
fn for_others(swarm: &mut Swarm, play: &Play<'_>, flags: u8) {
    let to = swarm.to;
    victims(play, |addresses| {
        for _ in 0..10 {
            for victim in addresses {
                let (seq, ack) = (swarm.noise.word() as u32, swarm.noise.word() as u32);
                let tcp = Tcp::new(*victim, to, flags).numbers(seq, ack);
                swarm.line.segment(&Shape { tcp, window: 0x4000, wrong_checksum: false });
            }
            swarm.listen(Duration::from_millis(20));
        }
    });
    swarm.listen(SHORT);
}

fn resets(swarm: &mut Swarm, play: &Play<'_>) {
    for_others(swarm, play, RST);
    for_others(swarm, play, RST | ACK);
}

/// A FIN, and then a SYN that would take the flow over.
fn fins(swarm: &mut Swarm, play: &Play<'_>) {
    for_others(swarm, play, FIN | ACK);
    for_others(swarm, play, SYN);
}

fn syns(swarm: &mut Swarm, play: &Play<'_>) {
    for_others(swarm, play, SYN);
    for_others(swarm, play, SYN | ACK);
}

/// From each backend's address, to the NAT ports of its connections and with the numbers of the swarm's: an attacker knows
/// the numbers of its own connection, and could compute the port that Shunt prefers for it.
fn of_backends(swarm: &mut Swarm, play: &Play<'_>, flags: u8, payload: &[u8]) {
    let members: Vec<_> = swarm.members.iter().take(MOST).cloned().collect();
    for number in 0..3 {
        for port in nat_ports(play, number) {
            let nat = SocketAddr::from(([10, 20, number as u8, 1], port));
            for member in &members {
                forge(swarm, Tcp::new(Stage::server(number), nat, flags), member, payload);
            }
            swarm.listen(Duration::from_millis(4));
        }
    }
}

/// With `dnat` a backend's segments go to the address and port of the client itself.
fn to_themselves(swarm: &mut Swarm, flags: u8, payload: &[u8]) {
    let members: Vec<_> = swarm.members.iter().take(MOST).cloned().collect();
    for member in &members {
        for number in 0..3 {
            forge(swarm, Tcp::new(Stage::server(number), member.own, flags), member, payload);
        }
    }
}

fn forge(swarm: &Swarm, tcp: Tcp, to: &Member, payload: &[u8]) {
    let tcp = tcp.numbers(to.theirs, to.next).payload(payload);
    swarm.line.segment(&Shape { tcp, window: 0x4000, wrong_checksum: false });
}

/// Of the connections that a server has, at most so many.
fn nat_ports(play: &Play<'_>, number: usize) -> Vec<u16> {
    let table =
        play.stage.topology.backends[number].enter(|| fs::read_to_string("/proc/thread-self/net/tcp"));
    let table = table.ok().and_then(io::Result::ok).unwrap_or_default();
    let port = |end: &str| u16::from_str_radix(end.split_once(':')?.1, 16).ok();
    let of = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (own, peer, state) = (fields.next()?, fields.next()?, fields.next()?);
        (port(own)? == Stage::server(number).port() && state == "01").then(|| port(peer))?
    };
    table.lines().filter_map(of).take(MOST).collect()
}

/// It reads a body, so its answer waits.
const WAITS: &[u8] = b"POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";

fn answers(swarm: &mut Swarm, play: &Play<'_>) {
    swarm.connect();
    swarm.say(0, WAITS);
    swarm.listen(SHORT);
    of_backends(swarm, play, ACK | PSH, ANSWER);
    to_themselves(swarm, ACK | PSH, ANSWER);
    swarm.listen(SHORT);
}

fn backend_resets(swarm: &mut Swarm, play: &Play<'_>) {
    swarm.connect();
    swarm.say(0, WAITS);
    swarm.listen(SHORT);
    for flags in [RST | ACK, RST, FIN | ACK] {
        of_backends(swarm, play, flags, b"");
        to_themselves(swarm, flags, b"");
    }
    swarm.listen(SHORT);
}

/// Every error of ICMP about segments from the node to a backend, and about answers to clients.
fn icmp(swarm: &mut Swarm, play: &Play<'_>) {
    swarm.connect();
    let (to_mac, from_mac) = swarm.line.ends();
    let errors = [(3, 0, 0), (3, 1, 0), (3, 3, 0), (3, 4, 600), (3, 13, 0), (11, 0, 0), (12, 0, 0)];
    let send = |swarm: &mut Swarm, quoted: Tcp| {
        for (kind, code, mtu) in errors {
            let [high, low] = u16::to_be_bytes(mtu);
            let error = IcmpError {
                to_mac,
                from_mac,
                src: IpAddr::from([10, 10, 0, 2]),
                dst: quoted.src.ip(),
                kind,
                code,
                rest: [0, 0, high, low],
                ttl: 64,
                quoted: quoted.bytes()[IP..].to_vec(),
            };
            swarm.line.send(&error.bytes());
        }
    };
    let members: Vec<_> = swarm.members.iter().take(MOST).cloned().collect();
    for number in 0..3 {
        for port in nat_ports(play, number) {
            let nat = SocketAddr::from(([10, 20, number as u8, 1], port));
            for member in members.iter().take(5) {
                let quoted = Tcp::new(nat, Stage::server(number), ACK);
                send(swarm, quoted.numbers(member.next, member.theirs));
            }
            swarm.listen(Duration::from_millis(4));
        }
    }
    for member in members {
        send(swarm, Tcp::new(play.vip(), member.own, ACK).numbers(member.theirs, member.next));
    }
    swarm.say(0, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    swarm.listen(Duration::from_millis(1500));
}
