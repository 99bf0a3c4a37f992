//! How long the API server has been away, for the log.

use std::time::Duration;

use tracing::{info, warn};

use crate::clock::rfc3339;

/// Between two lines about one outage.
const REMINDER: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(crate) struct Outage {
    since: Option<Duration>,
    reminded: Duration,
    /// The last failure.
    last: Duration,
}

impl Outage {
    /// The server has failed at `now`, in time since 1970. The log has the first failure, and one each minute.
    pub(crate) fn failed(&mut self, error: &str, now: Duration) {
        self.last = now;
        let since = *self.since.get_or_insert(now);
        if since == now || now.saturating_sub(self.reminded) >= REMINDER {
            self.reminded = now;
            let away_s = now.saturating_sub(since).as_secs();
            let since = rfc3339(since);
            warn!(
                since,
                away_s, error, "the API server does not answer as expected; the files stay as they are"
            );
        }
    }

    /// The lists are up to date again.
    pub(crate) fn over(&mut self) {
        if let Some(since) = self.since.take() {
            let away_s = self.last.saturating_sub(since).as_secs();
            info!(away_s, "the API server answers again");
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_begins_once_and_ends() {
        let mut outage = Outage::default();
        let at = Duration::from_secs;
        outage.failed("refused", at(100));
        outage.failed("refused", at(110));
        assert_eq!((outage.since, outage.reminded), (Some(at(100)), at(100)));
        outage.failed("refused", at(161));
        assert_eq!((outage.since, outage.reminded), (Some(at(100)), at(161)));
        outage.over();
        assert!(!outage.is_on());
    }
}
