//! From decisions to outputs: events become known, and plans go to the dataplane.

use super::{
    Engine, follow, forwarding,
    schedule::Deadline,
    service::Service,
    writer::{Next, PlanResult},
};
use crate::{codes::EventReason, event::EventKind, ids::ServiceId, io::StepFailure, time::Instant};

impl Engine {
    /// Takes the result of a plan.
    pub(super) fn applied(&mut self, plan: u64, result: Result<(), StepFailure>, now: Instant) {
        let Some(service) = self.services.values_mut().find(|service| service.writer.awaits(plan)) else {
            return;
        };
        let id = service.id;
        let detail = result.as_ref().err().map(|failure| failure.error.clone());
        match service.writer.finished(result, now) {
            PlanResult::Held { revision } => {
                self.writes_hold(id, EventReason::WriteHolds, now);
                self.release(id, revision);
            }
            PlanResult::Failed { first: true } => {
                self.dataplane_event(id, ("in step", "behind"), EventReason::WriteFailed, detail, now);
            }
            PlanResult::Failed { first: false } => {}
        }
        self.dirty.insert(id);
        // A blocked service may have waited for this VIP.
        self.dirty.append(&mut self.blocked);
    }

    /// Publishes the events of the services that changed, and plans their writes.
    pub(super) fn settle(&mut self, now: Instant) {
        while let Some(id) = self.dirty.pop_first() {
            self.settle_service(id, now);
        }
    }

    fn settle_service(&mut self, id: ServiceId, now: Instant) {
        self.blocked.remove(&id);
        let vip_is_free = self.vip_is_free(id);
        let service =
            self.services.get_mut(&id).expect("a service is removed only when nothing is left to do for it");
        follow::follow(service, now);
        let changed = service.writer.want(forwarding::wanted(service, self.mirror_all));
        for event in std::mem::take(&mut service.decided) {
            let known = service.writer.hold(event, changed);
            self.outbox.publish(known);
        }
        let retry = match service.writer.next(id, vip_is_free, now) {
            Next::Wait => None,
            Next::Retry(at) => Some(at),
            Next::Write(steps) => {
                let plan = self.outbox.plan(id, steps.clone());
                service.writer.sent(plan, steps, vip_is_free);
                None
            }
            Next::Blocked => {
                self.blocked.insert(id);
                self.free_removed(id);
                None
            }
            Next::Done => {
                let revision = service.writer.revision();
                self.writes_hold(id, EventReason::NothingToWrite, now);
                self.release(id, revision);
                self.free_removed(id);
                None
            }
        };
        self.schedule.set(Deadline::Retry(id), retry);
        let alarm = self.services.get(&id).and_then(Service::next_alarm);
        self.schedule.set(Deadline::Alarm(id), alarm);
    }

    /// Frees the ids that the maps no longer hold.
    fn free_removed(&mut self, id: ServiceId) {
        let service = self.services.get_mut(&id).expect("the caller has it");
        service.leaving.take_gone(&service.writer).for_each(|id| self.ids.free_backend(id));
        if service.retired && service.leaving.is_empty() && service.writer.applied.service.is_none() {
            self.services.remove(&id);
            self.ids.free_service(id);
        }
    }

    /// Whether the maps hold this service's VIP for no other service.
    fn vip_is_free(&self, id: ServiceId) -> bool {
        let service = &self.services[&id];
        let vip = service.config.vip;
        if service.retired || service.writer.names_vip(vip) {
            return true;
        }
        self.services.values().all(|other| other.id == id || !other.writer.names_vip(vip))
    }

    fn release(&mut self, id: ServiceId, revision: u64) {
        let known = self.service(id).writer.release(revision);
        self.outbox.publish(known);
    }

    /// Reports that the maps agree again, if a write had failed.
    fn writes_hold(&mut self, id: ServiceId, reason: EventReason, now: Instant) {
        if self.service(id).writer.failing.take().is_some() {
            self.dataplane_event(id, ("behind", "in step"), reason, None, now);
        }
    }

    fn dataplane_event(
        &mut self,
        id: ServiceId,
        (from, to): (&str, &str),
        reason: EventReason,
        detail: Option<String>,
        now: Instant,
    ) {
        let service = self.service(id);
        let mut event = service.event(EventKind::Dataplane, None, now);
        event.evidence.detail = detail;
        service.report(event, from, to, reason, "dataplane");
        let event = service.decided.pop();
        self.outbox.publish(event);
    }
}
