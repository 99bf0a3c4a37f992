//! Keys and values of the BPF maps.
//!
//! Addresses and ports are kept in network byte order in memory, so that the
//! program copies them between packets and maps without a swap. All types are
//! free of padding: the kernel compares keys byte by byte.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// An IPv6 address, or an IPv4 address in its IPv4-mapped form
/// (RFC 4291 section 2.5.5.2). Words are in network byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
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

/// `CONFIG`, one entry: what holds for every service.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// First port of the NAT range, host order.
    pub nat_first: u16,
    /// Last port of the NAT range, host order, inclusive.
    pub nat_last: u16,
}

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
pub const TRIAL_SEATS: usize = 8;

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
    pub trials: [u16; TRIAL_SEATS],
}

/// Bits of [`Service::flags`].
pub mod service_flags {
    /// Mirror response heads.
    pub const EVIDENCE: u16 = 1 << 0;
    /// Without a backend: drop the SYN. Otherwise it is answered by a reset.
    pub const NO_BACKEND_DROP: u16 = 1 << 1;
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
    pub zero: u16,
}

/// Bits of [`Backend::flags`].
pub mod backend_flags {
    /// May be given new connections by the table.
    pub const ADMIT: u16 = 1 << 0;
    /// Half-open: may be given new connections out of its `TRIAL` budget.
    pub const TRIAL: u16 = 1 << 1;
}

/// Key of `FLOWS` and `EMBRYOS`: the tuple of a packet as it arrives.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    pub src: Addr,
    pub dst: Addr,
    pub sport: Port,
    pub dport: Port,
}

impl FlowKey {
    /// The same tuple seen from the other end.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport }
    }
}

/// Value of `FLOWS` and `EMBRYOS`: what becomes of a packet with that tuple.
///
/// A connection has two entries, one for each direction. `to` reversed is the
/// key of the other one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// The tuple after translation.
    pub to: FlowKey,
    /// What translation adds to the TCP checksum (RFC 1624), folded.
    pub tcp_delta: u16,
    /// What translation and the TTL step add to the IPv4 header checksum, folded.
    pub ip_delta: u16,
    pub service: u16,
    pub backend: u16,
    pub generation: u32,
    /// `flow_state`
    pub state: u32,
    /// `head_state`. Towards the client only, as everything below that says so.
    pub head: u32,
    /// Towards the client only: the interface and link its packets came from.
    pub ifindex: u32,
    pub link: Link,
    /// Towards the client only: sequence number at which the next response head
    /// starts, or at which the last one started when none is wanted.
    pub head_seq: u32,
    /// Up to where this direction has sent.
    pub sent_end: u32,
    /// Towards the client only: where the request that `head_seq` answers begins, and when
    /// the last of it was seen, in microseconds of `CLOCK_MONOTONIC`, as far as 32 bits go. While `CONNECTING`:
    /// the acknowledgement number that answers the SYN, and when that was seen.
    pub request_seq: u32,
    pub request_us: u32,
    /// The acknowledgement number that ends the other direction: set by its FIN.
    /// In an embryo towards the backend: the one that answers its SYN-ACK.
    pub fin_ack: u32,
    /// Towards the client only: when the backend was last heard, in ticks of 2^30 ns.
    pub seen: u32,
}

/// Ticks of [`Flow::seen`] after which a silent connection may lose its NAT port to a new one: 15 minutes.
pub const IDLE_TICKS: u32 = 838;

/// Bits of [`Flow::state`]. Both directions set them, each on its own CPU: atomically.
pub mod flow_state {
    /// The entry is of the direction backend → client.
    pub const TO_CLIENT: u32 = 1 << 0;
    /// Embryo towards the backend: the backend's SYN-ACK was seen.
    pub const ANSWERED: u32 = 1 << 1;
    /// The other direction has sent its FIN; `fin_ack` holds.
    pub const FIN_SEEN: u32 = 1 << 2;
    /// This direction has acknowledged the other one's FIN.
    pub const FIN_ACKED: u32 = 1 << 3;
    /// Admitted out of a half-open budget.
    pub const TRIAL: u32 = 1 << 4;
    /// Over. Kept among the embryos for a while, so that its NAT port rests: the backend may
    /// be in TIME_WAIT.
    pub const OVER: u32 = 1 << 5;
    /// Not HTTP/1: nothing is mirrored.
    pub const OPAQUE: u32 = 1 << 6;
    /// The first payload from the client has been seen.
    pub const SPOKEN: u32 = 1 << 7;
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

/// A record of `EVENTS`: the first bytes of a backend segment that holds the
/// start of a response; or, without any bytes, what else became of an exchange.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct HeadRecord {
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
    /// `head_flags`
    pub flags: u32,
    /// The CPU that wrote this, and how many heads of this backend it has lost so far.
    pub cpu: u32,
    pub lost: u32,
    pub data: [u8; HEAD_BYTES],
}

/// Bits of [`HeadRecord::flags`].
pub mod head_flags {
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
}

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
    /// counts once.
    pub ttfb: [u64; TTFB_BUCKETS],
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
    Config = 4,
    ServiceKey = 20,
    Service = 24,
    Backend = 60,
    FlowKey = 36,
    Flow = 96,
    HeadRecord = 312,
    BackendCounters = 216,
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
