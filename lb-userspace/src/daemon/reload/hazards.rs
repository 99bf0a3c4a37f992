//! The hazards of a reload: it would break something, or something would not work after it.
//!
//! The kernel knows, and asking it takes a while, so a task does that beside the loop.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use lb_core::{
    config::{Config, Mode, Service},
    snapshot::PathState,
};
use tokio::{sync::oneshot, time::timeout};
use tracing::{error, warn};

use crate::{
    config::File,
    control::model::{Hazard, HazardCode, Problem, ProblemKind, Reloaded},
    dataplane::{actor, chain, next_hop},
};

/// An order to reload.
#[derive(Debug)]
pub(in crate::daemon) struct Order {
    pub(in crate::daemon) dry_run: bool,
    /// In spite of hazards.
    pub(in crate::daemon) force: bool,
    /// `None`: by SIGHUP.
    pub(in crate::daemon) answer: Option<oneshot::Sender<Result<Reloaded, Problem>>>,
}

impl Order {
    /// An error that nobody waits for goes to the log.
    pub(in crate::daemon) fn answer(self, made: Result<Reloaded, Problem>) {
        match (self.answer, made) {
            (Some(answer), made) => drop(answer.send(made)),
            (None, Err(Problem { error, .. })) => error!("not reloaded, nothing changes: {error}"),
            (None, Ok(_)) => {}
        }
    }
}

/// A reload whose hazards are known.
#[derive(Debug)]
pub(in crate::daemon) struct Inspected {
    pub(in crate::daemon) file: File,
    pub(in crate::daemon) hazards: Vec<Hazard>,
    pub(in crate::daemon) order: Order,
}

/// The refusal of a reload because of these.
pub(in crate::daemon) fn refused(hazards: &[Hazard]) -> Problem {
    let lines: Vec<String> = hazards.iter().map(|hazard| format!("  {hazard}")).collect();
    Problem {
        kind: ProblemKind::Hazard,
        error: format!("this would not work after the reload:\n{}", lines.join("\n")),
        remedy: "nothing has changed; mend it, or give `shunt reload --force`".to_owned(),
    }
}

/// Everything that the kernel is asked about.
#[derive(Debug)]
pub(in crate::daemon) struct Question {
    /// Backends that are new, by `SERVICE/BACKEND`. When interfaces change, all.
    backends: Vec<Asked>,
    interfaces: Vec<String>,
    detached: Vec<String>,
    vlans: Vec<u16>,
}

#[derive(Debug, PartialEq, Eq)]
struct Asked {
    name: String,
    address: IpAddr,
    /// As the daemon knows it, apart from what its interface decides.
    known: PathState,
    /// It is in the present configuration with this path.
    before: Option<PathState>,
}

impl Question {
    /// `vlans`: in force. Another list needs a restart.
    pub(super) fn new(
        (old, interfaces): (&Config, &[String]),
        vlans: &[u16],
        new: &File,
        paths: &next_hop::Paths,
    ) -> Self {
        let is_present = |service: &Service, address| {
            let same = |old: &&Service| old.name == service.name && old.mode == service.mode;
            old.services.iter().find(same).is_some_and(|old| old.everyone().any(|of| of.address == address))
        };
        let detached: Vec<String> =
            interfaces.iter().filter(|name| !new.interfaces.contains(name)).cloned().collect();
        let asked = new.core.services.iter().flat_map(|service| {
            service.everyone().map(move |backend| {
                let known = paths.to(backend.address.ip(), service.mode == Mode::Nat);
                Asked {
                    name: format!("{}/{}", service.name, backend.name),
                    address: backend.address.ip(),
                    known,
                    before: is_present(service, backend.address).then_some(known),
                }
            })
        });
        // Another interface can only mend what is new, and the loss of one can break everything.
        let backends = asked.filter(|asked| asked.before.is_none() || !detached.is_empty()).collect();
        Self { backends, interfaces: new.interfaces.clone(), detached, vlans: vlans.to_vec() }
    }

    /// Asks the kernel. Where it does not answer, there is no hazard.
    pub(in crate::daemon) async fn hazards(self, dataplane: &actor::Handle) -> Vec<Hazard> {
        const PATIENCE: Duration = Duration::from_secs(2);
        let addresses: BTreeSet<IpAddr> = self.backends.iter().map(|asked| asked.address).collect();
        let look = next_hop::look(addresses.into_iter(), &self.interfaces, &self.vlans);
        let found = match timeout(PATIENCE, look).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                warn!(error = chain(&error), "the paths of the new configuration are not known");
                BTreeMap::new()
            }
            Err(_) => {
                warn!("the paths of the new configuration are not known: the kernel was too slow");
                BTreeMap::new()
            }
        };
        let mut hazards = self.unreachable(&found);
        for name in &self.detached {
            let Ok(index) = nix::net::if_::if_nametoindex(name.as_str()) else { continue };
            let count = dataplane.connections_by(BTreeSet::from([index]));
            let count = match timeout(PATIENCE, count).await {
                Ok(Some(Ok(count))) if count > 0 => count,
                _ => continue,
            };
            hazards.push(Hazard {
                code: HazardCode::InterfaceInUse,
                subject: name.clone(),
                path: None,
                message: format!(
                    "{count} connections have their clients behind this interface, and would hang: leave it in \
                     `interfaces` until they have ended"
                ),
            });
        }
        hazards
    }

    fn unreachable(&self, found: &BTreeMap<IpAddr, PathState>) -> Vec<Hazard> {
        let fault = |asked: &Asked| match found.get(&asked.address) {
            Some(PathState::Ok) | None if asked.known == PathState::NoNatAddress => asked.known,
            Some(path) => *path,
            None => PathState::Ok,
        };
        let hazard = |asked: &Asked| {
            let path = fault(asked);
            (path != PathState::Ok && asked.before != Some(path)).then(|| Hazard {
                code: HazardCode::Unreachable,
                subject: asked.name.clone(),
                path: Some(path),
                message: format!("{} would be unreachable: {}", asked.address, path.message()),
            })
        };
        self.backends.iter().filter_map(hazard).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn file(interfaces: &str, backends: &str) -> File {
        let text = format!(
            "interfaces = {interfaces}\n[service.web]\nvip = \"203.0.113.10:80\"\nbackends = {{ {backends} }}\n"
        );
        config::parse("shunt.toml", &text).unwrap_or_else(|wrong| panic!("{}", wrong.render(false)))
    }

    fn asked(interfaces: &str, backends: &str) -> Question {
        let old = file("[\"eth0\", \"eth1\"]", "a = \"10.0.0.1:80\", b = \"10.0.0.2:80\"");
        let paths = next_hop::Paths::default();
        Question::new((&old.core, &old.interfaces), &[], &file(interfaces, backends), &paths)
    }

    fn names(question: &Question) -> Vec<&str> {
        question.backends.iter().map(|asked| asked.name.as_str()).collect()
    }

    #[test]
    fn only_what_is_new_is_asked_unless_an_interface_goes() {
        let both = "[\"eth0\", \"eth1\"]";
        let new = "a = \"10.0.0.1:80\", b = \"10.0.9.2:80\", c = \"10.0.0.3:80\"";
        assert_eq!(names(&asked(both, new)), ["web/b", "web/c"]);
        let question = asked("[\"eth0\"]", new);
        assert_eq!(names(&question), ["web/a", "web/b", "web/c"]);
        assert_eq!(question.detached, ["eth1"]);
    }

    #[test]
    fn a_fault_that_was_there_before_is_no_hazard_of_the_reload() {
        let mut question = asked("[\"eth0\"]", "a = \"10.0.0.1:80\", b = \"10.0.0.2:80\"");
        let all = question.backends.iter().map(|asked| (asked.address, PathState::NotAttached));
        let found: BTreeMap<_, _> = all.collect();
        question.backends[0].before = Some(PathState::NotAttached);
        let hazards = question.unreachable(&found);
        let seen: Vec<_> = hazards.iter().map(|hazard| (hazard.subject.as_str(), hazard.path)).collect();
        assert_eq!(seen, [("web/b", Some(PathState::NotAttached))]);
        assert_eq!(question.unreachable(&BTreeMap::new()), []);
        question.backends[1].known = PathState::NoNatAddress;
        let hazards = question.unreachable(&BTreeMap::new());
        assert_eq!(hazards[0].path, Some(PathState::NoNatAddress));
    }
}
