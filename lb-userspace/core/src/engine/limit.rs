//! Services whose SYNs find everything full.

use super::Engine;
use crate::{codes::EventReason, event::EventKind, ids::ServiceId, time::Instant};

impl Engine {
    /// Reports it, and decides nothing: the packet path refuses such SYNs by itself.
    pub(super) fn full(&mut self, id: ServiceId, refused: u64, was_full: bool, now: Instant) {
        let Some(service) = self.services.get_mut(&id).filter(|service| !service.retired) else { return };
        let word = |full: bool| if full { "full" } else { "free" };
        let mut event = service.event(EventKind::Limit, None, now);
        let syns = if refused == 1 { "1 SYN".to_owned() } else { format!("{refused} SYNs") };
        event.evidence.detail = (refused > 0).then(|| format!("{syns} found `max_connections` reached"));
        let reason = if refused > 0 { EventReason::Full } else { EventReason::BelowLimit };
        service.report(event, word(was_full), word(refused > 0), reason, "dataplane");
        let event = service.decided.pop();
        self.outbox.publish(event);
    }
}
