//! The cost of much of everything: tables, mirrored heads, services, flows, probes.
//!
//! Probes: the engine and the prober of the daemon run in this process as they do in the daemon, against servers in
//! a child of it that answer on as many addresses of a loopback of their own. The benchmark measures the CPU time of this
//! process. On loopback that is too much rather than too little: what a segment costs at its receiver is in
//! part done by its sender.

mod daemon;
mod heads;
mod held;
mod prober;
pub(crate) mod server;
mod tables;

use std::{fmt::Write as _, net::Ipv4Addr, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_core::{
    config::{
        Backend, Breaker, Config, GrpcProbe, HttpProbe, Limits, Mode, NoBackend, Probe, ProbeKind, Service,
        Sources, Tls, Trust,
    },
    time::Millis,
};
use lb_lab::{Host, Lab};
use serde::Serialize;

use crate::statistics::Spread;

const BACKENDS: u32 = 1_000;
const SERVICES: u32 = 10;
const INTERVAL: Millis = Millis::secs(2);
/// Of one core, in percent: what the specification allows for `tcp` and `http`.
const PROMISED: f64 = 10.0;
/// The name in the servers' certificate.
const NAME: &str = "backend.example";

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) repetitions: u32,
    /// Of each measurement.
    pub(crate) seconds: u32,
    /// Not every rate of heads, and no large daemons.
    pub(crate) small: bool,
}

impl Plan {
    pub(crate) const FULL: Self = Self { repetitions: 5, seconds: 6, small: false };
    pub(crate) const SMOKE: Self = Self { repetitions: 1, seconds: 2, small: true };
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) tables: Vec<tables::Row>,
    pub(crate) heads: heads::Report,
    pub(crate) daemon: Vec<daemon::Row>,
    pub(crate) held: Vec<held::Row>,
    pub(crate) seconds: u32,
    pub(crate) backends: u32,
    pub(crate) interval_ms: u64,
    pub(crate) rows: Vec<Row>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) probe: &'static str,
    pub(crate) probes_per_second: Spread,
    /// Of one core.
    pub(crate) cpu_percent: Spread,
    pub(crate) cpu_us_per_probe: Spread,
    /// Probes that did not pass.
    pub(crate) failures: u64,
}

/// The results of some seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    elapsed: Duration,
    cpu: Duration,
    probes: u64,
    failures: u64,
}

pub(crate) fn run(plan: Plan, shunt: &Path) -> Result<Report> {
    let tables = tables::run(plan.repetitions).context("scale, tables")?;
    let span = Duration::from_secs(plan.seconds.into()) / 3;
    let heads = heads::run(plan.repetitions, plan.small, span).context("scale, heads")?;
    let daemon = daemon::run(plan.repetitions, plan.small, shunt).context("scale, daemon")?;
    let held = held::run(plan.repetitions, plan.small, shunt).context("scale, connections held")?;
    let mut lab = Lab::new("scale")?;
    let host = lab.host("probes")?;
    let (_server, ports) = server::start(&host)?;
    let tls =
        Tls { server_name: Some(NAME.to_owned()), trust: Trust::Authorities(vec![ports.authority.clone()]) };
    let kinds = [
        ("tcp", ports.tcp, ProbeKind::Tcp),
        ("http", ports.http, ProbeKind::Http(HttpProbe::default())),
        ("https", ports.https, ProbeKind::Http(HttpProbe { tls: Some(tls), ..HttpProbe::default() })),
        ("grpc", ports.grpc, ProbeKind::Grpc(GrpcProbe::default())),
    ];
    let rows = kinds.into_iter().map(|(name, port, kind)| {
        eprintln!("scale: {BACKENDS} backends, {name}");
        let samples = measure(&host, plan, port, kind).with_context(|| format!("scale {name}"))?;
        row(name, &samples).context("no repetitions")
    });
    let rows = rows.collect::<Result<_>>()?;
    Ok(Report {
        tables,
        heads,
        daemon,
        held,
        seconds: plan.seconds,
        backends: BACKENDS,
        interval_ms: INTERVAL.0,
        rows,
    })
}

fn measure(host: &Host, plan: Plan, port: u16, kind: ProbeKind) -> Result<Vec<Sample>> {
    let config = config(port, &kind);
    let samples = host.enter(move || prober::run(config, plan))??;
    ensure!(samples.len() == plan.repetitions as usize, "a measurement is missing");
    Ok(samples)
}

/// Backends on 127.0.0.0/8, so that each has all ports of ours to itself.
fn config(port: u16, kind: &ProbeKind) -> Config {
    let each = BACKENDS / SERVICES;
    let services = (0..SERVICES).map(|service| Service {
        name: format!("s{service}"),
        vip: (Ipv4Addr::new(203, 0, 113, 10), 80 + service as u16).into(),
        mode: Mode::Nat,
        no_backend: NoBackend::Reset,
        evidence: false,
        connections: Default::default(),
        fallback: Vec::new(),
        sources: Sources::default(),
        limits: Limits::default(),
        affinity: None,
        backends: (0..each)
            .map(|number| Backend {
                name: format!("b{number}"),
                address: (Ipv4Addr::from_bits(0x7f01_0000 + service * each + number + 1), port).into(),
                weight: 100,
                probe_address: None,
                max_connections: None,
                discovered: None,
            })
            .collect(),
        probe: Some(Probe {
            kind: kind.clone(),
            interval: INTERVAL,
            fast_interval: INTERVAL,
            down_interval: INTERVAL,
            timeout: Millis::secs(10),
            ..Probe::default()
        }),
        breaker: Breaker::default(),
    });
    Config { services: services.collect() }
}

fn row(probe: &'static str, samples: &[Sample]) -> Option<Row> {
    let of = |value: fn(&Sample) -> f64| Spread::of(samples.iter().map(value));
    Some(Row {
        probe,
        probes_per_second: of(|sample| sample.probes as f64 / sample.elapsed.as_secs_f64())?,
        cpu_percent: of(|sample| 100.0 * sample.cpu.as_secs_f64() / sample.elapsed.as_secs_f64())?,
        cpu_us_per_probe: of(|sample| 1e6 * sample.cpu.as_secs_f64() / sample.probes as f64)?,
        failures: samples.iter().map(|sample| sample.failures).sum(),
    })
}

impl Report {
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let mut line = |line: String| writeln!(text, "{line}").expect("a string takes everything");
        let parts = [
            tables::lines(&self.tables),
            self.heads.lines(),
            daemon::lines(&self.daemon),
            held::lines(&self.held),
        ];
        for part in parts {
            part.into_iter().chain([String::new()]).for_each(&mut line);
        }
        line(format!(
            "scale: {} backends, each probed every {} ms on a connection of its own, {} s a measurement; promised for tcp and http: at most {PROMISED} % of one core",
            self.backends, self.interval_ms, self.seconds
        ));
        line(format!(
            "  {:<6} {:>9}  {:>10} {:>13}  {:>12}  {:>8}",
            "", "probes/s", "% of core", "least..most", "CPU µs/probe", "failures"
        ));
        for row in &self.rows {
            line(format!(
                "  {:<6} {:>9.0}  {:>10.1} {:>13}  {:>12.1}  {:>8}",
                row.probe,
                row.probes_per_second.median,
                row.cpu_percent.median,
                format!("{:.1}..{:.1}", row.cpu_percent.least, row.cpu_percent.most),
                row.cpu_us_per_probe.median,
                row.failures
            ));
        }
        text
    }

    /// Why promises do not hold.
    pub(crate) fn broken_promises(&self) -> Vec<String> {
        let parts = [
            tables::broken_promise(&self.tables),
            self.heads.broken_promise(),
            daemon::broken_promise(&self.daemon),
        ];
        parts.into_iter().flatten().collect()
    }

    /// Numbers that cannot be true.
    pub(crate) fn implausible(&self) -> Vec<String> {
        let expected = f64::from(self.backends) * 1000.0 / self.interval_ms as f64;
        let mut found = tables::implausible(&self.tables);
        found.extend(self.heads.implausible());
        found.extend(daemon::implausible(&self.daemon));
        for row in &self.rows {
            // Short measurements catch more or less of a round, and a busy machine is late.
            let rate = row.probes_per_second.median;
            if !(1.0..expected * 1.3).contains(&rate) {
                found.push(format!("scale {}: {rate:.0} probes/s instead of {expected:.0}", row.probe));
            }
            if !(1.0..1e5).contains(&row.cpu_us_per_probe.median) {
                found.push(format!("scale {}: {} µs a probe", row.probe, row.cpu_us_per_probe.median));
            }
            if row.failures > 0 {
                found.push(format!("scale {}: {} probes failed", row.probe, row.failures));
            }
        }
        found
    }
}
