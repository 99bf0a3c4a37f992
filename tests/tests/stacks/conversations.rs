//! How connections begin, end and begin again.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver},
    },
};

use anyhow::{Context as _, Result};
use lb_lab::Host;
use lb_tests::{
    http::connect,
    lab::skipped,
    scripted::Scripted,
    socket::{accept_fast, connect_fast, connect_from, end_by_reset, was_fast},
};

use crate::stage::{PATIENCE, Stage, backend, backend6, other_vip, vip, vip6};

/// Says back, in capitals, what it has heard until the client's end of speaking.
fn echo(host: &Host, listen: SocketAddr) -> Result<Scripted> {
    Ok(Scripted::start(host, listen, |line| {
        let mut heard = Vec::new();
        line.stream().read_to_end(&mut heard)?;
        heard.make_ascii_uppercase();
        line.stream().write_all(&heard)
    })?)
}

fn client_address(of: SocketAddr, port: u16) -> SocketAddr {
    if of.is_ipv4() {
        (Ipv4Addr::new(10, 10, 0, 2), port).into()
    } else {
        (Ipv6Addr::new(0xfd10, 0, 0, 0, 0, 0, 0, 2), port).into()
    }
}

#[test]
fn a_client_that_has_spoken_still_gets_the_answer() -> Result<()> {
    const LENGTH: usize = 4 << 20;
    if skipped("a_client_that_has_spoken_still_gets_the_answer", &[]) {
        return Ok(());
    }
    let stage = Stage::new("half", 1)?;
    let host = &stage.topology.backends[0];
    let _echoes = [echo(host, backend(0))?, echo(host, backend6(0))?];
    for vip in [vip(), vip6()] {
        let mut stream = connect(&stage.topology.client, vip, PATIENCE)?;
        let said: Vec<u8> = (0..LENGTH).map(|at| b'a' + ((at ^ at >> 9) % 26) as u8).collect();
        stream.write_all(&said)?;
        stream.shutdown(Shutdown::Write)?;
        // Nothing of the answer is sent before the backend has our FIN.
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard)?;
        assert!(heard == said.to_ascii_uppercase(), "{vip}: {} of {LENGTH} bytes", heard.len());
    }
    Ok(())
}

#[test]
fn a_backend_that_has_spoken_still_hears_the_client() -> Result<()> {
    const LENGTH: usize = 4 << 20;
    if skipped("a_backend_that_has_spoken_still_hears_the_client", &[]) {
        return Ok(());
    }
    let stage = Stage::new("otherhalf", 1)?;
    let (sender, heard) = mpsc::channel();
    let sender = Mutex::new(sender);
    let _server = Scripted::start(&stage.topology.backends[0], backend(0), move |line| {
        line.stream().write_all(b"hello")?;
        line.stream().shutdown(Shutdown::Write)?;
        let mut rest = Vec::new();
        line.stream().read_to_end(&mut rest)?;
        // The waiting thread is there until it has come, or has failed already.
        let _ = sender.lock().expect("no holder panics").send(rest);
        Ok(())
    })?;
    let mut stream = connect(&stage.topology.client, vip(), PATIENCE)?;
    let mut hello = Vec::new();
    stream.read_to_end(&mut hello)?;
    assert_eq!(hello, b"hello");
    let said: Vec<u8> = (0..LENGTH).map(|at| (at ^ at >> 9) as u8).collect();
    stream.write_all(&said)?;
    drop(stream);
    let heard = heard.recv_timeout(PATIENCE)?;
    assert!(heard == said, "{} of {LENGTH} bytes", heard.len());
    Ok(())
}

/// Whether the first data came with the SYN, and the data.
type Heard = std::io::Result<(bool, Vec<u8>)>;

/// Listens for fast opens; reports what each connection sent.
fn fast_server(host: &Host, listen: SocketAddr) -> Result<Receiver<Heard>> {
    let listener = host.enter(|| TcpListener::bind(listen))?.context("listening")?;
    accept_fast(&listener)?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let serve = || {
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut heard = [0; 64];
            let length = stream.read(&mut heard)?;
            stream.write_all(b"answer")?;
            Ok((was_fast(&stream)?, heard[..length].to_vec()))
        };
        // Ends when nobody listens to it any more.
        while sender.send(serve()).is_ok() {}
    });
    Ok(receiver)
}

#[test]
fn data_goes_with_the_first_segment() -> Result<()> {
    const ROUNDS: usize = 20;
    if skipped("data_goes_with_the_first_segment", &[]) {
        return Ok(());
    }
    let stage = Stage::new("fastopen", 1)?;
    for host in [&stage.topology.client, &stage.topology.backends[0]] {
        // Bits: as a client, as a server. A path that once lost such a SYN is not avoided.
        host.sysctl("net/ipv4/tcp_fastopen", "3")?;
        host.sysctl("net/ipv4/tcp_fastopen_blackhole_timeout_sec", "0")?;
    }
    for (vip, listen) in [(vip(), backend(0)), (vip6(), backend6(0))] {
        let receiver = fast_server(&stage.topology.backends[0], listen)?;
        let mut fast = 0;
        for round in 0..ROUNDS {
            let mut stream = stage.topology.client.enter(|| connect_fast(vip, PATIENCE))??;
            stream.write_all(b"question")?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            assert_eq!(answer, b"answer", "{vip}, round {round}");
            let (with_syn, heard) = receiver.recv_timeout(PATIENCE)??;
            assert_eq!(heard, b"question");
            assert_eq!(with_syn, was_fast(&stream)?, "both ends say the same");
            fast += usize::from(with_syn);
        }
        // The first one fetches the cookie.
        assert_eq!(fast, ROUNDS - 1, "{vip}");
    }
    Ok(())
}

#[test]
fn two_services_share_a_backend() -> Result<()> {
    if skipped("two_services_share_a_backend", &[]) {
        return Ok(());
    }
    let stage = Stage::new("shared", 1)?;
    let peers = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&peers);
    let _server = Scripted::start(&stage.topology.backends[0], backend(0), move |line| {
        let peer = line.stream().peer_addr()?;
        assert!(seen.lock().expect("no holder panics").insert(peer), "{peer} twice at a time");
        let mut heard = Vec::new();
        line.stream().read_to_end(&mut heard)?;
        line.stream().write_all(&heard)
    })?;
    // Each port of the client is used for both at the same time.
    let mut open = Vec::new();
    for port in 40_000..40_100 {
        for vip in [vip(), other_vip()] {
            let from = client_address(vip, port);
            let mut stream = stage.topology.client.enter(|| connect_from(from, vip, PATIENCE))??;
            let said = format!("{port} to {vip}");
            stream.write_all(said.as_bytes())?;
            open.push((stream, said));
        }
    }
    for (mut stream, said) in open {
        stream.shutdown(Shutdown::Write)?;
        let mut heard = String::new();
        stream.read_to_string(&mut heard)?;
        assert_eq!(heard, said);
    }
    assert_eq!(peers.lock().expect("no holder panics").len(), 200);
    Ok(())
}

#[test]
fn a_client_uses_its_port_again_at_once() -> Result<()> {
    const ROUNDS: usize = 100;
    if skipped("a_client_uses_its_port_again_at_once", &[]) {
        return Ok(());
    }
    let stage = Stage::new("again", 1)?;
    let hosts = &stage.topology;
    // Closes first, so that the backend has each connection in TIME_WAIT.
    let speaks_first = |listen| {
        Scripted::start(&hosts.backends[0], listen, |line| {
            line.stream().write_all(b"bye")?;
            line.stream().shutdown(Shutdown::Write)?;
            line.stream().read_to_end(&mut Vec::new())?;
            Ok(())
        })
    };
    let _servers = [speaks_first(backend(0))?, speaks_first(backend6(0))?];
    for vip in [vip(), vip6()] {
        for round in 0..ROUNDS {
            let from = client_address(vip, 45_000);
            let mut stream = hosts
                .client
                .enter(|| connect_from(from, vip, PATIENCE))?
                .with_context(|| format!("{vip}, round {round}"))?;
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard)?;
            assert_eq!(heard, b"bye", "{vip}, round {round}");
            if round % 4 == 3 {
                end_by_reset(&stream)?;
            }
        }
    }
    // Nobody drew another port for it: that is what makes the backend accept it.
    let waiting = hosts.backends[0].run(&["ss", "-Htan", "state", "time-wait"])?;
    assert!(waiting.lines().count() <= 2, "one NAT port for each family:\n{waiting}");
    Ok(())
}
