//! Whether the packet path can reach a backend, and what becomes of the node's interfaces.

use super::{Engine, service::Service};
use crate::{
    codes::EventReason,
    event::{Event, EventKind, Evidence},
    states::PathState,
    time::Instant,
};

impl Engine {
    /// Reports it. The consequences for backends come as [`Input::Path`](crate::io::Input::Path).
    pub(super) fn interface_changed(
        &mut self,
        name: &str,
        from: String,
        to: String,
        reason: EventReason,
        detail: Option<String>,
        now: Instant,
    ) {
        let subject = format!("interface {name}");
        let detail = Some(detail.map_or_else(|| subject.clone(), |detail| format!("{subject}: {detail}")));
        let event = Event {
            reason,
            from,
            to,
            actor: "dataplane".to_owned(),
            config_generation: self.config_generation,
            evidence: Evidence { detail, ..Evidence::default() },
            ..Event::of_the_node(now)
        };
        self.outbox.publish([event]);
    }
}

impl Service {
    /// `true`: something changed.
    pub(super) fn path_changed(&mut self, index: usize, path: PathState, now: Instant) -> bool {
        let before = self.backends[index].path;
        if before == path {
            return false;
        }
        let mut event = self.event(EventKind::Path, Some(index), now);
        self.backends[index].path = path;
        if path != PathState::Ok {
            event.evidence.detail = Some(path.message().to_owned());
        }
        self.report(event, before, path, path.into(), "dataplane");
        true
    }
}
