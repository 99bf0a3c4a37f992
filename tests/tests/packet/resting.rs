//! NAT ports that rest: which of them a new connection takes.

use std::net::SocketAddr;

use lb_tests::{
    both_families,
    frame::{ACK, FIN, RST, SYN, Tcp},
    kernel::{Action, Kernel, backend_address, vip},
};

use crate::steering::client;

/// How a connection ends.
#[derive(Clone, Copy)]
enum End {
    ClientFirst,
    BackendFirst,
    ResetByClient,
    ResetByBackend,
}

/// A connection from its SYN on.
struct Life {
    client: SocketAddr,
    isn: u32,
    /// The client's time stamp, which stands still.
    stamp: Option<u32>,
    nat: SocketAddr,
}

const BACKEND_ISN: u32 = 77_000;
/// The backend's time stamp: like none of the clients'.
const BACKEND_STAMP: u32 = 0x7777_7777;

impl Life {
    /// SYN only.
    fn begin(kernel: &mut Kernel, client: SocketAddr, isn: u32, stamp: Option<u32>) -> Self {
        let mut syn = Tcp::new(client, vip(), SYN).numbers(isn, 0);
        if let Some(stamp) = stamp {
            // As Linux has them: segment size, SACK, time stamps, scale.
            let (before, after) = ([2, 4, 5, 0xb4, 4, 2, 8, 10], [0, 0, 0, 0, 1, 3, 3, 7]);
            syn.options = [&before[..], &stamp.to_be_bytes(), &after].concat();
        }
        let (action, out) = kernel.run(&syn.bytes());
        assert_eq!(action, Action::Redirect, "{client} gets a port");
        Self { client, isn, stamp, nat: Tcp::read(&out).expect("tcp").src }
    }

    /// The rest of it.
    fn end(self, kernel: &mut Kernel, end: End) -> u16 {
        let (c, b) = (self.isn.wrapping_add(1), BACKEND_ISN + 1);
        self.reply(kernel, SYN | ACK, BACKEND_ISN, c);
        self.send(kernel, ACK, c, b);
        match end {
            End::ClientFirst => {
                self.send(kernel, ACK | FIN, c, b);
                self.reply(kernel, ACK | FIN, b, c + 1);
                self.send(kernel, ACK, c + 1, b + 1);
            }
            End::BackendFirst => {
                self.reply(kernel, ACK | FIN, b, c);
                self.send(kernel, ACK | FIN, c, b + 1);
                self.reply(kernel, ACK, b + 1, c + 1);
            }
            End::ResetByClient => self.send(kernel, RST, c, 0),
            End::ResetByBackend => self.reply(kernel, RST | ACK, b, c),
        }
        assert_eq!(kernel.flows().counts().established, 0, "it is over");
        self.nat.port()
    }

    fn send(&self, kernel: &mut Kernel, flags: u8, seq: u32, ack: u32) {
        let mut segment = Tcp::new(self.client, vip(), flags).numbers(seq, ack);
        segment.options = self.options(|stamp| [stamp, BACKEND_STAMP]);
        assert_eq!(kernel.run(&segment.bytes()).0, Action::Redirect);
    }

    fn reply(&self, kernel: &mut Kernel, flags: u8, seq: u32, ack: u32) {
        let mut segment = Tcp::new(backend_address(0), self.nat, flags).numbers(seq, ack);
        segment.options = self.options(|stamp| [BACKEND_STAMP, stamp]);
        assert_eq!(kernel.run(&segment.bytes()).0, Action::Redirect);
    }

    /// The time stamps of a segment.
    fn options(&self, of: impl Fn(u32) -> [u32; 2]) -> Vec<u8> {
        let times = self.stamp.map(|stamp| of(stamp).map(u32::to_be_bytes).concat());
        times.map(|times| [&[1, 1, 8, 10], &times[..]].concat()).unwrap_or_default()
    }
}

fn two_ports() -> Kernel {
    Kernel::with(1, 20_000..=20_001, 4096)
}

/// So many connections, one after the other: a program that takes any port would meet the right one each time once
/// in 2^16 runs.
const MANY: u16 = 16;

/// One port rests because the backend closed, and would refuse. The connection of the other ended in this way.
fn is_taken_again(end: End) {
    let mut kernel = two_ports();
    let waits = Life::begin(&mut kernel, client(1), 1 << 20, None).end(&mut kernel, End::BackendFirst);
    let forgotten = Life::begin(&mut kernel, client(2), 1000, None).end(&mut kernel, end);
    assert_ne!(waits, forgotten, "a port that does not rest comes first");
    for n in 3..3 + MANY {
        let next = Life::begin(&mut kernel, client(n), 1000, None);
        assert_eq!(next.nat.port(), forgotten, "client {n}");
        next.end(&mut kernel, end);
    }
}

both_families!(a_port_whose_connection_the_backend_has_forgotten_is_taken_first);
fn a_port_whose_connection_the_backend_has_forgotten_is_taken_first() {
    is_taken_again(End::ClientFirst);
    is_taken_again(End::ResetByClient);
    is_taken_again(End::ResetByBackend);
}

both_families!(a_port_rests_until_a_later_number_comes);
fn a_port_rests_until_a_later_number_comes() {
    let mut kernel = two_ports();
    let mut low = 1000;
    let high = 1 << 30;
    let mut rests = Life::begin(&mut kernel, client(1), low, None).end(&mut kernel, End::BackendFirst);
    Life::begin(&mut kernel, client(2), high, None).end(&mut kernel, End::BackendFirst);
    for n in 3..3 + MANY {
        low = u32::midpoint(low, high);
        let next = Life::begin(&mut kernel, client(n), low, None);
        assert_eq!(next.nat.port(), rests, "client {n}");
        rests = next.end(&mut kernel, End::BackendFirst);
    }
}

both_families!(a_port_rests_until_a_later_time_stamp_comes);
fn a_port_rests_until_a_later_time_stamp_comes() {
    let mut kernel = two_ports();
    // The stamps wrap on the way.
    let (mut early, late) = (u32::MAX - 1000, 1 << 29);
    let mut rests =
        Life::begin(&mut kernel, client(1), 1 << 30, Some(early)).end(&mut kernel, End::BackendFirst);
    Life::begin(&mut kernel, client(2), 1000, Some(late)).end(&mut kernel, End::BackendFirst);
    for n in 3..3 + MANY {
        // By its number the other port would be the right one.
        early = early.wrapping_add(late.wrapping_sub(early) / 2);
        let next = Life::begin(&mut kernel, client(n), 1 << 20, Some(early));
        assert_eq!(next.nat.port(), rests, "client {n}");
        rests = next.end(&mut kernel, End::BackendFirst);
    }
}

both_families!(the_last_port_is_taken_even_where_the_backend_may_refuse);
fn the_last_port_is_taken_even_where_the_backend_may_refuse() {
    let mut kernel = Kernel::with(1, 20_000..=20_000, 4096);
    Life::begin(&mut kernel, client(1), 1 << 20, None).end(&mut kernel, End::BackendFirst);
    let next = Life::begin(&mut kernel, client(2), 1000, None);
    assert_eq!(next.nat.port(), 20_000);
}

both_families!(a_client_takes_the_ports_of_its_own_address_first);
/// Otherwise a client whose clock is ahead would take all ports, and one whose clock is behind would find none.
fn a_client_takes_the_ports_of_its_own_address_first() {
    let mut kernel = two_ports();
    let at = |n: u16| SocketAddr::new(client(1).ip(), 50_000 + n);
    let own = Life::begin(&mut kernel, at(0), 1000, None).end(&mut kernel, End::BackendFirst);
    Life::begin(&mut kernel, client(2), 1000, None).end(&mut kernel, End::BackendFirst);
    for n in 1..=MANY {
        let next = Life::begin(&mut kernel, at(n), 1000 + 10 * u32::from(n), None);
        assert_eq!(next.nat.port(), own, "connection {n}");
        next.end(&mut kernel, End::BackendFirst);
    }
}
