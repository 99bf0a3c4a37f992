//! Exchanges that take too long: the scanner reports each of them once.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};

use lb_core::{
    engine::Timeouts,
    io::{BackendId, Generation, L4Failure},
    time::Millis,
};
use lb_tests::{
    both_families,
    frame::{ACK, PSH, RST, SYN, Tcp},
    kernel::{Action, Kernel, SERVICE, vip},
};
use lb_userspace::dataplane::bpf::{Limits, TimedOut};
use tokio::sync::{mpsc, watch};

use crate::{
    connections::{CLIENT_ISN, Connection},
    failures::{GET, HELLO, OK},
    steering::client,
};

fn watched(
    kernel: &Kernel,
    connect: u64,
    response: u64,
) -> (watch::Sender<Limits>, mpsc::Receiver<TimedOut>) {
    let timeouts = Timeouts { connect: Millis(connect), response: Millis(response) };
    let (limits, watched) = watch::channel(BTreeMap::from([(SERVICE, timeouts)]));
    (limits, kernel.timeout_scanner().spawn(watched).expect("a thread"))
}

/// All that the scanner reports within a second, but no more than four.
fn timed_out(inbox: &mut mpsc::Receiver<TimedOut>) -> Vec<TimedOut> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let mut all = Vec::new();
        let more = async {
            while all.len() < 4 {
                all.extend(inbox.recv().await);
            }
        };
        // The time being over is how it ends when there are fewer.
        let _ = tokio::time::timeout(Duration::from_secs(1), more).await;
        all
    })
}

/// The client asks, and the backend's stack has the request.
fn asks(kernel: &mut Kernel, connection: &mut Connection, request: &[u8]) {
    connection.send(kernel, ACK | PSH, request);
    connection.client_next = connection.client_next.wrapping_add(request.len() as u32);
    connection.reply(kernel, ACK, b"");
}

both_families!(a_syn_without_an_answer_is_reported_once);
fn a_syn_without_an_answer_is_reported_once() {
    let mut kernel = Kernel::new(1);
    let (_limits, mut inbox) = watched(&kernel, 200, 0);
    let silent = Connection::begin(&mut kernel, 1);
    // It comes again, and that changes nothing.
    let again = Tcp::new(silent.client, vip(), SYN).numbers(CLIENT_ISN, 0);
    kernel.run(&again.bytes());
    let open = Connection::open(&mut kernel, 2);
    open.send(&mut kernel, ACK | PSH, GET);
    let refused = Connection::begin(&mut kernel, 3);
    refused.reply(&mut kernel, RST | ACK, b"");
    let found = timed_out(&mut inbox);
    let [only] = &found[..] else { panic!("{found:?}") };
    assert_eq!((only.backend, only.generation), (BackendId(0), Generation(1)));
    assert_eq!(only.client, silent.client);
    assert_eq!(only.failure, L4Failure::ConnectTimeout);
}

both_families!(a_syn_that_may_end_on_its_way_is_not_watched);
fn a_syn_that_may_end_on_its_way_is_not_watched() {
    let mut kernel = Kernel::new(1);
    let (_limits, mut inbox) = watched(&kernel, 200, 0);
    // A sender who makes up a SYN chooses its TTL.
    for (n, ttl) in [(1, 2), (2, 32), (3, 33)] {
        let syn = Tcp { ttl, ..Tcp::new(client(n), vip(), SYN).numbers(CLIENT_ISN, 0) };
        assert_eq!(kernel.run(&syn.bytes()).0, Action::Redirect, "it is sent on all the same");
    }
    let found = timed_out(&mut inbox);
    assert_eq!(found.iter().map(|timed_out| timed_out.client).collect::<Vec<_>>(), [client(3)]);
}

both_families!(a_request_without_a_response_is_reported_once);
fn a_request_without_a_response_is_reported_once() {
    let mut kernel = Kernel::new(1);
    let (_limits, mut inbox) = watched(&kernel, 0, 200);
    let mut clients = Vec::new();
    for (n, request) in [(1, GET), (2, HELLO)] {
        let mut silent = Connection::open(&mut kernel, n);
        asks(&mut kernel, &mut silent, request);
        clients.push(silent.client);
    }
    let idle = Connection::open(&mut kernel, 3);
    idle.send(&mut kernel, ACK, b"");
    let mut answered = Connection::open(&mut kernel, 4);
    asks(&mut kernel, &mut answered, GET);
    answered.reply(&mut kernel, ACK | PSH, OK);
    let mut found = timed_out(&mut inbox);
    found.sort_by_key(|one| one.client);
    assert_eq!(found.iter().map(|one| one.client).collect::<Vec<_>>(), clients);
    assert!(found.iter().all(|one| one.failure == L4Failure::ResponseTimeout));
}

both_families!(an_upload_takes_its_time);
fn an_upload_takes_its_time() {
    let mut kernel = Kernel::new(1);
    let (_limits, mut inbox) = watched(&kernel, 0, 300);
    let mut slow = Connection::open(&mut kernel, 1);
    let mut send = |bytes: &[u8]| asks(&mut kernel, &mut slow, bytes);
    send(b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\n");
    // More of it comes all the time, for longer than an answer may take.
    for _ in 0..12 {
        thread::sleep(Duration::from_millis(60));
        send(b"some bytes");
    }
    assert!(inbox.try_recv().is_err(), "the client has not yet asked for anything");
    assert_eq!(timed_out(&mut inbox).len(), 1, "now it has");
}

both_families!(other_limits_report_nothing_twice);
fn other_limits_report_nothing_twice() {
    let mut kernel = Kernel::new(1);
    let (limits, mut inbox) = watched(&kernel, 0, 200);
    let mut silent = Connection::open(&mut kernel, 1);
    asks(&mut kernel, &mut silent, GET);
    assert_eq!(timed_out(&mut inbox).len(), 1);
    let timeouts = Timeouts { connect: Millis(0), response: Millis(1500) };
    limits.send_replace(BTreeMap::from([(SERVICE, timeouts)]));
    assert_eq!(timed_out(&mut inbox), []);
    assert_eq!(timed_out(&mut inbox), []);
}

both_families!(a_timeout_from_before_the_start_is_not_reported);
fn a_timeout_from_before_the_start_is_not_reported() {
    let mut kernel = Kernel::new(1);
    Connection::begin(&mut kernel, 1);
    thread::sleep(Duration::from_millis(150));
    let (_limits, mut inbox) = watched(&kernel, 100, 0);
    assert_eq!(timed_out(&mut inbox), []);
}

both_families!(a_full_map_is_read_whole);
fn a_full_map_is_read_whole() {
    let mut kernel = Kernel::new(1);
    let (_limits, mut inbox) = watched(&kernel, 300, 0);
    for n in 0..2000 {
        Connection::begin(&mut kernel, n);
    }
    let mut clients = BTreeSet::new();
    while clients.len() < 2000 {
        let some = timed_out(&mut inbox);
        assert!(!some.is_empty(), "only {} were reported", clients.len());
        for one in some {
            assert!(clients.insert(one.client), "{} twice", one.client);
        }
    }
}
