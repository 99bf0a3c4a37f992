//! The configuration as the engine takes it: parsed, checked, with every default filled in.
//!
//! `lb_userspace::config` makes these from TOML; nothing here is validated again.
//! Key names, units and defaults are those of the TOML file.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU8,
};

use crate::{states::Standing, time::Millis};

mod breaker;
mod detector;
mod probe;

pub use breaker::{BackoffDecay, Breaker, HalfOpenExit};
pub use detector::Detector;
pub use probe::{GrpcProbe, HttpProbe, Probe, ProbeKind, Tls, Trust};

/// All services, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    pub services: Vec<Service>,
}

/// A VIP with its policy and its backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: String,
    pub vip: SocketAddr,
    pub mode: Mode,
    pub no_backend: NoBackend,
    /// Mirror response heads and account their status.
    pub evidence: bool,
    pub sources: Sources,
    pub connections: Connections,
    pub limits: Limits,
    /// So many bits of a client's address choose the backend. `None`: its whole tuple does. Default `None`.
    pub affinity: Option<NonZeroU8>,
    /// At least one, unless discovery gives them. Names and addresses are unique within the service, `fallback`
    /// included.
    pub backends: Vec<Backend>,
    /// Used only while none of `backends` serves. Default none.
    pub fallback: Vec<Backend>,
    pub probe: Option<Probe>,
    pub breaker: Breaker,
}

impl Service {
    /// The backends, and then those of the fallback.
    pub fn everyone(&self) -> impl Iterator<Item = &Backend> {
        self.backends.iter().chain(&self.fallback)
    }
}

/// How many connections may be open at a time, on this node. 0: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of the whole service. Default 0.
    pub max_connections: u32,
    /// Of each backend that has no limit of its own. Default 0.
    pub max_connections_per_backend: u32,
    /// Default reset.
    pub overflow: Overflow,
}

impl Limits {
    /// How many connections a backend may have at a time. 0: no limit.
    pub fn of_backend(&self, backend: &Backend) -> u32 {
        backend.max_connections.unwrap_or(self.max_connections_per_backend)
    }

    /// Of a service with these backends: its limit, and what happens to a SYN that finds everything full. `None`: neither it
    /// nor a backend has a limit.
    pub fn of_service<'a>(&self, mut backends: impl Iterator<Item = &'a Backend>) -> Option<ServiceLimit> {
        let Self { max_connections, overflow, .. } = *self;
        let limited = max_connections > 0 || backends.any(|backend| self.of_backend(backend) > 0);
        limited.then_some(ServiceLimit { max_connections, overflow })
    }
}

/// The limit of a service whose connections count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceLimit {
    /// 0: only its backends have limits.
    pub max_connections: u32,
    pub overflow: Overflow,
}

/// The answer to a SYN that finds everything full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// A TCP reset.
    #[default]
    Reset,
    /// No answer.
    Drop,
    /// No answer. A client that sends its SYN again goes before one that sends its first.
    QueueByRetry,
}

/// How connections end whose backend is out or does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// The breaker or the probe has taken the backend out. Default reset.
    pub on_eject: OnOut,
    /// An operator has taken it out, or a reload has removed it. Default drain.
    pub on_drain: OnOut,
    /// When a backend has got no new connections for this long, the connections that are left are reset.
    /// 0: at once. Default 60 s.
    pub drain_timeout: Millis,
    /// A handshake that its backend refuses or ignores continues with another one. Default false.
    pub redispatch: bool,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            on_eject: OnOut::Reset,
            on_drain: OnOut::Drain,
            drain_timeout: Millis::secs(60),
            redispatch: false,
        }
    }
}

/// How the connections of a backend that gets no new ones go on until `drain_timeout` is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOut {
    /// They go on.
    Drain,
    /// Each ends when its client begins the next request, or when it is idle.
    Reset,
}

/// The clients whose new connections a service accepts. The longest prefix decides. A client that no prefix
/// contains is accepted if `allow` is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Of the VIP's family, and no prefix twice in the two.
    pub allow: Vec<Prefix>,
    pub deny: Vec<Prefix>,
}

/// A prefix of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The bits behind the prefix are 0.
    pub address: IpAddr,
    pub length: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    pub name: String,
    pub address: SocketAddr,
    /// 1..=65535, relative to the other backends of the service. Default 100.
    pub weight: u16,
    /// Where its probe connects to. Default: its own address, with the probe's `port`.
    pub probe_address: Option<SocketAddr>,
    /// How many connections it may have at a time. 0: no limit. `None`: as many as the service says for each.
    pub max_connections: Option<u32>,
    /// `None`: the configuration file names it.
    pub discovered: Option<Discovered>,
}

/// A source of discovery names the backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovered {
    pub standing: Standing,
    /// Another identity under the same name and address is another backend.
    pub identity: Option<String>,
}

impl Backend {
    /// Where this probe of it connects to.
    pub fn probed_at(&self, probe: &Probe) -> SocketAddr {
        let own = || SocketAddr::new(self.address.ip(), probe.port.unwrap_or(self.address.port()));
        self.probe_address.unwrap_or_else(own)
    }

    /// The opinion of discovery about it. A backend of the file is always ready.
    pub fn standing(&self) -> Standing {
        self.discovered.as_ref().map_or(Standing::Ready, |of| of.standing)
    }

    pub fn identity(&self) -> Option<&str> {
        self.discovered.as_ref()?.identity.as_deref()
    }

    /// The actor that adds, removes and changes it.
    pub fn actor(&self) -> &'static str {
        if self.discovered.is_some() { "discovery" } else { "config" }
    }
}

/// How frames reach a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Shunt translates source and destination.
    #[default]
    Nat,
    /// Shunt translates the destination. The client's address and port stay, and replies must come back through
    /// this node.
    Dnat,
}

/// The answer to a new connection when no backend may serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NoBackend {
    /// A TCP reset.
    #[default]
    Reset,
    /// No answer.
    Drop,
    /// The service uses all backends that are not disabled and not probe-`down`, ejected ones too.
    Any,
}
