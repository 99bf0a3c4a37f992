//! The hosts, servers and daemon of the demo.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use lb_lab::{
    Events, Host, Shunt, Topology,
    backend::{Args, Mode, Remote},
};

pub(super) const GOOD: &str = "app-v200";
pub(super) const BAD: &str = "app-v5xx";
/// The service of both backends, and the service of the bad one alone.
pub(super) const APP: &str = "app";
pub(super) const LONE: &str = "lone";

pub(super) const IN_A_ROW: u32 = 3;
pub(super) const TRIALS: u32 = 3;
/// Shorter than the usual 10 s and 30 s, so that nobody has to wait.
pub(super) const INTERVAL: Duration = Duration::from_secs(2);
pub(super) const EJECTION: Duration = Duration::from_secs(6);

const PORT: u16 = 8080;
const LONE_PORT: u16 = 8081;

/// Fields are dropped in their order: whatever uses a host before the hosts.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) events: Events,
    pub(super) shunt: Shunt,
    pub(super) bad: Remote,
    _good: Remote,
    _lone: Remote,
    topology: Topology,
}

impl Scene {
    pub(super) fn set() -> Result<Self> {
        let [shunt, server] = [built("shunt")?, built("lab-backend")?];
        let topology = Topology::new("demo", &[GOOD, BAD])
            .context("the demo builds its network with `ip` and `ethtool` (Debian: iproute2, ethtool)")?;
        let backend = |number: usize, port: u16, mode: Mode| {
            let host = &topology.backends[number];
            let listen = SocketAddr::new(Topology::address(number).into(), port);
            let (name, probe_path) = (host.name().to_owned(), "/healthz".to_owned());
            Remote::start(host, &server, &Args { listen, name, mode, broken: 0.5, seed: 11, probe_path })
        };
        let good = backend(0, PORT, Mode::Ok)?;
        let bad = backend(1, PORT, Mode::HalfBad)?;
        let lone = backend(1, LONE_PORT, Mode::HalfBad)?;
        let shunt = Shunt::start(&topology.lab, &topology.node, &shunt, &config(&topology.devices))?;
        let events = shunt.events()?;
        Ok(Self { events, shunt, bad, _good: good, _lone: lone, topology })
    }

    pub(super) fn client(&self) -> &Host {
        &self.topology.client
    }

    pub(super) fn lab_name(&self) -> &str {
        self.topology.lab.name()
    }
}

/// Where clients connect to.
pub(super) fn vip(service: &str) -> SocketAddr {
    let last = if service == APP { 1 } else { 2 };
    SocketAddr::new(Ipv4Addr::new(10, 99, 0, last).into(), 80)
}

/// A program that is built beside this one.
pub(super) fn built(name: &str) -> Result<PathBuf> {
    let path = env::current_exe().context("finding this program")?.with_file_name(name);
    ensure!(path.is_file(), "{} is missing; `cargo xtask demo` builds it", path.display());
    Ok(path)
}

fn config(devices: &[String]) -> String {
    let (good, bad) = (Topology::address(0), Topology::address(1));
    let (app, lone) = (vip(APP), vip(LONE));
    let (interval, ejection) = (INTERVAL.as_secs(), EJECTION.as_secs());
    let probe = "path = \"/healthz\"\ninterval = \"1s\"\ntimeout = \"500ms\"";
    let breaker = format!(
        "consecutive_5xx = {IN_A_ROW}\ninterval = \"{interval}s\"\nbase_ejection_time = \"{ejection}s\"\n\
         half_open_trials = {TRIALS}"
    );
    format!(
        r#"interfaces = {devices:?}

[service.{APP}]
vip = "{app}"
[service.{APP}.backends]
{GOOD} = "{good}:{PORT}"
{BAD} = "{bad}:{PORT}"
[service.{APP}.probe.http]
{probe}
[service.{APP}.breaker]
{breaker}
max_ejection_percent = 50

[service.{LONE}]
vip = "{lone}"
[service.{LONE}.backends]
{BAD} = "{bad}:{LONE_PORT}"
[service.{LONE}.probe.http]
{probe}
[service.{LONE}.breaker]
{breaker}
max_ejection_percent = 100
min_serving = 1
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_valid() {
        let text = config(&["client".to_owned(), GOOD.to_owned(), BAD.to_owned()]);
        let table: toml::Table = text.parse().expect("it is TOML");
        assert_eq!(table["service"][LONE]["breaker"]["min_serving"].as_integer(), Some(1));
    }
}
