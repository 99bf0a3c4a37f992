//! A program that was used before is as a fresh one.

use std::{
    os::fd::AsFd as _,
    panic::{AssertUnwindSafe, catch_unwind},
};

use aya::maps::{Array, IterableMap as _, MapData};
use lb_common::abi::Table;
use lb_core::config::NoBackend;
use lb_tests::{
    frame::{ACK, PSH},
    kernel::{Action, Kernel, NAT_PORTS, at_tc, hook},
    maps::Content,
    program::Loaded,
};
use lb_userspace::dataplane::bpf::FlowCounts;

use crate::connections::Connection;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const BAD: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";

/// So small that no other test has such a program: this one gets back the program that it gave.
const MAX_FLOWS: u32 = 97;

/// Leaves a connection and a record behind.
fn use_it(kernel: &mut Kernel) {
    let mut connection = Connection::open(kernel, 1);
    assert_eq!(connection.send(kernel, ACK | PSH, GET), Action::Redirect);
    connection.client_next = connection.client_next.wrapping_add(GET.len() as u32);
    assert_eq!(connection.reply(kernel, ACK | PSH, BAD), Action::Redirect);
}

/// Leaves a line in the program's log.
fn drop_a_syn(kernel: &mut Kernel) {
    kernel.service(NoBackend::Drop, &[]);
    kernel.table(&[]);
    assert_eq!(Connection::try_begin(kernel, 2).err(), Some(Action::Drop));
}

fn id(kernel: &mut Kernel) -> u32 {
    kernel.program().info().expect("the kernel describes it").id()
}

#[test]
fn no_map_remembers_the_fixture_before() {
    let mut kernel = Kernel::with(2, NAT_PORTS, MAX_FLOWS);
    use_it(&mut kernel);
    drop_a_syn(&mut kernel);
    let inner = Array::<MapData, Table>::create(1, 0).expect("a table can be made");
    let inner = inner.map().fd().as_fd();
    let used = kernel.loaded();
    let fresh = Loaded::load(hook(), MAX_FLOWS).contents();
    let constants: Vec<_> = used.maps().filter(|(_, map)| map.is_constant()).map(|(name, _)| name).collect();
    used.maps().filter(|(_, map)| !map.is_constant()).for_each(|(_, map)| map.scribble(inner));
    let before = used.contents();
    for (name, content) in before.iter().filter(|(name, _)| !constants.contains(&name.as_str())) {
        assert_ne!(content, &fresh[name], "{name} is not changed yet: the test shows nothing about it");
    }
    used.reset();
    let after = used.contents();
    assert_eq!(after.keys().collect::<Vec<_>>(), fresh.keys().collect::<Vec<_>>());
    for (name, content) in &after {
        // Each program has hash keys of its own, and keeps them.
        let wanted = if constants.contains(&name.as_str()) { &before[name] } else { &fresh[name] };
        assert!(content == wanted, "{name} is not as the loader made it");
    }
    assert_eq!(after["EVIDENCE"], Content::Unread(false));
    assert!(after.len() > 20, "{} maps", after.len());
}

#[test]
fn a_fixture_begins_with_nothing() {
    let mut first = Kernel::with(2, NAT_PORTS, MAX_FLOWS + 1);
    use_it(&mut first);
    first.service(NoBackend::Drop, &[1]);
    let program = id(&mut first);
    drop(first);
    let mut second = Kernel::with(1, NAT_PORTS, MAX_FLOWS + 1);
    assert_eq!(id(&mut second), program, "the same program");
    assert!(second.heads().is_empty());
    assert_eq!(second.flows().counts(), FlowCounts::default());
    let counters = second.counters();
    assert_eq!(counters.backends.len(), 1);
    assert_eq!(counters.backends[0].1, lb_common::abi::BackendCounters::default());
    assert_eq!(counters.drops, []);
    use_it(&mut second);
    assert_eq!(second.heads().len(), 1);
    assert_eq!(second.flows().counts().established, 1);
}

#[test]
fn two_fixtures_at_a_time_have_two_programs() {
    let mut first = Kernel::with(1, NAT_PORTS, MAX_FLOWS + 2);
    let mut second = Kernel::with(1, NAT_PORTS, MAX_FLOWS + 2);
    assert_ne!(id(&mut first), id(&mut second));
    use_it(&mut first);
    assert_eq!(second.flows().counts(), FlowCounts::default());
    assert!(second.heads().is_empty());
}

#[test]
fn after_a_panic_a_program_is_not_used_again() {
    let mut kernel = Kernel::with(1, NAT_PORTS, MAX_FLOWS + 3);
    let program = id(&mut kernel);
    let failed = catch_unwind(AssertUnwindSafe(move || {
        let _kernel = kernel;
        panic!("meant, {}", if at_tc() { "at tc" } else { "at XDP" });
    }));
    let panicked = failed.expect_err("it panics on purpose");
    let said = panicked.downcast_ref::<String>().expect("it has a text");
    assert!(said.starts_with("meant, "), "{said}");
    assert_ne!(id(&mut Kernel::with(1, NAT_PORTS, MAX_FLOWS + 3)), program);
}
