//! The flow table: flows, and the sets that find them from either end.

use core::net::IpAddr;

use super::addr::{Addr, Address, Link, Port, V4};

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

impl<A: Address> FlowKey<A> {
    /// The same tuple.
    #[inline(always)]
    pub fn is(&self, other: &Self) -> bool {
        self.src.is(&other.src) && self.dst.is(&other.dst) && self.ports() == other.ports()
    }

    /// Both ports as one word of memory: as they lie in a TCP header.
    #[inline(always)]
    pub const fn ports(&self) -> u32 {
        // SAFETY: the two lie side by side, at a multiple of four bytes, and any bits make a word.
        unsafe { *(&raw const *self).byte_add(core::mem::offset_of!(Self, sport)).cast() }
    }
}

impl FlowKey<Addr> {
    /// The same as a tuple of IPv4, if it is one.
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

/// Ways of one set of `CLIENTS4` and `CLIENTS6`.
pub const CLIENT_WAYS: usize = 15;

/// Value of `CLIENTS4` and `CLIENTS6`: one cache line with the tags of the flows whose client's tuple has
/// this hash.
///
/// Way `w` of set `s` belongs to the flow at `s × CLIENT_WAYS + w`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientSet {
    /// Part of the hash, never 0. 0: free.
    pub tags: [u32; CLIENT_WAYS],
    /// The way that is considered first for eviction when all are taken.
    pub cursor: u16,
    /// Not 0 once a flow of this set had to go to the other set. As long as it is 0, nobody looks there.
    pub spilled: u16,
}

/// Ways of one set of `REPLIES4` and `REPLIES6`.
pub const REPLY_WAYS: usize = 8;

/// Sets of replies for each set of clients: about as many ways.
pub const REPLY_SETS: u32 = 2;

/// Value of `REPLIES4` and `REPLIES6`: one cache line that leads from replies to flows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplySet {
    /// The number of the flow in the high half, a part of the hash, never 0, in the low one. 0: free.
    pub ways: [u64; REPLY_WAYS],
}

/// Value of `FLOWS4` and `FLOWS6`: a connection, both directions.
///
/// The fields that most packets need come first: 64 bytes in IPv4.
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
    /// The change of the TCP checksum by translation towards the backend (RFC 1624), folded.
    pub tcp_delta: u16,
    /// The change of the IPv4 header checksum, without the TTL.
    pub ip_delta: u16,
    /// The interface by which the client's packets come, and the link of the way back.
    pub ifindex: u32,
    pub link: Link,
    /// When the backend last sent, in ticks of 2^30 ns.
    pub seen: u32,
    /// The index of this flow in the map.
    pub slot: u32,
    /// `head_state`
    pub head: u32,
    /// Sequence number at which the response head starts that the program waits for. If it waits for none:
    /// at which the last one started. Before the first request: the acknowledgement number of the backend's SYN-ACK.
    pub head_seq: u32,
    /// The end of what the backend has sent, as a sequence number.
    pub sent_end: u32,
    /// The end of what the client has sent without a gap and the program has forwarded. Only SYN, payload and
    /// FIN move it. A gap that is filled later moves it no further than its own end: the rest follows from
    /// `acked`.
    pub client_end: u32,
    /// Sequence number at which the client's last request begins, or at which its next one will begin: after
    /// the SYN of a new connection, and after each answer on a connection that the program does not read.
    pub asked_seq: u32,
    /// When the client asked last, in microseconds of `CLOCK_MONOTONIC`, modulo 2^32: when it sent its SYN,
    /// later when it sent the last part of its request (of the parts between two timer interrupts, the
    /// first).
    pub asked_us: u32,
    /// The acknowledgement number of the client's FIN. 0 before it.
    pub client_fin_ack: u32,
    /// The acknowledgement number of the backend's SYN-ACK, and after its FIN the one of its FIN.
    pub backend_syn_fin_ack: u32,
    /// The highest acknowledgement number that the backend has sent: its stack has everything before.
    pub acked: u32,
    /// While the connection is open: the end of a request whose length its first segment says. In time-wait, and
    /// before the SYN is forwarded: the client's last time stamp (RFC 7323). 0: none.
    pub whole_end_or_stamp: u32,
    /// The interface and the VLAN by which the backend's segments must come.
    pub backend_ifindex: u32,
    pub backend_vlan: u16,
    /// By how many bits the window in a client's segment is shifted (RFC 7323). 0 also if it is not known.
    pub client_scale: u8,
    pub zero: u8,
    pub padding: A::Padding,
}

impl<A: Address> Flow<A> {
    /// Whether it holds a connection, or the rest of one.
    #[inline(always)]
    pub const fn is_live(&self) -> bool {
        self.state & flow_state::LIVE != 0
    }

    /// Whether its backend sees the client's own address (mode `dnat`).
    #[inline(always)]
    pub fn is_preserved(&self) -> bool {
        self.reply.dst == self.client.src
    }

    /// Whether the client has sent its FIN, in order or ahead of what precedes it.
    #[inline(always)]
    pub const fn client_closes(&self) -> bool {
        self.state & flow_state::CLIENT_FIN != 0 || self.head & head_state::CLIENT_FIN_BEYOND != 0
    }

    /// The same of the backend.
    #[inline(always)]
    pub const fn backend_closes(&self) -> bool {
        self.state & flow_state::BACKEND_FIN != 0 || self.head & head_state::BACKEND_FIN_BEYOND != 0
    }

    /// Whether the backend's stack has acknowledged all that the client has sent.
    #[inline(always)]
    pub const fn backend_has_all(&self) -> bool {
        self.acked.wrapping_sub(self.client_end) as i32 >= 0
    }

    /// The number that the backend expects next from the client, as far as the program has seen: the end of what
    /// it has forwarded, or what the backend has acknowledged beyond a gap that was filled.
    #[inline(always)]
    pub const fn client_next(&self) -> u32 {
        if self.acked.wrapping_sub(self.client_end) as i32 > 0 { self.acked } else { self.client_end }
    }
}

/// Bits of [`Flow::state`]. Both directions set them, each on its own CPU, so they are set atomically. The
/// CPU that swaps the whole word for 0 owns the place.
pub mod flow_state {
    /// The place holds a flow.
    pub const LIVE: u32 = 1 << 0;
    /// The backend has sent its SYN-ACK.
    pub const ANSWERED: u32 = 1 << 1;
    /// The client has acknowledged it. Before that, the flow is a half-open handshake.
    pub const ESTABLISHED: u32 = 1 << 2;
    /// The client has sent its FIN; `client_fin_ack` holds.
    pub const CLIENT_FIN: u32 = 1 << 3;
    /// The backend has acknowledged it.
    pub const CLIENT_FIN_ACKED: u32 = 1 << 4;
    /// The backend has sent its FIN; `backend_syn_fin_ack` is that of the FIN.
    pub const BACKEND_FIN: u32 = 1 << 5;
    /// The client has acknowledged it.
    pub const BACKEND_FIN_ACKED: u32 = 1 << 6;
    /// Time-wait: the connection is over, and its NAT port rests, because the backend may be in TIME_WAIT.
    pub const TIME_WAIT: u32 = 1 << 7;
    /// The connection is a trial.
    pub const TRIAL: u32 = 1 << 8;
    /// Its service mirrored response heads when the connection began.
    pub const EVIDENCE: u32 = 1 << 9;
    /// Not HTTP/1: the program mirrors nothing.
    pub const OPAQUE: u32 = 1 << 10;
    /// The client has sent its first payload.
    pub const SPOKEN: u32 = 1 << 11;
    /// The program has reset the client's end. The backend does not know yet.
    pub const CLIENT_RESET: u32 = 1 << 12;
    /// The connection counts in the limits of its service and its backend, until it ends or goes into time-wait.
    pub const COUNTED: u32 = 1 << 13;
    /// In a handshake: the backend has refused, and the client does not know.
    pub const REFUSED: u32 = 1 << 14;

    /// From this bit on: the VLAN by which the client's segments come, 0 for none.
    pub const VLAN: u32 = 16;

    /// A flow differs by this from the one that had its place before, in the bits that are left: when it
    /// began, in steps of 2^24 ns (17 ms), modulo 32. A CPU that has read the state of the former flow must
    /// not end the new one with its swap.
    #[inline(always)]
    pub const fn incarnation(now_ns: u64) -> u32 {
        let step = (now_ns >> 24) as u32;
        (step & 1) << 15 | (step >> 1 & 0xf) << 28
    }

    /// The same state in another VLAN.
    #[inline(always)]
    pub const fn in_vlan(state: u32, vlan: u16) -> u32 {
        state & !(0xfff << VLAN) | (vlan as u32) << VLAN
    }

    /// The VLAN of such a state.
    #[inline(always)]
    pub const fn vlan(state: u32) -> u16 {
        (state >> VLAN) as u16 & 0xfff
    }
}

/// Bits of [`Flow::head`].
pub mod head_state {
    /// The program awaits a response head at `head_seq`.
    pub const WANTED: u32 = 1 << 0;
    /// `head_seq` holds a number.
    pub const KNOWN: u32 = 1 << 1;
    /// The next head continues an exchange of which a part was mirrored (a status line in two segments, or an
    /// interim response).
    pub const CONTINUES: u32 = 1 << 2;
    /// The client sent a request before the response to an earlier one was complete.
    pub const PIPELINED: u32 = 1 << 3;
    /// The backend has answered an earlier request on this connection.
    pub const SERVED: u32 = 1 << 4;
    /// The method of the awaited request begins with `P`: a body may follow its head.
    pub const BODY: u32 = 1 << 5;
    /// The client has sent payload in a protocol that the program does not read, and the backend has not
    /// answered.
    pub const UNREAD: u32 = 1 << 6;
    /// The backend has not answered the SYN.
    pub const CONNECTING: u32 = 1 << 7;
    /// The awaited response is due: the request is complete, as far as the program can see.
    pub const OWED: u32 = 1 << 8;
    /// The time to the awaited response is partly the client's: it has sent a part of the request again, or out
    /// of order, or its window had no space for an answer.
    pub const UNTIMED: u32 = 1 << 9;
    /// The awaited request is the first one of its connection, and came within a second of the SYN.
    pub const EARLY: u32 = 1 << 10;
    /// A FIN of the client or the backend came before what precedes it; `client_fin_ack` or
    /// `backend_syn_fin_ack` is that of the FIN. It counts once the other end acknowledges that number.
    pub const CLIENT_FIN_BEYOND: u32 = 1 << 11;
    pub const BACKEND_FIN_BEYOND: u32 = 1 << 12;
    /// A SYN of the client has reached the backend on this connection. If the backend has lost the connection,
    /// it answers with a SYN-ACK, and the numbers begin again.
    pub const SYN_AGAIN: u32 = 1 << 13;
    /// A router on the way to the client has reported a smaller MTU than the backend's segments need. In IPv4 the
    /// program lets routers fragment them. In IPv6 `NARROW_REPORTS` has the report.
    pub const NARROW: u32 = 1 << 14;
    /// The awaited answer is due once the client's bytes reach `whole_end_or_stamp`.
    pub const PART: u32 = 1 << 15;
    /// The backend's stack has forgotten the connection, for it was reset, or the client closed first. So the stack
    /// does not preserve it in TIME_WAIT (RFC 9293 section 3.3.2).
    pub const FORGOTTEN: u32 = 1 << 16;

    /// The client waits for a response of which the program has seen no byte.
    pub const AWAITED: u32 = WANTED | UNREAD;
}

layout! {
    FlowKey<V4> = 12,
    FlowKey<Addr> = 36,
    ClientSet = 64,
    ReplySet = 64,
    Flow<V4> = 128,
    Flow<Addr> = 160,
}
