//! Exchanges of which it was told that they take too long, so that what comes of them after
//! all is not told again.

use std::{
    collections::{HashSet, VecDeque},
    net::SocketAddr,
};

use lb_core::io::BackendId;

use super::Reading;

/// Remembered at a time; beyond it the oldest is forgotten, and its response counts once more.
const MOST: usize = 16_384;

/// Client, backend, and when the exchange began.
type Exchange = (SocketAddr, BackendId, u32);

#[derive(Debug, Default)]
pub struct Late {
    told: HashSet<Exchange>,
    by_age: VecDeque<Exchange>,
}

impl Late {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn told(&mut self, client: SocketAddr, backend: BackendId, began_us: u32) {
        let exchange = (client, backend, began_us);
        if self.told.insert(exchange) {
            self.by_age.push_back(exchange);
        }
        if self.by_age.len() > MOST
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.told.remove(&oldest);
        }
    }

    /// Whether it was told of this exchange.
    pub fn knows(&self, reading: &Reading) -> bool {
        self.told.contains(&(reading.client, reading.backend, reading.began_us()))
    }
}

#[cfg(test)]
mod tests {
    use lb_core::io::{Generation, Outcome};

    use super::*;

    fn reading(port: u16, began_ms: u64, took_ms: u64) -> Reading {
        Reading {
            backend: BackendId(3),
            generation: Generation(1),
            client: ([192, 0, 2, 1], port).into(),
            outcome: Outcome::Status(200),
            at_ns: (began_ms + took_ms) * 1_000_000,
            since_request_ns: took_ms * 1_000_000,
            trial: false,
            pipelined: false,
        }
    }

    #[test]
    fn an_exchange_is_known_by_when_it_began() {
        let mut late = Late::new();
        late.told(([192, 0, 2, 1], 7).into(), BackendId(3), 5_000_000);
        assert!(late.knows(&reading(7, 5000, 2000)));
        assert!(!late.knows(&reading(7, 8000, 2000)), "the next request on that connection");
        assert!(!late.knows(&reading(8, 5000, 2000)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut late = Late::new();
        for began in 0..2 * MOST as u32 {
            late.told(([192, 0, 2, 1], 7).into(), BackendId(3), began * 1000);
        }
        assert_eq!((late.told.len(), late.by_age.len()), (MOST, MOST));
        assert!(!late.knows(&reading(7, 0, 1)));
        assert!(late.knows(&reading(7, 2 * MOST as u64 - 1, 1)));
    }
}
