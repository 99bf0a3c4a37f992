//! Ten thousand idle connections of one backend, which is ejected with `on_eject = "reset"`.

use std::{net::TcpStream, time::Duration};

use anyhow::{Context as _, Result};
use lb_lab::{Host, clock, until, until_ok};
use lb_tests::{
    holdings::{Places, Process},
    lab::skipped,
    site::{PATIENCE, Site, VIP},
    socket::many_files,
};

const FLOWS: usize = 10_000;

const KEYS: &str = "on_eject = \"reset\"\nbreaker.consecutive_5xx = 0\n";

/// A connection is idle after this silence, rounded up to ticks of about a second.
const IDLE: Duration = Duration::from_secs(16);

#[test]
fn ten_thousand_idle_connections_end_at_both_ends() -> Result<()> {
    if skipped("ten_thousand_idle_connections_end_at_both_ends", &[]) {
        return Ok(());
    }
    many_files(FLOWS as u64 + 1000)?;
    let mut site = Site::with_keys("sweep", 2, KEYS, "")?;
    site.reachable()?;
    let pid = site.shunt.process().id();
    site.ask(&["backend", "disable", "web/web-1", "--wait"])?.succeeds();
    let open = connections(&site.topology.client, FLOWS)?;
    site.ask(&["backend", "enable", "web/web-1", "--wait"])?.succeeds();
    until("all are open", PATIENCE, || {
        Places::read(&site.shunt).is_ok_and(|places| places.established == FLOWS)
    })?;
    let (client, backend) = (site.topology.client.clone(), site.topology.backends[0].clone());
    assert_eq!((sockets(&client)?.len(), sockets(&backend)?.len()), (FLOWS, FLOWS));

    let before = Process::read(pid)?;
    let began = clock::now();
    site.ask(&["backend", "eject", "web/web-0", "--for", "10m", "--wait"])?.succeeds();
    let ordered = clock::now() - began;
    // Whatever is left of a socket in any state but listening is a residue.
    let gone = move |host: &Host| -> Result<Duration> {
        until_ok("nothing is left", IDLE + PATIENCE, || match sockets(host) {
            Ok(left) if left.is_empty() => Ok(()),
            Ok(left) => Err(format!("{} are left, such as {:?}", left.len(), left.first())),
            Err(error) => Err(error.to_string()),
        })?;
        Ok(clock::now() - began)
    };
    let [at_client, at_backend] = std::thread::scope(|scope| {
        let both = [&client, &backend].map(|host| scope.spawn(move || gone(host)));
        both.map(|one| one.join().expect("it does not panic"))
    });
    let (at_client, at_backend) =
        (at_client.context("at the client")?, at_backend.context("at the backend")?);
    let after = Process::read(pid)?;
    println!(
        "ordered in {ordered:?}; clients reset after {at_client:?}, the backend after {at_backend:?}; CPU {} ms",
        (after.cpu - before.cpu) * 10
    );
    assert_eq!(Places::read(&site.shunt)?, Places::default(), "nothing of them is left in the maps");
    let cpu = Duration::from_millis((after.cpu - before.cpu) * 10);
    assert!(cpu < Duration::from_secs(5), "{cpu:?} for {FLOWS} connections");
    // Each client hears of it, as a reset and not as an end.
    for stream in &open {
        let heard = stream.peek(&mut [0]);
        assert!(heard.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    }
    Ok(())
}

/// So many, by a few threads.
fn connections(host: &Host, count: usize) -> Result<Vec<TcpStream>> {
    const THREADS: usize = 16;
    let opening = (0..THREADS).map(|_| {
        host.thread(move || -> std::io::Result<Vec<TcpStream>> {
            let vip = VIP.parse().expect("a literal");
            (0..count / THREADS).map(|_| TcpStream::connect_timeout(&vip, PATIENCE)).collect()
        })
    });
    let mut open = Vec::with_capacity(count);
    for opened in opening.collect::<Vec<_>>() {
        open.extend(opened.join().expect("it does not panic")??);
    }
    Ok(open)
}

/// TCP sockets of a host that do not listen.
fn sockets(host: &Host) -> Result<Vec<String>> {
    let all = host.run(&["ss", "-Htan", "state", "connected"])?;
    Ok(all.lines().map(str::to_owned).collect())
}
