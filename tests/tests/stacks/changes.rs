//! What changes while connections are open.

use std::{
    io,
    net::SocketAddr,
    num::NonZeroU16,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_core::io::Verb;
use lb_tests::{lab::skipped, socket::many_files};
use lb_userspace::{
    control::{client::Client, model::Order},
    lab::{Host, until},
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
    accepted: Arc<AtomicU64>,
}

impl Echo {
    fn start(host: &Host, listen: SocketAddr) -> Result<Self> {
        let listener = host.enter(|| std::net::TcpListener::bind(listen))?.context("listening")?;
        listener.set_nonblocking(true)?;
        let (end, ended) = oneshot::channel::<()>();
        let accepted = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&accepted);
        std::thread::spawn(move || {
            runtime().block_on(async {
                let listener = TcpListener::from_std(listener).expect("inside a runtime");
                let accept = async {
                    // It fails only for want of descriptors; who waits is accepted later.
                    loop {
                        if let Ok((stream, _)) = listener.accept().await {
                            count.fetch_add(1, Ordering::Relaxed);
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
        Ok(Self { _end: end, accepted })
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
    // Both ends of each flow are this process's.
    many_files(2 * FLOWS as u64 + 1000)?;
    let stage = Stage::new("tables", 3)?;
    let hosts = &stage.topology;
    let echoes: Vec<_> =
        (0..3).map(|number| Echo::start(&hosts.backends[number], backend(number))).collect::<Result<_>>()?;
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
                    ping(stream, number).await.with_context(|| format!("flow {place}, ping {number}"))?;
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
    let accepted: u64 = echoes.iter().map(|echo| echo.accepted.load(Ordering::Relaxed)).sum();
    assert_eq!(accepted, FLOWS as u64, "nobody came twice");
    println!("{pings} pings on {FLOWS} flows while {TABLES} tables came and went");
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
            let mut view = client.order("web", backend, &order).await?;
            timeout(PATIENCE, async {
                while !view.why.in_maps {
                    view = client.backend("web", backend, false).await?;
                }
                anyhow::Ok(())
            })
            .await
            .with_context(|| format!("table {number}"))??;
        }
        Ok(())
    })
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
        // An address of IPv6 leaves with the interface, unless it is told to stay.
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
        let program = format!("{device} has its program");
        until(&program, PATIENCE, || {
            hosts.node.ip(&format!("link show {device}")).is_ok_and(|link| link.contains("prog/xdp"))
        })?;
    }
    Ok(())
}
