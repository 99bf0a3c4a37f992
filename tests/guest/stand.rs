//! A client, the node and two backends, each with interfaces of the machine.
//!
//! ```text
//!   client 10.10.0.2 ── left 10.10.0.1 node 10.20.0.1 right ──┬── 10.20.0.2 web-0
//!          fd10::2           fd10::1        fd20::1           └── 10.20.0.3 web-1
//! ```

use std::{
    fs,
    io::{Read as _, Write as _},
    net::SocketAddr,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_core::snapshot::ProbeState;
use lb_lab::{
    Host, Lab, Shunt,
    backend::{Args, Mode, Remote},
    until,
};
use lb_tests::{
    lab::{lab_backend, shunt},
    scripted::Scripted,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::nics;

/// Instructions take a multiple of their time here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) const NAMES: [&str; 2] = ["web-0", "web-1"];

/// Name, VIP and mode. Each has a service of web servers on port 80, and one of echoes on port 7.
pub(crate) const SERVICES: [(&str, &str, &str); 4] = [
    ("nat4", "10.99.0.10", "nat"),
    ("nat6", "fd99::10", "nat"),
    ("dnat4", "10.99.0.11", "dnat"),
    ("dnat6", "fd99::11", "dnat"),
];

/// A device on the node's interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    Plain,
    /// The client's side is a VLAN.
    Vlan,
    /// The client's side is a bond of two interfaces, and Shunt is attached to these.
    Bond,
    /// The same, and Shunt is attached to the bond itself.
    BondItself,
}

/// Fields end in this order.
pub(crate) struct Stand {
    _echoes: Vec<Scripted>,
    pub(crate) backends: Vec<Remote>,
    pub(crate) client: Host,
    pub(crate) node: Host,
    pub(crate) webs: Vec<Host>,
    layer: Layer,
    /// Last but one: pins lie in it.
    _sysfs: Sysfs,
    lab: Lab,
}

impl Stand {
    /// On interfaces of this kind, all with this MTU.
    pub(crate) fn new(kind: &str, layer: Layer, mtu: u32) -> Result<Self> {
        let mut lab = Lab::new("drivers")?;
        let (client, node) = (lab.host("client")?, lab.host("node")?);
        let webs = NAMES.iter().map(|name| lab.host(name)).collect::<lb_lab::Result<Vec<_>>>()?;
        nics::give("client", &client, "node")?;
        for (name, web) in NAMES.iter().zip(&webs) {
            nics::give(name, web, "node")?;
        }
        nics::give(&format!("{kind}-right"), &node, "right")?;
        let own = match layer {
            Layer::Plain => {
                nics::give(&format!("{kind}-left"), &node, "left")?;
                "left"
            }
            Layer::Vlan => {
                nics::give(&format!("{kind}-left"), &node, "left")?;
                node.ip("link add link left name left.7 type vlan id 7")?;
                client.ip("link add link node name node.7 type vlan id 7")?;
                "left.7"
            }
            Layer::Bond | Layer::BondItself => {
                node.ip("link add left type bond mode active-backup miimon 100")?;
                for (name, device) in [(format!("{kind}-left"), "one"), ("spare-left".to_owned(), "two")] {
                    nics::give(&name, &node, device)?;
                    node.ip(&format!("link set {device} master left"))?;
                }
                "left"
            }
        };
        let clients = if layer == Layer::Vlan { "node.7" } else { "node" };
        let mut ends = vec![
            (&client, clients, "10.10.0.2", "fd10::2"),
            (&node, own, "10.10.0.1", "fd10::1"),
            (&node, "right", "10.20.0.1", "fd20::1"),
        ];
        ends.extend([(&webs[0], "node", "10.20.0.2", "fd20::2"), (&webs[1], "node", "10.20.0.3", "fd20::3")]);
        for (host, device, v4, v6) in ends {
            let below = device.split('.').next().unwrap_or(device);
            for device in if below == device { vec![device] } else { vec![below, device] } {
                host.ip(&format!("link set {device} mtu {mtu} up"))?;
            }
            host.ip(&format!("address add {v4}/24 dev {device}"))?;
            host.ip(&format!("address add {v6}/64 dev {device} nodad"))?;
        }
        for (host, v4, v6) in [
            (&client, "10.10.0.1", "fd10::1"),
            (&webs[0], "10.20.0.1", "fd20::1"),
            (&webs[1], "10.20.0.1", "fd20::1"),
        ] {
            host.ip(&format!("route add default via {v4}"))?;
            host.ip(&format!("route add default via {v6}"))?;
        }
        let sysfs = Sysfs::of(&node)?;
        let (mut backends, mut echoes) = (Vec::new(), Vec::new());
        for (name, web) in NAMES.iter().zip(&webs) {
            let args = Args {
                listen: "[::]:8080".parse()?,
                name: (*name).to_owned(),
                mode: Mode::Ok,
                broken: 1.0,
                seed: 1,
                probe_path: "/healthz".to_owned(),
            };
            backends.push(Remote::start(web, lab_backend(), &args)?);
            echoes.push(echo(web)?);
        }
        Ok(Self { _echoes: echoes, backends, client, node, webs, layer, _sysfs: sysfs, lab })
    }

    pub(crate) fn config(&self, mode: &str) -> String {
        let (interfaces, vlans) = match self.layer {
            Layer::Plain | Layer::BondItself => (&["left", "right"][..], ""),
            Layer::Vlan => (&["left", "right"][..], "vlans = [7]\n"),
            Layer::Bond => (&["one", "two", "right"][..], ""),
        };
        let mut toml =
            format!("interfaces = {interfaces:?}\nxdp_mode = {mode:?}\nmax_flows = 16384\n{vlans}");
        for (name, vip, mode) in SERVICES {
            let v6 = vip.contains(':');
            let backends = |port: u16| -> String {
                let of = |number: usize| {
                    if v6 { "fd20::" } else { "10.20.0." }.to_owned() + &(number + 2).to_string()
                };
                let line = |(number, name): (usize, &&str)| {
                    let ip = of(number).parse().expect("an address");
                    format!("backends.{name} = \"{}\"\n", SocketAddr::new(ip, port))
                };
                NAMES.iter().enumerate().map(line).collect()
            };
            toml += &format!(
                "[service.{name}]\nvip = \"{}\"\nmode = {mode:?}\non_eject = \"drain\"\n{}\
                 probe.http = {{ path = \"/healthz\", interval = \"2s\", timeout = \"1900ms\" }}\n\
                 breaker = {{ consecutive_5xx = 3, base_ejection_time = \"300s\" }}\n\
                 [service.echo-{name}]\nvip = \"{}\"\nmode = {mode:?}\nbreaker.consecutive_5xx = 0\n{}",
                web(vip),
                backends(8080),
                echoes(vip),
                backends(7)
            );
        }
        toml
    }

    /// The daemon in a mode, once all backends serve.
    pub(crate) fn start(&self, mode: &str) -> Result<Shunt> {
        let shunt = Shunt::start(&self.lab, &self.node, shunt(), &self.config(mode))?;
        serve(&shunt).with_context(|| shunt.log())?;
        Ok(shunt)
    }

    /// The words with which `shunt run` refuses to start.
    pub(crate) fn refusal(&self, mode: &str) -> Result<String> {
        match Shunt::start(&self.lab, &self.node, shunt(), &self.config(mode)) {
            Ok(shunt) => anyhow::bail!("{mode} was not refused: {}", shunt.log()),
            Err(error) => Ok(error.to_string()),
        }
    }

    pub(crate) fn hosts(&self) -> impl Iterator<Item = &Host> {
        [&self.client, &self.node].into_iter().chain(&self.webs)
    }

    /// Segments with a wrong checksum that these hosts were given, by name.
    pub(crate) fn checksum_errors(&self) -> Result<Vec<(String, u64)>> {
        self.hosts().map(|host| Ok((host.name().to_owned(), checksum_errors(host)?))).collect()
    }
}

pub(crate) fn web(vip: &str) -> SocketAddr {
    SocketAddr::new(vip.parse().expect("an address"), 80)
}

pub(crate) fn echoes(vip: &str) -> SocketAddr {
    SocketAddr::new(vip.parse().expect("an address"), 7)
}

/// Waits until all backends of all services get connections.
pub(crate) fn serve(shunt: &Shunt) -> Result<()> {
    until("all backends serve", PATIENCE, || {
        shunt.status().is_ok_and(|status| {
            let mut services = status.snapshot.services.iter().filter(|of| !of.name.starts_with("echo-"));
            services.all(|of| of.backends.iter().all(|backend| backend.probe == ProbeState::Up))
                && status.traffic.iter().all(|traffic| traffic.reachable)
        })
    })?;
    Ok(())
}

/// Says back, in capitals, what it has heard until the client's end of speaking.
fn echo(host: &Host) -> Result<Scripted> {
    Ok(Scripted::start(host, "[::]:7".parse()?, |line| {
        let mut heard = Vec::new();
        line.stream().read_to_end(&mut heard)?;
        heard.make_ascii_uppercase();
        line.stream().write_all(&heard)
    })?)
}

/// `TcpInCsumErrors` of a host: of both families.
fn checksum_errors(host: &Host) -> Result<u64> {
    let text = host.enter(|| fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
    let mut pairs = names.split(' ').zip(values.split(' '));
    let found = pairs.find(|(name, _)| *name == "InCsumErrors").context("InCsumErrors")?;
    Ok(found.1.parse()?)
}

/// `/sys` as a host sees it, for everybody: its interfaces have their features there.
struct Sysfs;

impl Sysfs {
    fn of(host: &Host) -> Result<Self> {
        host.enter(|| -> nix::Result<()> {
            mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>)?;
            mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), None::<&str>)
        })??;
        ensure!(fs::exists("/sys/class/net/right")?, "the node's interfaces are not in its /sys");
        Ok(Self)
    }
}

impl Drop for Sysfs {
    fn drop(&mut self) {
        for place in ["/sys/fs/bpf", "/sys"] {
            // The machine ends soon after.
            let _ = umount2(place, MntFlags::MNT_DETACH);
        }
    }
}
