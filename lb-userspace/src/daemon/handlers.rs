//! Handlers of the requests that come through the control socket.

use std::{net::SocketAddr, sync::Arc};

use lb_common::abi::{FlowKey, Port};
use lb_core::{
    codes::DaemonCode,
    config::Config,
    io::Input,
    snapshot::{LeavingSnapshot, ServiceSnapshot, Snapshot, Why},
    time::Millis,
};
use tokio::{
    runtime::Handle,
    sync::{mpsc::UnboundedSender, oneshot},
    task::JoinHandle,
};
use tracing::{info, warn};
use tracing_appender::non_blocking::ErrorCounter;

use super::{
    discovered::{Decision, DiscoveredSets, News},
    driver::Driver,
    explanation::explanation,
    lag::Lag,
    paths,
    reload::{Configured, Inspected, Order, refused},
    status::Facts,
};
use crate::{
    config::File,
    control::{
        Request,
        model::{
            BackendView, Daemon, Explanation, Hazard, Problem, ProblemKind, Reloaded, RemainingConnections,
            Status,
        },
    },
    dataplane::{
        self, actor, bpf, chain,
        interfaces::{Interface, Interfaces},
        next_hop::Paths,
    },
    discovery::Reading,
};

/// How a request is answered. `None`: there is no such service or backend. A caller may have gone: then the
/// answer is dropped.
type Answer<T> = oneshot::Sender<Option<Result<Box<T>, Problem>>>;

pub(super) struct Handlers {
    facts: Facts,
    configured: Configured,
    sets: DiscoveredSets,
    paths: Paths,
    interfaces: Arc<Interfaces>,
    /// To the loop.
    inspected: UnboundedSender<Inspected>,
    /// The last reload that the kernel was asked about.
    inspection: Option<JoinHandle<()>>,
    lost_log_lines: ErrorCounter,
    /// Where to read maps, which may take long. The loop does not wait for it.
    tasks: Handle,
}

impl Handlers {
    pub(super) fn new(
        facts: Facts,
        configured: Configured,
        sets: DiscoveredSets,
        interfaces: Arc<Interfaces>,
        inspected: UnboundedSender<Inspected>,
        lost_log_lines: ErrorCounter,
        tasks: Handle,
    ) -> Self {
        let (paths, inspection) = (Paths::default(), None);
        Self { facts, configured, sets, paths, interfaces, inspected, inspection, lost_log_lines, tasks }
    }

    pub(super) fn handle(&mut self, request: Request, driver: &mut Driver, lag: Lag) {
        match request {
            Request::Status(answer) => self.status(driver, lag, answer),
            Request::Backend { service, backend, connections, answer } => {
                match driver.engine().why(&service, &backend, driver.now()) {
                    Some(why) => self.backend(driver, why, connections, answer),
                    None => drop(answer.send(None)),
                }
            }
            Request::Operate(operation, answer) => drop(answer.send(driver.operate(&operation))),
            Request::Explain { client, service, answer } => {
                let mut snapshot = driver.snapshot();
                let found = snapshot.services.iter().position(|known| known.name == service);
                let found = found.map(|place| snapshot.services.swap_remove(place));
                match found {
                    Some(service) => self.explain(driver, client, service, snapshot.leaving, answer),
                    None => drop(answer.send(None)),
                }
            }
            Request::Reload { dry_run, force, answer } => {
                self.reload(driver, Order { dry_run, force, answer: Some(answer) });
            }
        }
    }

    /// Gives the engine the configuration in force.
    pub(super) fn configure(&mut self, driver: &mut Driver) {
        driver.handle(Input::Config(Arc::new(self.configured.core().clone())));
        paths::follow(&self.paths, self.configured.core(), driver);
    }

    /// Gives the engine the paths that have changed.
    pub(super) fn follow_paths(&mut self, paths: Paths, driver: &mut Driver) {
        self.paths = paths;
        paths::follow(&self.paths, self.configured.core(), driver);
    }

    /// Shows how the interfaces are now, and makes an event of each change.
    pub(super) fn follow_interfaces(&mut self, interfaces: &[Interface], driver: &mut Driver) {
        for (from, to) in self.facts.follow_interfaces(interfaces) {
            let Interface { name, condition, problem, .. } = to;
            let (name, detail) = (name.clone(), problem.clone());
            driver.handle(Input::Interface {
                name,
                from: from.to_string(),
                to: condition.to_string(),
                reason: (*condition).into(),
                detail,
            });
        }
    }

    /// Puts the sets in force that fit, as a reload does, and makes an event of each change of a source.
    pub(super) fn follow_discovery(&mut self, readings: &[Reading], driver: &mut Driver) {
        for reading in readings {
            let (unix_ms, engine) = (driver.clock().unix_ms(), driver.engine());
            let fits = |config: &Config| engine.fits(config);
            let Decision { config, news } = self.sets.decide(reading, self.configured.core(), fits, unix_ms);
            if config.is_some() || news.is_some() {
                self.remember(driver);
            }
            if let Some(config) = config {
                self.configured.take_sets(config, &driver.snapshot().leaving);
                self.configure(driver);
            }
            if let Some(News { from, to, detail }) = news {
                driver.handle(Input::Discovery {
                    service: reading.service.clone(),
                    from: from.to_string(),
                    to: to.to_string(),
                    reason: to.into(),
                    detail: Some(detail),
                });
            }
        }
    }

    /// Has the last good sets written to the state file.
    pub(super) fn remember(&self, driver: &mut Driver) {
        driver.remember(self.sets.remembered());
    }

    /// SIGHUP.
    pub(super) fn hang_up(&mut self, driver: &Driver) {
        self.reload(driver, Order { dry_run: false, force: false, answer: None });
    }

    /// Reads the file again, and has the kernel asked what would not work after the reload. The loop gives the result to
    /// [`decide`](Self::decide).
    fn reload(&mut self, driver: &Driver, order: Order) {
        let read = self.configured.read().and_then(|mut file| {
            self.sets.fill(&mut file, self.configured.core())?;
            Ok(file)
        });
        let file = match read {
            Ok(file) => file,
            Err(problem) => return order.answer(Err(problem)),
        };
        let question = self.configured.question(&file, &self.paths);
        let (dataplane, inspected) = (driver.edges().dataplane.clone(), self.inspected.clone());
        let before = self.inspection.take();
        self.inspection = Some(self.tasks.spawn(async move {
            let hazards = question.hazards(&dataplane).await;
            // In the order in which the files were read: the newest must be the last one in force.
            if let Some(before) = before {
                let _ = before.await;
            }
            // Without a loop nobody reloads.
            let _ = inspected.send(Inspected { file, hazards, order });
        }));
    }

    /// Makes a reload whose hazards are known, or refuses it.
    pub(super) fn decide(&mut self, Inspected { file, hazards, order }: Inspected, driver: &mut Driver) {
        let made = self.change(driver, file, hazards, &order);
        order.answer(made);
    }

    /// Services and everything below them can change without a restart, interfaces too.
    fn change(
        &mut self,
        driver: &mut Driver,
        mut file: File,
        hazards: Vec<Hazard>,
        &Order { dry_run, force, .. }: &Order,
    ) -> Result<Reloaded, Problem> {
        // Again: while the kernel was asked, a set may have changed.
        let readings = self.sets.fill(&mut file, self.configured.core())?;
        driver.engine().fits(&file.core).map_err(|exhausted| Problem {
            kind: ProblemKind::InvalidConfig,
            error: exhausted.to_string(),
            remedy: "the maps are too small for it beside the present configuration; nothing has changed"
                .to_owned(),
        })?;
        let vips: Vec<SocketAddr> = file.core.services.iter().map(|service| service.vip).collect();
        if let Some((vip, instance)) =
            bpf::taken_vip(self.configured.bpffs(), self.configured.instance(), &vips)
        {
            let error = bpf::OpenError::VipTaken { vip, instance };
            let remedy = error.remedy().unwrap_or_default();
            return Err(Problem {
                kind: ProblemKind::InvalidConfig,
                error: error.to_string(),
                remedy: format!("{remedy}; nothing has changed"),
            });
        }
        if !hazards.is_empty() && !force && !dry_run {
            return Err(refused(&hazards));
        }
        let changes = self.configured.differences(&file);
        let needs_restart = self.configured.needs_restart(&file);
        let possible = match dry_run {
            true => self.interfaces.check(&file.interfaces),
            false => self.interfaces.change(&file.interfaces),
        };
        possible.map_err(|error| Problem {
            kind: ProblemKind::InvalidConfig,
            error: chain(&error),
            remedy: format!("{}; nothing has changed", error.remedy()),
        })?;
        if !dry_run {
            self.facts.configured(&file.core);
            self.sets.configured(&file.discovery, &file.core);
            self.configured.take(file, &driver.snapshot().leaving);
            driver.edges().prober.forget_trusted();
            self.configure(driver);
            self.follow_discovery(&readings, driver);
            self.remember(driver);
            if !needs_restart.is_empty() {
                warn!(keys = needs_restart.join(", "), "changed, and in force with a restart only");
            }
            for hazard in &hazards {
                warn!("reloaded in spite of a hazard: {hazard}");
            }
            info!(changes = changes.len(), path = %self.configured.path().display(), "reloaded");
        }
        let config_generation = driver.snapshot().config_generation;
        Ok(Reloaded { config_generation, changes, needs_restart, hazards, dry_run })
    }

    fn status(&self, driver: &Driver, lag: Lag, answer: oneshot::Sender<Status>) {
        let edges = driver.edges();
        let (facts, dataplane) = (self.facts.clone(), edges.dataplane.clone());
        let (snapshot, clock, seq) = (driver.snapshot(), driver.clock(), edges.events.last_seq());
        let reactions = driver.reactions();
        let discovery = self.sets.shown(clock.unix_ms());
        let keeper = edges.saving.keeper();
        let state_error = keeper.failing();
        let (probe_error_code, probe_error) = edges.prober.lack().unzip();
        let daemon = Daemon {
            loop_lag_ms: lag.report(clock.elapsed()),
            state_file: keeper.path().display().to_string(),
            state_error_code: state_error.is_some().then_some(DaemonCode::StateNotWritten),
            state_error,
            counters_error: None,
            counters_error_code: None,
            probe_error_code,
            probe_error,
            lost_log_lines: self.lost_log_lines.dropped_lines() as u64,
        };
        self.tasks.spawn(async move {
            let Some(counters) = dataplane.counters().await else { return };
            if let Err(error) = &counters {
                warn!(error = chain(error), "cannot read the counters");
            }
            let counters = counters.map_err(|error| chain(&error));
            let remaining_connections = remaining_connections(&snapshot, &dataplane).await;
            let status = facts.status(snapshot, counters, &clock, seq, daemon);
            let _ = answer.send(Status { remaining_connections, reactions, discovery, ..status });
        });
    }

    /// `connections`: counts them, too.
    fn backend(&self, driver: &Driver, why: Why, connections: bool, answer: Answer<BackendView>) {
        let (facts, dataplane) = (self.facts.clone(), driver.edges().dataplane.clone());
        let (clock, t_ms) = (driver.clock(), driver.now().0);
        let service = driver.snapshot().services.into_iter().find(|service| service.name == why.service);
        self.tasks.spawn(async move {
            let read = async {
                let (id, generation) = (why.backend.id, why.backend.generation);
                let connections = match connections {
                    true => Some(dataplane.connections(vec![(id, generation)]).await?),
                    false => None,
                };
                let connections =
                    connections.transpose().map(|counts| counts.and_then(|counts| counts.first().copied()));
                Some((dataplane.counters().await?, connections))
            };
            let (counters, connections) = match read.await {
                Some((Ok(counters), Ok(connections))) => (counters, connections),
                Some((Err(error), _) | (_, Err(error))) => {
                    drop(answer.send(Some(Err(unreadable(&error)))));
                    return;
                }
                None => return,
            };
            let Some(service) = service else { return };
            let traffic = facts.traffic(&service.name, &why.backend, &counters);
            let evidence = facts.evidence(&service, &counters);
            let started_unix_ms = clock.started_unix_ms();
            let view = BackendView { started_unix_ms, t_ms, evidence, traffic, connections, why };
            let _ = answer.send(Some(Ok(Box::new(view))));
        });
    }

    fn explain(
        &self,
        driver: &Driver,
        client: SocketAddr,
        service: ServiceSnapshot,
        leaving: Vec<LeavingSnapshot>,
        answer: Answer<Explanation>,
    ) {
        if client.ip().to_canonical().is_ipv4() != service.vip.is_ipv4() {
            let _ = answer.send(Some(Err(Problem {
                kind: ProblemKind::BadRequest,
                error: format!("{client} cannot be a client of {}", service.vip),
                remedy: "give an address of the VIP's family".to_owned(),
            })));
            return;
        }
        let members = driver.engine().members(&service.name).unwrap_or_default().to_vec();
        let key = FlowKey {
            src: client.ip().into(),
            dst: service.vip.ip().into(),
            sport: Port::new(client.port()),
            dport: Port::new(service.vip.port()),
        };
        let (dataplane, now) = (driver.edges().dataplane.clone(), driver.now());
        self.tasks.spawn(async move {
            let explained = match dataplane.steering(key, members).await {
                Some(Ok(Some(steering))) => {
                    Ok(Box::new(explanation(client, now, &service, &leaving, &steering)))
                }
                Some(Ok(None)) => Err(Problem {
                    kind: ProblemKind::Unavailable,
                    error: format!("the maps do not hold {} yet", service.vip),
                    remedy: "`shunt status` says what keeps it from being written".to_owned(),
                }),
                Some(Err(error)) => Err(unreadable(&error)),
                None => return,
            };
            let _ = answer.send(Some(explained));
        });
    }
}

/// The connections of backends that drain or have lately drained. Later there is nothing left to count.
async fn remaining_connections(snapshot: &Snapshot, dataplane: &actor::Handle) -> Vec<RemainingConnections> {
    const LINGER: Millis = Millis::secs(10);
    let present = snapshot.services.iter().flat_map(|service| &service.backends);
    let present = present.filter_map(|of| Some((of.id, of.generation, of.drain?)));
    let leaving = snapshot.leaving.iter().map(|of| (of.id, of.generation, of.drain));
    let drains = present.chain(leaving).filter(|(_, _, of)| snapshot.t_ms <= of.until_ms + LINGER);
    let backends: Vec<_> = drains.map(|(backend, generation, _)| (backend, generation)).collect();
    if backends.is_empty() {
        return Vec::new();
    }
    match dataplane.connections(backends.clone()).await {
        Some(Ok(counts)) => {
            let counted = backends.into_iter().zip(counts);
            counted.map(|((backend, _), connections)| RemainingConnections { backend, connections }).collect()
        }
        Some(Err(error)) => {
            warn!(error = chain(&error), "cannot count connections");
            Vec::new()
        }
        None => Vec::new(),
    }
}

fn unreadable(error: &dataplane::Error) -> Problem {
    warn!(error = chain(error), "cannot read the maps");
    Problem {
        kind: ProblemKind::Unavailable,
        error: format!("cannot read the maps: {}", chain(error)),
        remedy: "this needs CAP_SYS_ADMIN, which root has".to_owned(),
    }
}
