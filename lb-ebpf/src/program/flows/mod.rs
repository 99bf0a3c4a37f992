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
//! A set is one cache line. A flow lies in the first of two sets while that has room to spare, else in the one with more, and tags
//! are unique within a set. Which sets ever sent one away is noted with them: only then the other is looked at. The reply's entry holds the NAT port, so there is no other list of ports in use. A reply to a NAT
//! port is looked for in one set, as another port will do when that is full; one to a client's own port in two.
//!
//! Who owns what, with any number of CPUs:
//! - A free place (tag 0) is taken by swapping in the tag.
//! - A taken one is taken over, or freed, by swapping its flow's whole state for 0 (a part of it tells the flows
//!   apart that have had the place); only who
//!   succeeds in that touches tag and reply entry, and frees the reply entry first.
//! - A reply entry is free (0) and swapped in, or taken over with its flow. Two CPUs that put the same tag
//!   into one set at the same moment see each other's afterwards, and both step back.
//!
//! A reader may hold a flow that another CPU frees and fills again under its hands, as with the
//! kernel's own LRU maps. Only what is over, unfinished, dead or idle for long is ever taken over.

mod bits;
mod client;
mod evict;
mod owner;
mod reply;
mod sets;

pub(crate) use self::{
    client::{NOWHERE, by_client, claim},
    evict::claim_taken,
    owner::{free_place, release},
    reply::{by_reply, prefetch, reserve_preserved, reserve_reply},
};
