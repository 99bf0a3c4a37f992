//! Exchanges that take too long are told of twice: by whoever looks for them, and by what comes of them after
//! all. Whichever is later is not told again.

use std::{
    collections::{HashSet, VecDeque},
    net::SocketAddr,
};

use lb_core::io::BackendId;

use super::Reading;

/// Remembered at a time; beyond it the oldest is forgotten, and its response counts once more.
const MOST: usize = 16_384;

/// What takes less has come before the next look for what takes too long.
const LONG_NS: u64 = 50_000_000;

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

    /// An exchange takes too long. False: that is known already, by what came of it.
    pub fn overdue(&mut self, client: SocketAddr, backend: BackendId, began_us: u32) -> bool {
        self.is_news((client, backend, began_us))
    }

    /// What came of an exchange. False: it was told before that it takes too long.
    pub fn ended(&mut self, reading: &Reading) -> bool {
        let exchange = (reading.client, reading.backend, reading.began_us());
        if reading.since_request_ns < LONG_NS {
            !self.told.contains(&exchange)
        } else {
            self.is_news(exchange)
        }
    }

    fn is_news(&mut self, exchange: Exchange) -> bool {
        if !self.told.insert(exchange) {
            return false;
        }
        self.by_age.push_back(exchange);
        if self.by_age.len() > MOST
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.told.remove(&oldest);
        }
        true
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

    fn overdue(late: &mut Late, port: u16, began_us: u32) -> bool {
        late.overdue(([192, 0, 2, 1], port).into(), BackendId(3), began_us)
    }

    #[test]
    fn an_exchange_is_known_by_when_it_began() {
        let mut late = Late::new();
        assert!(overdue(&mut late, 7, 5_000_000));
        assert!(!late.ended(&reading(7, 5000, 2000)));
        assert!(late.ended(&reading(7, 8000, 2000)), "the next request on that connection");
        assert!(late.ended(&reading(8, 5000, 2000)));
    }

    #[test]
    fn whichever_comes_first_is_told() {
        let mut late = Late::new();
        assert!(late.ended(&reading(7, 5000, 2000)));
        assert!(!overdue(&mut late, 7, 5_000_000));
        assert!(late.ended(&reading(7, 8000, 2)));
        assert_eq!(late.told.len(), 1, "what was quick is not remembered");
    }

    #[test]
    fn memory_is_bounded() {
        let mut late = Late::new();
        for began in 0..2 * MOST as u32 {
            assert!(overdue(&mut late, 7, began * 1000));
        }
        assert_eq!((late.told.len(), late.by_age.len()), (MOST, MOST));
        assert!(!overdue(&mut late, 7, (2 * MOST as u32 - 1) * 1000));
        assert!(overdue(&mut late, 7, 0));
    }
}
