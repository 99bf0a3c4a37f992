//! Hosts made of network namespaces, for the demo, the tests and the benchmark.
//!
//! ```text
//!   client ──veth── node ──veth── backend 0
//!                     └────veth── backend 1 …
//! ```
//!
//! Both ends of every link are made inside namespaces, so nothing is ever seen or sent in
//! the namespace that the program started in. A [`Lab`] owns its namespaces and what runs in them; dropping it,
//! also by a panic, ends and removes all of it. The next lab removes what a killed program left:
//! names hold the process id.
//!
//! Needs root, `ip` and `ethtool`.

pub mod backend;
pub mod clock;
mod host;
mod namespace;
mod process;
mod shunt;
pub mod signals;
mod stale;
mod topology;
mod wait;

#[cfg(test)]
mod tests;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

pub use self::{
    host::Host,
    process::Process,
    shunt::{Events, Heard, Shunt},
    topology::Topology,
    wait::{until, until_ok},
};

/// A failure while hosts were made or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{command}` failed: {stderr}")]
    Command { command: String, stderr: String },
    #[error("{what}")]
    Io { what: String, source: io::Error },
    #[error("{what}: not within {limit:?}{last}")]
    Deadline {
        what: String,
        limit: Duration,
        /// The last thing that was seen, if any: `: …`.
        last: String,
    },
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what: what.into(), source }
    }
}

pub type Result<T> = std::result::Result<T, Error>;

/// A set of hosts and the links between them.
#[derive(Debug)]
pub struct Lab {
    /// `shunt-PREFIX-PID-SERIAL`: what the names of its namespaces begin with.
    name: String,
    folder: PathBuf,
    hosts: Vec<Host>,
    links: Vec<[End; 2]>,
}

/// One end of a link.
#[derive(Clone, Debug)]
pub struct End {
    pub host: Host,
    pub device: String,
    /// With prefix length: `10.0.0.1/24`.
    pub address: String,
    pub mac: String,
}

impl Lab {
    /// An empty lab. `prefix` is a short word without dashes. Removes what dead programs left.
    pub fn new(prefix: &str) -> Result<Self> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        assert!(prefix.chars().all(|c| c.is_ascii_alphanumeric()), "a lab's prefix is one plain word");
        stale::remove()?;
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{prefix}-{}-{serial}", stale::PREFIX, std::process::id());
        let folder = env::temp_dir().join(&name);
        fs::create_dir(&folder).map_err(Error::io(folder.display().to_string()))?;
        Ok(Self { name, folder, hosts: Vec::new(), links: Vec::new() })
    }

    /// A new host: loopback up, no other device, forwards nothing, accepts every source address.
    pub fn host(&mut self, name: &str) -> Result<Host> {
        let host = Host::make(name, &format!("{}-{name}", self.name))?;
        // Owned from here on, so that a failure below leaves nothing.
        self.hosts.push(host.clone());
        host.ip("link set lo up")?;
        host.sysctl("net/ipv4/ip_forward", "0")?;
        for device in ["all", "default"] {
            host.sysctl(&format!("net/ipv4/conf/{device}/rp_filter"), "0")?;
        }
        Ok(host)
    }

    /// A cable between two hosts. Each device has the name of the host at the other end (15 letters of it)
    /// and the address given here.
    ///
    /// For XDP checksums are complete in every frame (a program at the other end sees what a wire would carry), and
    /// receiving goes through NAPI, without which frames that XDP redirects would vanish. [`Style`] says otherwise.
    pub fn link(&mut self, a: (&Host, &str), b: (&Host, &str)) -> Result<[End; 2]> {
        let (number, style) = (self.links.len(), Style::get());
        let end = |(host, address): (&Host, &str), peer: &Host, side: u8| End {
            host: host.clone(),
            device: peer.name().chars().take(15).collect(),
            address: address.to_owned(),
            mac: format!("02:5b:00:00:{number:02x}:{side:02x}"),
        };
        let ends = [end(a, b.0, 0xa), end(b, a.0, 0xb)];
        let [near, far] = &ends;
        near.host.ip(&format!(
            "link add {} address {} type veth peer name {} address {} netns {}",
            near.device,
            near.mac,
            far.device,
            far.mac,
            far.host.namespace(),
        ))?;
        for end in &ends {
            if !style.offloads {
                end.host.run(&["ethtool", "-K", &end.device, "tx", "off"])?;
            }
            end.host.ip(&format!("address add {} dev {}", end.address, end.device))?;
            end.host.ip(&format!("link set {} up", end.device))?;
        }
        for end in ends.iter().filter(|_| !style.tc) {
            // Only now: switched on before the device is up, it does not make the kernel know that the other end may
            // be redirected to (drivers/net/veth.c, `veth_set_features`; seen on Linux 6.18).
            end.host.run(&["ethtool", "-K", &end.device, "gro", "on"])?;
        }
        self.links.push(ends.clone());
        Ok(ends)
    }

    /// Makes every host know its neighbours for good, so that nobody asks.
    pub fn pin_neighbours(&self) -> Result<()> {
        let directed = self.links.iter().flat_map(|[a, b]| [(a, b), (b, a)]);
        for (end, neighbour) in directed {
            let address = neighbour.address.split('/').next().unwrap_or_default();
            end.host.ip(&format!(
                "neighbour replace {address} lladdr {} dev {} nud permanent",
                neighbour.mac, end.device
            ))?;
        }
        Ok(())
    }

    /// The beginning of the names of this lab's namespaces.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// For sockets, configurations and logs. Removed with the lab.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Where the programs of all labs of this process are, and what their devices do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Daemons are at tc ingress instead of XDP, unless their configuration says otherwise.
    pub tc: bool,
    /// Hosts leave checksums and segmentation to their devices, as they do outside of laboratories. XDP cannot have that.
    pub offloads: bool,
}

static STYLE: OnceLock<Style> = OnceLock::new();

impl Style {
    /// The style of [`Style::set`], else both if the environment has `SHUNT_LAB_TC`, else neither.
    pub fn get() -> Self {
        *STYLE.get_or_init(|| {
            let tc = env::var_os("SHUNT_LAB_TC").is_some();
            Self { tc, offloads: tc }
        })
    }

    /// Before the first lab is made; later ones would differ from it, and nothing is changed.
    pub fn set(self) {
        let _ = STYLE.set(self);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in &self.hosts {
            if let Err(error) = namespace::remove(host.namespace()) {
                tracing::warn!(namespace = host.namespace(), %error, "namespace not removed");
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), %error, "folder not removed");
        }
    }
}
