//! The outputs that wait for [`Engine::poll_output`](super::Engine::poll_output), and the numbers of events.

use std::collections::VecDeque;

use crate::{
    event::Event,
    ids::ServiceId,
    io::{Output, Plan, ProbeRequest, Step},
};

#[derive(Default)]
pub(super) struct Outbox {
    outputs: VecDeque<Output>,
    plans: u64,
    events: u64,
}

impl Outbox {
    pub(super) fn pop(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Output> {
        self.outputs.iter()
    }

    /// Numbers the events in the order in which they become known.
    pub(super) fn publish(&mut self, events: impl IntoIterator<Item = Event>) {
        for mut event in events {
            self.events += 1;
            event.seq = self.events;
            self.outputs.push_back(Output::Event(Box::new(event)));
        }
    }

    /// Returns the id of the new plan.
    pub(super) fn plan(&mut self, service: ServiceId, steps: Vec<Step>) -> u64 {
        self.plans += 1;
        self.outputs.push_back(Output::Dataplane(Plan { id: self.plans, service, steps }));
        self.plans
    }

    pub(super) fn probe(&mut self, request: ProbeRequest) {
        self.outputs.push_back(Output::Probe(request));
    }

    pub(super) fn confirm(&mut self, request: ProbeRequest) {
        self.outputs.push_back(Output::Confirm(request));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_plan_has_a_number_of_its_own() {
        let mut outbox = Outbox::default();
        assert_eq!([(); 3].map(|()| outbox.plan(ServiceId(1), Vec::new())), [1, 2, 3]);
    }
}
