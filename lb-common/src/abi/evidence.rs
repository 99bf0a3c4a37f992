//! Records of exchanges, and success counts.

use super::addr::{Addr, Port};
use crate::MAX_BACKENDS;

/// Bytes of a response head that are mirrored.
pub const HEAD_BYTES: usize = 256;

/// A record of `EVIDENCE`: the first bytes of a backend's segment that holds the start of a response, or what
/// happened to an exchange without a head.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ExchangeRecord {
    /// When the program saw the segment, `CLOCK_MONOTONIC` nanoseconds.
    pub at_ns: u64,
    /// Time since the request, or the SYN. 0: not known.
    pub since_request_ns: u64,
    pub client: Addr,
    pub client_port: Port,
    pub service: u16,
    pub backend: u16,
    /// Valid bytes of `data`.
    pub len: u16,
    pub generation: u32,
    /// The number of an [`ExchangeKind`].
    pub kind: u16,
    /// `record_flags`
    pub flags: u16,
    /// The CPU that wrote this, and how many records of this backend it has lost so far.
    pub cpu: u32,
    pub lost: u32,
    pub data: [u8; HEAD_BYTES],
}

impl ExchangeRecord {
    /// `None`: the program does not write this number.
    pub const fn kind(&self) -> Option<ExchangeKind> {
        ExchangeKind::of(self.kind)
    }
}

/// The part of an exchange that a record shows. A record has bytes if it is a head, and no other record has
/// any.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeKind {
    /// The start of a response, or a further part of one.
    Head = 0,
    /// The backend refused the connection by a reset.
    ConnectRefused = 1,
    /// The client sent its SYN again, and the backend had not answered.
    ConnectTimeout = 2,
    /// The backend reset the connection when a response was due.
    Reset = 3,
    /// The backend closed the connection when a response was due.
    NoResponse = 4,
    /// The first bytes from the backend on a connection that is not HTTP/1.
    Answered = 5,
}

impl ExchangeKind {
    pub const ALL: [Self; 6] = [
        Self::Head,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::Reset,
        Self::NoResponse,
        Self::Answered,
    ];

    /// The kind with this number.
    pub const fn of(number: u16) -> Option<Self> {
        let mut at = 0;
        while at < Self::ALL.len() {
            if Self::ALL[at] as u16 == number {
                return Some(Self::ALL[at]);
            }
            at += 1;
        }
        None
    }
}

/// Bits of [`ExchangeRecord::flags`].
pub mod record_flags {
    /// Continues the record before of the same connection.
    pub const CONTINUES: u16 = 1 << 0;
    /// More will follow: this record does not decide the status.
    pub const UNFINISHED: u16 = 1 << 1;
    /// The client pipelines: responses are missing from the stream of records.
    pub const PIPELINED: u16 = 1 << 2;
    /// The connection is a trial.
    pub const TRIAL: u16 = 1 << 3;
    /// The backend has reset or closed the connection more than [`LATE_MS`](super::LATE_MS) after the last byte
    /// of the request: it may have waited for a body that the client withheld.
    pub const LATE: u16 = 1 << 4;
}

/// `SUCCESS_COUNTS`, one entry a CPU: by backend id, the good responses that the program counted and did not
/// mirror. The counts only grow.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct SuccessCounts(pub [u64; MAX_BACKENDS as usize]);

/// Value of `CLIENTS_SEEN`, one entry a service: which clients have completed a handshake in the present period.
/// A client sets the bit of its source prefix and that of its address, see
/// [`seen_bits`](crate::hash::seen_bits).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeenClients {
    pub prefixes: u64,
    pub addresses: u64,
}

/// Values of `MIRROR_MODES`: which good responses of a backend the program mirrors. A good response has a
/// status of 2xx, comes within [`QUICK_MS`] of its request, and belongs to no trial.
pub mod mirror_mode {
    /// All of them.
    pub const ALL: u32 = 0;
    /// None: the program counts them in [`SuccessCounts`](super::SuccessCounts).
    pub const NONE: u32 = 1;
    /// The next one, because a run of failures may end with it. Then none.
    pub const NEXT: u32 = 2;
}

/// A slower response is always mirrored, in milliseconds.
pub const QUICK_MS: u64 = 500;

/// From this time on after its request a reset or a close is [`LATE`](record_flags::LATE), in milliseconds.
pub const LATE_MS: u64 = 1000;

layout! {
    ExchangeRecord = 312,
    SeenClients = 16,
}
