//! The needs of the daemon: memory at rest, the time until it answers, and the time of an answer.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use lb_lab::{Lab, Shunt, clock, until};
use serde::Serialize;

use crate::statistics::Spread;

/// Of the daemon itself at rest, with one service: what the specification allows, in MiB.
const PROMISED_MIB: f64 = 30.0;
const PROMISED_BYTES: f64 = 400.0;
const PATIENCE: Duration = Duration::from_secs(20);

/// How large a daemon is.
struct Size {
    services: u32,
    backends: u32,
    max_flows: u32,
}

/// The first is the small one that the promise is about.
const SIZES: [Size; 4] = [
    Size { services: 1, backends: 4, max_flows: 131_072 },
    Size { services: 1_000, backends: 4, max_flows: 131_072 },
    Size { services: 1, backends: 4, max_flows: 100_000 },
    Size { services: 1, backends: 4, max_flows: 1_000_000 },
];

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) services: u32,
    pub(crate) backends_of_each: u32,
    pub(crate) max_flows: u32,
    /// From its start until it answers: the program is loaded and attached, and what it remembered is read.
    pub(crate) ready_ms: Spread,
    /// A whole `shunt status -o json`, the command's own start included.
    pub(crate) status_ms: Spread,
    /// `RssAnon`: the daemon's own.
    pub(crate) own_mib: Spread,
    /// `VmRSS` less the kernel's flow tables, which the daemon has mapped.
    pub(crate) resident_mib: Spread,
    /// Both families, of the kernel.
    pub(crate) flow_tables_mib: f64,
    /// One connection in the table of one family, both directions, the mean of the two.
    pub(crate) bytes_a_flow: f64,
}

/// `small`: only the first size.
pub(super) fn run(repetitions: u32, small: bool, shunt: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let sizes = if small { &SIZES[..1] } else { &SIZES };
    for size in sizes {
        eprintln!("scale: the daemon with {} services, {} flows", size.services, size.max_flows);
        let seen = (0..repetitions).map(|_| once(size, shunt)).collect::<Result<Vec<_>>>()?;
        let of = |value: fn(&Seen) -> f64| Spread::of(seen.iter().map(value)).context("no repetitions");
        let tables = seen.first().context("no repetitions")?.flow_tables as f64;
        rows.push(Row {
            services: size.services,
            backends_of_each: size.backends,
            max_flows: size.max_flows,
            ready_ms: of(|seen| seen.ready_ms)?,
            status_ms: of(|seen| seen.status_ms)?,
            own_mib: of(|seen| seen.memory.own_kib as f64 / 1024.0)?,
            resident_mib: of(|seen| seen.memory.resident_kib as f64 / 1024.0)?,
            flow_tables_mib: tables / f64::from(1 << 20),
            bytes_a_flow: tables / 2.0 / f64::from(size.max_flows),
        });
    }
    Ok(rows)
}

struct Seen {
    ready_ms: f64,
    status_ms: f64,
    memory: Memory,
    flow_tables: u64,
}

fn once(size: &Size, binary: &Path) -> Result<Seen> {
    let mut lab = Lab::new("size")?;
    let (node, hosts) = (lab.host("node")?, lab.host("hosts")?);
    lab.link((&node, "10.20.0.1/16"), (&hosts, "10.20.0.2/16"))?;
    let begun = clock::now();
    let mut shunt = Shunt::start(&lab, &node, binary, &config(size))?;
    let ready_ms = milliseconds(clock::now() - begun);
    until("all services are in the maps", PATIENCE, || {
        shunt.status().is_ok_and(|status| {
            let services = &status.snapshot.services;
            services.len() == size.services as usize
                && services.iter().all(|service| service.pending.is_none())
        })
    })?;
    let begun = clock::now();
    shunt.status()?;
    let status_ms = milliseconds(clock::now() - begun);
    Ok(Seen {
        ready_ms,
        status_ms,
        memory: Memory::read(shunt.process().id())?,
        flow_tables: lb_userspace::dataplane::bpf::flow_table_bytes(size.max_flows),
    })
}

/// Of a daemon.
pub(super) struct Memory {
    pub(super) own_kib: u64,
    resident_kib: u64,
}

impl Memory {
    pub(super) fn read(pid: u32) -> Result<Self> {
        let text =
            fs::read_to_string(format!("/proc/{pid}/status")).context("reading the daemon's memory")?;
        let of = |key: &str| -> Result<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            number.with_context(|| format!("the kernel does not report {key}"))
        };
        let mapped_kib = mapped_tables_kib(pid)?;
        Ok(Self { own_kib: of("RssAnon")?, resident_kib: of("VmRSS")?.saturating_sub(mapped_kib) })
    }
}

/// The part of the resident memory that are maps of the kernel.
fn mapped_tables_kib(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).context("reading the daemon's mappings")?;
    let (mut inside, mut sum) = (false, 0);
    for line in text.lines() {
        // A mapping begins with its addresses; what it is stands at the end.
        if line.split_whitespace().next().is_some_and(|word| word.contains('-')) {
            inside = line.contains("bpf-map");
        } else if inside && let Some(rest) = line.strip_prefix("Rss:") {
            let kib = rest.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
            sum += kib.context("sizes are numbers")?;
        }
    }
    Ok(sum)
}

fn config(size: &Size) -> String {
    let mut toml = format!("interfaces = [\"hosts\"]\nmax_flows = {}\n", size.max_flows);
    for service in 0..size.services {
        let (high, low) = (service / 250, service % 250 + 1);
        writeln!(
            toml,
            "[service.s{service}]\nvip = \"203.0.{high}.{low}:80\"\n[service.s{service}.backends]"
        )
        .expect("a string takes everything");
        for backend in 0..size.backends {
            let number = service * size.backends + backend;
            let (third, fourth) = (1 + number / 250, number % 250 + 1);
            writeln!(toml, "b{backend} = \"10.20.{third}.{fourth}:8080\"")
                .expect("a string takes everything");
        }
    }
    toml
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

pub(super) fn lines(rows: &[Row]) -> Vec<String> {
    let mut lines = vec![
        format!(
            "scale: the daemon at rest; promised for the first: less than {PROMISED_MIB} MiB, and at most {PROMISED_BYTES} bytes a flow"
        ),
        format!(
            "  {:>8} {:>9} {:>10} {:>10}   {:>9} {:>12} {:>16} {:>12}",
            "services",
            "max_flows",
            "ready ms",
            "status ms",
            "own MiB",
            "resident MiB",
            "flow tables MiB",
            "bytes a flow"
        ),
    ];
    for row in rows {
        lines.push(format!(
            "  {:>8} {:>9} {:>10.0} {:>10.1}   {:>9.1} {:>12.1} {:>16.1} {:>12.0}",
            row.services,
            row.max_flows,
            row.ready_ms.median,
            row.status_ms.median,
            row.own_mib.median,
            row.resident_mib.median,
            row.flow_tables_mib,
            row.bytes_a_flow
        ));
    }
    lines
}

pub(super) fn broken_promise(rows: &[Row]) -> Option<String> {
    let row = rows.first()?;
    let (memory, flow) = (row.resident_mib.median, row.bytes_a_flow);
    if memory >= PROMISED_MIB {
        return Some(format!(
            "scale: the daemon takes {memory:.1} MiB, promised are less than {PROMISED_MIB}"
        ));
    }
    (flow > PROMISED_BYTES)
        .then(|| format!("scale: a flow takes {flow:.0} bytes, promised are at most {PROMISED_BYTES}"))
}

pub(super) fn implausible(rows: &[Row]) -> Vec<String> {
    let wrong = rows.iter().filter(|row| row.own_mib.median < 0.5 || row.ready_ms.median > 60_000.0);
    wrong.map(|row| format!("scale: a daemon of {} services: {row:?}", row.services)).collect()
}
