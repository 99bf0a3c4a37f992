//! Puts together the answer to `status`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use lb_common::{ABI_VERSION, abi::BackendCounters, reason::Reason};
use lb_core::{
    codes::DaemonCode,
    config::{Config, Service},
    io::{BackendId, ServiceId},
    snapshot::{BackendSnapshot, ServiceSnapshot, Snapshot},
};

use super::clock::Clock;
use crate::{
    attach_mode::Condition,
    config::File,
    control::model::{
        BackendTraffic, Daemon, Evidence, ExpiredFlows, Forwarding, Interface, LimitUse, Mode, Program,
        ProgramMap, ResetCounts, ServiceDrops, Status, Warning,
    },
    dataplane::{self, Counters, LimitCounts, bpf, interfaces},
    doctor,
};

/// Everything that `status` shows besides the state of the engine and the counters.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    instance: String,
    bpffs: PathBuf,
    config_path: String,
    interfaces: Vec<Interface>,
    warnings: Vec<Warning>,
    program: Program,
    /// How each service forwards, and whether it mirrors response heads.
    services: BTreeMap<String, (Mode, bool)>,
}

impl Facts {
    pub(super) fn new(
        file: &File,
        config_path: &Path,
        interfaces: &[interfaces::Interface],
        size: bpf::ProgramSize,
    ) -> Self {
        let maps =
            size.maps.into_iter().map(|(name, entries, bytes)| ProgramMap { name, entries, bytes }).collect();
        let mut facts = Self {
            instance: file.instance.clone(),
            bpffs: file.bpffs.clone(),
            config_path: config_path.display().to_string(),
            interfaces: interfaces.iter().map(shown).collect(),
            warnings: Vec::new(),
            program: Program { verified_instructions: size.verified_instructions, maps },
            services: BTreeMap::new(),
        };
        facts.configured(&file.core);
        facts
    }

    /// Returns what has changed: the condition before, and the interface now.
    pub(super) fn follow_interfaces<'a>(
        &mut self,
        now: &'a [interfaces::Interface],
    ) -> Vec<(Condition, &'a interfaces::Interface)> {
        let before = |name: &str| self.interfaces.iter().find(|of| of.name == name).map(|of| of.condition);
        let changed = now.iter().filter_map(|is| Some((before(&is.name)?, is)));
        let changed = changed.filter(|(from, is)| *from != is.condition).collect();
        self.interfaces = now.iter().map(shown).collect();
        changed
    }

    /// Asks the kernel for the programs of others.
    fn with_others(&self, interface: &Interface) -> Interface {
        let also = bpf::also_attached(&self.bpffs, &self.instance, &interface.name);
        Interface { also, ..interface.clone() }
    }

    /// Shows these findings from now on.
    pub(super) fn warn(&mut self, findings: Vec<doctor::Finding>) {
        let shown = |of: doctor::Finding| Warning {
            check: of.check.to_owned(),
            code: of.code.to_string(),
            interface: of.interface,
            says: of.says,
            remedy: of.remedy,
        };
        self.warnings = findings.into_iter().map(shown).collect();
    }

    pub(super) fn configured(&mut self, config: &Config) {
        let of = |service: &Service| (service.name.clone(), (service.mode.into(), service.evidence));
        self.services = config.services.iter().map(of).collect();
    }

    pub(super) fn status(
        &self,
        snapshot: Snapshot,
        counters: Result<Counters, String>,
        clock: &Clock,
        events_seq: u64,
        mut daemon: Daemon,
    ) -> Status {
        let has_counters = counters.is_ok();
        let counters = &counters.unwrap_or_else(|error| {
            daemon.counters_error = Some(error);
            daemon.counters_error_code = Some(DaemonCode::CountersNotRead);
            Counters::default()
        });
        let traffic = snapshot
            .services
            .iter()
            .flat_map(|service| {
                service.backends.iter().map(|backend| self.traffic(&service.name, backend, counters))
            })
            .filter(|_| has_counters)
            .collect();
        let forwarding = snapshot
            .services
            .iter()
            .map(|service| Forwarding {
                service: service.name.clone(),
                mode: self.services.get(&service.name).map_or(Mode::Nat, |(mode, _)| *mode),
                evidence: self.evidence(service, counters),
                limit: limit(service.id, &counters.service_limits),
            })
            .collect();
        let drops = snapshot
            .services
            .iter()
            .filter_map(|service| drops(service.id, &service.name, counters))
            .collect();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            abi: ABI_VERSION,
            instance: self.instance.clone(),
            pid: std::process::id(),
            started_unix_ms: clock.started_unix_ms(),
            uptime_ms: clock.now().0,
            config_path: self.config_path.clone(),
            config_generation: snapshot.config_generation,
            interfaces: self.interfaces.iter().map(|interface| self.with_others(interface)).collect(),
            warnings: self.warnings.clone(),
            program: self.program.clone(),
            reactions: None,
            discovery: Vec::new(),
            daemon,
            forwarding,
            events_seq,
            traffic,
            remaining_connections: Vec::new(),
            drops,
            expired_flows: expired_flows(counters.expired_flows),
            mirror_lost: counters.backends.iter().map(|(_, counters)| counters.heads_lost).sum(),
            snapshot,
        }
    }

    pub(super) fn traffic(
        &self,
        service: &str,
        backend: &BackendSnapshot,
        counters: &Counters,
    ) -> BackendTraffic {
        let warning = counters.path_warnings.iter().find(|(id, _)| *id == backend.id).map(|(_, of)| of);
        BackendTraffic {
            service: service.to_owned(),
            backend: backend.name.clone(),
            reachable: !counters.unreachable.contains(&backend.id),
            path_warning: warning.map(|of| of.message().to_owned()),
            path_warning_code: warning.map(ToString::to_string),
            counters: of(backend.id, counters).into(),
            resets: resets(backend.id, counters),
            limit: limit(backend.id, &counters.backend_limits),
        }
    }

    /// How much Shunt sees of the responses of a service.
    pub(super) fn evidence(&self, service: &ServiceSnapshot, counters: &Counters) -> Evidence {
        if !self.services.get(&service.name).is_some_and(|(_, evidence)| *evidence) {
            return Evidence::None;
        }
        let mut total = BackendCounters::default();
        for backend in &service.backends {
            let counters = of(backend.id, counters);
            total.heads += counters.heads;
            total.opaque += counters.opaque;
        }
        if total.heads == 0 && total.opaque > 0 { Evidence::Opaque } else { Evidence::Inline }
    }
}

fn shown(interface: &interfaces::Interface) -> Interface {
    let interfaces::Interface { name, mode, condition, problem, .. } = interface.clone();
    Interface { name, mode, condition, problem, also: Vec::new() }
}

fn expired_flows(counted: dataplane::ExpiredFlows) -> ExpiredFlows {
    let dataplane::ExpiredFlows { handshakes, established, closing, rested } = counted;
    ExpiredFlows { handshakes, established, closing, time_wait: rested }
}

fn of(id: BackendId, counters: &Counters) -> BackendCounters {
    // In the order of their ids.
    let found = counters.backends.binary_search_by_key(&id, |(id, _)| *id);
    found.map(|place| counters.backends[place].1).unwrap_or_default()
}

fn resets(id: BackendId, counters: &Counters) -> ResetCounts {
    let found = counters.resets.binary_search_by_key(&id, |(id, _)| *id);
    let dataplane::ResetCounts { idle, drained } =
        found.map(|place| counters.resets[place].1).unwrap_or_default();
    ResetCounts { at_request: of(id, counters).resets, idle, drain: drained }
}

fn limit<I: Copy + Ord>(id: I, all: &[(I, LimitCounts)]) -> Option<LimitUse> {
    let found = all.binary_search_by_key(&id, |(id, _)| *id).ok()?;
    let LimitCounts { used, handshakes, limit } = all[found].1;
    Some(LimitUse { used, handshakes, limit })
}

fn drops(id: ServiceId, name: &str, counters: &Counters) -> Option<ServiceDrops> {
    let mut counts = [0; Reason::COUNT];
    for (service, reason, count) in &counters.drops {
        if *service == id {
            counts[*reason as usize] = *count;
        }
    }
    counts.iter().any(|count| *count > 0).then(|| ServiceDrops::new(name, &counts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config, control::fixture};

    #[test]
    fn without_the_counters_the_rest_is_shown() {
        let text = "interfaces = [\"eth0\"]\n[service.web]\nvip = \"203.0.113.10:80\"\n\
                    [service.web.backends]\nweb-1 = \"10.0.0.11:80\"\n";
        let file = config::parse("shunt.toml", text).expect("right");
        let size = bpf::ProgramSize { verified_instructions: None, maps: Vec::new() };
        let facts = Facts::new(&file, Path::new("shunt.toml"), &[], size);
        let snapshot = fixture::status().snapshot;
        let clock = Clock::start();
        let status = |counters| facts.status(snapshot.clone(), counters, &clock, 7, Daemon::default());
        let whole = status(Ok(Counters::default()));
        assert_eq!((whole.traffic.len(), &whole.daemon.counters_error), (5, &None));
        let without = status(Err("map BACKENDS: no".to_owned()));
        assert!(without.traffic.is_empty() && without.drops.is_empty());
        assert_eq!(without.daemon.counters_error.as_deref(), Some("map BACKENDS: no"));
        assert_eq!((&without.snapshot, without.events_seq), (&whole.snapshot, 7));
        assert_eq!(without.forwarding, whole.forwarding);
    }
}
