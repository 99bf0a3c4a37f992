//! Events of the engine as lines of the log.

use std::collections::BTreeMap;

use lb_core::{
    codes::EventReason,
    event::{Event, EventKind},
    snapshot::PathState,
};
use tracing::{debug, info, warn};

use crate::printable::printable;

/// Counts the refusals and suspicions of each backend since any other event of it. The floor can refuse the
/// ejection of one backend every few responses. `shunt events` has all of them, the log the 1st, 2nd, 4th, 8th …
#[derive(Debug, Default)]
pub(super) struct EventLines(BTreeMap<(String, Option<String>), u64>);

impl EventLines {
    pub(super) fn log(&mut self, event: &Event) {
        // Names of operators, their reasons and details of probes come from outside, and one event is one line.
        let (sentence, reason) = (printable(&event.sentence()), event.reason.as_str());
        let seq = event.seq;
        match event.kind {
            EventKind::Refused | EventKind::Suspected => match self.refused(event) {
                Some(1) => warn!(seq, reason, "{}: {sentence}", event.kind),
                Some(count) => warn!(seq, reason, count, "{}, again: {sentence}", event.kind),
                None => debug!(seq, reason, "{}: {sentence}", event.kind),
            },
            EventKind::Limit if event.reason == EventReason::Full => {
                warn!(seq, reason, "{}: {sentence}", event.kind);
            }
            EventKind::Eject | EventKind::Fallback | EventKind::Panic | EventKind::Dataplane => {
                warn!(seq, reason, "{}: {sentence}", event.kind);
            }
            EventKind::Path if event.to != PathState::Ok.to_string() => {
                warn!(seq, reason, "{}: {sentence}", event.kind);
            }
            // The edge has logged it.
            EventKind::Interface => debug!(seq, reason, "{}: {sentence}", event.kind),
            EventKind::Discovery if event.backend.is_none() && event.reason != EventReason::Current => {
                warn!(seq, reason, "{}: {sentence}", event.kind);
            }
            EventKind::Trial
            | EventKind::Readmit
            | EventKind::Path
            | EventKind::Probe
            | EventKind::Operator
            | EventKind::Weight
            | EventKind::Membership
            | EventKind::Discovery
            | EventKind::Limit
            | EventKind::Drained => info!(seq, reason, "{}: {sentence}", event.kind),
        }
        if !matches!(event.kind, EventKind::Refused | EventKind::Suspected) {
            self.decided(event);
        }
    }

    /// The number of this refusal, if the log is to have a line for it.
    fn refused(&mut self, event: &Event) -> Option<u64> {
        let count = self.0.entry((event.service.clone(), event.backend.clone())).or_default();
        *count += 1;
        count.is_power_of_two().then_some(*count)
    }

    /// The next refusal of this backend is the first again.
    fn decided(&mut self, event: &Event) {
        self.0.remove(&(event.service.clone(), event.backend.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fixture::event;

    #[test]
    fn the_log_has_ever_fewer_of_the_same_refusals() {
        let mut lines = EventLines::default();
        let web = event(1, "web");
        let logged: Vec<u64> = (0..20).filter_map(|_| lines.refused(&web)).collect();
        assert_eq!(logged, [1, 2, 4, 8, 16]);
        assert_eq!(lines.refused(&event(1, "api")), Some(1), "another service");
        lines.decided(&web);
        assert_eq!(lines.refused(&web), Some(1));
    }
}
