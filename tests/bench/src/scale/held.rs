//! A daemon whose tables really hold connections: what they do to its memory, its answers, an ejection and a restart.
//!
//! They begin in the program that the daemon has attached, by test runs: SYN, SYN-ACK, ACK of each, as if they had come from its
//! interface. No client or backend has a socket for them.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_lab::{Lab, Shunt, clock, signals, until};
use lb_tests::{
    devices::index_and_mac,
    frame::{ACK, SYN, Tcp},
    holdings::{Places, attached},
    kernel::{Action, context},
};
use nix::sys::signal::Signal;
use serde::Serialize;

use super::daemon::{Memory, milliseconds};
use crate::statistics::Spread;

const BACKENDS: u32 = 64;
const FLOWS: [u32; 2] = [100_000, 1_000_000];
const FEW: [u32; 1] = [5_000];
/// Looking through a million places takes its time, and so does a verifier on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const VIP: &str = "203.0.113.10:80";

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) flows: u32,
    /// `RssAnon` of the daemon.
    pub(crate) own_mib: f64,
    /// `shunt status`, the command's own start included.
    pub(crate) status_ms: Spread,
    /// `shunt why`, which counts the backend's connections.
    pub(crate) why_ms: Spread,
    /// `shunt backend eject --wait`, and `admit --wait`: until a new table is in force.
    pub(crate) swap_ms: Spread,
    /// Killed: from its start until it answers, with all connections.
    pub(crate) restart_ms: Spread,
}

/// `small`: fewer.
pub(super) fn run(repetitions: u32, small: bool, shunt: &Path) -> Result<Vec<Row>> {
    let flows = if small { &FEW } else { &FLOWS[..] };
    flows.iter().map(|flows| row(*flows, repetitions, shunt)).collect()
}

fn row(flows: u32, repetitions: u32, binary: &Path) -> Result<Row> {
    eprintln!("scale: {flows} connections held");
    let mut lab = Lab::new("held")?;
    let (node, hosts) = (lab.host("node")?, lab.host("hosts")?);
    lab.link((&node, "10.20.0.1/16"), (&hosts, "10.20.0.2/16"))?;
    // It answers for all backends.
    hosts.ip("route add local 10.20.1.0/24 dev lo")?;
    let mut shunt = Shunt::start(&lab, &node, binary, &config(flows))?;
    until("all next hops answer", PATIENCE, || {
        shunt.status().is_ok_and(|status| {
            status.traffic.len() == BACKENDS as usize
                && status.traffic.iter().all(|traffic| traffic.reachable)
        })
    })?;
    let hosts = index_and_mac(&node, "hosts")?;
    node.enter(|| fill(&shunt, flows, hosts))??;
    let held = |shunt: &Shunt| -> Result<()> {
        let held = Places::read(shunt)?.established;
        ensure!(held == flows as usize, "{held} of {flows} connections are there");
        Ok(())
    };
    held(&shunt)?;
    let memory = Memory::read(shunt.process().id())?;
    let mut times: [Vec<f64>; 4] = Default::default();
    for _ in 0..repetitions {
        let orders: [(usize, &[&str]); 4] = [
            (0, &["status", "-o", "json"]),
            (1, &["why", "web/b0", "-o", "json"]),
            (2, &["backend", "eject", "web/b0", "--wait"]),
            (2, &["backend", "admit", "web/b0", "--wait"]),
        ];
        for (kind, words) in orders {
            let begun = clock::now();
            shunt.ask(words)?;
            times[kind].push(milliseconds(clock::now() - begun));
        }
        shunt.process().signal(Signal::SIGKILL)?;
        shunt.process().wait(PATIENCE)?;
        let begun = clock::now();
        shunt.start_again()?;
        times[3].push(milliseconds(clock::now() - begun));
    }
    held(&shunt)?;
    let [status_ms, why_ms, swap_ms, restart_ms] = times.map(|times| Spread::of(times).expect("some"));
    Ok(Row { flows, own_mib: memory.own_kib as f64 / 1024.0, status_ms, why_ms, swap_ms, restart_ms })
}

fn config(flows: u32) -> String {
    // They come faster than any network brings them, and a slow machine counts them before all are there: of one prefix.
    let mut toml = format!(
        "interfaces = [\"hosts\"]\nmax_flows = {flows}\nmax_new_flows_per_second = 0\nmax_source_share = 100\n\
         [service.web]\nvip = {VIP:?}\n[service.web.backends]\n"
    );
    for number in 0..BACKENDS {
        toml += &format!("b{number} = \"10.20.1.{}:8080\"\n", number + 1);
    }
    toml
}

/// A whole handshake of each.
fn fill(shunt: &Shunt, flows: u32, (hosts, mac): (u32, [u8; 6])) -> Result<()> {
    let program = attached(shunt)?;
    let vip: SocketAddr = VIP.parse().context("a literal")?;
    let mut out = [0; 256];
    let mut send = |frame: &Tcp| -> Result<Tcp> {
        let frame = Tcp { to_mac: mac, ..frame.clone() };
        let frame_bytes = frame.bytes();
        let (action, length) = program.run_in(&frame_bytes, &mut out, &context(frame_bytes.len(), hosts))?;
        ensure!(matches!(Action::new(action), Action::Redirect | Action::Tx), "{frame:?} came to {action}");
        Tcp::read(&out[..length]).context("a segment comes out as one")
    };
    for number in 0..flows {
        if number % 65_536 == 0 {
            ensure!(!signals::interrupted(), "interrupted");
        }
        let address = Ipv4Addr::from_bits(0x0a40_0001 + (number / 1000));
        let client = SocketAddr::new(address.into(), 10_000 + (number % 1000) as u16);
        let sent = send(&Tcp::new(client, vip, SYN).numbers(7_000, 0))?;
        send(&Tcp::new(sent.dst, sent.src, SYN | ACK).numbers(9_000, 7_001))?;
        send(&Tcp::new(client, vip, ACK).numbers(7_001, 9_001))?;
    }
    Ok(())
}

pub(super) fn lines(rows: &[Row]) -> Vec<String> {
    let mut lines = vec![
        "scale: the daemon with connections in its tables; times of whole commands, their start included"
            .to_owned(),
        format!(
            "  {:>9} {:>8} {:>10} {:>8} {:>14} {:>10} {:>16}",
            "flows", "own MiB", "status ms", "why ms", "eject/admit ms", "restart ms", "least..most"
        ),
    ];
    for row in rows {
        lines.push(format!(
            "  {:>9} {:>8.1} {:>10.1} {:>8.1} {:>14.1} {:>10.0} {:>16}",
            row.flows,
            row.own_mib,
            row.status_ms.median,
            row.why_ms.median,
            row.swap_ms.median,
            row.restart_ms.median,
            format!("{:.0}..{:.0}", row.restart_ms.least, row.restart_ms.most),
        ));
    }
    lines
}
