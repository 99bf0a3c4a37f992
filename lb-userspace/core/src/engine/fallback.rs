//! The fallback: backends that are used only while none of the others serves.

use super::service::Service;
use crate::{event::EventKind, time::Instant};

const USED: &str = "used";
const UNUSED: &str = "unused";

impl Service {
    /// Whether the table is made of the fallback.
    pub(super) fn on_fallback(&self) -> bool {
        self.serving().is_empty() && !self.able(true).is_empty()
    }

    /// Tells when the fallback comes into use, and when it is over. What was decided last has done that.
    pub(super) fn follow_fallback(&mut self, now: Instant) {
        let used = !self.retired && self.on_fallback();
        if used == self.fell_back {
            return;
        }
        self.fell_back = used;
        let (from, to, reason) = match (used, self.serving().is_empty()) {
            (true, _) => (UNUSED, USED, "nobody_serves"),
            (false, false) => (USED, UNUSED, "others_serve"),
            (false, true) => (USED, UNUSED, "fallback_out"),
        };
        let actor = self.decided.last().map_or("config".to_owned(), |event| event.actor.clone());
        let event = self.event(EventKind::Fallback, None, now);
        self.turned(event, from, to, reason, &actor);
    }
}
