//! A new configuration for a running daemon, and what it changes.

mod hazards;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
};

use lb_core::{
    config::{Backend, Config, Service},
    snapshot::LeavingSnapshot,
};
use tokio::sync::watch;
use tracing::warn;

pub(super) use self::hazards::{Inspected, Order, Question, refused};
use crate::{
    config::{self, Diagnostics, File},
    control::model::{Change, ChangeCode, Problem, ProblemKind},
    dataplane::{bpf, chain, next_hop},
};

/// The configuration in force, the file that it came from, and the addresses in it.
#[derive(Debug)]
pub(super) struct Configured {
    /// As the start found it, for the keys that only a start reads. `core` and `interfaces` are of the last reload.
    file: File,
    path: PathBuf,
    addresses: watch::Sender<Vec<IpAddr>>,
}

impl Configured {
    /// Also returns the addresses of all backends, for the edge that follows their next hops.
    pub(super) fn new(file: File, path: PathBuf) -> (Self, watch::Receiver<Vec<IpAddr>>) {
        log_warnings(&file);
        let (addresses, watched) = watch::channel(backend_addresses([&file.core]));
        (Self { file, path, addresses }, watched)
    }

    pub(super) fn core(&self) -> &Config {
        &self.file.core
    }

    /// Reads the file again.
    pub(super) fn read(&self) -> Result<File, Problem> {
        config::load(&self.path).map_err(|error| match error {
            config::LoadError::Invalid(diagnostics) => Problem {
                kind: ProblemKind::InvalidConfig,
                error: format!("{} is invalid\n\n{}", self.path.display(), diagnostics.render(false)),
                remedy: "nothing has changed; `shunt check` says the same before a reload".to_owned(),
            },
            error @ config::LoadError::Io { .. } => Problem {
                kind: ProblemKind::InvalidConfig,
                error: chain(&error),
                remedy: "nothing has changed; the daemon reads the file that it was started with".to_owned(),
            },
        })
    }

    /// The question that the kernel has to answer before a reload with this file.
    pub(super) fn question(&self, new: &File, paths: &next_hop::Paths) -> Question {
        Question::new((&self.file.core, &self.file.interfaces), &self.file.vlans, new, paths)
    }

    pub(super) fn differences(&self, new: &File) -> Vec<Change> {
        let was = |name: &&String| self.file.interfaces.contains(name);
        let gone = |name: &&String| !new.interfaces.contains(name);
        let attached = new.interfaces.iter().filter(|name| !was(name));
        let detached = self.file.interfaces.iter().filter(gone);
        let attached =
            attached.map(|name| change(ChangeCode::InterfaceAttached, format!("interface {name}: attached")));
        let mut all: Vec<Change> = attached.collect();
        all.extend(
            detached.map(|name| change(ChangeCode::InterfaceDetached, format!("interface {name}: detached"))),
        );
        all.extend(differences(&self.file.core, &new.core));
        let both = new.core.services.iter().map(|service| &service.name);
        let both = both.filter(|name| self.file.core.services.iter().any(|service| service.name == **name));
        let moved = both.filter(|name| self.file.discovery.get(*name) != new.discovery.get(*name));
        all.extend(moved.map(|name| change(ChangeCode::Policy, format!("{name}: discovery changed"))));
        all
    }

    /// Keys that only a start reads and that have changed since.
    pub(super) fn needs_restart(&self, new: &File) -> Vec<String> {
        // Taken apart whole, so that a new key cannot be forgotten here.
        let File {
            instance,
            // A reload attaches and detaches.
            interfaces: _,
            xdp_mode,
            control_socket,
            state_file,
            bpffs,
            nat_addresses,
            nat_ports,
            vlans,
            max_flows,
            max_new_flows_per_second,
            max_source_share,
            min_path_mtu,
            log,
            record,
            timeouts,
            core: _,
            discovery: _,
            warnings: _,
        } = &self.file;
        let keys = [
            ("instance", *instance != new.instance),
            ("xdp_mode", *xdp_mode != new.xdp_mode),
            ("control_socket", *control_socket != new.control_socket),
            ("state_file", *state_file != new.state_file),
            ("bpffs", *bpffs != new.bpffs),
            ("nat_addresses", *nat_addresses != new.nat_addresses),
            ("nat_ports", *nat_ports != new.nat_ports),
            ("vlans", *vlans != new.vlans),
            ("max_flows", *max_flows != new.max_flows),
            ("max_new_flows_per_second", *max_new_flows_per_second != new.max_new_flows_per_second),
            ("max_source_share", *max_source_share != new.max_source_share),
            ("min_path_mtu", *min_path_mtu != new.min_path_mtu),
            ("log", *log != new.log),
            ("record", *record != new.record),
            ("timeouts", *timeouts != new.timeouts),
        ];
        let mut keys: Vec<String> =
            keys.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key.to_owned()).collect();
        let tables = bpf::other_max_flows(bpffs, instance, new.max_flows);
        if tables.is_some() && !keys.iter().any(|key| key == "max_flows") {
            // A restart alone was not enough: it also takes a `shunt detach`.
            keys.push("max_flows".to_owned());
        }
        keys
    }

    /// A reload. `leaving`: backends that were removed before and still have connections.
    pub(super) fn take(&mut self, file: File, leaving: &[LeavingSnapshot]) {
        log_warnings(&file);
        self.follow_addresses(&file.core, leaving);
        self.file.core = file.core;
        self.file.discovery = file.discovery;
        self.file.interfaces = file.interfaces;
    }

    /// The same configuration with other sets of discovery.
    pub(super) fn take_sets(&mut self, core: Config, leaving: &[LeavingSnapshot]) {
        self.follow_addresses(&core, leaving);
        self.file.core = core;
    }

    /// A backend that is removed now or was removed before still has connections. Its next hop is followed until the next
    /// change.
    fn follow_addresses(&self, new: &Config, leaving: &[LeavingSnapshot]) {
        let mut all: BTreeSet<IpAddr> = backend_addresses([&self.file.core, new]).into_iter().collect();
        all.extend(leaving.iter().map(|of| of.address.ip()));
        self.addresses.send_replace(all.into_iter().collect());
    }

    pub(super) fn bpffs(&self) -> &Path {
        &self.file.bpffs
    }

    pub(super) fn instance(&self) -> &str {
        &self.file.instance
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn log_warnings(file: &File) {
    for warning in file.warnings.iter().flat_map(Diagnostics::iter) {
        let config::Diagnostic { line, code, path, message, help, .. } = warning;
        warn!(line, code = code.as_str(), key = path, "{message}: {help}");
    }
}

fn backend_addresses<const N: usize>(configs: [&Config; N]) -> Vec<IpAddr> {
    let services = configs.into_iter().flat_map(|config| &config.services);
    let all: BTreeSet<IpAddr> =
        services.flat_map(|service| service.everyone().map(|backend| backend.address.ip())).collect();
    all.into_iter().collect()
}

fn change(code: ChangeCode, says: String) -> Change {
    Change { code, says }
}

fn differences(old: &Config, new: &Config) -> Vec<Change> {
    let named =
        |config: &'_ Config, name: &str| config.services.iter().find(|service| service.name == name).cloned();
    let mut all = Vec::new();
    for service in &old.services {
        match named(new, &service.name) {
            Some(now) => all.extend(service_differences(service, &now)),
            None => all.push(change(ChangeCode::ServiceRemoved, format!("{}: removed", service.name))),
        }
    }
    for service in new.services.iter().filter(|service| named(old, &service.name).is_none()) {
        let (name, vip, backends) = (&service.name, service.vip, service.everyone().count());
        all.push(change(ChangeCode::ServiceAdded, format!("{name}: added at {vip}, {backends} backends")));
    }
    all
}

fn service_differences(old: &Service, new: &Service) -> Vec<Change> {
    // Taken apart whole again, so that a new key of a service cannot be forgotten here.
    let Service {
        name,
        vip,
        mode,
        no_backend,
        evidence,
        connections,
        limits,
        affinity,
        sources,
        backends,
        fallback,
        probe,
        breaker,
    } = old;
    let mut all = Vec::new();
    if *vip != new.vip {
        all.push(change(ChangeCode::Vip, format!("{name}: vip {vip} -> {}", new.vip)));
    }
    let parts = [
        ("mode", *mode != new.mode),
        ("no_backend", *no_backend != new.no_backend),
        ("evidence", *evidence != new.evidence),
        ("on_eject", connections.on_eject != new.connections.on_eject),
        ("on_drain", connections.on_drain != new.connections.on_drain),
        ("drain_timeout", connections.drain_timeout != new.connections.drain_timeout),
        ("redispatch", connections.redispatch != new.connections.redispatch),
        ("max_connections", limits.max_connections != new.limits.max_connections),
        (
            "max_connections_per_backend",
            limits.max_connections_per_backend != new.limits.max_connections_per_backend,
        ),
        ("overflow", limits.overflow != new.limits.overflow),
        ("affinity", *affinity != new.affinity),
        ("probe", *probe != new.probe),
        ("allow", sources.allow != new.sources.allow),
        ("deny", sources.deny != new.sources.deny),
        ("breaker", *breaker != new.breaker),
    ];
    let changed = parts.into_iter().filter(|(_, changed)| *changed);
    all.extend(changed.map(|(part, _)| change(ChangeCode::Policy, format!("{name}: {part} changed"))));
    let now: BTreeMap<_, _> = new.everyone().map(|backend| (&backend.name, backend)).collect();
    for was in old.everyone() {
        let of = format!("{name}/{}", was.name);
        let Some(is) = now.get(&was.name) else {
            all.push(change(ChangeCode::BackendRemoved, format!("{of}: removed")));
            continue;
        };
        if was.address != is.address {
            let says = format!("{of}: address {} -> {}, as a new backend", was.address, is.address);
            all.push(change(ChangeCode::BackendAddress, says));
        }
        if was.weight != is.weight {
            let says = format!("{of}: weight {} -> {}", was.weight, is.weight);
            all.push(change(ChangeCode::BackendWeight, says));
        }
        if was.max_connections != is.max_connections {
            all.push(change(ChangeCode::Policy, format!("{of}: max_connections changed")));
        }
    }
    let moved = |to: &[Backend], from: &[Backend], what: &str| -> Vec<Change> {
        let came = to.iter().filter(|is| from.iter().any(|was| was.name == is.name));
        came.map(|is| change(ChangeCode::BackendFallback, format!("{name}/{}: {what}", is.name))).collect()
    };
    all.extend(moved(&new.fallback, backends, "of the fallback from now on"));
    all.extend(moved(&new.backends, fallback, "of the fallback no more"));
    let before: BTreeSet<_> = old.everyone().map(|backend| &backend.name).collect();
    for is in new.everyone().filter(|backend| !before.contains(&backend.name)) {
        let says = format!("{name}/{}: added at {}", is.name, is.address);
        all.push(change(ChangeCode::BackendAdded, says));
    }
    all
}

#[cfg(test)]
mod tests;
