//! The flow table: flows, and the sets that find them from either end.

use core::net::IpAddr;

use super::{Addr, Address, Link, Port, V4};

/// The tuple of a packet as it arrives.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey<A> {
    pub src: A,
    pub dst: A,
    pub sport: Port,
    pub dport: Port,
}

impl<A: Copy> FlowKey<A> {
    /// The same tuple seen from the other end.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport }
    }
}

impl FlowKey<Addr> {
    /// The same as the program has it when it is one of IPv4.
    pub fn as_v4(&self) -> Option<FlowKey<V4>> {
        let are_v4 = IpAddr::from(self.src).is_ipv4() && IpAddr::from(self.dst).is_ipv4();
        are_v4.then(|| FlowKey {
            src: V4::narrow(&self.src),
            dst: V4::narrow(&self.dst),
            sport: self.sport,
            dport: self.dport,
        })
    }
}

/// Places in one set of `CLIENTS4` and `CLIENTS6`.
pub const CLIENT_WAYS: usize = 15;

/// Value of `CLIENTS4` and `CLIENTS6`: one cache line that says which flows have clients of this hash.
///
/// Way `w` of set `s` belongs to the flow at `s × CLIENT_WAYS + w`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientSet {
    /// Part of the hash, never 0. 0: free.
    pub tags: [u32; CLIENT_WAYS],
    /// Who gives way next when all are taken.
    pub cursor: u16,
    /// 0, unless one that belongs here had to go to the other set. Until then nobody looks for it there.
    pub spilled: u16,
}

/// Places in one set of `REPLIES4` and `REPLIES6`.
pub const REPLY_WAYS: usize = 8;

/// Sets of replies for each set of clients: about as many places.
pub const REPLY_SETS: u32 = 2;

/// Value of `REPLIES4` and `REPLIES6`: one cache line that leads from replies to flows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplySet {
    /// Number of the flow in the high half, part of the hash, never 0, in the low one. 0: free.
    pub ways: [u64; REPLY_WAYS],
}

/// Value of `FLOWS4` and `FLOWS6`: a connection, both directions.
///
/// What most packets need comes first: 64 bytes in IPv4.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow<A: Address> {
    /// Of packets from the client: its source is the client, its destination the VIP.
    pub client: FlowKey<A>,
    /// Of packets from the backend: its source is the backend, its destination the NAT address.
    pub reply: FlowKey<A>,
    /// `flow_state`
    pub state: u32,
    pub backend: u16,
    pub service: u16,
    pub generation: u32,
    /// What translation towards the backend adds to the TCP checksum (RFC 1624), folded.
    pub tcp_delta: u16,
    /// What it adds to the IPv4 header checksum, without the TTL.
    pub ip_delta: u16,
    /// The interface and link that the client's packets came from.
    pub ifindex: u32,
    pub link: Link,
    /// When the backend was last heard, in ticks of 2^30 ns.
    pub seen: u32,
    /// Where this flow is: its place in the map.
    pub slot: u32,
    /// `head_state`
    pub head: u32,
    /// Sequence number at which the response head starts that the program waits for. If it waits for none:
    /// at which the last one started.
    pub head_seq: u32,
    /// Up to where the backend has sent.
    pub sent_end: u32,
    /// Up to where the client has: the backend has been sent so much.
    pub client_end: u32,
    /// Sequence number at which the client's last request begins, or at which its next one will begin: after
    /// the SYN of a new connection, and after each answer on a connection that the program does not read.
    pub asked_seq: u32,
    /// When the client asked last, in microseconds of `CLOCK_MONOTONIC`, modulo 2^32: when it sent its SYN,
    /// later when it sent the last part of its request (of the parts between two timer interrupts, the first).
    pub asked_us: u32,
    /// The acknowledgement number of the client's FIN. 0 before it.
    pub client_fin_ack: u32,
    /// The acknowledgement number of the backend's SYN-ACK, and after its FIN the one of its FIN.
    pub backend_syn_fin_ack: u32,
    pub padding: A::Padding,
}

impl<A: Address> Flow<A> {
    /// Whether it holds a connection, or the rest of one.
    #[inline(always)]
    pub const fn is_live(&self) -> bool {
        self.state & flow_state::LIVE != 0
    }
}

/// Bits of [`Flow::state`]. Both directions set them, each on its own CPU: atomically. Who swaps the whole
/// word for 0 owns the place.
pub mod flow_state {
    /// It holds something.
    pub const LIVE: u32 = 1 << 0;
    /// The backend's SYN-ACK was seen.
    pub const ANSWERED: u32 = 1 << 1;
    /// The client has acknowledged it. Until then it is an embryo.
    pub const ESTABLISHED: u32 = 1 << 2;
    /// The client has sent its FIN; `client_fin_ack` holds.
    pub const CLIENT_FIN: u32 = 1 << 3;
    /// The backend has acknowledged it.
    pub const CLIENT_FIN_ACKED: u32 = 1 << 4;
    /// The backend has sent its FIN; `backend_syn_fin_ack` holds.
    pub const BACKEND_FIN: u32 = 1 << 5;
    /// The client has acknowledged it.
    pub const BACKEND_FIN_ACKED: u32 = 1 << 6;
    /// Over. Kept for a while, so that its NAT port rests: the backend may be in TIME_WAIT.
    pub const TIME_WAIT: u32 = 1 << 7;
    /// Admitted out of a half-open budget.
    pub const TRIAL: u32 = 1 << 8;
    /// Its service mirrored response heads when it began.
    pub const EVIDENCE: u32 = 1 << 9;
    /// Not HTTP/1: nothing is mirrored.
    pub const OPAQUE: u32 = 1 << 10;
    /// The first payload from the client has been seen.
    pub const SPOKEN: u32 = 1 << 11;
    /// Its client was told by a reset that it is over. The backend was not, yet.
    pub const CLIENT_RESET: u32 = 1 << 12;
    /// Its service redispatched when it began.
    pub const REDISPATCH: u32 = 1 << 13;
    /// In a handshake: its backend has refused, and the client does not know.
    pub const REFUSED: u32 = 1 << 14;

    /// From this bit on: the VLAN that the client's SYN came in, 0 for none. It never changes.
    pub const VLAN: u32 = 16;

    /// What tells a flow from the one that had its place before, in the bits that are left: when it began, in steps of
    /// 2^24 ns (17 ms), as far as 5 bits go. Who has looked at the former one and swaps then must not end this one.
    #[inline(always)]
    pub const fn incarnation(now_ns: u64) -> u32 {
        let step = (now_ns >> 24) as u32;
        (step & 1) << 15 | (step >> 1 & 0xf) << 28
    }

    /// The VLAN of such a state.
    #[inline(always)]
    pub const fn vlan(state: u32) -> u16 {
        (state >> VLAN) as u16 & 0xfff
    }
}

/// Bits of [`Flow::head`].
pub mod head_state {
    /// A response head is awaited at `head_seq`.
    pub const WANTED: u32 = 1 << 0;
    /// `head_seq` holds a number.
    pub const KNOWN: u32 = 1 << 1;
    /// The next head continues an exchange of which a part was mirrored already
    /// (a status line in two segments, or an interim response).
    pub const CONTINUES: u32 = 1 << 2;
    /// A request was sent before the response to an earlier one was complete.
    pub const PIPELINED: u32 = 1 << 3;
    /// The backend has answered an earlier request on this connection.
    pub const SERVED: u32 = 1 << 4;
    /// The client has spoken, in a language we do not read, and the backend has not yet.
    pub const UNREAD: u32 = 1 << 6;
    /// The backend has not answered the SYN.
    pub const CONNECTING: u32 = 1 << 7;
    /// What is awaited is owed: the request is whole, as far as can be told, and asks for an answer.
    pub const OWED: u32 = 1 << 8;

    /// The client waits for an answer of which no byte was seen yet.
    pub const AWAITED: u32 = WANTED | UNREAD;
}

layout! {
    FlowKey<V4> = 12,
    FlowKey<Addr> = 36,
    ClientSet = 64,
    ReplySet = 64,
    Flow<V4> = 128,
    Flow<Addr> = 144,
}
