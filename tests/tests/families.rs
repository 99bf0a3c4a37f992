//! IPv6 from end to end: the real daemon, real sockets, and the breaker's view of it.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_core::{event::EventKind, snapshot::ProbeState};
use lb_lab::{
    Shunt, Topology,
    backend::{Args, Mode, Remote},
    until, until_ok,
};
use lb_tests::{
    http,
    lab::{lab_backend, shunt, skipped},
    site::{NAMES, PATIENCE},
};

const VIP: &str = "[fd99::10]:80";

/// Two web servers behind an IPv6 VIP. Fields end in this order.
struct Site {
    backends: Vec<Remote>,
    shunt: Shunt,
    topology: Topology,
}

impl Site {
    fn new(prefix: &str) -> Result<Self> {
        let topology = Topology::new(prefix, &NAMES[..2])?;
        let mut backends = Vec::new();
        let mut toml = format!(
            "interfaces = {:?}\n[service.web]\nvip = {VIP:?}\non_eject = \"drain\"\n",
            topology.devices
        );
        toml += "[service.web.backends]\n";
        for (number, host) in topology.backends.iter().enumerate() {
            let listen = SocketAddr::new(Topology::address6(number).into(), 8080);
            let args = Args {
                listen,
                name: NAMES[number].to_owned(),
                mode: Mode::Ok,
                broken: 1.0,
                seed: 1,
                probe_path: "/healthz".to_owned(),
            };
            backends.push(Remote::start(host, lab_backend(), &args)?);
            toml += &format!("{} = \"{listen}\"\n", NAMES[number]);
        }
        toml += "[service.web.probe.http]\npath = \"/healthz\"\ninterval = \"500ms\"\n\
                 [service.web.breaker]\nconsecutive_5xx = 3\nbase_ejection_time = \"60s\"\n";
        let shunt = Shunt::start(&topology.lab, &topology.node, shunt(), &toml)?;
        let site = Self { backends, shunt, topology };
        until("all backends are up", PATIENCE, || {
            site.shunt.status().is_ok_and(|status| {
                status.snapshot.services[0].backends.iter().all(|backend| backend.probe == ProbeState::Up)
            })
        })?;
        Ok(site)
    }
}

#[test]
fn a_connection_is_carried_and_its_answers_are_seen() -> Result<()> {
    if skipped("a_connection_is_carried_and_its_answers_are_seen", &[]) {
        return Ok(());
    }
    let mut site = Site::new("six")?;
    let vip: SocketAddr = VIP.parse()?;
    let client = &site.topology.client;
    until_ok("the VIP answers", PATIENCE, || http::get(client, vip, "/").map_err(|error| error.to_string()))?;
    // Kept alive, so that each answer is found in the stream.
    let mut stream = http::connect(client, vip, PATIENCE)?;
    for _ in 0..20 {
        let answer = http::ask(&mut stream, "GET /")?;
        assert_eq!(answer.status, 200);
    }
    drop(stream);
    let events = site.shunt.events()?;
    site.backends[1].fail()?;
    until("a bad answer comes", PATIENCE, || {
        http::get(client, vip, "/").is_ok_and(|answer| answer.status >= 500)
    })?;
    for _ in 0..100 {
        // Until the third bad answer has been seen, some are bad.
        http::get(client, vip, "/")?;
    }
    let (heard, _) = events.wait("web-1 is ejected", 0, PATIENCE, |event| {
        event.kind == EventKind::Eject && event.backend.as_deref() == Some("web-1")
    })?;
    assert_eq!(heard.event.reason, "consecutive_5xx");
    for _ in 0..20 {
        assert_eq!(http::get(client, vip, "/")?.status, 200);
    }
    Ok(())
}

#[test]
fn a_large_transfer_arrives_whole() -> Result<()> {
    if skipped("a_large_transfer_arrives_whole", &[]) {
        return Ok(());
    }
    transfer(Topology::new("bulk", &NAMES[..1])?, 1500)
}

/// Frames of more than a page come in several buffers.
#[test]
fn jumbo_frames_are_carried() -> Result<()> {
    if skipped("jumbo_frames_are_carried", &[]) {
        return Ok(());
    }
    let topology = Topology::new("jumbo", &NAMES[..1])?;
    let Topology { client, node, backends, devices, .. } = &topology;
    let ends = [(client, "node"), (node, &*devices[0]), (node, &*devices[1]), (&backends[0], "node")];
    for (host, device) in ends {
        host.ip(&format!("link set {device} mtu 9000"))?;
    }
    transfer(topology, 9000)
}

/// Many bytes from a backend, in segments that fill links of this MTU.
fn transfer(topology: Topology, mtu: usize) -> Result<()> {
    const LENGTH: usize = 32 << 20;
    let listen = SocketAddr::new(Topology::address6(0).into(), 8080);
    let listener = topology.backends[0].enter(|| TcpListener::bind(listen))?.context("listening")?;
    let pattern = |at: usize| (at ^ at >> 8 ^ at >> 16) as u8;
    let server = topology.backends[0].thread(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.write_all(&(0..LENGTH).map(pattern).collect::<Vec<u8>>())
    });
    let toml = format!(
        "interfaces = {:?}\n[service.bulk]\nvip = {VIP:?}\n[service.bulk.backends]\nweb-0 = \"{listen}\"\n",
        topology.devices
    );
    let shunt = Shunt::start(&topology.lab, &topology.node, shunt(), &toml)?;
    let vip: SocketAddr = VIP.parse()?;
    let mut stream = None;
    until("the VIP accepts", PATIENCE, || {
        stream = http::connect(&topology.client, vip, Duration::from_secs(1)).ok();
        stream.is_some()
    })?;
    let mut body = Vec::new();
    let mut stream = stream.context("connected")?;
    // The bytes are made first.
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_to_end(&mut body)?;
    // With time stamps; some segments are shorter, and the handshake has none.
    let traffic = shunt.status()?.traffic[0].counters;
    let mean = traffic.bytes_from / traffic.packets_from;
    assert!(mean as usize > mtu * 3 / 4, "{mean} bytes a datagram");
    assert_eq!(body.len(), LENGTH);
    assert!(body.iter().enumerate().all(|(at, byte)| *byte == pattern(at)), "every byte is as it was sent");
    server.join().expect("the server does not panic")??;
    drop(shunt);
    Ok(())
}
