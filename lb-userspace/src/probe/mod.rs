//! Active probes: one exchange with one backend, and its result.
//!
//! [`Prober`] runs many at a time and gives their results to the daemon's loop. It does not decide what a
//! result means: the engine gets a status as it came.
//!
//! Each probe has a connection of its own, in TLS with a whole handshake. A connection or a session that is
//! used again would only show that the backend was well when it began. `close` says how a connection ends.
//!
//! Tasks: one for each probe under way, owned by the [`Prober`]. When it is dropped, it aborts them, which
//! closes their connections. A probe has no other state, so that is safe at any point. The only failure here
//! is a [`ProbeResult::Fail`](lb_core::io::ProbeResult::Fail). A lack of the daemon itself (`lack`) is none: the
//! probe is sent again.

mod close;
mod deadline;
mod exchange;
mod failure;
mod grpc;
mod http;
mod lack;
mod prober;
#[cfg(test)]
mod tests;
mod tls;
mod tls_failure;

pub use self::prober::Prober;
