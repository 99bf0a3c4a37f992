//! The engine's clock: milliseconds since the daemon's start. The only place that reads one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lb_core::time::Instant;
use tokio::time;

#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin: time::Instant,
    started_unix_ms: u64,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub(super) fn start() -> Self {
        Self { origin: time::Instant::now(), started_unix_ms: unix_ms() }
    }

    pub(super) fn now(&self) -> Instant {
        Instant(self.elapsed().as_millis() as u64)
    }

    /// The time since moment 0, finer than the engine's milliseconds.
    pub(super) fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }

    /// The Unix time of the host. Somebody may have set it since the start.
    pub(super) fn unix_ms(&self) -> u64 {
        unix_ms()
    }

    /// Wakes at a moment of the engine.
    pub(super) async fn sleep_until(&self, at: Instant) {
        time::sleep_until(self.origin + Duration::from_millis(at.0)).await;
    }

    /// Unix time of moment 0.
    pub(super) fn started_unix_ms(&self) -> u64 {
        self.started_unix_ms
    }

    /// The same in seconds, as far as 32 bits go.
    pub(super) fn started_unix_secs(&self) -> u32 {
        (self.started_unix_ms / 1000) as u32
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
