//! What lies between the client and the backends. A further peer is a further entry of [`PEERS`].
//!
//! In each of them the client asks the same address for the same page, two nginx of one worker each
//! answer, and every link is a pair of veth with offloads off at both ends.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use lb_tests::lab::{connects, nginx};
use lb_userspace::lab::{Host, Lab, Process, Shunt, Topology, until_ok};

/// For next hops on their way into the maps.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) build: fn(&Path) -> Result<Rig>,
}

/// The first one is what the others are compared with.
pub(super) const PEERS: &[Peer] = &[
    Peer {
        name: "direct",
        what: "client cabled to both backends, equal-cost route to the VIP on them: one hop",
        build: direct,
    },
    Peer {
        name: "routed",
        what: "a node between them routes, equal-cost route to the VIP on them: two hops",
        build: routed,
    },
    Peer {
        name: "shunt",
        what: "a node between them runs shunt, mode nat, evidence and breaker on: two hops",
        build: shunt,
    },
];

pub(super) const VIP: &str = "203.0.113.10";
const BACKENDS: [&str; 2] = ["web0", "web1"];

/// Everything of one measurement. Dropped in this order.
pub(super) struct Rig {
    _servers: Vec<Process>,
    shunt: Option<Shunt>,
    pub(super) client: Host,
    /// The client's devices.
    devices: Vec<String>,
    _lab: Kept,
}

/// The lab of a rig, in either of its forms.
#[expect(dead_code, reason = "only kept, to be dropped last")]
enum Kept {
    Own(Lab),
    Usual(Topology),
}

impl Rig {
    fn ready(self) -> Result<Self> {
        let target = format!("{VIP}:80").parse().expect("an address");
        until_ok("the VIP answers", PATIENCE, || connects(&self.client, target))?;
        Ok(self)
    }

    /// What the devices of the client take off the CPU's hands.
    pub(super) fn offloads(&self) -> Result<String> {
        let device = self.devices.first().context("the client has a device")?;
        let features = self.client.run(&["ethtool", "-k", device])?;
        // Not the summary `tcp-segmentation-offload`, which is on as soon as one rare kind of it is.
        let wanted = ["tx-checksumming", "tx-tcp-segmentation", "generic-receive-offload"];
        let states = features.lines().filter_map(|line| line.trim().split_once(": "));
        let states = states.filter(|(name, _)| wanted.contains(name));
        // Behind the state may stand what was asked for.
        let states = states.map(|(name, state)| format!("{name} {}", state.split(' ').next().unwrap_or("?")));
        Ok(states.collect::<Vec<_>>().join(", "))
    }

    /// How the program is attached, where there is one.
    pub(super) fn attached(&self) -> Result<Option<String>> {
        let Some(shunt) = &self.shunt else { return Ok(None) };
        let interfaces = shunt.status()?.interfaces;
        Ok(interfaces.first().map(|interface| format!("{:?}", interface.mode).to_lowercase()))
    }
}

fn serve(lab: &Lab, hosts: &[Host]) -> Result<Vec<Process>> {
    let server = "server { listen 80 backlog=4096; location / { return 200 'served\\n'; } }";
    let here = "127.0.0.1:80".parse().expect("an address");
    hosts.iter().map(|host| Ok(nginx(lab, host, here, server)?)).collect()
}

/// The VIP on each backend, and an equal-cost route to it on `from`.
fn spread(from: &Host, source: &str, backends: &[Host]) -> Result<()> {
    for backend in backends {
        backend.ip(&format!("address add {VIP}/32 dev lo"))?;
    }
    // By ports too, or one client would have one backend.
    from.sysctl("net/ipv4/fib_multipath_hash_policy", "1")?;
    let hops: Vec<_> = (0..backends.len()).map(|n| format!("nexthop via {}", Topology::address(n))).collect();
    from.ip(&format!("route add {VIP}/32 {source} {}", hops.join(" ")))?;
    Ok(())
}

fn direct(_: &Path) -> Result<Rig> {
    let mut lab = Lab::new("direct")?;
    let client = lab.host("client")?;
    // One source address whatever the cable, as in the other labs.
    client.ip("address add 10.10.0.2/32 dev lo")?;
    let (mut hosts, mut devices) = (Vec::new(), Vec::new());
    for (number, name) in BACKENDS.iter().enumerate() {
        let host = lab.host(name)?;
        let (here, there) = (format!("10.20.{number}.1"), Topology::address(number));
        let [near, _] = lab.link((&client, &format!("{here}/24")), (&host, &format!("{there}/24")))?;
        host.ip(&format!("route add default via {here}"))?;
        devices.push(near.device);
        hosts.push(host);
    }
    spread(&client, "src 10.10.0.2", &hosts)?;
    lab.pin_neighbours()?;
    let servers = serve(&lab, &hosts)?;
    Rig { _servers: servers, shunt: None, client, devices, _lab: Kept::Own(lab) }.ready()
}

fn routed(_: &Path) -> Result<Rig> {
    let topology = Topology::new("routed", &BACKENDS)?;
    topology.route()?;
    spread(&topology.node, "", &topology.backends)?;
    two_hops(topology, None)
}

fn shunt(binary: &Path) -> Result<Rig> {
    let topology = Topology::new("shunt", &BACKENDS)?;
    let backends: Vec<_> = BACKENDS
        .iter()
        .enumerate()
        .map(|(number, name)| format!("{name} = \"{}:80\"\n", Topology::address(number)))
        .collect();
    let config = format!(
        "interfaces = {:?}\n[service.web]\nvip = \"{VIP}:80\"\n[service.web.backends]\n{}\
         [service.web.breaker]\nconsecutive_5xx = 3\n",
        topology.devices,
        backends.concat(),
    );
    let shunt = Shunt::start(&topology.lab, &topology.node, binary, &config)?;
    two_hops(topology, Some(shunt))
}

fn two_hops(topology: Topology, shunt: Option<Shunt>) -> Result<Rig> {
    topology.lab.pin_neighbours()?;
    let servers = serve(&topology.lab, &topology.backends)?;
    let (client, devices) = (topology.client.clone(), vec!["node".to_owned()]);
    Rig { _servers: servers, shunt, client, devices, _lab: Kept::Usual(topology) }.ready()
}
