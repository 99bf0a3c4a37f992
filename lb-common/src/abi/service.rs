//! Services: their VIPs, the sources that they accept, and their Maglev tables.

use super::addr::{Addr, Port};

/// Key of `SERVICES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    pub addr: Addr,
    pub port: Port,
    pub proto: u8,
    pub zero: u8,
}

/// How many half-open backends of one service get trials at a time.
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
    /// Affinity: so many bits of a client's address choose the backend. 0: its whole tuple does.
    pub affinity: u16,
    /// Half-open backends. They come before the Maglev table.
    pub trials: [u16; TRIAL_SLOTS],
}

/// Bits of [`Service::flags`].
pub mod service_flags {
    /// Mirror response heads.
    pub const EVIDENCE: u16 = 1 << 0;
    /// Without a backend: drop the SYN. Otherwise the program answers with a reset.
    pub const NO_BACKEND_DROP: u16 = 1 << 1;
    /// `SOURCES` has rules for it.
    pub const SOURCES: u16 = 1 << 2;
    /// The rules in force are in the second set.
    pub const SECOND_SET: u16 = 1 << 3;
    /// A source that no rule names is refused.
    pub const LISTED_ONLY: u16 = 1 << 4;
    /// Mode `dnat`: the client's address and port stay the source.
    pub const DNAT: u16 = 1 << 5;
    /// A handshake that its backend refuses or ignores continues with another backend.
    pub const REDISPATCH: u16 = 1 << 6;
    /// It has limits, or its backends have: see [`Limit`](super::Limit). Its connections count.
    pub const LIMITED: u16 = 1 << 7;
    /// A SYN that finds everything full: drop it. Otherwise the program answers with a reset.
    pub const OVERFLOW_DROP: u16 = 1 << 8;
    /// The same, and clients that try again go first.
    pub const OVERFLOW_QUEUE: u16 = 1 << 9;
}

/// The key of `SOURCES`, over which a prefix is counted. Its first four bytes always belong to the prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceKey {
    pub service: u16,
    /// One of the service's two sets. The daemon writes one while the program uses the other.
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

layout! {
    ServiceKey = 20,
    SourceKey = 20,
    Service = 24,
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
