//! Which packets are measured. A further kind is a further entry of [`CASES`].
//!
//! One file because it is one table: every case that is measured, with its frames and counters.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use lb_common::{abi::Link, reason::Reason};
use lb_core::config::{Overflow, ServiceLimit};
use lb_tests::{
    frame::{ACK, PSH, SYN, Tcp},
    kernel::{Action, ELSEWHERE, INGRESS, Kernel, OWN_MAC, ServiceSettings, address, backend_mac, vip},
};

use serde::Deserialize;

use super::wrapper::Record;

/// One kind of packet.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// Of how many connections, each in turn.
    pub(crate) flows: &'static [u32],
    /// Prepares the maps, and says which frames to play.
    pub(crate) script: fn(&mut Kernel, u32) -> Result<Script>,
    /// Passes of one test run.
    pub(crate) passes: u32,
    /// Handshakes are forgotten after each test run, so that their table never fills.
    pub(crate) room: bool,
}

/// Frames to play, over and over.
pub(crate) struct Script {
    pub(crate) records: Vec<Record>,
    /// The bytes behind the headers; as long as the longest of them.
    pub(crate) frame: Tcp,
    /// For each connection so many records, one after the other.
    pub(crate) each: u32,
    /// The verdict on the last of them.
    pub(crate) action: Action,
    /// The counters of the program for them.
    pub(crate) counts: Counts,
}

/// How far the program's own counters move. They prove that the path that was measured is the one that is named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) to_backend: u64,
    pub(crate) to_client: u64,
    pub(crate) connections: u64,
    pub(crate) heads: u64,
    pub(crate) without_flow: u64,
}

impl Counts {
    pub(crate) fn read(kernel: &mut Kernel) -> Self {
        let mut counts = Self { without_flow: kernel.drops(Reason::NoFlow), ..Self::default() };
        for (_, backend) in kernel.counters().backends {
            counts.to_backend += backend.packets_to;
            counts.to_client += backend.packets_from;
            counts.connections += backend.connections;
            counts.heads += backend.heads;
        }
        counts
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            to_backend: self.to_backend - before.to_backend,
            to_client: self.to_client - before.to_client,
            connections: self.connections - before.connections,
            heads: self.heads - before.heads,
            without_flow: self.without_flow - before.without_flow,
        }
    }

    pub(crate) fn times(self, factor: u64) -> Self {
        Self {
            to_backend: self.to_backend * factor,
            to_client: self.to_client * factor,
            connections: self.connections * factor,
            heads: self.heads * factor,
            without_flow: self.without_flow * factor,
        }
    }
}

/// Long, because each test run begins and ends with waiting for all other CPUs
/// (net/bpf/test_run.c, `bpf_prog_change_xdp`).
const PASSES: u32 = 65_536;
/// Every other pass mirrors a head, and the ring holds 13 000.
const RING: u32 = 16_384;
/// Every pass begins a handshake, and there is room for many more.
const HANDSHAKES: u32 = 8_192;

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "pass",
        what: "not for a VIP, outside the NAT ports: passed",
        flows: &[1, 1_024, 16_384],
        script: pass,
        passes: PASSES,
        room: false,
    },
    Case {
        name: "pass_nat_port",
        what: "to the host itself, on a NAT port without a flow: passed",
        flows: &[1, 1_024, 16_384],
        script: pass_nat_port,
        passes: PASSES,
        room: false,
    },
    Case {
        name: "ack",
        what: "established, client to backend: no payload",
        flows: &[1, 1_024, 16_384],
        script: ack,
        passes: PASSES,
        room: false,
    },
    Case {
        name: "request",
        what: "established, client to backend: pipelined requests",
        flows: &[1, 1_024, 16_384],
        script: request,
        passes: PASSES,
        room: false,
    },
    Case {
        name: "reply",
        what: "established, backend to client: no head wanted",
        flows: &[1, 1_024, 16_384],
        script: reply,
        passes: PASSES,
        room: false,
    },
    Case {
        name: "request_unwatched",
        what: "established, client to backend: without evidence",
        flows: &[1, 1_024, 16_384],
        script: request_unwatched,
        passes: PASSES,
        room: false,
    },
    Case {
        name: "reply_unwatched",
        what: "established, backend to client: without evidence",
        flows: &[1, 1_024, 16_384],
        script: reply_unwatched,
        passes: PASSES,
        room: false,
    },
    Case {
        name: "exchange",
        what: "a request and its reply, both: its head is mirrored",
        flows: &[1, 1_024, 16_384],
        script: exchange,
        passes: RING,
        room: false,
    },
    Case {
        name: "exchange_counted",
        what: "a request and its reply, both: it is counted",
        flows: &[1, 1_024, 16_384],
        script: exchange_counted,
        passes: RING,
        room: false,
    },
    Case {
        name: "syn",
        what: "SYN of a new connection, tables not full",
        flows: &[16_384],
        script: syn,
        passes: HANDSHAKES,
        room: true,
    },
    Case {
        name: "syn_flood",
        what: "SYN of a new connection, handshakes full: each evicts",
        flows: &[16_384],
        script: syn,
        passes: PASSES,
        room: false,
    },
    Case {
        // Twice as many entries fill the table of handshakes, which then evicts some.
        name: "syn_again",
        what: "SYN retransmission",
        flows: &[1, 1_024, 8_192],
        script: syn_again,
        passes: PASSES,
        room: false,
    },
    Case {
        name: "miss",
        what: "for a VIP, no SYN, no flow: answered by a reset",
        flows: &[1, 1_024, 16_384],
        script: miss,
        passes: PASSES,
        room: false,
    },
    // The last one: from it on all connections count.
    Case {
        name: "syn_limited",
        what: "SYN of a new connection, service with `max_connections`",
        flows: &[16_384],
        script: syn_limited,
        passes: HANDSHAKES,
        room: true,
    },
];

const REQUEST: &[u8] = b"GET /index.html HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: bench\r\n\r\n";
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n";
const BODY: &[u8] = &[b'x'; 1_000];

/// Timestamps, as every stack sends them.
const OPTIONS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8];
/// Segment size, selective acknowledgements, timestamps, window scale.
const SYN_OPTIONS: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7];

const CLIENT_ISN: u32 = 7_000;
const BACKEND_ISN: u32 = 9_000;

fn tcp(from: SocketAddr, to: SocketAddr, flags: u8) -> Tcp {
    let options = if flags & SYN == 0 { OPTIONS.to_vec() } else { SYN_OPTIONS.to_vec() };
    Tcp { options, ..Tcp::new(from, to, flags) }
}

/// 64 connections from each address.
fn client(number: u32) -> SocketAddr {
    let bits = 0x0a40_0001 + ((number / 64) << 8);
    SocketAddr::new(address(bits.to_be_bytes()), 40_000 + (number % 64) as u16)
}

/// A connection that the program knows.
struct Connection {
    client: SocketAddr,
    backend: SocketAddr,
    /// Our side as the backend sees it.
    nat: SocketAddr,
}

impl Connection {
    /// Up to the SYN, or the whole handshake.
    fn begin(kernel: &mut Kernel, number: u32) -> Result<Self> {
        let client = client(number);
        let (action, out) = kernel.run(&tcp(client, vip(), SYN).numbers(CLIENT_ISN, 0).bytes());
        ensure!(matches!(action, Action::Redirect | Action::Tx), "a SYN came to {action:?}");
        let sent = Tcp::read(&out).expect("a SYN comes out as one");
        Ok(Self { client, backend: sent.dst, nat: sent.src })
    }

    fn open(kernel: &mut Kernel, number: u32) -> Result<Self> {
        let connection = Self::begin(kernel, number)?;
        let answer =
            tcp(connection.backend, connection.nat, SYN | ACK).numbers(BACKEND_ISN, CLIENT_ISN + 1).bytes();
        let (action, _) = kernel.run(&answer);
        ensure!(matches!(action, Action::Redirect | Action::Tx), "a SYN-ACK came to {action:?}");
        let (action, _) = kernel.run(&connection.asks(ACK, b"").bytes());
        ensure!(matches!(action, Action::Redirect | Action::Tx), "the end of a handshake came to {action:?}");
        Ok(connection)
    }

    fn asks(&self, flags: u8, payload: &[u8]) -> Tcp {
        tcp(self.client, vip(), flags).numbers(CLIENT_ISN + 1, BACKEND_ISN + 1).payload(payload)
    }

    fn response(&self, payload: &[u8]) -> Tcp {
        tcp(self.backend, self.nat, ACK | PSH).numbers(BACKEND_ISN + 1, CLIENT_ISN + 1).payload(payload)
    }
}

/// The same single frame of each connection, round after round.
fn single(
    flows: u32,
    action: Action,
    counts: Counts,
    mut frame: impl FnMut(u32) -> Result<Tcp>,
) -> Result<Script> {
    let frames: Vec<Tcp> = (0..flows).map(&mut frame).collect::<Result<_>>()?;
    let records = frames.iter().map(Record::new).collect();
    let frame = frames.into_iter().next().expect("a case has a connection at least");
    Ok(Script { records, frame, each: 1, action, counts })
}

const TO_BACKEND: Counts = Counts { to_backend: 1, to_client: 0, connections: 0, heads: 0, without_flow: 0 };
const TO_CLIENT: Counts = Counts { to_backend: 0, to_client: 1, connections: 0, heads: 0, without_flow: 0 };

/// Which frames a program of somebody else's is measured with: the very ones of the case of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Frames {
    Pass,
    Syn,
    Ack,
    Request,
}

impl Frames {
    /// Of each client in turn. It has sent its SYN to the VIP before, or does so now.
    pub(super) fn records(self, flows: u32) -> (Vec<Record>, Tcp) {
        let frames: Vec<Tcp> = (0..flows).map(|number| self.frame(number)).collect();
        let records = frames.iter().map(|frame| match self {
            Self::Pass | Self::Ack => Record::new(frame),
            Self::Syn => Record::new(frame).other_client_next_round(),
            Self::Request => Record::new(frame).next_round(REQUEST.len(), RESPONSE.len()),
        });
        let records = records.collect();
        (records, frames.into_iter().next().expect("a case has a connection at least"))
    }

    fn frame(self, number: u32) -> Tcp {
        let established = |flags| tcp(client(number), vip(), flags).numbers(CLIENT_ISN + 1, BACKEND_ISN + 1);
        match self {
            Self::Pass => tcp(client(number), elsewhere(), ACK),
            Self::Syn => tcp(client(number), vip(), SYN).numbers(CLIENT_ISN, 0),
            Self::Ack => established(ACK),
            Self::Request => established(ACK | PSH).payload(REQUEST),
        }
    }
}

fn elsewhere() -> SocketAddr {
    SocketAddr::new(address([198, 51, 100, 7]), 40_443)
}

fn pass(_: &mut Kernel, flows: u32) -> Result<Script> {
    single(flows, Action::Pass, Counts::default(), |number| Ok(tcp(client(number), elsewhere(), ACK)))
}

fn pass_nat_port(_: &mut Kernel, flows: u32) -> Result<Script> {
    let here = SocketAddr::new(address([198, 51, 100, 7]), 8_443);
    single(flows, Action::Pass, Counts::default(), |number| Ok(tcp(client(number), here, ACK)))
}

fn ack(kernel: &mut Kernel, flows: u32) -> Result<Script> {
    single(flows, Action::Redirect, TO_BACKEND, |number| Ok(Connection::open(kernel, number)?.asks(ACK, b"")))
}

/// Requests that do not wait for answers, of which none comes: all are looked at, and only the first is timed.
fn request(kernel: &mut Kernel, flows: u32) -> Result<Script> {
    let mut script = single(flows, Action::Redirect, TO_BACKEND, |number| {
        Ok(Connection::open(kernel, number)?.asks(ACK | PSH, REQUEST))
    })?;
    for record in &mut script.records {
        *record = record.next_round(REQUEST.len(), 0);
    }
    Ok(script)
}

fn reply(kernel: &mut Kernel, flows: u32) -> Result<Script> {
    beside_clients(kernel, |kernel| {
        single(flows, Action::Tx, TO_CLIENT, |number| Ok(Connection::open(kernel, number)?.response(BODY)))
    })
}

/// Connections that begin while the backends seem to be where the clients are. All passes of a test run come by one
/// interface, and replies must come by the one of their backend. The clients' frames go elsewhere afterwards.
fn beside_clients(kernel: &mut Kernel, begin: impl FnOnce(&mut Kernel) -> Result<Script>) -> Result<Script> {
    if kernel.comes_by().is_some() {
        // Live frames come by real interfaces.
        return begin(kernel);
    }
    let hops = |kernel: &mut Kernel, ifindex| {
        for id in 0..BACKENDS {
            kernel.next_hop(id, Link::new(backend_mac(id), OWN_MAC), ifindex);
        }
    };
    hops(kernel, INGRESS);
    let script = begin(kernel);
    hops(kernel, ELSEWHERE);
    script
}

fn request_unwatched(kernel: &mut Kernel, flows: u32) -> Result<Script> {
    unwatched(kernel, flows, request)
}

fn reply_unwatched(kernel: &mut Kernel, flows: u32) -> Result<Script> {
    unwatched(kernel, flows, reply)
}

/// A connection keeps what its service said of evidence when it began.
fn unwatched(
    kernel: &mut Kernel,
    flows: u32,
    script: fn(&mut Kernel, u32) -> Result<Script>,
) -> Result<Script> {
    kernel.evidence(false);
    let script = script(kernel, flows);
    kernel.evidence(true);
    script
}

/// A request and its response, of each connection in turn.
fn exchange(kernel: &mut Kernel, flows: u32) -> Result<Script> {
    exchange_among(kernel, flows, 0, 8)
}

/// The same with backends whose good responses are counted.
fn exchange_counted(kernel: &mut Kernel, flows: u32) -> Result<Script> {
    let script = exchange(kernel, flows)?;
    for id in 0..BACKENDS {
        kernel.count_successes(id);
    }
    Ok(script)
}

/// The same, with so many bare acknowledgements behind each, and only of so many of eight connections: the more others,
/// the fewer heads a second.
pub(crate) fn exchange_among(kernel: &mut Kernel, flows: u32, others: u32, of_eight: u32) -> Result<Script> {
    beside_clients(kernel, |kernel| exchanges(kernel, flows, others, of_eight))
}

fn exchanges(kernel: &mut Kernel, flows: u32, others: u32, of_eight: u32) -> Result<Script> {
    let mut records = Vec::new();
    let mut frame = None;
    for number in 0..flows {
        let connection = Connection::open(kernel, number)?;
        let request = connection.asks(ACK | PSH, REQUEST);
        let mut reply = connection.response(RESPONSE);
        reply.ack = reply.ack.wrapping_add(REQUEST.len() as u32);
        let other = Record::new(&connection.asks(ACK, b""));
        if number % 8 < of_eight {
            records.push(Record::new(&request).next_round(REQUEST.len(), RESPONSE.len()));
            records.push(Record::new(&reply).next_round(RESPONSE.len(), REQUEST.len()));
        } else {
            records.extend([other; 2]);
        }
        records.extend(std::iter::repeat_n(other, others as usize));
        frame.get_or_insert(reply);
    }
    let frame = frame.expect("a case has a connection at least");
    let to_backend = 1 + u64::from(others);
    let counts = Counts { to_backend, to_client: 1, heads: 1, ..Counts::default() };
    let action = if others == 0 { Action::Tx } else { Action::Redirect };
    Ok(Script { records, frame, each: 2 + others, action, counts })
}

fn syn(_: &mut Kernel, flows: u32) -> Result<Script> {
    let counts = Counts { connections: 1, ..TO_BACKEND };
    let mut script = single(flows, Action::Redirect, counts, |number| {
        Ok(tcp(client(number), vip(), SYN).numbers(CLIENT_ISN, 0))
    })?;
    for record in &mut script.records {
        *record = record.other_client_next_round();
    }
    Ok(script)
}

/// A limit that nobody reaches: each connection counts in its service and its backend.
fn syn_limited(kernel: &mut Kernel, flows: u32) -> Result<Script> {
    const MOST: u32 = 1 << 24;
    let limit = Some(ServiceLimit { max_connections: MOST, overflow: Overflow::Reset });
    kernel.serve(ServiceSettings { limit, ..ServiceSettings::default() });
    (0..BACKENDS).for_each(|id| kernel.limit(id, MOST));
    syn(kernel, flows)
}

fn syn_again(kernel: &mut Kernel, flows: u32) -> Result<Script> {
    single(flows, Action::Redirect, TO_BACKEND, |number| {
        let connection = Connection::begin(kernel, number)?;
        Ok(tcp(connection.client, vip(), SYN).numbers(CLIENT_ISN, 0))
    })
}

fn miss(_: &mut Kernel, flows: u32) -> Result<Script> {
    let counts = Counts { without_flow: 1, ..Counts::default() };
    single(flows, Action::Tx, counts, |number| {
        Ok(tcp(client(number), vip(), ACK).numbers(CLIENT_ISN, BACKEND_ISN))
    })
}

/// Backends that the connections spread over.
pub(crate) const BACKENDS: u16 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_differ_in_every_round() {
        // 64 connections an address, and 256 rounds until an address meets its neighbour.
        let clients: std::collections::BTreeSet<_> = (0..16_384).map(client).collect();
        assert_eq!(clients.len(), 16_384);
        assert_eq!(client(64).ip(), address([10, 64, 1, 1]));
        assert_eq!(client(0).ip(), address([10, 64, 0, 1]));
    }
}
