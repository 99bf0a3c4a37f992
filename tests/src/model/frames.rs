//! Frames to try: of everything that there is a little, mostly near to what is right, and then spoiled.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Model, Tuple, carrying::family_of, connection::Connection};
use crate::{
    frame::{ACK, FIN, PSH, RST, SYN, Tcp, layout, set_checksums},
    kernel::{NODE_MAC, OTHER_NODE_MAC, backend_address, in_family},
    noise::Noise,
};

/// Clients are few, so that they come again.
const CLIENTS: usize = 40;
const CLIENT_PORTS: usize = 25;

#[derive(Debug)]
pub struct Generator {
    noise: Noise,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self { noise: Noise::new(seed) }
    }

    /// The next frame, at least as long as a link header, and whether it comes by the interface to the backends.
    pub fn frame(&mut self, model: &Model) -> (Vec<u8>, bool) {
        let (mut frame, behind) = match self.noise.below(20) {
            0 => return (self.junk(), self.noise.once_in(2)),
            1..=6 => (self.of_anybody(model), self.noise.once_in(10)),
            _ => self.of_a_connection(model),
        };
        let behind = behind != self.noise.once_in(30);
        if self.noise.once_in(3) {
            for _ in 0..=self.noise.below(2) {
                self.spoil(&mut frame);
            }
            // Mostly right checksums, where there is anything to be summed up.
            if !self.noise.once_in(4) && layout(&frame).is_some() {
                set_checksums(&mut frame);
            }
        }
        (frame, behind)
    }

    fn junk(&mut self) -> Vec<u8> {
        let length = 14 + self.noise.below(200);
        let mut frame: Vec<u8> = (0..length).map(|_| self.noise.byte()).collect();
        let kinds = [[8, 0], [0x86, 0xdd], [8, 6], [0x81, 0], [0x88, 0xcc], [0, 64]];
        let kind: [u8; 2] = *self.noise.pick(&kinds);
        frame[12..14].copy_from_slice(&kind);
        frame
    }

    /// Any sender, to a VIP or to an address near it.
    fn of_anybody(&mut self, model: &Model) -> Vec<u8> {
        let mut dst = self.noise.pick(&model.services).vip;
        if self.noise.once_in(10) {
            dst.set_port([81, 0, 443, 20_000, 65_535][self.noise.below(5)]);
        }
        let number = self.noise.below(CLIENTS);
        let odd = self.noise.once_in(20);
        let src = self.client(dst, number, odd);
        let flags = [SYN, SYN, SYN, SYN, SYN | ACK, ACK, ACK | PSH, RST, RST | ACK, FIN | ACK, FIN, 0];
        let flags = *self.noise.pick(&flags) | self.extra_flags();
        let mut tcp = Tcp::new(src, dst, flags).numbers(self.noise.word() as u32, self.noise.word() as u32);
        self.adorn(&mut tcp);
        tcp.bytes()
    }

    fn client(&mut self, of: SocketAddr, number: usize, odd: bool) -> SocketAddr {
        let port = 40_000 + self.noise.below(CLIENT_PORTS) as u16;
        let number = number as u8;
        let host: IpAddr = match (of.is_ipv4(), odd) {
            (true, false) => Ipv4Addr::new(10, 1, 0, number).into(),
            (true, true) => {
                let odd = [[127, 0, 0, 1], [0, 1, 2, 3], [224, 0, 0, 9], [255; 4], [223, 1, 2, 3]];
                Ipv4Addr::from(*self.noise.pick(&odd)).into()
            }
            (false, false) => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, number.into()).into(),
            (false, true) => {
                let odd = ["::", "::1", "ff02::9", "::ffff:10.1.2.3", "::2", "fe80::1"];
                self.noise.pick(&odd).parse::<Ipv6Addr>().expect("a literal").into()
            }
        };
        match self.noise.below(40) {
            0..=3 if odd => SocketAddr::new(of.ip(), port),
            5..=9 if odd => SocketAddr::new(
                in_family(family_of(of), || backend_address(if of.is_ipv4() { 11 } else { 21 })).ip(),
                port,
            ),
            4 if odd => SocketAddr::new(host, 0),
            _ => SocketAddr::new(host, port),
        }
    }

    fn extra_flags(&mut self) -> u8 {
        // URG, ECE, CWR: nobody's business.
        if self.noise.once_in(6) { self.noise.byte() & 0xe0 } else { 0 }
    }

    /// A segment that one of its ends may send next.
    fn of_a_connection(&mut self, model: &Model) -> (Vec<u8>, bool) {
        let from = (self.client("10.0.0.1:1".parse().expect("a literal"), 0, false), vip_of(model));
        let any = if self.noise.once_in(2) {
            let six = self.client("[::]:1".parse().expect("a literal"), 0, false);
            (six, vip_of(model))
        } else {
            from
        };
        // Somewhere in the middle, by chance.
        let number = self.noise.below(CLIENTS) as u8;
        let start: Tuple = (with_host(any.0, number), any.1);
        // Mostly one that lives.
        let over_too = self.noise.once_in(8);
        let mut all = model.connections.range(start..).chain(&model.connections);
        let found = all.find(|(_, one)| over_too || !one.is_over());
        let Some((key, connection)) = found else {
            return (self.of_anybody(model), false);
        };
        let (client, vip) = *key;
        let (backend, nat) = connection.reply();
        let next = connection.next();
        let way = model.way_to_backend(connection);
        let to_backend = self.noise.once_in(2);
        let (src, dst) = if to_backend { (client, vip) } else { (backend, nat) };
        let flags = match (connection.is_established(), next.is_some(), to_backend) {
            (false, false, false) => [
                SYN | ACK,
                SYN | ACK,
                SYN | ACK,
                SYN | ACK,
                if self.noise.once_in(4) { RST | ACK } else { ACK },
            ],
            // The SYN again, or what cannot come yet.
            (false, false, true) => [SYN, SYN, ACK, ACK | PSH, if self.noise.once_in(4) { RST } else { SYN }],
            (false, true, true) => [ACK, ACK, ACK | PSH, SYN, if self.noise.once_in(4) { RST } else { ACK }],
            _ => *self.noise.pick(&[
                [ACK, ACK | PSH, ACK, ACK, ACK | PSH],
                [ACK, ACK | PSH, ACK, ACK | PSH, ACK],
                [ACK, ACK | PSH, SYN, ACK | PSH, SYN],
                [ACK, FIN | ACK, ACK, ACK, SYN],
                [FIN | ACK, RST, ACK, SYN | ACK, ACK],
                [ACK, ACK | PSH, ACK, ACK, FIN | ACK],
                [FIN | ACK, ACK, FIN | ACK, ACK, ACK],
            ]),
        };
        let flags = *self.noise.pick(&flags) | self.extra_flags();
        // Numbers of few values, so that they often fit.
        let mut tcp =
            Tcp::new(src, dst, flags).numbers(self.noise.below(3) as u32, self.noise.below(4) as u32);
        self.number(&mut tcp, connection, to_backend);
        if self.noise.once_in(2) {
            self.adorn(&mut tcp);
        }
        if next.is_none() && to_backend && flags & SYN != 0 && !self.noise.once_in(4) {
            let (syn_end, end) = (connection.syn_end(), connection.first_end());
            tcp.seq = syn_end.wrapping_sub(1);
            // Linux leaves the data out.
            let length = if self.noise.once_in(4) { 0 } else { end.wrapping_sub(syn_end) };
            tcp.payload = vec![b'x'; length as usize];
        }
        let mut behind = !to_backend;
        if to_backend && self.noise.once_in(8) {
            behind = self.another_way(&mut tcp);
        } else if !to_backend && !self.noise.once_in(10) {
            tcp.vlan = (way != 0).then_some(way);
        }
        if self.noise.once_in(40) {
            tcp.to_mac = self.another_station();
        }
        (tcp.bytes(), behind)
    }

    /// Mostly the next numbers of a connection, or near to them.
    fn number(&mut self, tcp: &mut Tcp, connection: &Connection, to_backend: bool) {
        let noise = &mut self.noise;
        let near: [u32; 8] = [0, 0, 0, 0, 0, 1, u32::MAX, 30];
        // At the bounds of what is near, and as far as can be.
        let far: [u32; 8] = [0, 0, (1 << 14) - 1, 1 << 14, 1 << 24, (1 << 24) + 1, (1 << 31) - 1, 1 << 31];
        let mut distance = [*noise.pick(&near), *noise.pick(&near)];
        if noise.once_in(40) {
            distance = [*noise.pick(&far), noise.pick(&far).wrapping_neg()];
            distance = distance.map(|one| if noise.once_in(4) { one.wrapping_neg() } else { one });
        }
        match connection.next() {
            Some((client, backend)) if !noise.once_in(4) => {
                let (own, other) = if to_backend { (client, backend) } else { (backend, client) };
                tcp.seq = own.wrapping_add(distance[0]);
                tcp.ack = other.wrapping_add(distance[1]);
            }
            None if to_backend && !noise.once_in(4) => {
                tcp.seq = connection.first_end().wrapping_add(distance[0]);
            }
            None if !to_backend && noise.once_in(6) => tcp.ack = connection.syn_end(),
            _ if !to_backend => {
                tcp.ack = connection.first_end().wrapping_add(u32::from(noise.once_in(3)));
            }
            _ => {}
        }
        if !to_backend && noise.once_in(100) {
            tcp.ack = connection.first_end().wrapping_add(1 << 31);
        }
    }

    /// By another gateway, in a VLAN, or by the interface to the backends. True: by that.
    fn another_way(&mut self, tcp: &mut Tcp) -> bool {
        let noise = &mut self.noise;
        if noise.once_in(2) {
            tcp.from_mac[noise.below(6)] ^= 2 << noise.below(7);
        }
        if noise.once_in(2) {
            let control = *noise.pick(&[0, 0x6000]);
            tcp.vlan = Some(control | noise.pick(&[0, 10, 20, 30]));
        }
        noise.once_in(2)
    }

    fn another_station(&mut self) -> [u8; 6] {
        let noise = &mut self.noise;
        let mut other = NODE_MAC;
        other[noise.below(6)] = noise.byte();
        *noise.pick(&[OTHER_NODE_MAC, other, [0xff; 6], [0x33, 0x33, 0, 0, 0, 1]])
    }

    /// A frame that the program must leave as it is.
    fn adorn(&mut self, tcp: &mut Tcp) {
        if self.noise.once_in(10) {
            tcp.to_mac = self.another_station();
        }
        let noise = &mut self.noise;
        tcp.tos = noise.byte();
        tcp.urgent = noise.word() as u16;
        tcp.ttl = *noise.pick(&[64, 64, 255, 128, 2, 3, 1, 0]);
        tcp.from_mac[5] = noise.byte();
        tcp.options = (0..4 * noise.below(11)).map(|_| noise.byte()).collect();
        let longest = *noise.pick(&[1, 8, 100, 1400]);
        tcp.payload = (0..noise.below(longest)).map(|_| noise.byte()).collect();
        if noise.once_in(3) {
            // A payload that evidence reads.
            let heads: [&[u8]; 5] = [
                b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                b"HTTP/1.1 100 Continue\r\n\r\n",
                b"POST / HT",
                b"\x16\x03\x01\x02\x00\x01",
            ];
            tcp.payload = noise.pick(&heads).to_vec();
        }
        if tcp.src.is_ipv6() {
            for _ in 0..[0, 0, 0, 1, 1, 2, 3, 5, 6, 7][noise.below(10)] {
                let kind = *noise.pick(&[0, 60, 60, 43, 44]);
                let length = if kind == 44 { 6 } else { 8 * noise.below(3) + 6 };
                let mut content: Vec<u8> = (0..length).map(|_| noise.byte()).collect();
                if kind == 44 && noise.once_in(2) {
                    // The first fragment, or a whole datagram.
                    (content[0], content[1]) = (0, content[1] & 1);
                }
                tcp.extensions.push((kind, content));
            }
        }
        if noise.once_in(5) {
            let any = noise.word() as u16;
            tcp.vlan = Some(*noise.pick(&[any, any & 0xf000 | 10, any & 0xf000]));
        }
    }

    fn spoil(&mut self, frame: &mut Vec<u8>) {
        let noise = &mut self.noise;
        let six = frame[12] == 0x86;
        let (ip, tcp) = (14, if six { 54 } else { 34 });
        let mut set = |at: usize, byte: u8| {
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        };
        match noise.below(14) {
            // A bit, mostly of a header.
            0 | 1 => {
                let at = noise.below(frame.len().min(80));
                frame[at] ^= 1 << noise.below(8);
            }
            2 => {
                let at = noise.below(frame.len());
                frame[at] = noise.byte();
            }
            3 => frame.truncate(14 + noise.below(frame.len() - 13)),
            // Padding, or what somebody forgot.
            4 => frame.resize(frame.len() + noise.below(40), noise.byte()),
            // Length of the datagram.
            5 => set(ip + if six { 5 } else { 3 }, noise.byte()),
            6 => set(ip + if six { 4 } else { 2 }, noise.byte() & 7),
            // Length of the TCP header.
            7 => set(tcp + 12, noise.byte()),
            8 => set(tcp + 13, noise.byte()),
            // TTL or hop limit.
            9 => set(ip + if six { 7 } else { 8 }, noise.byte() & 3),
            // Version, length of the IPv4 header.
            10 => set(ip, if noise.once_in(2) { 0x40 | noise.byte() & 15 } else { noise.byte() }),
            // Protocol, or next header.
            11 => set(ip + if six { 6 } else { 9 }, *noise.pick(&[6, 1, 17, 58, 47, 44, 0, 60])),
            // Flags and offset of a fragment.
            12 => set(ip + 6, noise.byte()),
            _ => {
                let other = *noise.pick(&[[8, 0], [0x86, 0xdd], [0x81, 0], [8, 6]]);
                frame[12..14].copy_from_slice(&other);
            }
        }
    }
}

fn vip_of(model: &Model) -> SocketAddr {
    model.services[0].vip
}

fn with_host(client: SocketAddr, number: u8) -> SocketAddr {
    let ip = match client.ip() {
        IpAddr::V4(v4) => Ipv4Addr::from([v4.octets()[0], v4.octets()[1], v4.octets()[2], number]).into(),
        IpAddr::V6(v6) => {
            let mut octets = v6.octets();
            octets[15] = number;
            Ipv6Addr::from(octets).into()
        }
    };
    SocketAddr::new(ip, client.port())
}
