//! The sets of discovery: which reading of a file comes into force, and what keeps another one from that.
//!
//! The last good set of a service stays in force until the file has another one that fits. The daemon gives the engine
//! the configuration of its file together with these sets, as a reload does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use lb_core::{
    codes::DiscoveryCode,
    config::{Backend, Config},
    engine::{self, Exhausted},
};
use tokio::sync::watch;

use crate::{
    config::{self, File},
    control::model::{self, Problem, ProblemKind},
    discovery::{Fault, Found, Reading, Source},
    state,
};

/// All services whose backends are discovered.
#[derive(Debug)]
pub(super) struct DiscoveredSets {
    known: BTreeMap<String, Known>,
    sources: watch::Sender<Vec<Source>>,
}

#[derive(Debug)]
struct Known {
    source: Source,
    /// The last good set. It is in force.
    set: Vec<Backend>,
    /// When the file last had it.
    good_unix_ms: Option<u64>,
    /// The reading that it came from.
    good: Option<Found>,
    code: DiscoveryCode,
    error: Option<String>,
    /// A reading whose set does not fit this configuration.
    unfit: Option<Found>,
}

/// The consequences of one reading.
#[derive(Debug, Default)]
pub(super) struct Decision {
    /// The configuration with another set.
    pub(super) config: Option<Config>,
    pub(super) news: Option<News>,
}

/// The condition of a source has changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct News {
    pub(super) from: DiscoveryCode,
    pub(super) to: DiscoveryCode,
    pub(super) detail: String,
}

/// A set that a new configuration file does not go with.
#[derive(Debug, thiserror::Error)]
#[error("the discovered set of `{service}` does not go with this file: {fault}")]
pub(super) struct Clash {
    service: String,
    fault: Fault,
}

impl From<Clash> for Problem {
    fn from(clash: Clash) -> Self {
        Self {
            kind: ProblemKind::InvalidConfig,
            error: clash.to_string(),
            remedy: "nothing has changed; correct the file, or change the discovery file first".to_owned(),
        }
    }
}

impl DiscoveredSets {
    /// Fills in the first sets, with which the daemon takes over the maps. Returns the first readings, too.
    ///
    /// The engine knows a backend in the maps by its address. So where the file has another incarnation by now, the
    /// remembered one comes first, and the first reading replaces it.
    pub(super) fn start(
        file: &mut File,
        remembered: Vec<state::Discovered>,
    ) -> (Self, Vec<Reading>, watch::Receiver<Vec<Source>>) {
        let (sources, watched) = watch::channel(Vec::new());
        let (mut sets, mut readings) = (Self { known: BTreeMap::new(), sources }, Vec::new());
        let mut remembered: BTreeMap<String, state::Discovered> =
            remembered.into_iter().map(|of| (of.service.clone(), of)).collect();
        for (name, settings) in &file.discovery {
            let source = source(name, settings);
            let reading = source.look();
            let before = remembered.remove(name);
            let good_unix_ms = before.as_ref().map(|of| of.good_unix_ms);
            let before = before.map(state::Discovered::into_backends).unwrap_or_default();
            let now = reading.found.as_ref().as_ref().ok();
            let choices = [now.map(|now| incarnations(&now.backends, &before)), Some(before)];
            let fits = |set: Vec<Backend>| Some((with_set(&file.core, name, &set).ok()?, set));
            let mut set = Vec::new();
            if let Some((config, first)) = choices.into_iter().flatten().find_map(fits) {
                (file.core, set) = (config, first);
            }
            sets.known.insert(name.clone(), Known { good_unix_ms, ..Known::new(source, set) });
            readings.push(reading);
        }
        sets.publish();
        (sets, readings, watched)
    }

    /// Fills the sets into a file that was read for a reload. Also returns readings of those files that are new.
    pub(super) fn fill(&self, file: &mut File, present: &Config) -> Result<Vec<Reading>, Clash> {
        let mut readings = Vec::new();
        for (name, settings) in &file.discovery {
            let set = match self.known.get(name) {
                Some(known) => known.set.clone(),
                None => {
                    let reading = source(name, settings).look();
                    let set = first_set(&file.core, name, &reading, present);
                    readings.push(reading);
                    set
                }
            };
            file.core =
                with_set(&file.core, name, &set).map_err(|fault| Clash { service: name.clone(), fault })?;
        }
        Ok(readings)
    }

    /// A reload has put this file in force, with the sets that [`fill`](Self::fill) has put there.
    pub(super) fn configured(&mut self, discovery: &BTreeMap<String, config::Discovery>, core: &Config) {
        self.known.retain(|name, _| discovery.contains_key(name));
        for (name, settings) in discovery {
            let source = source(name, settings);
            match self.known.get_mut(name) {
                // Another configuration may go with a set that was refused.
                Some(known) => (known.source, known.unfit) = (source, None),
                None => {
                    let service = core.services.iter().find(|service| service.name == *name);
                    let set = service.map(|service| service.backends.clone()).unwrap_or_default();
                    self.known.insert(name.clone(), Known::new(source, set));
                }
            }
        }
        self.publish();
    }

    /// Decides about one reading. `fits`: whether the maps have space for a configuration.
    pub(super) fn decide(
        &mut self,
        reading: &Reading,
        core: &Config,
        fits: impl FnOnce(&Config) -> Result<(), Exhausted>,
        unix_ms: u64,
    ) -> Decision {
        let is_its = |known: &&mut Known| known.source.path == reading.path;
        let Some(known) = self.known.get_mut(&reading.service).filter(is_its) else {
            // A reload was faster.
            return Decision::default();
        };
        let is = |found: &Option<Found>| found.as_ref().is_some_and(|of| Arc::ptr_eq(of, &reading.found));
        if is(&known.unfit) {
            return Decision::default();
        }
        let document = match reading.found.as_ref() {
            Ok(document) => document,
            Err(fault) => return Decision { config: None, news: known.failed(fault) },
        };
        let same = is(&known.good) || document.backends == known.set;
        let judged = match same {
            true => Ok(None),
            false => with_set(core, &reading.service, &document.backends).and_then(|config| {
                let no_space =
                    |exhausted: Exhausted| Fault::new(DiscoveryCode::NoSpace, exhausted.to_string());
                fits(&config).map_err(no_space)?;
                Ok(Some(config))
            }),
        };
        match judged {
            Ok(config) => {
                known.good_unix_ms = Some(unix_ms);
                known.good = Some(Arc::clone(&reading.found));
                known.unfit = None;
                if config.is_some() {
                    known.set.clone_from(&document.backends);
                }
                Decision { config, news: known.recovered() }
            }
            Err(fault) => {
                if fault.code == DiscoveryCode::Unfit {
                    known.unfit = Some(Arc::clone(&reading.found));
                }
                Decision { config: None, news: known.failed(&fault) }
            }
        }
    }

    /// The last good sets, for the state file.
    pub(super) fn remembered(&self) -> Vec<state::Discovered> {
        let good = self.known.iter().filter_map(|(name, known)| Some((name, known, known.good_unix_ms?)));
        good.map(|(name, known, at)| state::Discovered::of(name, at, &known.set)).collect()
    }

    /// For status.
    pub(super) fn shown(&self, unix_ms: u64) -> Vec<model::Discovery> {
        let shown = |(name, known): (&String, &Known)| {
            let document = known.good.as_ref().and_then(|found| found.as_ref().as_ref().ok());
            model::Discovery {
                service: name.clone(),
                file: known.source.path.display().to_string(),
                code: known.code,
                error: known.error.clone(),
                backends: known.set.len(),
                good_unix_ms: known.good_unix_ms,
                age_ms: known.good_unix_ms.map(|at| unix_ms.saturating_sub(at)),
                source: document.and_then(|of| of.source.clone()),
                generated_at: document.and_then(|of| of.generated_at.clone()),
            }
        };
        self.known.iter().map(shown).collect()
    }

    fn publish(&self) {
        let sources = self.known.values().map(|known| known.source.clone()).collect();
        self.sources.send_if_modified(|present| {
            let changed = *present != sources;
            *present = sources;
            changed
        });
    }
}

impl Known {
    fn new(source: Source, set: Vec<Backend>) -> Self {
        let (good_unix_ms, good, error, unfit) = (None, None, None, None);
        Self { source, set, good_unix_ms, good, code: DiscoveryCode::Current, error, unfit }
    }

    fn failed(&mut self, fault: &Fault) -> Option<News> {
        let error = format!("{}: {fault}", self.source.path.display());
        let from = std::mem::replace(&mut self.code, fault.code);
        let count = self.set.len();
        let s = if count == 1 { "" } else { "s" };
        let detail = format!("{error}; the last good set stays: {count} backend{s}");
        self.error = Some(error);
        (from != self.code).then_some(News { from, to: self.code, detail })
    }

    fn recovered(&mut self) -> Option<News> {
        let from = std::mem::replace(&mut self.code, DiscoveryCode::Current);
        self.error = None;
        let detail = self.source.path.display().to_string();
        (from != self.code).then_some(News { from, to: self.code, detail })
    }
}

fn source(service: &str, settings: &config::Discovery) -> Source {
    let config::Discovery { file, interval } = settings;
    Source { service: service.to_owned(), path: file.clone(), interval: Duration::from_millis(interval.0) }
}

/// The set with which a service begins to be discovered: that of the file, or else the backends that it had.
fn first_set(core: &Config, name: &str, reading: &Reading, present: &Config) -> Vec<Backend> {
    match reading.found.as_ref() {
        Ok(document) if with_set(core, name, &document.backends).is_ok() => document.backends.clone(),
        Ok(_) | Err(_) => {
            let before = present.services.iter().find(|service| service.name == name);
            before.map(|service| service.backends.clone()).unwrap_or_default()
        }
    }
}

/// The set of now, with the incarnations that the maps hold.
fn incarnations(now: &[Backend], before: &[Backend]) -> Vec<Backend> {
    let held = |of: &Backend| {
        let other = |known: &&Backend| known.address == of.address && known.identity() != of.identity();
        before.iter().find(other).unwrap_or(of).clone()
    };
    let set: Vec<Backend> = now.iter().map(held).collect();
    let names: BTreeSet<&str> = set.iter().map(|of| of.name.as_str()).collect();
    if names.len() == set.len() { set } else { before.to_vec() }
}

/// The configuration with this set, if the set goes with it.
fn with_set(core: &Config, name: &str, set: &[Backend]) -> Result<Config, Fault> {
    let unfit = |says: String| Fault::new(DiscoveryCode::Unfit, says);
    let mut config = core.clone();
    let Some(service) = config.services.iter_mut().find(|service| service.name == name) else {
        return Err(unfit(format!("there is no service `{name}`")));
    };
    for backend in set {
        let Backend { name, address, .. } = backend;
        if address.is_ipv4() != service.vip.is_ipv4() {
            let vip = if service.vip.is_ipv4() { "IPv4" } else { "IPv6" };
            return Err(unfit(format!("`{name}` at {address} has not the IP version of the VIP, {vip}")));
        }
        if let Some(of) = service.fallback.iter().find(|of| of.name == *name || of.address == *address) {
            return Err(unfit(format!("`{name}` at {address} is `{}` of the fallback, too", of.name)));
        }
        if let Some(of) = core.services.iter().find(|of| of.vip == *address) {
            return Err(unfit(format!("`{name}` at {address} is the VIP of `{}`", of.name)));
        }
    }
    service.backends = set.to_vec();
    engine::fits(&config).map_err(|exhausted| unfit(exhausted.to_string()))?;
    Ok(config)
}

#[cfg(test)]
mod tests;
