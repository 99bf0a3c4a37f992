//! The documents that Shunt was made for, beside a running Envoy: good answers in a minute or more.
//!
//! `shunt import` makes Shunt's configuration of the files in `dist/examples/founding`. Envoy has the rule that Istio makes
//! of the same file: panic and success rate off. All of one setting run side by side, each in a lab of its own.

use std::{fs, net::SocketAddrV4, path::Path, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_lab::{
    Shunt, Topology,
    backend::{Args, Mode, Remote},
    until,
};
use lb_tests::{
    http::get,
    load::{Connections, Load},
};
use lb_userspace::import::{self, Format, Options, Source};
use serde::Serialize;

use crate::{
    peers::{self, Peer, Place, Running},
    statistics::Spread,
};

const RATE: u64 = 50;
const WORKERS: usize = 4;
/// Of the documents.
const APP_PORT: u16 = 8081;
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) repetitions: u32,
    pub(crate) length: Duration,
}

impl Plan {
    pub(crate) const FULL: Self = Self { repetitions: 3, length: Duration::from_secs(120) };
    pub(crate) const SMOKE: Self = Self { repetitions: 1, length: Duration::from_secs(8) };
}

/// A rule of the documents.
struct Setting {
    name: &'static str,
    file: &'static str,
    interval: &'static str,
    base: &'static str,
}

const SETTINGS: [Setting; 2] = [
    Setting { name: "Istio's settings", file: "destination-rule.yaml", interval: "5s", base: "30s" },
    Setting { name: "the remedy", file: "destination-rule-remedy.yaml", interval: "1s", base: "5s" },
];

struct Service {
    name: &'static str,
    files: &'static [&'static str],
    port: u16,
    /// The last one is bad.
    apps: &'static [&'static str],
}

const SERVICES: [Service; 2] = [
    Service {
        name: "beside a good app",
        files: &["deployment.yaml", "gateway.yaml", "service.yaml"],
        port: 80,
        apps: &["app-v200", "app-v5xx"],
    },
    Service { name: "alone", files: &["lone.yaml"], port: 81, apps: &["lone-v5xx"] },
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Balancer {
    Envoy,
    /// Shunt with `--faithful`.
    Faithful,
    /// Shunt with its own floor and half-open.
    Own,
}

impl Balancer {
    const fn name(self) -> &'static str {
        match self {
            Self::Envoy => "Envoy",
            Self::Faithful => "Shunt --faithful",
            Self::Own => "Shunt",
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    seconds: u64,
    rows: Vec<Row>,
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    setting: &'static str,
    service: &'static str,
    balancer: Balancer,
    requests: Spread,
    /// Percent of the requests, one connection each.
    good: Spread,
}

/// A balancer with its servers. Fields are dropped in their order.
struct Stage {
    load: Option<Load>,
    #[expect(dead_code, reason = "only kept, to be dropped before the hosts")]
    running: Running,
    _servers: Vec<Remote>,
    topology: Topology,
    vip: SocketAddrV4,
}

pub(crate) fn run(plan: Plan, shunt: &Path) -> Result<Report> {
    let mut balancers = vec![Balancer::Faithful, Balancer::Own];
    if !Peer::installed(&[Peer::EnvoyHttp]).is_empty() {
        balancers.insert(0, Balancer::Envoy);
    }
    let mut rows = Vec::new();
    for setting in &SETTINGS {
        let mut seen: Vec<Vec<(f64, f64)>> = vec![Vec::new(); SERVICES.len() * balancers.len()];
        for number in 1..=plan.repetitions {
            eprintln!("founding: {}, {number} of {}", setting.name, plan.repetitions);
            for (all, one) in seen.iter_mut().zip(once(setting, &balancers, plan.length, shunt)?) {
                all.push(one);
            }
        }
        let places = SERVICES.iter().flat_map(|service| balancers.iter().map(move |one| (service, *one)));
        for ((service, balancer), seen) in places.zip(seen) {
            rows.push(Row {
                setting: setting.name,
                service: service.name,
                balancer,
                requests: Spread::of(seen.iter().map(|(all, _)| *all)).context("no run")?,
                good: Spread::of(seen.iter().map(|(all, good)| 100.0 * good / all.max(1.0)))
                    .context("no run")?,
            });
        }
    }
    Ok(Report { seconds: plan.length.as_secs(), rows })
}

/// All and good requests of each service with each balancer.
fn once(
    setting: &Setting,
    balancers: &[Balancer],
    length: Duration,
    shunt: &Path,
) -> Result<Vec<(f64, f64)>> {
    let mut stages = Vec::new();
    for service in &SERVICES {
        for balancer in balancers {
            stages.push(Stage::set(setting, service, *balancer, shunt)?);
        }
    }
    for stage in &mut stages {
        stage.load =
            Some(Load::start(&stage.topology.client, stage.vip.into(), RATE, WORKERS, Connections::Each));
    }
    thread::sleep(length);
    let seen = |stage: Stage| {
        let samples = stage.load.map(Load::stop).unwrap_or_default();
        let good = samples.iter().filter(|sample| sample.answer == Ok(200)).count();
        (samples.len() as f64, good as f64)
    };
    Ok(stages.into_iter().map(seen).collect())
}

impl Stage {
    fn set(setting: &Setting, service: &Service, balancer: Balancer, shunt: &Path) -> Result<Self> {
        let topology = Topology::new("bfound", service.apps)?;
        topology.lab.pin_neighbours()?;
        let server = shunt.with_file_name("lab-backend");
        let mut servers = Vec::new();
        let mut backends = Vec::new();
        for (number, name) in service.apps.iter().enumerate() {
            let is_bad = number + 1 == service.apps.len();
            let listen = SocketAddrV4::new(Topology::address(number), APP_PORT);
            let args = Args {
                listen: listen.into(),
                name: (*name).to_owned(),
                mode: if is_bad { Mode::HalfBad } else { Mode::Ok },
                broken: 0.5,
                seed: 11,
                probe_path: "/healthz".to_owned(),
            };
            servers.push(Remote::start(&topology.backends[number], &server, &args)?);
            backends.push((*name, listen));
        }
        let vip = SocketAddrV4::new(*peers::vip().ip(), service.port);
        let place = Place { topology: &topology, vip, backends: &backends, shunt };
        let running = match balancer {
            Balancer::Envoy => peers::envoy(&place, outlier(setting))?,
            Balancer::Faithful | Balancer::Own => {
                let toml = imported(setting, service, &place, balancer == Balancer::Faithful)?;
                Running::Shunt(Shunt::start(&topology.lab, &topology.node, shunt, &toml)?)
            }
        };
        until("the VIP answers", PATIENCE, || get(&topology.client, vip.into(), "/healthz").is_ok())?;
        Ok(Self { load: None, running, _servers: servers, topology, vip })
    }
}

fn outlier(setting: &Setting) -> serde_json::Value {
    serde_json::json!({
        "consecutive_5xx": 3,
        "enforcing_consecutive_5xx": 100,
        "consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "interval": setting.interval,
        "base_ejection_time": setting.base,
        "max_ejection_percent": 100,
    })
}

fn imported(setting: &Setting, service: &Service, place: &Place<'_>, faithful: bool) -> Result<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/examples/founding");
    let read = |name: &&str| {
        let path = folder.join(name);
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Source { name: (*name).to_owned(), bytes })
    };
    let files: Vec<&str> = service.files.iter().copied().chain([setting.file]).collect();
    let sources = files.iter().map(read).collect::<Result<Vec<_>>>()?;
    let options = Options {
        interfaces: place.topology.devices.clone(),
        vips: vec![(None, (*place.vip.ip()).into())],
        backends: place.backends.iter().map(|(name, at)| ((*name).to_owned(), (*at).into())).collect(),
        faithful,
        ..Options::default()
    };
    let imported = import::import(Format::Istio, &sources, &options);
    ensure!(imported.toml.is_some(), "{:?}", imported.notes);
    imported.toml.context("the import gave nothing")
}

impl Report {
    pub(crate) fn table(&self) -> String {
        let mut table = format!(
            "founding: good answers of {RATE} requests a second for {} s, one connection each\n\
             {:<17} {:<18} {:<17} {:>8}   good\n",
            self.seconds, "settings", "the bad app", "balancer", "requests"
        );
        for row in &self.rows {
            let good = &row.good;
            table += &format!(
                "{:<17} {:<18} {:<17} {:>8.0}   {:.1} % ({:.1}..{:.1})\n",
                row.setting,
                row.service,
                row.balancer.name(),
                row.requests.median,
                good.median,
                good.least,
                good.most
            );
        }
        table
    }

    /// Shunt's own settings give a lone bad app's clients as many good answers as it has.
    pub(crate) fn broken_promise(&self) -> Option<String> {
        let own = |row: &&Row| row.balancer == Balancer::Own && row.service == "alone";
        let least = self.rows.iter().filter(own).map(|row| row.good.median).fold(100.0, f64::min);
        (least < 45.0).then(|| format!("founding: {least:.1} % good alone, promised is half"))
    }

    pub(crate) fn implausible(&self) -> Vec<String> {
        let without = self.rows.iter().filter(|row| row.requests.median < 1.0);
        without.map(|row| format!("founding: {} has no request", row.balancer.name())).collect()
    }
}
