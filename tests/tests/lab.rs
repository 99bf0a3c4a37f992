//! The lab itself: hosts reach each other, and nothing remains.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::ExitStatusExt,
    panic,
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use lb_lab::{Lab, Topology, until};
use lb_tests::lab::{Need, at, nginx, own_devices, skipped};
use nix::sys::signal::Signal;

const PATIENCE: Duration = Duration::from_secs(20);

/// Namespaces, folders and processes that carry this name.
fn remains(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["/run/netns", "/tmp"] {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        found.extend(names.filter(|entry| entry.starts_with(name)).map(|entry| format!("{folder}/{entry}")));
    }
    found
}

#[test]
fn hosts_reach_each_other_through_a_routing_node() -> Result<()> {
    if skipped("hosts_reach_each_other_through_a_routing_node", &[]) {
        return Ok(());
    }
    let topology = Topology::new("reach", &["one", "two"])?;
    topology.route()?;
    for (number, host) in topology.backends.iter().enumerate() {
        let address = at(Topology::address(number), 8080);
        let listener = host.enter(|| TcpListener::bind(address))?.context("listening")?;
        let server = host.thread(move || -> std::io::Result<_> {
            let (mut stream, peer) = listener.accept()?;
            stream.write_all(b"hello")?;
            Ok(peer)
        });
        let text = topology.client.enter(|| -> std::io::Result<_> {
            let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })??;
        assert_eq!(text, "hello");
        let peer = server.join().expect("the server does not panic")??;
        assert_eq!(peer.ip().to_string(), "10.10.0.2", "routed, not translated");
    }
    Ok(())
}

#[test]
fn a_node_that_does_not_route_passes_nothing() -> Result<()> {
    if skipped("a_node_that_does_not_route_passes_nothing", &[]) {
        return Ok(());
    }
    let topology = Topology::new("closed", &["one"])?;
    let address = at(Topology::address(0), 8080);
    let _listener = topology.backends[0].enter(|| TcpListener::bind(address))??;
    let limit = Duration::from_millis(300);
    let passed = topology.client.enter(|| TcpStream::connect_timeout(&address, limit))?;
    assert_eq!(passed.map_err(|error| error.kind()).err(), Some(ErrorKind::TimedOut));
    assert!(topology.node.enter(|| TcpStream::connect_timeout(&address, PATIENCE))?.is_ok());
    Ok(())
}

#[test]
fn frames_carry_whole_checksums_and_neighbours_can_be_pinned() -> Result<()> {
    if skipped("frames_carry_whole_checksums_and_neighbours_can_be_pinned", &[]) {
        return Ok(());
    }
    let topology = Topology::new("frames", &["one"])?;
    for device in &topology.devices {
        let features = topology.node.run(&["ethtool", "-k", device])?;
        assert!(features.contains("tx-checksumming: off"), "{device}: {features}");
        assert!(features.contains("generic-receive-offload: on"), "{device}: {features}");
    }
    topology.lab.pin_neighbours()?;
    let neighbours = topology.client.ip("neighbour")?;
    assert!(neighbours.contains("10.10.0.1 dev node lladdr"), "{neighbours}");
    assert!(neighbours.contains("PERMANENT"), "{neighbours}");
    Ok(())
}

#[test]
fn nothing_remains_after_a_lab_and_the_root_namespace_is_untouched() -> Result<()> {
    if skipped("nothing_remains_after_a_lab_and_the_root_namespace_is_untouched", &[]) {
        return Ok(());
    }
    let before = own_devices();
    let topology = Topology::new("remains", &["one"])?;
    assert_eq!(own_devices(), before, "while the lab stands");
    let name = topology.lab.name().to_owned();
    assert!(!remains(&name).is_empty());
    // Nobody holds this process any more; the lab ends it all the same.
    let mut untracked = topology.node.command("sleep").arg("1000").spawn()?;
    let tracked = topology.client.spawn(topology.client.command("sleep").arg("1000"))?;
    let tracked_id = tracked.id();
    drop(topology);
    let ended = untracked.wait()?;
    assert!(ended.signal().is_some(), "{ended}");
    drop(tracked);
    assert!(!Path::new(&format!("/proc/{tracked_id}")).exists());
    assert_eq!(remains(&name), Vec::<String>::new());
    assert_eq!(own_devices(), before, "after it");
    Ok(())
}

#[test]
fn nothing_remains_after_a_panic() {
    if skipped("nothing_remains_after_a_panic", &[]) {
        return;
    }
    let mut name = String::new();
    let mut child = 0;
    let outcome = panic::catch_unwind(panic::AssertUnwindSafe(|| {
        let topology = Topology::new("panic", &["one"]).expect("a lab can be made");
        name = topology.lab.name().to_owned();
        let process = topology.node.spawn(topology.node.command("sleep").arg("1000"));
        child = process.expect("sleep starts").id();
        // The panic of a thread inside a namespace arrives here.
        let outcome = topology.client.enter(|| panic!("on purpose"));
        unreachable!("{outcome:?}");
    }));
    let panicked = outcome.expect_err("it panics on purpose");
    assert_eq!(panicked.downcast_ref::<&str>(), Some(&"on purpose"));
    assert_eq!(remains(&name), Vec::<String>::new());
    assert!(!Path::new(&format!("/proc/{child}")).exists());
}

#[test]
fn the_next_lab_removes_what_a_killed_one_left() -> Result<()> {
    if skipped("the_next_lab_removes_what_a_killed_one_left", &[]) {
        return Ok(());
    }
    // A process that has ended for certain lends its number.
    let mut short = Command::new("true").spawn()?;
    let dead = short.id();
    short.wait()?;
    let left = format!("shunt-killed-{dead}-0-client");
    let made = Command::new("ip").args(["netns", "add", &left]).status()?;
    assert!(made.success());
    fs::create_dir(std::env::temp_dir().join(format!("shunt-killed-{dead}-0")))?;
    let own = Lab::new("sweep")?;
    assert_eq!(remains(&format!("shunt-killed-{dead}")), Vec::<String>::new());
    assert!(own.folder().exists());
    Ok(())
}

#[test]
fn programs_end_when_they_are_asked_to() -> Result<()> {
    if skipped("programs_end_when_they_are_asked_to", &[]) {
        return Ok(());
    }
    let mut lab = Lab::new("ends")?;
    let host = lab.host("only")?;
    let mut polite = host.spawn(host.command("sleep").arg("1000"))?;
    assert_eq!(polite.stop(PATIENCE)?.signal(), Some(Signal::SIGTERM as i32));
    // Written once the trap stands, so that the signal cannot come before it.
    let ready = lab.folder().join("ready");
    let script = format!("trap '' TERM; : > {}; sleep 1000", ready.display());
    let mut stubborn = host.spawn(host.command("sh").arg("-c").arg(script))?;
    until("the trap stands", PATIENCE, || ready.exists())?;
    assert_eq!(stubborn.stop(Duration::from_millis(100))?.signal(), Some(Signal::SIGKILL as i32));
    Ok(())
}

#[test]
fn nginx_serves_inside() -> Result<()> {
    if skipped("nginx_serves_inside", &[Need::Tool("nginx"), Need::Tool("curl")]) {
        return Ok(());
    }
    let topology = Topology::new("nginx", &["web"])?;
    let address = at(Topology::address(0), 8080);
    let server = format!("server {{ listen {address}; location / {{ return 200 'served\\n'; }} }}");
    let _nginx = nginx(&topology.lab, &topology.backends[0], address, &server)?;
    let text = topology.node.run(&["curl", "--silent", "--max-time", "5", &format!("http://{address}/")])?;
    assert_eq!(text, "served\n");
    Ok(())
}
