//! Services whose SYNs find everything full: an event at first, and no more than one each ten seconds.

use std::{collections::BTreeMap, time::Duration};

use lb_core::io::{Input, ServiceId};

use crate::dataplane::bpf::ConnectionLimits;

const PAUSE: Duration = Duration::from_secs(10);

/// The services with limits, as they were when they were last looked at.
#[derive(Debug, Default)]
pub(super) struct Overflows(BTreeMap<ServiceId, Seen>);

#[derive(Clone, Copy, Debug)]
struct Seen {
    /// SYNs that were refused, as far as an event has them.
    refused: u64,
    full: bool,
    /// No event before.
    next: Duration,
}

impl Overflows {
    pub(super) fn look(&mut self, limits: &ConnectionLimits, now: Duration) -> Vec<Input> {
        let refused: BTreeMap<_, _> =
            limits.services().into_iter().map(|service| (service, limits.refused(service))).collect();
        self.compare(&refused, now)
    }

    /// `refused`: how many SYNs of each service were refused.
    fn compare(&mut self, refused: &BTreeMap<ServiceId, u64>, now: Duration) -> Vec<Input> {
        self.0.retain(|service, _| refused.contains_key(service));
        let mut inputs = Vec::new();
        for (service, refused) in refused {
            let new = || Seen { refused: *refused, full: false, next: now };
            let seen = self.0.entry(*service).or_insert_with(new);
            let more = refused.wrapping_sub(seen.refused);
            if now < seen.next || more == 0 && !seen.full {
                continue;
            }
            inputs.push(Input::Full { service: *service, refused: more, was_full: seen.full });
            *seen = Seen { refused: *refused, full: more > 0, next: now + PAUSE };
        }
        inputs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_at_first_and_then_one_each_ten_seconds() {
        let mut overflows = Overflows::default();
        let web = ServiceId(1);
        let mut at = |seconds: f64, refused: u64| {
            let inputs =
                overflows.compare(&BTreeMap::from([(web, refused)]), Duration::from_secs_f64(seconds));
            let says = |input| match input {
                Input::Full { service, refused, was_full } if service == web => Some((refused, was_full)),
                _ => None,
            };
            inputs.into_iter().map(says).collect::<Option<Vec<_>>>().expect("of the service")
        };
        assert_eq!(at(0.0, 70), [], "what an earlier run has refused");
        assert_eq!(at(0.1, 71), [(1, false)]);
        assert_eq!(at(0.2, 99), []);
        assert_eq!(at(10.0, 500), []);
        assert_eq!(at(10.2, 501), [(430, true)]);
        assert_eq!(at(15.0, 501), []);
        assert_eq!(at(20.3, 501), [(0, true)], "no SYN since");
        assert_eq!(at(40.0, 501), []);
        assert_eq!(at(41.0, 502), [(1, false)]);
        assert_eq!(overflows.compare(&BTreeMap::new(), Duration::from_secs(42)), []);
        assert!(overflows.0.is_empty(), "its limit is gone");
    }
}
