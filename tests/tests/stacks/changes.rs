//! Changes while connections are open.

use std::{
    io,
    net::SocketAddr,
    num::NonZeroU16,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_core::io::Verb;
use lb_lab::{
    Host,
    backend::{Args, Mode, Remote},
    until,
};
use lb_tests::{
    kernel::at_tc,
    lab::{lab_backend, skipped},
    site::NAMES,
    socket::many_files,
};
use lb_userspace::control::{
    client::{Client, ClientError},
    model::{BackendView, Order, ProblemKind},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
    time::timeout,
};

use crate::stage::{PATIENCE, Stage, backend, backend6, vip, vip6};

/// A server that says back whatever it hears, for any number of clients. Ends when it is dropped.
struct Echo {
    _end: oneshot::Sender<()>,
}

impl Echo {
    fn start(host: &Host, listen: SocketAddr) -> Result<Self> {
        let listener = host.enter(|| std::net::TcpListener::bind(listen))?.context("listening")?;
        listener.set_nonblocking(true)?;
        let (end, ended) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            runtime().block_on(async {
                let listener = TcpListener::from_std(listener).expect("inside a runtime");
                let accept = async {
                    // It fails only for want of descriptors; who waits is accepted later.
                    loop {
                        if let Ok((stream, _)) = listener.accept().await {
                            tokio::spawn(echo(stream));
                        }
                    }
                };
                tokio::select! {
                    _ = ended => {}
                    () = accept => {}
                }
            });
        });
        Ok(Self { _end: end })
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime needs little")
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut heard = [0; 64];
    loop {
        let length = stream.read(&mut heard).await?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&heard[..length]).await?;
    }
}

/// Says something of its own, and hears it again.
async fn ping(stream: &mut TcpStream, number: u64) -> Result<()> {
    let mut heard = [0; 8];
    timeout(PATIENCE, async {
        stream.write_all(&number.to_le_bytes()).await?;
        stream.read_exact(&mut heard).await
    })
    .await
    .context("no answer")??;
    ensure!(heard == number.to_le_bytes(), "somebody else's answer: {heard:?} instead of {number}");
    Ok(())
}

/// Asks a web server for so many bytes, a number that the next one will not ask for, and gets as many.
async fn ask(stream: &mut TcpStream, number: u64) -> Result<()> {
    let length = 1 + (number % 97) as usize;
    let request = format!("GET /bytes/{length} HTTP/1.1\r\nHost: lab\r\n\r\n");
    let mut heard = Vec::new();
    timeout(PATIENCE, async {
        stream.write_all(request.as_bytes()).await?;
        loop {
            if stream.read_buf(&mut heard).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            let head = heard.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            if head.is_some_and(|head| heard.len() >= head + 4 + length) {
                return Ok(());
            }
        }
    })
    .await
    .context("no answer")??;
    let text = String::from_utf8_lossy(&heard);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    ensure!(text.starts_with("HTTP/1.1 200 ") && body == "x".repeat(length), "{length} bytes wanted: {text}");
    Ok(())
}

/// So many connections to a VIP.
async fn flows(vip: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    // Fewer at a time than a listener lets wait.
    const AT_A_TIME: usize = 64;
    let mut open = Vec::with_capacity(count);
    let mut coming = JoinSet::new();
    while open.len() < count {
        while coming.len() < AT_A_TIME && open.len() + coming.len() < count {
            coming.spawn(timeout(PATIENCE, TcpStream::connect(vip)));
        }
        let stream = coming.join_next().await.context("some are coming")????;
        stream.set_nodelay(true)?;
        open.push(stream);
    }
    Ok(open)
}

#[test]
fn ten_thousand_flows_outlive_a_thousand_tables() -> Result<()> {
    const FLOWS: usize = 10_000;
    const TABLES: u64 = 1000;
    if skipped("ten_thousand_flows_outlive_a_thousand_tables", &[]) {
        return Ok(());
    }
    many_files(FLOWS as u64 + 1000)?;
    let stage = Stage::new("tables", 3)?;
    let hosts = &stage.topology;
    // Processes of their own: one alone may not have both ends of so many open.
    let mut servers = Vec::new();
    for (number, host) in hosts.backends.iter().enumerate() {
        let args = Args {
            listen: backend(number),
            name: NAMES[number].to_owned(),
            mode: Mode::Ok,
            broken: 1.0,
            seed: 1,
            probe_path: "/healthz".to_owned(),
        };
        servers.push(Remote::start(host, lab_backend(), &args)?);
    }
    let over = Arc::new(AtomicBool::new(false));
    let (open, all_open) = std::sync::mpsc::channel();
    let done = Arc::clone(&over);
    let clients = hosts.client.thread(move || {
        runtime().block_on(async {
            let mut flows = flows(vip(), FLOWS).await?;
            let _ = open.send(());
            let (mut number, mut last) = (0, false);
            // Once more round after the last table is in.
            while !last {
                last = done.load(Ordering::Relaxed);
                for (place, stream) in flows.iter_mut().enumerate() {
                    if !last && done.load(Ordering::Relaxed) {
                        break;
                    }
                    number += 1;
                    ask(stream, number).await.with_context(|| format!("flow {place}, request {number}"))?;
                }
            }
            anyhow::Ok(number)
        })
    });
    // Without a word they have failed, and say why below.
    let tables = all_open.recv().map_err(anyhow::Error::from).and_then(|()| swap(&stage, TABLES));
    over.store(true, Ordering::Relaxed);
    let pings = clients.join().expect("it does not panic")??;
    tables?;
    assert!(pings >= FLOWS as u64);
    let mut accepted = 0;
    for server in &mut servers {
        accepted += server.report(Duration::ZERO)?.accepted;
    }
    assert_eq!(accepted, FLOWS as u64, "nobody came twice");
    println!("{pings} requests on {FLOWS} flows while {TABLES} tables came and went");
    Ok(())
}

/// So many other weights, each waited for until the maps say it.
fn swap(stage: &Stage, count: u64) -> Result<()> {
    let client = Client::new(stage.shunt.socket());
    runtime().block_on(async {
        for number in 0..count {
            let backend = ["web-0", "web-1", "web-2"][number as usize % 3];
            let weight = NonZeroU16::new(1 + (number * 37 % 100) as u16);
            let order = Order {
                verb: Verb::Weight(weight),
                for_ms: None,
                reason: None,
                force: false,
                on_behalf_of: None,
            };
            timeout(PATIENCE, async {
                while unless_busy(client.order("web", backend, &order).await)?.is_none() {}
                loop {
                    let view = unless_busy(client.backend("web", backend, false).await)?;
                    if view.is_some_and(|view| view.why.in_maps) {
                        return anyhow::Ok(());
                    }
                }
            })
            .await
            .with_context(|| format!("table {number}"))??;
        }
        Ok(())
    })
}

/// `None`: the daemon had no time to answer. Ten thousand connections leave two CPUs little else.
fn unless_busy(answer: Result<BackendView, ClientError>) -> Result<Option<BackendView>> {
    match answer {
        Err(ClientError::Refused { problem, .. }) if problem.kind == ProblemKind::Unavailable => Ok(None),
        answer => Ok(Some(answer?)),
    }
}

#[test]
fn flows_go_on_after_an_interface_was_down() -> Result<()> {
    if skipped("flows_go_on_after_an_interface_was_down", &[]) {
        return Ok(());
    }
    let stage = Stage::new("updown", 1)?;
    let hosts = &stage.topology;
    let _echoes =
        [Echo::start(&hosts.backends[0], backend(0))?, Echo::start(&hosts.backends[0], backend6(0))?];
    let enter = |work: &mut (dyn FnMut() -> Result<()> + Send)| -> Result<()> { hosts.client.enter(work)? };
    let runtime = runtime();
    let mut open = Vec::new();
    enter(&mut || {
        for vip in [vip(), vip6()] {
            open.extend(runtime.block_on(flows(vip, 20))?);
        }
        Ok(())
    })?;
    for device in &hosts.devices {
        // An IPv6 address leaves with the interface, unless a setting keeps it.
        hosts.node.sysctl(&format!("net/ipv6/conf/{device}/keep_addr_on_down"), "1")?;
        hosts.node.ip(&format!("link set {device} down"))?;
        // Some of what they say is lost, and said again.
        let lost = Duration::from_millis(300);
        for (number, stream) in open.iter_mut().enumerate() {
            let said = (number as u64).to_le_bytes();
            runtime.block_on(stream.write_all(&said))?;
        }
        std::thread::sleep(lost);
        hosts.node.ip(&format!("link set {device} up"))?;
        for (number, stream) in open.iter_mut().enumerate() {
            let mut heard = [0; 8];
            let answer = runtime.block_on(async { timeout(PATIENCE, stream.read_exact(&mut heard)).await });
            answer.with_context(|| format!("flow {number} after {device} was down"))??;
            assert_eq!(u64::from_le_bytes(heard), number as u64);
        }
        // New ones as well, on the same program.
        stage.reachable()?;
        enter(&mut || {
            for vip in [vip(), vip6()] {
                for stream in &mut runtime.block_on(flows(vip, 10))? {
                    runtime.block_on(ping(stream, 1))?;
                }
            }
            Ok(())
        })?;
        if at_tc() {
            // `ip link` shows XDP only; that new connections came through is enough.
            continue;
        }
        let program = format!("{device} has its program");
        until(&program, PATIENCE, || {
            hosts.node.ip(&format!("link show {device}")).is_ok_and(|link| link.contains("prog/xdp"))
        })?;
    }
    Ok(())
}
