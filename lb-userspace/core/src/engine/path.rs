//! Whether the packet path can reach a backend.

use super::service::Service;
use crate::{event::EventKind, states::PathState, time::Instant};

impl Service {
    /// `true`: something changed.
    pub(super) fn path_changed(&mut self, index: usize, path: PathState, now: Instant) -> bool {
        let before = self.backends[index].path;
        if before == path {
            return false;
        }
        let mut event = self.event(EventKind::Path, Some(index), now);
        self.backends[index].path = path;
        let reason = match path {
            PathState::Ok => "reachable".to_owned(),
            fault => {
                event.evidence.detail = Some(fault.message().to_owned());
                fault.to_string()
            }
        };
        self.report(event, before, path, &reason, "dataplane");
        true
    }
}
