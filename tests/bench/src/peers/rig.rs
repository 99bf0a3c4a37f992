//! One peer between a client and backends.

use std::{fs, net::SocketAddrV4, path::Path, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use lb_lab::{Host, Lab, Topology, until_ok};
use lb_tests::http::get;

use super::{Peer, Place, Running, VIP, proxies};

/// For programs to start, and next hops to be in the maps.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything of one measurement, `S` being what serves. Dropped in this order: a proxy keeps connections to
/// the servers, which wait for them to end.
pub(crate) struct Rig<S> {
    pub(crate) running: Running,
    pub(crate) servers: S,
    pub(crate) client: Host,
    /// One of the client's.
    device: String,
    _lab: Kept,
}

/// The lab of a rig, in either of its forms.
#[expect(dead_code, reason = "only kept, to be dropped last")]
enum Kept {
    Own(Lab),
    Usual(Topology),
}

/// Starts servers on these hosts, which are reached at the port that [`Rig::new`] was given, and at the VIP.
pub(crate) trait Serve<S>: FnOnce(&Lab, &[Host]) -> Result<S> {}
impl<S, F: FnOnce(&Lab, &[Host]) -> Result<S>> Serve<S> for F {}

impl<S> Rig<S> {
    /// The peer, once a request to the VIP is answered with 200. Without a node between (`direct`) and where
    /// nothing translates (`routing`), the VIP is on the backends themselves, which must listen on its port.
    pub(crate) fn new(
        peer: Peer,
        backends: &[&str],
        port: u16,
        shunt: &Path,
        serve: impl Serve<S>,
    ) -> Result<Self> {
        let prefix: String = peer.name().chars().filter(char::is_ascii_alphanumeric).collect();
        let mut rig = if peer == Peer::Direct {
            direct(&prefix, backends, serve)?
        } else {
            between(peer, &prefix, backends, port, shunt, serve)?
        };
        match rig.ready() {
            Ok(()) => Ok(rig),
            Err(error) => Err(error.context(format!("{} does not serve{}", peer.name(), rig.said()))),
        }
    }

    fn ready(&mut self) -> Result<()> {
        let vip = vip().into();
        until_ok("the VIP answers", PATIENCE, || {
            if let Running::Program(process) = &mut self.running
                && let Some(ended) = process.ended()
            {
                // Waiting longer would not help.
                return Ok(Err(anyhow!("it ended: {ended}")));
            }
            let answer = get(&self.client, vip, "/")?;
            ensure!(answer.status == 200, "it answers {}", answer.status);
            Ok(Ok(()))
        })?
    }

    /// The output of the program, if it is one.
    fn said(&self) -> String {
        let text = match &self.running {
            Running::Kernel => return String::new(),
            Running::Program(_) => {
                let Kept::Usual(topology) = &self._lab else { return String::new() };
                fs::read_to_string(topology.lab.folder().join(proxies::LOG)).unwrap_or_default()
            }
            Running::Shunt(shunt) => shunt.log(),
        };
        format!("; it says:\n{}", text.trim_end())
    }

    /// The work that the client's devices take off the CPU.
    pub(crate) fn offloads(&self) -> Result<String> {
        let features = self.client.run(&["ethtool", "-k", &self.device])?;
        // Not the summary `tcp-segmentation-offload`, which is on as soon as one rare kind of it is.
        let wanted = ["tx-checksumming", "tx-tcp-segmentation", "generic-receive-offload"];
        let states = features.lines().filter_map(|line| line.trim().split_once(": "));
        let states = states.filter(|(name, _)| wanted.contains(name));
        // Behind the state may stand what was asked for.
        let states = states.map(|(name, state)| format!("{name} {}", state.split(' ').next().unwrap_or("?")));
        Ok(states.collect::<Vec<_>>().join(", "))
    }

    /// How Shunt's program is attached, where there is one.
    pub(crate) fn attached(&self) -> Result<Option<String>> {
        let Running::Shunt(shunt) = &self.running else { return Ok(None) };
        let interfaces = shunt.status()?.interfaces;
        Ok(interfaces.first().map(|interface| format!("{:?}", interface.mode).to_lowercase()))
    }
}

pub(crate) fn vip() -> SocketAddrV4 {
    VIP.parse().expect("a literal")
}

fn direct<S>(prefix: &str, backends: &[&str], serve: impl Serve<S>) -> Result<Rig<S>> {
    let mut lab = Lab::new(prefix)?;
    let client = lab.host("client")?;
    // One source address whatever the cable, as in the other labs.
    client.ip("address add 10.10.0.2/32 dev lo")?;
    let (mut hosts, mut devices) = (Vec::new(), Vec::new());
    for (number, name) in backends.iter().enumerate() {
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
    let device = devices.into_iter().next().context("a lab has a backend")?;
    Ok(Rig { servers, running: Running::Kernel, client, device, _lab: Kept::Own(lab) })
}

fn between<S>(
    peer: Peer,
    prefix: &str,
    names: &[&str],
    port: u16,
    shunt: &Path,
    serve: impl Serve<S>,
) -> Result<Rig<S>> {
    let topology = Topology::new(prefix, names)?;
    topology.lab.pin_neighbours()?;
    if peer == Peer::Routing {
        spread(&topology.node, "", &topology.backends)?;
    }
    let servers = serve(&topology.lab, &topology.backends)?;
    let addresses = (0..).map(|number| SocketAddrV4::new(Topology::address(number), port));
    let backends: Vec<_> = names.iter().copied().zip(addresses).collect();
    let running = peer.start(&Place { topology: &topology, vip: vip(), backends: &backends, shunt })?;
    let client = topology.client.clone();
    Ok(Rig { servers, running, client, device: "node".to_owned(), _lab: Kept::Usual(topology) })
}

/// The VIP on each backend, and an equal-cost route to it on `from`.
fn spread(from: &Host, source: &str, backends: &[Host]) -> Result<()> {
    let address = vip().ip().to_string();
    for backend in backends {
        backend.ip(&format!("address add {address}/32 dev lo"))?;
    }
    // By ports too, or one client would have one backend.
    from.sysctl("net/ipv4/fib_multipath_hash_policy", "1")?;
    let hops: Vec<_> = (0..backends.len()).map(|n| format!("nexthop via {}", Topology::address(n))).collect();
    from.ip(&format!("route add {address}/32 {source} {}", hops.join(" ")))?;
    Ok(())
}
