//! Limits of connections, as they reach the maps, and services that are full.

use std::num::NonZeroU8;

use super::lab::{Lab, said, web};
use crate::{
    config::{self, Overflow, ServiceLimit},
    event::EventKind,
    ids::ServiceId,
    io::{Input, Step},
};

fn lab(service: config::Service) -> Lab {
    let mut lab = Lab::new(vec![service]);
    lab.until(1000);
    lab.news();
    lab
}

/// Affinity and limit in the last entry of the service.
fn service_entry(lab: &Lab) -> (Option<u8>, Option<ServiceLimit>) {
    let of = |step: &Step| match step {
        Step::Service { affinity, limit, .. } => Some((affinity.map(NonZeroU8::get), *limit)),
        _ => None,
    };
    lab.written.iter().rev().find_map(|(_, step)| of(step)).expect("there is one")
}

/// The limit in the last entry of a backend.
fn backend_entry(lab: &Lab, id: u16) -> u32 {
    let of = |step: &Step| match step {
        Step::Backend { id: of, max_connections, .. } if of.0 == id => Some(*max_connections),
        _ => None,
    };
    lab.written.iter().rev().find_map(|(_, step)| of(step)).expect("there is one")
}

#[test]
fn without_limits_nothing_counts() {
    let lab = lab(web(&["a", "b"]));
    assert_eq!(service_entry(&lab), (None, None));
    assert_eq!((backend_entry(&lab, 0), backend_entry(&lab, 1)), (0, 0));
}

#[test]
fn one_limit_is_enough_for_the_connections_of_a_service_to_count() {
    let mut service = web(&["a", "b"]);
    service.backends[1].max_connections = Some(7);
    service.limits.overflow = Overflow::Drop;
    service.affinity = NonZeroU8::new(24);
    let lab = lab(service);
    let limit = ServiceLimit { max_connections: 0, overflow: Overflow::Drop };
    assert_eq!(service_entry(&lab), (Some(24), Some(limit)));
    assert_eq!((backend_entry(&lab, 0), backend_entry(&lab, 1)), (0, 7));
}

#[test]
fn a_reload_writes_what_has_changed() {
    let mut service = web(&["a", "b"]);
    service.limits.max_connections = 100;
    let mut lab = lab(service.clone());
    assert_eq!(service_entry(&lab).1.map(|limit| limit.max_connections), Some(100));
    service.limits.max_connections = 0;
    service.limits.max_connections_per_backend = 5;
    service.backends[0].max_connections = Some(9);
    lab.reload(vec![service.clone()]);
    assert_eq!((backend_entry(&lab, 0), backend_entry(&lab, 1)), (9, 5));
    assert_eq!(service_entry(&lab).1.map(|limit| limit.max_connections), Some(0), "still counting");
    service.limits.max_connections_per_backend = 0;
    service.backends[0].max_connections = None;
    lab.reload(vec![service]);
    assert_eq!((backend_entry(&lab, 0), backend_entry(&lab, 1)), (0, 0));
    assert_eq!(service_entry(&lab).1, None);
}

#[test]
fn a_full_service_is_an_event_and_decides_nothing() {
    let mut service = web(&["a"]);
    service.limits.max_connections = 1;
    let mut lab = lab(service);
    let written = lab.written.len();
    let full = |refused, was_full| Input::Full { service: ServiceId(0), refused, was_full };
    lab.send(full(1, false));
    assert_eq!(lab.news(), [said(EventKind::Limit, "web", "full")]);
    lab.send(full(0, true));
    assert_eq!(lab.news(), [said(EventKind::Limit, "web", "below_limit")]);
    lab.send(Input::Full { service: ServiceId(9), refused: 1, was_full: false });
    assert!(lab.news().is_empty(), "of nobody");
    assert_eq!(lab.written.len(), written);
}
