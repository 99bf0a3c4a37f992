//! The part of Shunt that decides. It does no input or output and reads no clock.
//!
//! ```text
//!   outcomes, probe results, configuration, results of map writes
//!            │
//!            ▼  Engine::handle(input, now)
//!        [ Engine ] ── Engine::next_deadline()
//!            │  Engine::poll_output()
//!            ▼
//!   plans for the dataplane, probes to send, events
//! ```
//!
//! Time is an argument, so the same code runs in the daemon, in replay and in
//! tests with virtual time. The same inputs at the same times give the same
//! outputs, bit for bit.

pub mod breaker;
pub mod codes;
pub mod config;
pub mod engine;
pub mod event;
pub mod ids;
pub mod io;
pub mod maglev;
pub mod outcome;
pub mod plan;
pub mod probe;
pub mod snapshot;
pub mod state;
pub mod states;
pub mod time;

mod random;

pub use engine::{Engine, Settings};
