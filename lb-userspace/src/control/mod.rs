//! The control API: HTTP over a Unix socket, under `/v1`.

pub mod events;
pub mod model;
pub mod socket;

#[cfg(test)]
pub(crate) mod fixture;

pub use events::EventLog;
