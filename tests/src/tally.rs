//! The daemon's counts of one service.

use lb_core::snapshot::Responses;
use lb_userspace::control::model::{Counters, Status};

/// Over all backends of the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub s1xx: u64,
    pub s2xx: u64,
    pub s3xx: u64,
    pub s4xx: u64,
    pub s5xx: u64,
    /// Exchanges whose response could not be read.
    pub opaque: u64,
    pub lost: u64,
    /// Records that the XDP program mirrored.
    pub heads: u64,
    pub heads_lost: u64,
    /// Connections in which nothing is looked for.
    pub opaque_connections: u64,
    pub pipelined: u64,
}

impl Tally {
    pub fn of(status: &Status, service: &str) -> Self {
        let mut tally = Self::default();
        let services = status.snapshot.services.iter().filter(|known| known.name == service);
        for backend in services.flat_map(|service| &service.backends) {
            let Responses { s1xx, s2xx, s3xx, s4xx, s5xx, opaque, l4_failures: _, answered: _, lost } =
                backend.responses;
            tally.s1xx += s1xx;
            tally.s2xx += s2xx;
            tally.s3xx += s3xx;
            tally.s4xx += s4xx;
            tally.s5xx += s5xx;
            tally.opaque += opaque;
            tally.lost += lost;
        }
        for counters in Self::traffic(status, service) {
            tally.heads += counters.heads;
            tally.heads_lost += counters.heads_lost;
            tally.opaque_connections += counters.opaque;
            tally.pipelined += counters.pipelined;
        }
        tally
    }

    pub fn traffic<'a>(status: &'a Status, service: &'a str) -> impl Iterator<Item = &'a Counters> {
        status.traffic.iter().filter(move |known| known.service == service).map(|known| &known.counters)
    }

    /// Everything that counts as an outcome.
    pub fn outcomes(&self) -> u64 {
        self.s1xx + self.s2xx + self.s3xx + self.s4xx + self.s5xx + self.opaque
    }
}
