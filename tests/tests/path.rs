//! Routers on both sides of the node: path MTU, next hops, and whose address a backend sees. Real daemon,
//! real stacks.

#[path = "path/silent.rs"]
mod silent;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_lab::{Host, Lab, Shunt, until};
use lb_tests::{
    http,
    lab::{Need, shunt, skipped},
    site::PATIENCE,
};

const LENGTH: usize = 24 << 20;

/// ```text
///   client ── near ── node ── far ── backend
///   │ 10.1.0.2   10.2.0.2     10.3.0.2   10.4.0.2
///   │                   └── other ──┘
///   └── 10.7.0.1 ── 10.5.0.2   10.6.0.2
/// ```
///
/// The routers' own addresses end in 1 towards client and backend. IPv6 is `fdNN::` of the same. Fields end
/// in this order.
struct Line {
    shunt: Shunt,
    client: Host,
    near: Host,
    node: Host,
    far: Host,
    backend: Host,
    _lab: Lab,
}

/// The two services: of one server each, in each family.
const VIPS: [&str; 2] = ["10.99.0.10:80", "[fd99::10]:80"];
const SERVERS: [&str; 2] = ["10.4.0.2:8080", "[fd04::2]:8080"];
const CLIENTS: [&str; 2] = ["10.1.0.2", "fd01::2"];
const NODES: [&str; 2] = ["10.3.0.1", "fd03::1"];

fn pattern(at: usize) -> u8 {
    (at ^ at >> 8 ^ at >> 16) as u8
}

impl Line {
    fn new(prefix: &str, mode: &str) -> Result<Self> {
        let mut lab = Lab::new(prefix)?;
        let [client, near, node, far, other, backend] =
            ["client", "near", "node", "far", "other", "backend"].map(|name| lab.host(name));
        let (client, near, node) = (client?, near?, node?);
        let (far, other, backend) = (far?, other?, backend?);
        for router in [&near, &far, &other] {
            router.sysctl("net/ipv4/ip_forward", "1")?;
            router.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        }
        let wires = [
            (1, &client, 2, &near, 1),
            (2, &near, 1, &node, 2),
            (3, &node, 1, &far, 2),
            (4, &far, 1, &backend, 2),
            (5, &node, 1, &other, 2),
            (6, &other, 1, &backend, 2),
            (7, &client, 2, &other, 1),
        ];
        for (net, a, a_is, b, b_is) in wires {
            let ends =
                lab.link((a, &format!("10.{net}.0.{a_is}/24")), (b, &format!("10.{net}.0.{b_is}/24")))?;
            for (end, is) in ends.iter().zip([a_is, b_is]) {
                end.host.ip(&format!("address add fd0{net}::{is}/64 dev {} nodad", end.device))?;
            }
        }
        for (host, via) in [
            (&client, [(1, 1)].as_slice()),
            (&near, &[(2, 2)]),
            (&far, &[(3, 1)]),
            (&other, &[(5, 1)]),
            (&backend, &[(4, 1)]),
        ] {
            for (net, is) in via {
                host.ip(&format!("route add default via 10.{net}.0.{is}"))?;
                host.ip(&format!("route add default via fd0{net}::{is}"))?;
            }
        }
        node.ip("route add 10.4.0.0/24 via 10.3.0.2")?;
        node.ip("route add fd04::/64 via fd03::2")?;
        // The other way there, for who is sent by it.
        other.ip("route add 10.4.0.2 via 10.6.0.2")?;
        other.ip("route add fd04::2 via fd06::2")?;
        // And to the client.
        other.ip("route add 10.1.0.2 via 10.7.0.2")?;
        other.ip("route add fd01::2 via fd07::2")?;

        let mut toml = "interfaces = [\"near\", \"far\", \"other\"]\n".to_owned();
        for (name, (vip, server)) in ["four", "six"].iter().zip(VIPS.iter().zip(SERVERS)) {
            toml += &format!("[service.{name}]\nvip = {vip:?}\nmode = {mode:?}\n");
            toml += &format!("[service.{name}.backends]\nonly = {server:?}\n");
        }
        let shunt = Shunt::start(&lab, &node, shunt(), &toml)?;
        Ok(Self { shunt, client, near, node, far, backend, _lab: lab })
    }

    /// One connection through a VIP: the client's end, and what the server makes of its own.
    fn connect<T: Send + 'static>(
        &self,
        family: usize,
        serve: impl FnOnce(TcpStream, SocketAddr) -> T + Send + 'static,
    ) -> Result<(TcpStream, JoinHandle<lb_lab::Result<std::io::Result<T>>>)> {
        let at: SocketAddr = SERVERS[family].parse()?;
        let listener = self.backend.enter(|| TcpListener::bind(at))?.context("listening")?;
        let vip: SocketAddr = VIPS[family].parse()?;
        let server = self.backend.thread(move || {
            let (stream, from) = listener.accept()?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(serve(stream, from))
        });
        let mut stream = None;
        until("the VIP accepts", PATIENCE, || {
            stream = http::connect(&self.client, vip, Duration::from_secs(1)).ok();
            stream.is_some()
        })?;
        let stream = stream.context("connected")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok((stream, server))
    }

    /// Whether one short exchange through a VIP succeeds at once.
    fn answers(&self, family: usize) -> bool {
        let Ok(at) = SERVERS[family].parse::<SocketAddr>() else { return false };
        let Ok(Ok(listener)) = self.backend.enter(|| TcpListener::bind(at)) else { return false };
        let vip = VIPS[family].parse().expect("a literal");
        let connected = http::connect(&self.client, vip, Duration::from_millis(200)).is_ok();
        drop(listener);
        connected
    }

    /// The daemon's path warnings about both backends.
    fn path_warnings(&self) -> Vec<String> {
        let status = self.shunt.status().ok();
        let traffic = status.into_iter().flat_map(|status| status.traffic);
        traffic.filter_map(|traffic| traffic.path_warning).collect()
    }

    fn worries(&self, about: &str) -> Result<()> {
        until(about, PATIENCE, || {
            let warnings = self.path_warnings();
            warnings.len() == 2 && warnings.iter().all(|path_warning| path_warning.contains(about))
        })?;
        Ok(until("the log says it too", PATIENCE, || self.shunt.log().contains(about))?)
    }

    /// Until connections succeed again.
    fn recovers(&self, what: &str) -> Result<()> {
        for family in [0, 1] {
            until(what, PATIENCE, || self.answers(family)).with_context(|| self.shunt.log())?;
        }
        Ok(())
    }
}

fn send(stream: &mut TcpStream) -> std::io::Result<()> {
    let bytes: Vec<u8> = (0..LENGTH).map(pattern).collect();
    stream.write_all(&bytes)
}

fn receive(stream: &mut TcpStream, mut early: impl FnMut()) -> std::io::Result<bool> {
    let mut bytes = vec![0; LENGTH];
    stream.read_exact(&mut bytes[..1 << 20])?;
    early();
    stream.read_exact(&mut bytes[1 << 20..])?;
    Ok(bytes.iter().enumerate().all(|(at, byte)| *byte == pattern(at)))
}

/// In each mode, each family and each direction.
fn path_mtu_shrinks(prefix: &str, mode: &str) -> Result<()> {
    let line = Line::new(prefix, mode)?;
    for family in [0, 1] {
        let (client, node): (IpAddr, IpAddr) = (CLIENTS[family].parse()?, NODES[family].parse()?);
        let seen = if mode == "dnat" { client } else { node };

        // From the backend: the router before the client has the narrow link.
        let (mut stream, server) = line.connect(family, |mut stream, from| (send(&mut stream), from.ip()))?;
        let near = line.near.clone();
        let whole = receive(&mut stream, || {
            near.ip("link set client mtu 1280").expect("the link takes it");
        });
        let (sent, from) = server.join().expect("the server does not panic")??;
        assert_eq!(from, seen, "{mode}: whose address the backend sees");
        if mode == "nat" && from.is_ipv6() {
            // No router fragments, and the backend must not learn an MTU for all clients.
            let end = whole.expect_err("the client must ask for smaller segments").kind();
            assert_eq!(end, ErrorKind::ConnectionReset);
            sent.expect_err("the host resets the other half");
            let (mut stream, server) = line.connect(family, |mut stream, _| send(&mut stream))?;
            let whole = receive(&mut stream, || {});
            assert!(whole.context("the next download is whole")?, "every byte is as it was sent");
            server.join().expect("the server does not panic")???;
        } else {
            assert!(whole.context("the download goes on")?, "every byte is as it was sent");
            sent?;
        }
        let learned = line.backend.ip(&format!("route get {seen}"))?;
        assert_eq!(learned.contains("mtu 1280"), mode == "dnat", "{mode}: the backend learned: {learned}");
        line.near.ip("link set client mtu 1500")?;
        // Else it asks for small segments from the start.
        line.backend.ip("route flush cache")?;
        line.backend.ip("-6 route flush cache")?;

        // From the client: the router before the backend has it.
        let (mut stream, server) = line.connect(family, {
            let far = line.far.clone();
            move |mut stream, _| {
                receive(&mut stream, || {
                    far.ip("link set backend mtu 1280").expect("the link takes it");
                })
            }
        })?;
        send(&mut stream).context("the upload goes on")?;
        assert!(server.join().expect("the server does not panic")???, "every byte is as it was sent");
        let vip: SocketAddr = VIPS[family].parse()?;
        let learned = line.client.ip(&format!("route get {}", vip.ip()))?;
        assert!(learned.contains("mtu 1280"), "{mode}: the client learned: {learned}");
        line.far.ip("link set backend mtu 1500")?;
    }
    Ok(())
}

#[test]
fn the_path_mtu_shrinks_in_the_middle_of_a_transfer_in_nat() -> Result<()> {
    if skipped("the_path_mtu_shrinks_in_the_middle_of_a_transfer_in_nat", &[]) {
        return Ok(());
    }
    path_mtu_shrinks("mtunat", "nat")
}

#[test]
fn the_path_mtu_shrinks_in_the_middle_of_a_transfer_in_dnat() -> Result<()> {
    if skipped("the_path_mtu_shrinks_in_the_middle_of_a_transfer_in_dnat", &[]) {
        return Ok(());
    }
    path_mtu_shrinks("mtudnat", "dnat")
}

/// A host that changes its MAC announces it, as a host that takes over an address does.
#[test]
fn changed_macs_and_gateways_are_followed() -> Result<()> {
    if skipped("changed_macs_and_gateways_are_followed", &[]) {
        return Ok(());
    }
    let line = Line::new("hops", "nat")?;
    for family in [0, 1] {
        until("the VIP accepts", PATIENCE, || line.answers(family))?;
    }
    line.far.sysctl("net/ipv4/conf/node/arp_notify", "1")?;
    line.far.sysctl("net/ipv6/conf/node/ndisc_notify", "1")?;
    for last in [1, 2] {
        line.far.ip(&format!("link set node address 02:5b:00:00:77:{last:02x}"))?;
        line.recovers("following a changed MAC")?;
    }
    // From here on `far` carries nothing to the backend, and the backend answers by the new way too. Replies by
    // another way than the one to their backend would be dropped.
    line.far.ip("route add blackhole 10.4.0.2/32")?;
    line.far.ip("route add blackhole fd04::2/128")?;
    assert!(!line.answers(0) && !line.answers(1), "the former way is closed");
    line.node.ip("route replace 10.4.0.0/24 via 10.5.0.2")?;
    line.node.ip("route replace fd04::/64 via fd05::2")?;
    line.backend.ip("route replace default via 10.6.0.1")?;
    line.backend.ip("route replace default via fd06::1")?;
    line.recovers("following a changed gateway")
}

/// The backend answers by an uplink of its own choice, and the node does not forward.
#[test]
fn a_backend_answers_by_any_way_that_leads_to_it() -> Result<()> {
    if skipped("a_backend_answers_by_any_way_that_leads_to_it", &[]) {
        return Ok(());
    }
    let line = Line::new("uplinks", "nat")?;
    for family in [0, 1] {
        until("the VIP accepts", PATIENCE, || line.answers(family))?;
    }
    let answers = |what: &str| -> Result<()> {
        for (v4, v6) in [("10.4.0.1", "fd04::1"), ("10.6.0.1", "fd06::1")] {
            line.backend.ip(&format!("route replace default via {v4}"))?;
            line.backend.ip(&format!("route replace default via {v6}"))?;
            for family in [0, 1] {
                until(what, PATIENCE, || line.answers(family)).with_context(|| line.shunt.log())?;
            }
        }
        Ok(())
    };
    // Two paths of one route.
    line.node.ip("route replace 10.4.0.0/24 nexthop via 10.3.0.2 nexthop via 10.5.0.2")?;
    line.node.ip("route delete fd04::/64")?;
    line.node.ip("route add fd04::/64 nexthop via fd03::2 nexthop via fd05::2")?;
    answers("by each path of a route")?;
    // Two routes, of which the node itself uses one.
    line.node.ip("route replace 10.4.0.0/24 via 10.3.0.2")?;
    line.node.ip("route add 10.4.0.0/24 via 10.5.0.2 metric 500")?;
    line.node.ip("route delete fd04::/64")?;
    line.node.ip("route add fd04::/64 via fd03::2 metric 100")?;
    line.node.ip("route add fd04::/64 via fd05::2 metric 500")?;
    answers("by the route of another metric")
}

#[test]
fn a_path_that_cannot_work_is_reported_with_its_remedy() -> Result<()> {
    // The kernel reports which devices accept redirected frames.
    if skipped("a_path_that_cannot_work_is_reported_with_its_remedy", &[Need::Kernel(6, 3)]) {
        return Ok(());
    }
    let line = Line::new("worry", "nat")?;
    for family in [0, 1] {
        until("the VIP accepts", PATIENCE, || line.answers(family))?;
    }
    assert_eq!(line.path_warnings(), Vec::<String>::new());
    line.far.run(&["ethtool", "-K", "node", "gro", "off"])?;
    line.worries("switch GRO on")?;
    line.far.run(&["ethtool", "-K", "node", "gro", "on"])?;
    until("there is nothing to worry about", PATIENCE, || line.path_warnings().is_empty())?;
    drop(line);
    Line::new("behind", "dnat")?.worries("behind a router")
}
