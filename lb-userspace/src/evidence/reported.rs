//! Timeout de-duplication. Two reports can come of one exchange that takes long: the timeout scanner finds it
//! in the flow table, and later a response or a failure of it comes through the ring. The first report
//! counts.

use std::{
    collections::{HashSet, VecDeque},
    net::SocketAddr,
};

use lb_core::io::BackendId;

use super::reading::Reading;

/// Exchanges that are remembered at a time. When there are more, the oldest is dropped, and its response
/// counts a second time.
const MOST: usize = 16_384;

/// A shorter exchange ends before the timeout scanner's next scan can find it.
const LONG_NS: u64 = 50_000_000;

/// Client, backend, and when the exchange began.
type Exchange = (SocketAddr, BackendId, u32);

/// Exchanges that the engine knows of. This is the only place in the daemon that remembers them. (The scanner
/// has its own memory, of the flows that still wait.)
#[derive(Debug, Default)]
pub(super) struct Reported {
    exchanges: HashSet<Exchange>,
    by_age: VecDeque<Exchange>,
}

impl Reported {
    /// The scanner found that an exchange takes too long. False: a record has reported how it ended.
    pub(super) fn timed_out(&mut self, client: SocketAddr, backend: BackendId, began_us: u32) -> bool {
        self.is_first((client, backend, began_us))
    }

    /// A record reports how an exchange ended. False: the scanner has reported that it took too long.
    pub(super) fn ended(&mut self, reading: &Reading) -> bool {
        let exchange = (reading.client, reading.backend, reading.began_us());
        if reading.since_request_ns < LONG_NS {
            !self.exchanges.contains(&exchange)
        } else {
            self.is_first(exchange)
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.exchanges.len().max(self.by_age.len())
    }

    fn is_first(&mut self, exchange: Exchange) -> bool {
        if !self.exchanges.insert(exchange) {
            return false;
        }
        self.by_age.push_back(exchange);
        if self.by_age.len() > MOST
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.exchanges.remove(&oldest);
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
            late: false,
        }
    }

    fn timed_out(reported: &mut Reported, port: u16, began_us: u32) -> bool {
        reported.timed_out(([192, 0, 2, 1], port).into(), BackendId(3), began_us)
    }

    #[test]
    fn an_exchange_is_identified_by_its_begin() {
        let mut reported = Reported::default();
        assert!(timed_out(&mut reported, 7, 5_000_000));
        assert!(!reported.ended(&reading(7, 5000, 2000)));
        assert!(reported.ended(&reading(7, 8000, 2000)), "the next request on that connection");
        assert!(reported.ended(&reading(8, 5000, 2000)));
    }

    #[test]
    fn the_first_report_counts() {
        let mut reported = Reported::default();
        assert!(reported.ended(&reading(7, 5000, 2000)));
        assert!(!timed_out(&mut reported, 7, 5_000_000));
        assert!(reported.ended(&reading(7, 8000, 2)));
        assert_eq!(reported.exchanges.len(), 1, "a quick response is not remembered");
    }

    #[test]
    fn a_response_is_remembered_from_fifty_milliseconds_on() {
        for (took, remembered) in [(49, false), (50, true)] {
            let mut reported = Reported::default();
            assert!(reported.ended(&reading(7, 5000, took)));
            assert_eq!(timed_out(&mut reported, 7, 5_000_000), !remembered);
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut reported = Reported::default();
        for began in 0..2 * MOST as u32 {
            assert!(timed_out(&mut reported, 7, began * 1000));
        }
        assert_eq!((reported.exchanges.len(), reported.by_age.len()), (MOST, MOST));
        assert!(!timed_out(&mut reported, 7, (2 * MOST as u32 - 1) * 1000));
        assert!(timed_out(&mut reported, 7, 0));
    }
}
