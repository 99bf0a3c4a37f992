//! Recorded or written events through the engine, in virtual time: how would this configuration have behaved?
//!
//! [`Replay`] takes lines ([`crate::journal::line`]) in the order of their time. It gives the engine's own
//! events, and keeps account of what clients would have seen ([`account`]). Nothing in it reads a clock or a
//! random number, so the same lines and seed give the same records. Memory does not grow with the number of
//! lines.
//!
//! [`read`] runs one or more of them over a stream of lines.

pub mod account;
mod addressee;
pub mod compare;
mod membership;
mod read;
mod record;
mod run;
mod service_account;
pub mod summary;
#[cfg(test)]
mod tests;
mod timeline;
mod unfit;
mod virtual_maps;
mod yardsticks;

pub use self::{
    read::{InputError, Then, read},
    record::{BackendState, Record, SnapshotRecord},
    run::{Options, Replay},
    unfit::Unfit,
    virtual_maps::Destination,
    yardsticks::Yardsticks,
};
