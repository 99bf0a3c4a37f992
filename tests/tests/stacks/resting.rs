//! More short connections than there are NAT ports: each goes by a port that rests.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_lab::{Host, Shunt, Topology, until};
use lb_tests::{
    lab::{shunt, skipped},
    scripted::Scripted,
    site::PATIENCE,
    socket::connect_from,
};

const PORTS: u16 = 16;
const CONNECTIONS: usize = 300;
const LIMIT: Duration = Duration::from_secs(10);

/// Clients whose time stamps begin anywhere, as Linux has them for each pair of addresses.
const CLIENTS: [&str; 3] = ["10.64.1.2", "10.64.2.2", "10.64.3.2"];
const CLIENTS6: [&str; 3] = ["fd64:1:1::2", "fd64:1:2::2", "fd64:1:3::2"];

#[test]
fn a_backend_accepts_connections_by_ports_that_rest() -> Result<()> {
    if skipped("a_backend_accepts_connections_by_ports_that_rest", &[]) {
        return Ok(());
    }
    is_accepted("rest4", &CLIENTS, "10.99.0.10:80", (Topology::address(0), 8080).into()).context("IPv4")?;
    is_accepted("rest6", &CLIENTS6, "[fd99::10]:80", (Topology::address6(0), 8080).into()).context("IPv6")
}

fn is_accepted(prefix: &str, clients: &[&str], vip: &str, backend: SocketAddr) -> Result<()> {
    let topology = Topology::new(prefix, &["web-0"])?;
    let (client, vip) = (&topology.client, vip.parse::<SocketAddr>()?);
    for address in clients {
        let length = if vip.is_ipv6() { "128 nodad" } else { "32" };
        client.ip(&format!("address add {address}/{length} dev lo"))?;
    }
    client.ip("link set lo up")?;
    // The server closes first, so its stack has each connection in TIME_WAIT for a minute.
    let _server = Scripted::start(&topology.backends[0], backend, |line| {
        if line.request()?.is_some() {
            line.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        }
        Ok(())
    })?;
    let last = 20_000 + PORTS - 1;
    let toml = format!(
        "interfaces = {:?}\nnat_ports = \"20000-{last}\"\n[service.web]\nvip = \"{vip}\"\nbackends.web-0 = \"{backend}\"\n",
        topology.devices
    );
    let shunt = Shunt::start(&topology.lab, &topology.node, shunt(), &toml)?;
    until("it is reachable", PATIENCE, || {
        shunt.status().is_ok_and(|status| status.traffic.iter().all(|traffic| traffic.reachable))
    })?;
    let before = resets(client)?;
    for number in 0..CONNECTIONS {
        let from: IpAddr = clients[number % clients.len()].parse()?;
        let answer = client.enter(move || -> std::io::Result<String> {
            let mut stream = connect_from(SocketAddr::new(from, 0), vip, LIMIT)?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })?;
        ensure!(answer?.starts_with("HTTP/1.1 200"), "connection {number}");
    }
    // A backend that refuses answers the SYN with an acknowledgement, and its client resets that.
    let refused = resets(client)? - before;
    ensure!(refused <= CONNECTIONS / 20, "{refused} of {CONNECTIONS} were refused first");
    Ok(())
}

/// How many resets a host has sent.
fn resets(host: &Host) -> Result<usize> {
    let text = host.enter(|| fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
    let at = names.split(' ').position(|name| name == "OutRsts").context("OutRsts")?;
    Ok(values.split(' ').nth(at).context("its value")?.parse()?)
}
