//! Keys and values of the BPF maps.
//!
//! Addresses and ports are kept in network byte order in memory, so that the
//! program copies them between packets and maps without a swap. All types are
//! free of padding: the kernel compares keys byte by byte.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::MAX_BACKENDS;

/// An IPv6 address, or an IPv4 address in its IPv4-mapped form
/// (RFC 4291 section 2.5.5.2). Words are in network byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Addr(pub [u32; 4]);

impl Addr {
    const MAPPED: u32 = u32::from_be(0x0000_ffff);

    /// From the four bytes of an IPv4 header field, as loaded from memory.
    #[inline(always)]
    pub const fn v4(word: u32) -> Self {
        Self([0, 0, Self::MAPPED, word])
    }

    /// The IPv4 header field this address stands for.
    #[inline(always)]
    pub const fn v4_word(&self) -> u32 {
        self.0[3]
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        let octets = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let word = |i: usize| u32::from_ne_bytes([octets[i], octets[i + 1], octets[i + 2], octets[i + 3]]);
        Self([word(0), word(4), word(8), word(12)])
    }
}

impl From<Addr> for IpAddr {
    fn from(addr: Addr) -> Self {
        let mut octets = [0; 16];
        for (chunk, word) in octets.chunks_exact_mut(4).zip(addr.0) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        Ipv6Addr::from(octets).to_canonical()
    }
}

/// An IPv4 address as it lies in a header: a word in network byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct V4(pub u32);

impl From<V4> for Addr {
    fn from(address: V4) -> Self {
        Self::v4(address.0)
    }
}

/// An address of one family, as words in network byte order.
pub trait Address: Copy + Default + PartialEq + Eq + 'static {
    /// What fills a [`Flow`] up, so that the part that most packets need lies in one cache line.
    type Room: Copy + Default + PartialEq + Eq + core::fmt::Debug;

    /// As maps and records that serve both families have it.
    fn wide(&self) -> Addr;

    /// What is in a map that serves both families, if it is of this one.
    fn narrow(addr: &Addr) -> Self;

    /// The words that differ between two addresses of this family, two at a time.
    fn pairs(&self) -> [u64; 2];

    /// The sum of its words, for checksums.
    fn sum(&self) -> u64;

    /// The same of its complement.
    fn negated_sum(&self) -> u64;
}

impl Address for V4 {
    type Room = [u32; 8];

    #[inline(always)]
    fn wide(&self) -> Addr {
        Addr::v4(self.0)
    }

    #[inline(always)]
    fn narrow(addr: &Addr) -> Self {
        Self(addr.v4_word())
    }

    #[inline(always)]
    fn pairs(&self) -> [u64; 2] {
        [0, self.0 as u64]
    }

    #[inline(always)]
    fn sum(&self) -> u64 {
        self.0 as u64
    }

    #[inline(always)]
    fn negated_sum(&self) -> u64 {
        !self.0 as u64
    }
}

impl Address for Addr {
    type Room = [u32; 0];

    #[inline(always)]
    fn wide(&self) -> Addr {
        *self
    }

    #[inline(always)]
    fn narrow(addr: &Addr) -> Self {
        *addr
    }

    #[inline(always)]
    fn pairs(&self) -> [u64; 2] {
        let [a, b, c, d] = self.0;
        [(a as u64) << 32 | b as u64, (c as u64) << 32 | d as u64]
    }

    #[inline(always)]
    fn sum(&self) -> u64 {
        let [a, b, c, d] = self.0;
        a as u64 + b as u64 + c as u64 + d as u64
    }

    #[inline(always)]
    fn negated_sum(&self) -> u64 {
        let [a, b, c, d] = self.0;
        !a as u64 + !b as u64 + !c as u64 + !d as u64
    }
}

/// A TCP port in network byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Port(pub u16);

impl Port {
    #[inline(always)]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    #[inline(always)]
    pub const fn host(self) -> u16 {
        u16::from_be(self.0)
    }
}

pub fn socket_addr(addr: Addr, port: Port) -> SocketAddr {
    SocketAddr::new(addr.into(), port.host())
}

/// The addresses of an Ethernet header as they lie in a frame: destination, then source.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link(pub [u32; 3]);

impl Link {
    pub const fn new(to: [u8; 6], from: [u8; 6]) -> Self {
        Self([
            u32::from_ne_bytes([to[0], to[1], to[2], to[3]]),
            u32::from_ne_bytes([to[4], to[5], from[0], from[1]]),
            u32::from_ne_bytes([from[2], from[3], from[4], from[5]]),
        ])
    }

    /// The next hop's address.
    pub const fn to(&self) -> [u8; 6] {
        let [a, b] = [self.0[0].to_ne_bytes(), self.0[1].to_ne_bytes()];
        [a[0], a[1], a[2], a[3], b[0], b[1]]
    }

    /// Our own address.
    pub const fn from(&self) -> [u8; 6] {
        let [b, c] = [self.0[1].to_ne_bytes(), self.0[2].to_ne_bytes()];
        [b[2], b[3], c[0], c[1], c[2], c[3]]
    }

    /// The way back: both addresses exchanged.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self::new(self.from(), self.to())
    }

    /// False while the next hop is not resolved.
    #[inline(always)]
    pub const fn is_resolved(&self) -> bool {
        self.0[0] != 0 || self.0[1] & Self::TO_PART != 0
    }

    /// The bytes of the second word that belong to the next hop's address.
    const TO_PART: u32 = u32::from_ne_bytes([0xff, 0xff, 0, 0]);
}

/// NAT addresses of one family that may be configured.
pub const NAT_ADDRESSES: usize = 8;

/// `CONFIG`, one entry: what holds for every service.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Keys the hash of the flow tables, so that nobody can choose where a flow is kept. It is the
    /// tables' for as long as they live.
    pub seed: u64,
    /// First port of the NAT range, host order.
    pub nat_first: u16,
    /// Last port of the NAT range, host order, inclusive.
    pub nat_last: u16,
    /// How many of the NAT addresses below are set. 0: each backend's own.
    pub nat4_len: u16,
    pub nat6_len: u16,
    /// Between two SYNs that begin connections on one CPU, on average. 0: no limit.
    pub syn_interval_ns: u32,
    pub zero: u32,
    pub nat4: [V4; NAT_ADDRESSES],
    pub nat6: [Addr; NAT_ADDRESSES],
}

/// `PORTS`, one entry: what a TCP port of this host may be, by its number in host order.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ports(pub [u8; 65_536]);

/// Bits of [`Ports`].
pub mod port_flags {
    /// A VIP has it.
    pub const VIP: u8 = 1 << 0;
    /// It is in the NAT range.
    pub const NAT: u8 = 1 << 1;
    /// A backend in `dnat` mode has it, or had: what comes *from* it may be a reply to any port.
    pub const DNAT: u8 = 1 << 2;
}

/// Ids that an 802.1Q tag may have; 0 and the last are none (IEEE 802.1Q, table 9-2).
pub const VLAN_IDS: usize = 4096;

/// `VLANS`, one entry: whether tagged frames with an id are looked at.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Vlans(pub [u8; VLAN_IDS]);

/// Key of `SERVICES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    pub addr: Addr,
    pub port: Port,
    pub proto: u8,
    pub zero: u8,
}

/// How many half-open backends of one service are offered new connections at a time.
pub const TRIAL_SLOTS: usize = 8;

/// Value of `SERVICES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    pub id: u16,
    /// `service_flags`
    pub flags: u16,
    /// How many entries of `trials` are set.
    pub trial_len: u16,
    pub zero: u16,
    /// Half-open backends, offered before the table.
    pub trials: [u16; TRIAL_SLOTS],
}

/// Bits of [`Service::flags`].
pub mod service_flags {
    /// Mirror response heads.
    pub const EVIDENCE: u16 = 1 << 0;
    /// Without a backend: drop the SYN. Otherwise it is answered by a reset.
    pub const NO_BACKEND_DROP: u16 = 1 << 1;
    /// `SOURCES` has rules for it.
    pub const SOURCES: u16 = 1 << 2;
    /// They are in the second set.
    pub const SECOND_SET: u16 = 1 << 3;
    /// Whom no rule names is refused.
    pub const LISTED_ONLY: u16 = 1 << 4;
    /// The client's address and port are kept.
    pub const DNAT: u16 = 1 << 5;
    /// A handshake that its backend refuses, or leaves unanswered, goes on with another one.
    pub const REDISPATCH: u16 = 1 << 6;
}

/// What the prefix of a key of `SOURCES` is counted over. Its first four bytes always belong to it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceKey {
    pub service: u16,
    /// Which of the service's two sets: one is used while the other is written.
    pub set: u16,
    pub addr: Addr,
}

impl SourceKey {
    /// Bits of a whole key.
    pub const BITS: u32 = 160;
}

/// Value of `SOURCES`.
pub mod source_rule {
    pub const ALLOW: u32 = 1;
    pub const DENY: u32 = 2;
}

/// Value of `OWN_ADDRS`: an address that is no client's, or only that of one who comes by this way.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnAddr {
    /// Of a backend: the interface and VLAN by which it is reached. 0: a VIP, which nobody comes from.
    pub ifindex: u32,
    pub vlan: u16,
    pub zero: u16,
}

/// `OWN_ADDR_FILTER`, one entry: not 0 where an address of `OWN_ADDRS` has this [`address_hash`](crate::hash::address_hash).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OwnAddrFilter(pub [u8; 65_536]);

/// Value of `REVERSE_NAT`, whose key is a backend's address and port as a [`ServiceKey`]: the one VIP that its
/// replies can be of, when they belong to no flow. Only of `dnat` services, and only where one service alone
/// has the backend.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReverseNat {
    pub vip: Addr,
    pub port: Port,
    pub service: u16,
    pub backend: u16,
    pub zero: u16,
}

/// Value of `BACKENDS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    pub addr: Addr,
    /// Source address of what is sent to it (`nat` mode).
    pub nat_addr: Addr,
    pub port: Port,
    /// `backend_flags`
    pub flags: u16,
    /// Grows each time the id is given to another backend, so that a flow of
    /// the former owner never reaches the new one. 0: no backend.
    pub generation: u32,
    pub ifindex: u32,
    pub link: Link,
    pub service: u16,
    /// The VLAN of the way there. 0: frames leave without a tag.
    pub vlan: u16,
}

/// Bits of [`Backend::flags`].
pub mod backend_flags {
    /// May be given new connections by the table.
    pub const ADMIT: u16 = 1 << 0;
    /// Half-open: may be given new connections out of its `TRIAL` budget.
    pub const TRIAL: u16 = 1 << 1;
    /// Its connections are ended where the client begins its next request.
    pub const RESET_AT_REQUEST: u16 = 1 << 2;
    /// Its connections are ended, whatever they are doing.
    pub const RESET_NOW: u16 = 1 << 3;
}

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
    pub hand: u16,
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
    /// Sequence number at which the next response head starts, or at which the last one
    /// started when none is wanted. Of a connection that is not read: up to where the client had spoken when
    /// its backend spoke last.
    pub head_seq: u32,
    /// Up to where the backend has sent.
    pub sent_end: u32,
    /// Up to where the client has: the backend has been sent so much.
    pub client_end: u32,
    /// Where the request that `head_seq` answers begins, and when the last of it was seen (of what came between two timer
    /// interrupts, the first), in microseconds of `CLOCK_MONOTONIC`, as far as 32 bits go. While `CONNECTING`: the acknowledgement
    /// number that answers the SYN, and when that was seen.
    pub request_seq: u32,
    pub request_us: u32,
    /// The acknowledgement number that ends what the client says: set by its FIN.
    pub client_ack: u32,
    /// The same for the backend. In a handshake: the one that answers its SYN-ACK.
    pub backend_ack: u32,
    pub room: A::Room,
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
    /// The client has sent its FIN; `client_ack` holds.
    pub const CLIENT_FIN: u32 = 1 << 3;
    /// The backend has acknowledged it.
    pub const CLIENT_FIN_ACKED: u32 = 1 << 4;
    /// The backend has sent its FIN; `backend_ack` holds.
    pub const BACKEND_FIN: u32 = 1 << 5;
    /// The client has acknowledged it.
    pub const BACKEND_FIN_ACKED: u32 = 1 << 6;
    /// Over. Kept for a while, so that its NAT port rests: the backend may be in TIME_WAIT.
    pub const OVER: u32 = 1 << 7;
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
    /// The backend has sent its FIN.
    pub const CLOSED: u32 = 1 << 5;
    /// The client has spoken, in a language we do not read, and the backend has not yet.
    pub const UNREAD: u32 = 1 << 6;
    /// The backend has not answered the SYN.
    pub const CONNECTING: u32 = 1 << 7;
    /// What is awaited is owed: the request is whole, as far as can be told, and asks for an answer.
    pub const OWED: u32 = 1 << 8;

    /// The client waits for an answer of which no byte was seen yet.
    pub const AWAITED: u32 = WANTED | UNREAD;
}

/// Bytes of a response head that are mirrored.
pub const HEAD_BYTES: usize = 256;

/// A record of `EVIDENCE`: the first bytes of a backend segment that holds the
/// start of a response; or, without any bytes, what else became of an exchange.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ExchangeRecord {
    /// When the segment was seen, `CLOCK_MONOTONIC` nanoseconds.
    pub at_ns: u64,
    /// Since the request, or the SYN, was seen. 0: not known.
    pub since_request_ns: u64,
    pub client: Addr,
    pub client_port: Port,
    pub service: u16,
    pub backend: u16,
    /// Valid bytes of `data`.
    pub len: u16,
    pub generation: u32,
    /// `record_flags`
    pub flags: u32,
    /// The CPU that wrote this, and how many heads of this backend it has lost so far.
    pub cpu: u32,
    pub lost: u32,
    pub data: [u8; HEAD_BYTES],
}

/// Bits of [`ExchangeRecord::flags`].
pub mod record_flags {
    /// Continues the previous record of the same client.
    pub const CONTINUES: u32 = 1 << 0;
    /// More will follow: the status is not decided by this record.
    pub const UNFINISHED: u32 = 1 << 1;
    /// The client pipelines: responses are missing from the stream of records.
    pub const PIPELINED: u32 = 1 << 2;
    /// The connection was admitted out of a half-open budget.
    pub const TRIAL: u32 = 1 << 3;
    /// No head: the backend refused the connection by a reset.
    pub const REFUSED: u32 = 1 << 4;
    /// No head: the backend reset the connection when an answer was due.
    pub const RESET: u32 = 1 << 5;
    /// No head: the backend closed the connection when an answer was due.
    pub const NO_RESPONSE: u32 = 1 << 6;
    /// No head: the first answer on a connection that is not HTTP/1.
    pub const ANSWERED: u32 = 1 << 7;
    /// No head: the client sends its SYN again, and the backend has not answered.
    pub const SILENT: u32 = 1 << 8;
}

/// `SUCCESS_COUNTS`, one entry a CPU: by backend id, good responses that were counted and not mirrored. It only grows.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct SuccessCounts(pub [u64; MAX_BACKENDS as usize]);

/// Values of `MIRROR_MODES`: which good responses of a backend are mirrored. A good one has a status of 2xx, came within
/// [`QUICK_MS`] of its request, and is no trial's.
pub mod mirror_mode {
    /// All of them.
    pub const ALL: u32 = 0;
    /// None: they are counted in [`SuccessCounts`](super::SuccessCounts).
    pub const NONE: u32 = 1;
    /// The next one, because a run of failures may end with it; then none.
    pub const NEXT: u32 = 2;
}

/// A response that took longer is always mirrored.
pub const QUICK_MS: u64 = 500;

/// Buckets of [`BackendCounters::ttfb`].
pub const TTFB_BUCKETS: usize = 16;

/// Upper bound of the first bucket of [`BackendCounters::ttfb`], in microseconds. Each further one is
/// twice as wide; the last has no bound.
pub const TTFB_FIRST_US: u32 = 64;

/// The bucket of a time to first byte.
#[inline(always)]
pub const fn ttfb_bucket(us: u32) -> usize {
    let mut rest = us / TTFB_FIRST_US;
    if rest >> (TTFB_BUCKETS - 2) != 0 {
        return TTFB_BUCKETS - 1;
    }
    // The place of the highest bit, by halves: BPF counts no leading zeros.
    let mut bucket = 0;
    let mut half = TTFB_BUCKETS / 2;
    while half > 0 {
        if rest >> (half - 1) != 0 {
            bucket += half;
            rest >>= half;
        }
        half /= 2;
    }
    bucket
}

/// Per-CPU value of `BACKEND_COUNTERS`. Totals of a service are the sums over
/// its backends.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendCounters {
    pub packets_to: u64,
    pub bytes_to: u64,
    pub packets_from: u64,
    pub bytes_from: u64,
    /// Connections begun: SYNs that made an embryo.
    pub connections: u64,
    /// Of these, out of a half-open budget.
    pub trials: u64,
    /// Handshakes completed.
    pub established: u64,
    /// Heads mirrored.
    pub heads: u64,
    /// Heads that found the ring full.
    pub heads_lost: u64,
    /// Connections whose client does not speak HTTP/1 in the clear.
    pub opaque: u64,
    /// Connections on which a client pipelined.
    pub pipelined: u64,
    /// Responses by their time to first byte, see [`ttfb_bucket`]. A connection that is not HTTP/1
    /// counts once. Of those that are counted and not mirrored one each timer interrupt is timed, for all since the one before.
    pub ttfb: [u64; TTFB_BUCKETS],
    /// Connections whose client was told by a reset that they are over.
    pub cut: u64,
    /// Handshakes that went on with another backend.
    pub redispatched: u64,
    /// Responses that are not yet in `ttfb`: the next one that is timed stands for them.
    pub untimed: u32,
    /// The timer interrupt at which that happened last, as far as 32 bits go.
    pub timed_at: u32,
}

macro_rules! layout {
    ($($type:ty = $size:literal),+ $(,)?) => {
        $(const _: () = assert!(size_of::<$type>() == $size);)+
        #[cfg(feature = "user")]
        mod pod {
            use super::*;
            // SAFETY: repr(C), Copy, made of integers, and free of padding: each
            // size above is the sum of the field sizes.
            $(unsafe impl aya::Pod for $type {})+
        }
    };
}

layout! {
    Addr = 16,
    Link = 12,
    V4 = 4,
    Config = 184,
    Ports = 65_536,
    OwnAddrFilter = 65_536,
    Vlans = 4096,
    ServiceKey = 20,
    SourceKey = 20,
    OwnAddr = 8,
    Service = 24,
    Backend = 60,
    ReverseNat = 24,
    FlowKey<V4> = 12,
    FlowKey<Addr> = 36,
    ClientSet = 64,
    ReplySet = 64,
    Flow<V4> = 128,
    Flow<Addr> = 144,
    ExchangeRecord = 312,
    BackendCounters = 240,
}

/// One Maglev table: the only value of an inner map of `TABLES`.
#[repr(C)]
#[derive(Clone)]
pub struct Table(pub [u16; crate::TABLE_SLOTS]);
const _: () = assert!(size_of::<Table>() == 131_074);
impl Copy for Table {}
#[cfg(feature = "user")]
// SAFETY: an array of integers.
unsafe impl aya::Pod for Table {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_round_trip() {
        for text in ["10.1.2.3", "2001:db8::1", "::1", "255.255.255.255"] {
            let ip: IpAddr = text.parse().expect("literal");
            assert_eq!(IpAddr::from(Addr::from(ip)), ip);
        }
        let ip: IpAddr = "192.0.2.7".parse().expect("literal");
        assert_eq!(Addr::from(ip), Addr::v4(u32::from_ne_bytes([192, 0, 2, 7])));
    }

    #[test]
    fn links_keep_both_addresses() {
        let (a, b) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 9, 8, 7]);
        let link = Link::new(a, b);
        assert_eq!((link.to(), link.from()), (a, b));
        assert_eq!(link.reversed(), Link::new(b, a));
        assert!(link.is_resolved());
        assert!(Link::new([0, 0, 0, 0, 0, 1], b).is_resolved());
        assert!(!Link::new([0; 6], b).is_resolved());
    }

    #[test]
    fn first_bytes_fall_into_buckets_of_doubling_width() {
        for (us, bucket) in [(0, 0), (63, 0), (64, 1), (127, 1), (128, 2), (1_048_575, 14), (1_048_576, 15)] {
            assert_eq!(ttfb_bucket(us), bucket, "{us}");
        }
        assert_eq!(ttfb_bucket(u32::MAX), TTFB_BUCKETS - 1);
    }

    #[test]
    fn ports_are_in_network_order() {
        assert_eq!(Port::new(80).0.to_ne_bytes(), [0, 80]);
        assert_eq!(Port::new(8080).host(), 8080);
    }
}
