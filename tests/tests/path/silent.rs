//! Clients that wait for their backend, while the way to them changes.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    sync::mpsc,
    thread::JoinHandle,
};

use anyhow::{Context as _, Result, ensure};
use lb_lab::until;
use lb_tests::{lab::skipped, site::PATIENCE};

use crate::{CLIENTS, Line};

/// A connection on which, after one byte of the client, only the backend has something to say.
struct Silent {
    client: TcpStream,
    say: mpsc::Sender<u8>,
    server: JoinHandle<lb_lab::Result<io::Result<io::Result<()>>>>,
}

impl Silent {
    fn begin(line: &Line, family: usize) -> Result<Self> {
        let (say, order) = mpsc::channel();
        let (mut client, server) = line.connect(family, move |mut stream, _| {
            stream.read_exact(&mut [0])?;
            while let Ok(word) = order.recv() {
                stream.write_all(&[word])?;
            }
            Ok(())
        })?;
        client.write_all(b"?")?;
        Ok(Self { client, say, server })
    }

    /// The backend says something, and the client hears it.
    fn hears(&mut self, line: &Line, word: u8) -> Result<()> {
        self.say.send(word)?;
        let mut heard = [0];
        self.client.read_exact(&mut heard).with_context(|| format!("{word}: {}", line.shunt.log()))?;
        ensure!(heard == [word]);
        Ok(())
    }

    fn end(self) -> Result<()> {
        drop((self.say, self.client));
        Ok(self.server.join().expect("the server does not panic")???)
    }
}

/// Until the daemon follows these gateways.
fn are_known(line: &Line, gateways: [&str; 2]) -> Result<()> {
    for gateway in gateways.map(|gateway| format!("via={gateway}")) {
        let names = |line: &str| line.contains("follow this gateway") && line.contains(&gateway);
        until("the daemon knows the gateway", PATIENCE, || line.shunt.log().lines().any(names))?;
    }
    Ok(())
}

/// The gateway of a client changes its MAC.
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
    are_known(&line, ["10.2.0.1", "fd02::1"])?;
    for family in [0, 1] {
        let mut silent = Silent::begin(&line, family)?;
        for (word, next) in [(b'a', Some(1)), (b'b', Some(2)), (b'c', None)] {
            silent.hears(&line, word)?;
            if let Some(next) = next {
                line.near.ip(&format!("link set node address 02:5b:00:0{family}:88:{next:02x}"))?;
            }
        }
        silent.end()?;
    }
    ensure!(line.shunt.log().contains("to another MAC"), "{}", line.shunt.log());
    Ok(())
}

/// The node gets another route to a client: by another gateway, or the default one, because the interface of the route
/// is down.
#[test]
fn a_silent_client_is_followed_to_another_gateway() -> Result<()> {
    if skipped("a_silent_client_is_followed_to_another_gateway", &[]) {
        return Ok(());
    }
    for (family, near, other, back, prefix) in [
        (0, "10.2.0.1", "10.5.0.2", "10.7.0.1", "10.1.0.0/24"),
        (1, "fd02::1", "fd05::2", "fd07::1", "fd01::/64"),
    ] {
        for by_link in [false, true] {
            let line = Line::new("away", "nat")?;
            line.node.ip(&format!("route add default via {other}"))?;
            line.node.ip(&format!("route add {prefix} via {near}"))?;
            are_known(&line, [near, other])?;
            let mut silent = Silent::begin(&line, family)?;
            silent.hears(&line, b'a')?;
            // Acknowledgements, too, take the other way from here on.
            line.client.ip(&format!("route replace default via {back}"))?;
            if by_link {
                line.near.ip("link set node down")?;
            } else {
                line.node.ip(&format!("route replace {prefix} via {other}"))?;
                line.near.ip(&format!("route add blackhole {}", CLIENTS[family]))?;
            }
            let followed = "connections follow a route to another gateway";
            until("the daemon follows", PATIENCE, || line.shunt.log().contains(followed))
                .with_context(|| line.shunt.log())?;
            silent.hears(&line, b'b')?;
            silent.hears(&line, b'c')?;
            silent.end()?;
        }
    }
    Ok(())
}
