//! The control API: HTTP over a Unix socket, under `/v1`.
//!
//! [`socket`] owns the file and excludes a second daemon, [`server`] responds, [`client`] asks, and [`model`] has the
//! types of their messages. The server owns no state: it asks the daemon's loop through a bounded channel and reads
//! events from an [`EventLog`] that the loop fills.

pub mod client;
pub mod events;
pub mod model;
pub mod server;
pub mod socket;

#[cfg(test)]
pub(crate) mod fixture;

pub use events::EventLog;
pub use server::{Handle, Request, serve};
