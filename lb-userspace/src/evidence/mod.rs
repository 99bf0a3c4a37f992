//! Evidence on its way to the engine: what the XDP program mirrors and counts, and what the timeout scanner
//! finds.
//!
//! ```text
//! ring EVIDENCE ── record ─────┐                         ┌ Input::EvidenceLost
//! SUCCESS_COUNTS ─ count ──────┼── Intake ───────────────┼ Input::Successes
//! timeout scanner ─ timeout ───┘   ├ Losses              └ Input::Outcome
//!                                  ├ Heads
//!                                  ├ Reported
//!                                  └ SuccessMerge
//! ```
//!
//! [`Intake`] owns everything that the daemon remembers between two pieces of evidence. It does no input or
//! output, reads no clock and cannot fail. Everything that it remembers is bounded.
//!
//! The module reads records as the program writes them (`lb-ebpf`):
//! - `data` begins exactly at a response head, or continues where the segment of the record before ended
//!   (`CONTINUES`). It has at most [`HEAD_BYTES`](lb_common::abi::HEAD_BYTES) bytes of one segment. The rest
//!   of a longer segment is in no record.
//! - `UNFINISHED` says that this record does not decide the status: it has fewer than 13 bytes of the status
//!   line (`HTTP/1.1 500 `), or an interim status other than 101 (RFC 9110 section 15.2). The program then
//!   mirrors the next segment too, with `CONTINUES`.
//! - The program does not look behind an interim head. When the final head is in the same segment, [`Heads`]
//!   decides here and ignores the continuation, which then holds a part of the body: a continuation counts
//!   only while an unfinished head of its connection waits for it.
//! - A record without bytes says how an exchange ended without a head: refused, reset, closed without a
//!   response, or answered in a protocol that Shunt does not read.
//!
//! Nothing is guessed: behind an interim head that was cut off, the final head may follow in the same
//! segment, unseen. Such an exchange is *opaque*.

mod heads;
mod intake;
mod losses;
mod reading;
mod reported;
mod status_line;
mod success_merge;

use std::time::Duration;

pub use heads::Heads;
pub use intake::{Evidence, Inputs, Intake, Timeout};
pub use reading::Reading;

/// How long records of good responses may wait in the ring after a read that took this many records out of
/// it. Failures wake the daemon at once. The ring has space for 13 000 records, and a busy host may delay the
/// daemon: in a rush it reads while the ring is still almost empty.
pub const fn read_interval(read: usize) -> Duration {
    const RUSH: usize = 1024;
    Duration::from_millis(if read < RUSH { 20 } else { 5 })
}
