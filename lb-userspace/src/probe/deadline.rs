//! The end of a probe's time.

use lb_core::time::Millis;
use tokio::time::{Instant, timeout_at};

use super::failure::Failure;

/// When a probe must be over.
#[derive(Clone, Copy)]
pub(super) struct Deadline {
    pub(super) at: Instant,
    pub(super) after: Millis,
}

impl Deadline {
    /// Waits for `work` until the deadline.
    pub(super) async fn limit<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        timeout_at(self.at, work).await.map_err(|_| Failure::Timeout(self.after))
    }
}
