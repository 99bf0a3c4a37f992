//! The founding documents: imported, run, and compared with Envoy.
//!
//! The files of `dist/examples/founding` say it as Kubernetes and Istio do: two apps behind one port, the bad one alone
//! behind another, and a rule for outliers. Three daemons run side by side, each in a network of its own: with Istio's
//! settings, with the remedy (shorter times), both as Istio does it, and with Shunt's own floor and half-open.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use lb_core::event::EventKind;
use lb_lab::{
    Events, Host, Shunt, Topology,
    backend::{Args, Mode, Remote},
    clock, signals,
};

use super::{
    load::{Kind, Load, Sample},
    scene::built,
    summary::{left_behind, tenths},
    view::line,
};

/// Of the documents: the apps' own port, and the ports of the two Gateways.
const APP_PORT: u16 = 8081;
const DEMO_PORT: u16 = 80;
const LONE_PORT: u16 = 81;
const VIP: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

/// A file of rules, and how it is imported.
struct Setting {
    name: &'static str,
    rule: &'static str,
    is_faithful: bool,
    /// Good answers of a running Envoy 1.40 with the same rule, in the two services, in tenths of a percent.
    envoy: [Option<u64>; 2],
}

const SETTINGS: [Setting; 3] = [
    Setting {
        name: "Istio's settings",
        rule: "destination-rule.yaml",
        is_faithful: true,
        envoy: [Some(995), Some(8)],
    },
    Setting {
        name: "the remedy",
        rule: "destination-rule-remedy.yaml",
        is_faithful: true,
        envoy: [None, Some(36)],
    },
    Setting {
        name: "Shunt's own",
        rule: "destination-rule.yaml",
        is_faithful: false,
        envoy: [Some(995), Some(8)],
    },
];

const SERVICES: [(&str, u16); 2] = [("demo-service", DEMO_PORT), ("lone-service", LONE_PORT)];

/// One daemon with its servers. Fields are dropped in their order.
struct Scene {
    events: Events,
    _shunt: Shunt,
    _servers: Vec<Remote>,
    topology: Topology,
}

/// The view of clients of one service.
struct Seen {
    samples: Vec<Sample>,
    ejections: usize,
}

/// Whether Shunt's own settings were as good as Envoy, and nothing was left behind.
pub(super) fn play(length: Duration) -> Result<bool> {
    line("The founding documents, dist/examples/founding:");
    line(
        "  app-v200 and app-v5xx share a port; lone-v5xx is alone. Both bad apps answer 500 half of the time.",
    );
    line("  consecutive5xxErrors: 3, interval: 5s, baseEjectionTime: 30s, maxEjectionPercent: 100");
    line("  The remedy: interval: 1s, baseEjectionTime: 5s\n");
    let scenes = SETTINGS.iter().map(Scene::set).collect::<Result<Vec<_>>>()?;
    let labs: Vec<_> = scenes.iter().map(|scene| scene.topology.lab.name().to_owned()).collect();
    line(&format!("Clients work for {} s beside each other ...", length.as_secs()));
    let seen = watch(&scenes, length)?;
    drop(scenes);
    line(&format!(
        "\n{:<17} {:<13} {:<16} {:>8} {:>8} {:>9} {:>8}",
        "settings", "service", "clients", "requests", "good", "ejections", "Envoy"
    ));
    let mut is_as_good = true;
    for (setting, both) in SETTINGS.iter().zip(&seen) {
        for ((service, seen), envoy) in SERVICES.iter().map(|(name, _)| *name).zip(both).zip(setting.envoy) {
            is_as_good &= setting.is_faithful || is_at_least(seen, envoy);
            for kind in [Kind::Fresh, Kind::Kept] {
                line(&row(setting, service, seen, kind, envoy));
            }
        }
    }
    line("\nEnvoy: good answers of Envoy 1.40 with the same rule, one connection for each request.");
    line(
        "A lone bad app that is ejected answers nobody, so half of its answers would be better: Shunt's floor",
    );
    line("keeps it, and `shunt status` says why.");
    let left: Vec<_> = labs.iter().flat_map(|lab| left_behind(lab)).collect();
    let listed = if left.is_empty() { "nothing".to_owned() } else { left.join(", ") };
    line(&format!("Left behind: {listed}."));
    Ok(is_as_good && left.is_empty())
}

fn watch(scenes: &[Scene], length: Duration) -> Result<Vec<[Seen; 2]>> {
    let start = |scene: &Scene| {
        SERVICES.map(|(_, port)| Load::start(scene.client(), SocketAddr::new(VIP.into(), port)))
    };
    let loads: Vec<_> = scenes.iter().map(start).collect();
    let end = clock::now() + length;
    while clock::now() < end {
        if signals::interrupted() {
            bail!("interrupted");
        }
        thread::sleep(Duration::from_millis(100));
    }
    let seen = |(scene, loads): (&Scene, [Load; 2])| {
        let heard = scene.events.since(0);
        let mut loads = SERVICES.iter().zip(loads).map(|((name, _), load)| {
            let is_ejection =
                |one: &&lb_lab::Heard| one.event.kind == EventKind::Eject && one.event.service == *name;
            Seen { samples: load.finish(), ejections: heard.iter().filter(is_ejection).count() }
        });
        [loads.next().expect("the first"), loads.next().expect("the second")]
    };
    Ok(scenes.iter().zip(loads).map(seen).collect())
}

impl Scene {
    fn set(setting: &Setting) -> Result<Self> {
        let [shunt, server] = [built("shunt")?, built("lab-backend")?];
        let topology = Topology::new("found", &["app-v200", "app-v5xx", "lone-v5xx"])
            .context("the demo builds its network with `ip` and `ethtool` (Debian: iproute2, ethtool)")?;
        let backend = |(number, mode): (usize, Mode)| {
            let host = &topology.backends[number];
            let listen = SocketAddr::new(Topology::address(number).into(), APP_PORT);
            let (name, probe_path) = (host.name().to_owned(), "/healthz".to_owned());
            Remote::start(host, &server, &Args { listen, name, mode, broken: 0.5, seed: 11, probe_path })
        };
        let servers = [(0, Mode::Ok), (1, Mode::HalfBad), (2, Mode::HalfBad)];
        let servers = servers.into_iter().map(backend).collect::<Result<Vec<_>, _>>()?;
        let toml = imported(&shunt, setting, &topology)?;
        let shunt = Shunt::start(&topology.lab, &topology.node, &shunt, &toml)?;
        let events = shunt.events()?;
        Ok(Self { events, _shunt: shunt, _servers: servers, topology })
    }

    fn client(&self) -> &Host {
        &self.topology.client
    }
}

fn documents() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/examples/founding")
}

/// The configuration that the command line makes of the documents.
fn imported(shunt: &Path, setting: &Setting, topology: &Topology) -> Result<String> {
    let folder = documents();
    let mut import = Command::new(shunt);
    import.args(["import", "istio"]);
    import.args(["deployment.yaml", "gateway.yaml", "service.yaml", "lone.yaml", setting.rule]);
    import.args(["--vip", &VIP.to_string()]);
    for device in &topology.devices {
        import.args(["--interface", device]);
    }
    for (number, host) in topology.backends.iter().enumerate() {
        let address = Topology::address(number);
        import.args(["--backend", &format!("{}={address}:{APP_PORT}", host.name())]);
    }
    if setting.is_faithful {
        import.arg("--faithful");
    }
    ensure!(folder.is_dir(), "{} is missing", folder.display());
    let output = import.current_dir(&folder).output().context("running shunt import")?;
    ensure!(output.status.success(), "shunt import:\n{}", String::from_utf8_lossy(&output.stderr));
    let toml = String::from_utf8(output.stdout).context("the import's text")?;
    fs::write(topology.lab.folder().join("imported.toml"), &toml).context("keeping the import")?;
    Ok(toml)
}

/// Good and all of one kind of clients.
fn counts(seen: &Seen, kind: Kind) -> (usize, usize) {
    let own = || seen.samples.iter().filter(move |sample| sample.kind == kind);
    (own().filter(|sample| sample.is_good()).count(), own().count())
}

/// The first failures before an ejection weigh more in a short time than in Envoy's long one, so a whole percent of them
/// is forgiven.
fn is_at_least(seen: &Seen, envoy: Option<u64>) -> bool {
    let (good, all) = counts(seen, Kind::Fresh);
    envoy.is_none_or(|envoy| all > 0 && (good * 1000) as u64 + 10 * all as u64 >= envoy * all as u64)
}

fn row(setting: &Setting, service: &str, seen: &Seen, kind: Kind, envoy: Option<u64>) -> String {
    let (good, all) = counts(seen, kind);
    let share = if all == 0 { "-".to_owned() } else { tenths(good, all) };
    let (clients, envoy, ejections) = match kind {
        Kind::Fresh => (
            "new connections",
            envoy.map(|tenths| format!("{}.{} %", tenths / 10, tenths % 10)).unwrap_or_default(),
            seen.ejections.to_string(),
        ),
        Kind::Kept => ("keep-alive", String::new(), String::new()),
    };
    format!("{:<17} {service:<13} {clients:<16} {all:>8} {share:>8} {ejections:>9} {envoy:>8}", setting.name)
}
