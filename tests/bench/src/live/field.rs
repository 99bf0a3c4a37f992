//! Where live frames go: a node between a client and a backend, whose devices drop and count what arrives.

use std::{fs, os::fd::OwnedFd, sync::Barrier, thread, time::Duration};

use anyhow::{Context, Result, bail};
use lb_lab::{Host, Lab, clock, until};
use nix::{
    net::if_::if_nametoindex,
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use crate::packet::{
    syscall::{self, Live},
    wrapper,
};

/// How long frames that were sent may take until they are counted.
const PATIENCE: Duration = Duration::from_millis(500);

/// ```text
///   client ──veth── node ──veth── backend
/// ```
///
/// Each device has a queue for each CPU. The far ends drop every frame in XDP, the cheapest receiver there is.
pub(super) struct Field {
    pub(super) node: Host,
    far: [Host; 2],
    /// The node's device towards the client.
    pub(super) client: u32,
    pub(super) backend: u32,
    _attached: Vec<OwnedFd>,
    /// Last, so that what is attached goes before the devices.
    _lab: Lab,
}

/// The outcome of one measurement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// That went through the program, of all CPUs together.
    pub(super) per_second: f64,
    /// Part of them that was counted at a far end.
    pub(super) crossed: f64,
}

impl Field {
    pub(super) fn new(cpus: usize) -> Result<Self> {
        let mut lab = Lab::new("live")?;
        let (client, node, backend) = (lab.host("client")?, lab.host("node")?, lab.host("backend")?);
        lab.link((&client, "10.10.0.2/24"), (&node, "10.10.0.1/24"))?;
        lab.link((&node, "10.20.0.1/24"), (&backend, "10.20.0.2/24"))?;
        let ends = [(&node, "client"), (&client, "node"), (&node, "backend"), (&backend, "node")];
        // A device may send by no more queues than its peer has to receive.
        for kind in ["rx", "tx"] {
            for (host, device) in ends {
                host.run(&["ethtool", "-L", device, kind, &cpus.to_string()])?;
            }
        }
        let (passing, dropping) = (wrapper::empty()?, wrapper::dropping()?);
        let mut attached = Vec::new();
        for (host, device) in ends {
            let program = if host.name() == node.name() { &passing } else { &dropping };
            attached.push(host.enter(|| syscall::attach(program, index(device)?))??);
        }
        let [toward_client, toward_backend] =
            ["client", "backend"].map(|device| node.enter(|| index(device)));
        Ok(Self {
            client: toward_client??,
            backend: toward_backend??,
            node,
            far: [client, backend],
            _attached: attached,
            _lab: lab,
        })
    }

    /// Sends so many frames through each program, each on a CPU of its own from the last one down.
    pub(super) fn send(&self, programs: &[Live<'_>], frames: u32, ingress: u32) -> Result<Sent> {
        let before = self.arrived()?;
        let together = Barrier::new(programs.len());
        let times = thread::scope(|scope| {
            let running: Vec<_> = (0..CpuSet::count())
                .rev()
                .filter(|cpu| *cpu < thread::available_parallelism().map_or(1, usize::from))
                .zip(programs)
                .map(|(cpu, program)| {
                    let together = &together;
                    scope.spawn(move || {
                        self.node.enter(|| -> Result<Duration> {
                            let mut one = CpuSet::new();
                            one.set(cpu)?;
                            sched_setaffinity(Pid::from_raw(0), &one).context("staying on one CPU")?;
                            together.wait();
                            let begun = clock::now();
                            program.run(frames, ingress)?;
                            Ok(clock::now() - begun)
                        })
                    })
                })
                .collect();
            running
                .into_iter()
                .map(|thread| thread.join().expect("a sender does not panic")?)
                .collect::<Result<Vec<_>>>()
        })?;
        let sent = u64::from(frames) * programs.len() as u64;
        // A frame that is lost on the way never comes: its part is the answer.
        let _ = until("all frames have arrived", PATIENCE, || {
            self.arrived().is_ok_and(|arrived| arrived - before >= sent)
        });
        let crossed = (self.arrived()? - before) as f64 / sent as f64;
        let per_second = times.iter().map(|time| f64::from(frames) / time.as_secs_f64()).sum();
        Ok(Sent { per_second, crossed })
    }

    /// Frames that the far ends have counted.
    fn arrived(&self) -> Result<u64> {
        let mut sum = 0;
        for host in &self.far {
            sum += host.enter(|| received("node"))??;
        }
        Ok(sum)
    }
}

fn index(device: &str) -> Result<u32> {
    if_nametoindex(device).with_context(|| format!("looking for {device}"))
}

/// Of this thread's namespace.
fn received(device: &str) -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/dev").context("reading device counters")?;
    for line in text.lines() {
        if let Some((name, counters)) = line.split_once(':')
            && name.trim() == device
        {
            // Received bytes, then packets.
            let packets = counters.split_whitespace().nth(1).and_then(|number| number.parse().ok());
            return packets.context("device counters are numbers");
        }
    }
    bail!("no counters of {device}")
}
