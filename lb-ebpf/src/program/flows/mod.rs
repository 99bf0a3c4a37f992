//! The flow tables: one place a connection, found from either end.
//!
//! ```text
//!   client's tuple ──hash──► CLIENTS: set of 15 tags ──┐ set × 15 + way
//!                                                      ▼
//!                                                    FLOWS
//!                                                      ▲
//!   reply's tuple ───hash──► REPLIES: set of 8 ────────┘ number in the entry
//! ```
//!
//! A set is one cache line, and tags are unique within a set. A flow lies in the first of its two sets while
//! that has ways to spare, and then in the one with more free ways. A set notes when one of its flows goes to
//! the other set: only then a reader looks there.
//!
//! The reply's entry reserves the NAT port, so there is no other list of ports in use. A reply to a NAT port
//! is in one set, because another port will do when that set is full. In mode `dnat` no other port will do,
//! so the reply's entry can be in either of two sets.
//!
//! The rules of ownership, with any number of CPUs:
//! - A CPU takes a free way (tag 0) by swapping in the tag.
//! - A CPU evicts or frees a flow by swapping the flow's whole state for 0. A part of the state differs
//!   between the flows that had the place. Only the CPU that wins the swap touches the tag and the reply's
//!   entry, and it frees the reply's entry first.
//! - A reply's entry is free (0) and swapped in, or taken over together with its flow. Two CPUs that enter
//!   the same tag into one set at the same moment see each other's entry afterwards, and both step back.
//!
//! A reader may use a flow that another CPU frees and fills again at the same time, as with the kernel's own
//! LRU maps. Only flows in time-wait, half-open handshakes, and dead or silent flows are ever evicted.

mod bits;
mod client;
mod evict;
mod owner;
mod reply;
mod sets;

pub(crate) use self::{
    client::{NOWHERE, by_client, claim},
    evict::claim_taken,
    owner::{Resting, free_place, release},
    reply::{by_reply, prefetch, reserve_preserved, reserve_reply},
    sets::{hash, key},
};
