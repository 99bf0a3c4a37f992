//! SYNs that no server can answer, and connections on which nothing comes.

use std::{net::SocketAddr, time::Duration};

use lb_tests::{
    frame::{ACK, FIN, PSH, RST, SYN, URG},
    swarm::{Shape, Swarm},
};

use super::attack::{Attack, Kind, Play};

pub(super) const ATTACKS: &[Attack] = &[
    Attack { name: "syn-of-low-ttl", service: Kind::Healthy, play: low_ttl },
    Attack { name: "syn-from-beside-the-backend", service: Kind::Dnat, play: on_link },
    Attack { name: "syn-of-wrong-checksum", service: Kind::Healthy, play: wrong_checksum },
    Attack { name: "syn-with-odd-options", service: Kind::Healthy, play: odd_options },
    Attack { name: "syn-with-mss-0", service: Kind::Healthy, play: mss_0 },
    Attack { name: "syn-with-data", service: Kind::Healthy, play: with_data },
    Attack { name: "syn-with-odd-flags", service: Kind::Healthy, play: odd_flags },
    Attack { name: "syn-and-reset", service: Kind::Healthy, play: syn_and_reset },
    Attack { name: "handshake-and-silence", service: Kind::Healthy, play: silence },
    Attack { name: "handshake-and-reset", service: Kind::Healthy, play: handshake_and_reset },
    Attack { name: "syn-flood", service: Kind::Healthy, play: flood },
];

/// A SYN that is not answered within `connect_timeout` is evidence only later.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3800);

fn syns(swarm: &mut Swarm, alter: impl Fn(&mut Shape)) {
    swarm.syn(alter);
    swarm.listen(CONNECT_TIMEOUT);
}

/// It reaches Shunt and no backend behind it: routers there would need more.
fn low_ttl(swarm: &mut Swarm, _: &Play<'_>) {
    syns(swarm, |shape| shape.tcp.ttl = 3);
}

/// With `dnat` the server answers an address of its own network, where nobody is.
fn on_link(swarm: &mut Swarm, _: &Play<'_>) {
    syns(swarm, |shape| {
        let port = shape.tcp.src.port();
        shape.tcp.src = SocketAddr::from(([10, 20, (port % 3) as u8, 50 + (port % 200) as u8], port));
    });
}

fn wrong_checksum(swarm: &mut Swarm, _: &Play<'_>) {
    syns(swarm, |shape| shape.wrong_checksum = true);
}

fn odd_options(swarm: &mut Swarm, _: &Play<'_>) {
    syns(swarm, |shape| {
        // An option that is longer than the header, one of no length, TCP-MD5, TCP-AO.
        shape.tcp.options = match shape.tcp.src.port() % 4 {
            0 => vec![253, 40, 1, 1],
            1 => vec![2, 0, 5, 180],
            2 => [vec![19, 18], vec![0x5a; 18]].concat(),
            _ => [vec![29, 16], vec![0x5a; 14]].concat(),
        };
    });
}

fn mss_0(swarm: &mut Swarm, _: &Play<'_>) {
    swarm.syn(|shape| shape.tcp.options = vec![2, 4, 0, 0]);
    swarm.listen(Duration::from_millis(300));
    swarm.say(0, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    swarm.listen(CONNECT_TIMEOUT);
}

fn with_data(swarm: &mut Swarm, _: &Play<'_>) {
    syns(swarm, |shape| shape.tcp.payload = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec());
}

fn odd_flags(swarm: &mut Swarm, _: &Play<'_>) {
    for extra in [FIN, RST, URG | PSH, ACK] {
        swarm.syn(|shape| shape.tcp.flags = SYN | extra);
        swarm.listen(Duration::from_millis(200));
    }
    swarm.listen(CONNECT_TIMEOUT);
}

/// The client forgets its SYN before it is answered.
fn syn_and_reset(swarm: &mut Swarm, _: &Play<'_>) {
    swarm.syn(|_| {});
    swarm.syn(|shape| {
        shape.tcp.flags = RST;
        shape.tcp.seq = shape.tcp.seq.wrapping_add(1);
        shape.tcp.options.clear();
    });
    swarm.listen(CONNECT_TIMEOUT);
}

fn silence(swarm: &mut Swarm, _: &Play<'_>) {
    swarm.connect();
    // The server closes first.
    swarm.listen(CONNECT_TIMEOUT);
    swarm.say(FIN, b"");
    swarm.listen(Duration::from_millis(200));
}

fn handshake_and_reset(swarm: &mut Swarm, _: &Play<'_>) {
    swarm.connect();
    swarm.say(RST, b"");
    swarm.listen(Duration::from_millis(500));
}

/// From addresses and ports that come once each. Some SYNs are lost in queues.
fn flood(swarm: &mut Swarm, _: &Play<'_>) {
    for round in 0..100_u16 {
        swarm.syn(|shape| {
            let port = shape.tcp.src.port();
            shape.tcp.src.set_port(port.wrapping_mul(31).wrapping_add(round * 211) | 1024);
        });
    }
    swarm.listen(CONNECT_TIMEOUT);
}
