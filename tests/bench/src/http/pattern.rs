//! How clients ask.

use lb_tests::load::Connections;

/// The load: which document is asked for, in how many connections, and in which loop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pattern {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) demand: Demand,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Demand {
    /// As fast as answers come, by wrk.
    Closed { connections: u32, close: bool, path: &'static str },
    /// So many requests a second whatever the answers, by so many threads.
    Open { rate: u64, workers: usize, connections: Connections },
}

/// The page of the bulk pattern.
pub(super) const LARGE: &str = "/large";

pub(super) const KEPT_32: &str = "keep_alive_32";
pub(super) const KEPT_256: &str = "keep_alive_256";
pub(super) const EACH: &str = "new_connections";
pub(super) const BULK: &str = "bulk";
pub(super) const KEPT_RATE: &str = "keep_alive_rate";
pub(super) const EACH_RATE: &str = "new_connections_rate";

/// The fixed rates are well below what the slowest peer can do on two CPUs: a saturated machine spends all it has,
/// and shows in latency nothing but its queues.
pub(super) const PATTERNS: &[Pattern] = &[
    Pattern {
        name: KEPT_32,
        what: "keep-alive, 32 connections",
        demand: Demand::Closed { connections: 32, close: false, path: "/" },
    },
    Pattern {
        name: KEPT_256,
        what: "keep-alive, 256 connections",
        demand: Demand::Closed { connections: 256, close: false, path: "/" },
    },
    Pattern {
        name: EACH,
        what: "one connection per request, 64 at a time",
        demand: Demand::Closed { connections: 64, close: true, path: "/" },
    },
    Pattern {
        name: BULK,
        what: "10 MB bodies, keep-alive, 16 connections",
        demand: Demand::Closed { connections: 16, close: false, path: LARGE },
    },
    Pattern {
        name: KEPT_RATE,
        what: "4000 requests/s on 32 kept connections",
        demand: Demand::Open { rate: 4_000, workers: 32, connections: Connections::Kept },
    },
    Pattern {
        name: EACH_RATE,
        what: "1500 requests/s, one connection each",
        demand: Demand::Open { rate: 1_500, workers: 64, connections: Connections::Each },
    },
];
