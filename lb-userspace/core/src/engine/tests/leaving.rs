//! Removed backends leave when they have no connection left.

use std::net::SocketAddr;

use super::lab::{Lab, web};
use crate::{
    Settings,
    config::{Connections, Service},
    ids::{Adopted, BackendId, Generation, ServiceId},
    io::{FlowReset, Input},
    time::Millis,
};

fn without_a() -> Service {
    let mut service = web(&["a", "b"]);
    service.backends.remove(0);
    service
}

/// A lab in which `a` has been removed, and the removed backend.
fn removed() -> (Lab, (BackendId, Generation)) {
    let mut lab = Lab::new(vec![web(&["a", "b"])]);
    let a = lab.backend("a");
    lab.reload(vec![without_a()]);
    (lab, (a.id, a.generation))
}

fn count(lab: &mut Lab, (backend, generation): (BackendId, Generation), connections: u64) {
    lab.send(Input::Remaining { backend, generation, connections });
}

fn leaving(lab: &Lab) -> Vec<(BackendId, Generation)> {
    lab.engine.leaving().collect()
}

/// In status, and in the maps.
fn is_there(lab: &Lab, (id, _): (BackendId, Generation)) -> (bool, bool) {
    (!lab.engine.snapshot(lab.now).leaving.is_empty(), lab.maps.backends.contains_key(&id))
}

#[test]
fn one_without_connections_leaves_at_the_second_count() {
    let (mut lab, a) = removed();
    assert_eq!(leaving(&lab), [a]);
    count(&mut lab, a, 0);
    assert_eq!(is_there(&lab, a), (true, true));
    count(&mut lab, a, 0);
    assert_eq!(is_there(&lab, a), (false, false));
    assert_eq!(leaving(&lab), []);
}

#[test]
fn a_connection_keeps_it_and_the_counts_begin_again() {
    let (mut lab, a) = removed();
    for connections in [0, 1, 0, 3, 0] {
        count(&mut lab, a, connections);
        assert_eq!(is_there(&lab, a), (true, true));
    }
    count(&mut lab, a, 0);
    assert_eq!(is_there(&lab, a), (false, false));
}

#[test]
fn a_count_of_another_generation_or_of_a_present_backend_removes_nothing() {
    let (mut lab, a) = removed();
    let b = lab.backend("b");
    for _ in 0..3 {
        count(&mut lab, (a.0, Generation(a.1.0 + 1)), 0);
        count(&mut lab, (b.id, b.generation), 0);
    }
    assert_eq!(is_there(&lab, a), (true, true));
    assert!(lab.maps.backends.contains_key(&b.id));
}

#[test]
fn it_is_counted_only_when_the_maps_give_it_no_new_connections() {
    let mut lab = Lab::new(vec![web(&["a", "b"])]);
    lab.slow = true;
    lab.reload(vec![without_a()]);
    assert_eq!(leaving(&lab), [], "the table has it still");
    while !lab.waiting.is_empty() {
        lab.answer();
    }
    assert_eq!(leaving(&lab).len(), 1);
}

/// A lab with a backend that an earlier run has left in the maps, for this VIP.
fn adopted(vip: SocketAddr) -> (Lab, (BackendId, Generation)) {
    let a = (BackendId(8), Generation(3));
    let adopted = Adopted {
        service: ServiceId(4),
        vip: Some(vip),
        admits: true,
        id: a.0,
        generation: a.1,
        address: "10.0.0.77:8080".parse().expect("literal"),
    };
    let mut lab = Lab::empty(Settings { seed: 1, adopted: vec![adopted], ..Settings::default() });
    lab.maps.adopt(adopted.service, adopted.vip, a.0, a.1);
    lab.reload(vec![web(&["b"])]);
    (lab, a)
}

#[test]
fn one_of_an_earlier_run_leaves_too() {
    let (mut lab, a) = adopted(web(&["b"]).vip);
    assert_eq!(leaving(&lab), [a]);
    count(&mut lab, a, 0);
    count(&mut lab, a, 0);
    assert_eq!(is_there(&lab, a), (false, false));
}

#[test]
fn one_of_an_earlier_run_whose_service_is_gone_drains_for_the_default() {
    let (mut lab, a) = adopted("10.99.0.99:99".parse().expect("literal"));
    let begun = lab.now;
    let flow_reset = |lab: &Lab| lab.maps.backends[&a.0].flow_reset;
    lab.until(begun.0 + 59_999);
    assert_eq!((leaving(&lab), flow_reset(&lab)), (vec![a], FlowReset::Never));
    lab.until(begun.0 + 60_000);
    assert_eq!(flow_reset(&lab), FlowReset::Now);
    assert_eq!(Connections::default().drain_timeout, Millis(60_000));
}
