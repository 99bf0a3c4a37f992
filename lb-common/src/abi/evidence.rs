//! Records of exchanges, and success counts.

use super::{Addr, Port};
use crate::MAX_BACKENDS;

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
    /// The number of an [`ExchangeKind`].
    pub kind: u16,
    /// `record_flags`
    pub flags: u16,
    /// The CPU that wrote this, and how many heads of this backend it has lost so far.
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

/// What the program saw of an exchange. A record has bytes if it is a head, and no other record has any.
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
    /// Continues the previous record of the same client.
    pub const CONTINUES: u16 = 1 << 0;
    /// More will follow: the status is not decided by this record.
    pub const UNFINISHED: u16 = 1 << 1;
    /// The client pipelines: responses are missing from the stream of records.
    pub const PIPELINED: u16 = 1 << 2;
    /// The connection was admitted out of a half-open budget.
    pub const TRIAL: u16 = 1 << 3;
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

layout! {
    ExchangeRecord = 312,
}
