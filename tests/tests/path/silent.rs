//! Clients that wait for their backend, while the way to them changes.

use std::{
    io::{Read as _, Write as _},
    sync::mpsc,
};

use anyhow::{Context as _, Result, ensure};
use lb_lab::until;
use lb_tests::{lab::skipped, site::PATIENCE};

use crate::{CLIENTS, Line};

/// The gateway of a client changes its MAC while only the backend has something to say.
#[test]
fn a_silent_client_is_followed_to_another_mac() -> Result<()> {
    if skipped("a_silent_client_is_followed_to_another_mac", &[]) {
        return Ok(());
    }
    let line = Line::new("silent", "nat")?;
    line.node.ip("route add default via 10.2.0.1")?;
    line.node.ip("route add default via fd02::1")?;
    line.near.sysctl("net/ipv4/conf/node/arp_notify", "1")?;
    line.near.sysctl("net/ipv6/conf/node/ndisc_notify", "1")?;
    for gateway in ["via=10.2.0.1", "via=fd02::1"] {
        until("the daemon knows the gateway", PATIENCE, || {
            line.shunt
                .log()
                .lines()
                .any(|line| line.contains("follow this gateway") && line.contains(gateway))
        })?;
    }
    for family in [0, 1] {
        let (say, order) = mpsc::channel();
        let (mut stream, server) = line.connect(family, move |mut stream, _| {
            let mut word = [0];
            stream.read_exact(&mut word)?;
            while let Ok(word) = order.recv() {
                stream.write_all(&[word])?;
            }
            Ok::<_, std::io::Error>(())
        })?;
        stream.write_all(b"?")?;
        for (word, next) in [(b'a', Some(1)), (b'b', Some(2)), (b'c', None)] {
            say.send(word)?;
            let mut heard = [0];
            stream.read_exact(&mut heard).with_context(|| format!("{word}: {}", line.shunt.log()))?;
            ensure!(heard == [word]);
            if let Some(next) = next {
                line.near.ip(&format!("link set node address 02:5b:00:0{family}:88:{next:02x}"))?;
            }
        }
        drop((say, stream));
        server.join().expect("the server does not panic")???;
    }
    ensure!(line.shunt.log().contains("to another MAC"), "{}", line.shunt.log());
    Ok(())
}

/// The node gets another route to a client while only the backend has something to say: another gateway, and then the
/// default one, because the interface of the route is down.
#[test]
fn a_silent_client_is_followed_to_another_gateway() -> Result<()> {
    if skipped("a_silent_client_is_followed_to_another_gateway", &[]) {
        return Ok(());
    }
    for (family, near, other) in [(0, "10.2.0.1", "10.5.0.2"), (1, "fd02::1", "fd05::2")] {
        let prefix = CLIENTS[family].replace(['2'], "0");
        let (length, back) = if family == 0 { (24, "10.7.0.1") } else { (64, "fd07::1") };
        for by_link in [false, true] {
            let line = Line::new(if family == 0 { "away4" } else { "away6" }, "nat")?;
            line.node.ip(&format!("route add default via {other}"))?;
            line.node.ip(&format!("route add {prefix}/{length} via {near}"))?;
            let (say, order) = mpsc::channel();
            let (mut stream, server) = line.connect(family, move |mut stream, _| {
                let mut word = [0];
                stream.read_exact(&mut word)?;
                while let Ok(word) = order.recv() {
                    stream.write_all(&[word])?;
                }
                Ok::<_, std::io::Error>(())
            })?;
            stream.write_all(b"?")?;
            for gateway in [near, other] {
                until("the daemon knows the gateway", PATIENCE, || {
                    let known = |line: &str| line.contains("follow this gateway") && line.contains(gateway);
                    line.shunt.log().lines().any(known)
                })?;
            }
            let mut hears = |word: u8| -> Result<()> {
                say.send(word)?;
                let mut heard = [0];
                stream.read_exact(&mut heard).with_context(|| format!("{word}: {}", line.shunt.log()))?;
                ensure!(heard == [word]);
                Ok(())
            };
            hears(b'a')?;
            // Acknowledgements, too, take the other way from here on.
            line.client.ip(&format!("route replace default via {back}"))?;
            if by_link {
                line.near.ip("link set node down")?;
            } else {
                line.node.ip(&format!("route replace {prefix}/{length} via {other}"))?;
                line.near.ip(&format!("route add blackhole {}", CLIENTS[family]))?;
            }
            let followed = "connections follow a route to another gateway";
            until("the daemon follows", PATIENCE, || line.shunt.log().contains(followed))
                .with_context(|| line.shunt.log())?;
            hears(b'b')?;
            hears(b'c')?;
            drop((say, stream));
            server.join().expect("the server does not panic")???;
        }
    }
    Ok(())
}
