//! What is asked and ordered through the control socket.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_common::abi::{FlowKey, Port};
use lb_core::{
    io::{BackendId, Operation},
    snapshot::{LeavingSnapshot, ServiceSnapshot, Snapshot, Why},
    time::{Instant, Millis},
};
use tokio::sync::oneshot;
use tracing::warn;

use super::looping::Loop;
use crate::{
    control::{
        Request,
        model::{
            BackendView, By, Choice, Daemon, Explanation, Left, Pin, Problem, ProblemKind, Stage, Status,
            TrialSeat,
        },
    },
    dataplane::{self, actor, chain, steering},
};

/// `None`: there is no such thing.
type Told<T> = oneshot::Sender<Option<Result<Box<T>, Problem>>>;

impl Loop {
    /// Whoever asked may have gone: an answer that nobody takes is dropped. What the maps know is read by the
    /// dataplane's thread, which may be waiting for the kernel; the loop does not wait with it.
    pub(super) fn answer(&mut self, request: Request) {
        match request {
            Request::Status(answer) => self.status(answer),
            Request::Backend { service, backend, connections, answer } => {
                match self.engine.why(&service, &backend, self.now()) {
                    Some(why) => self.view(why, connections, answer),
                    None => drop(answer.send(None)),
                }
            }
            Request::Operate(operation, answer) => drop(answer.send(self.operate(&operation))),
            Request::Explain { client, service, answer } => {
                let mut snapshot = self.snapshot();
                let found = snapshot.services.iter().position(|known| known.name == service);
                let found = found.map(|place| snapshot.services.swap_remove(place));
                match found {
                    Some(service) => self.explain(client, service, snapshot.leaving, answer),
                    None => drop(answer.send(None)),
                }
            }
            Request::Reload { dry_run, answer } => drop(answer.send(self.reload(dry_run))),
        }
    }

    fn operate(&mut self, operation: &Operation) -> Result<(), lb_core::engine::Refused> {
        let now = self.now();
        self.recorder.operation(operation, now);
        let done = self.engine.operate(operation, now);
        self.carry_out(None);
        done
    }

    fn status(&self, answer: oneshot::Sender<Status>) {
        let (facts, dataplane) = (self.own.facts.clone(), self.dataplane.clone());
        let (snapshot, clock, seq) = (self.snapshot(), self.clock, self.events.last_seq());
        let keeper = self.own.saving.keeper();
        let daemon = Daemon {
            loop_lag_ms: self.lag.told(clock.elapsed()),
            state_file: keeper.path().display().to_string(),
            state_error: keeper.failing(),
            counters_error: None,
        };
        self.own.tasks.spawn(async move {
            let Some(counters) = dataplane.counters().await else { return };
            if let Err(error) = &counters {
                warn!(error = chain(error), "cannot read the counters");
            }
            let counters = counters.map_err(|error| chain(&error));
            let left = left(&snapshot, &dataplane).await;
            let status = facts.status(snapshot, counters, &clock, seq, daemon);
            let _ = answer.send(Status { left, ..status });
        });
    }

    fn view(&self, why: Why, connections: bool, answer: Told<BackendView>) {
        let (facts, dataplane, clock) = (self.own.facts.clone(), self.dataplane.clone(), self.clock);
        let t_ms = self.now().0;
        let service = self.snapshot().services.into_iter().find(|service| service.name == why.service);
        self.own.tasks.spawn(async move {
            let counted = async {
                let (id, generation) = (why.backend.id, why.backend.generation);
                let connections = match connections {
                    true => Some(dataplane.connections(id, generation).await?),
                    false => None,
                };
                Some((dataplane.counters().await?, connections.transpose()))
            };
            let (counters, connections) = match counted.await {
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
        client: SocketAddr,
        service: ServiceSnapshot,
        leaving: Vec<LeavingSnapshot>,
        answer: Told<Explanation>,
    ) {
        if client.ip().to_canonical().is_ipv4() != service.vip.is_ipv4() {
            // Whoever asked may have gone.
            let _ = answer.send(Some(Err(Problem {
                kind: ProblemKind::BadRequest,
                error: format!("{client} cannot be a client of {}", service.vip),
                remedy: "give an address of the VIP's family".to_owned(),
            })));
            return;
        }
        let members = self.engine.members(&service.name).unwrap_or_default().to_vec();
        let key = FlowKey {
            src: client.ip().into(),
            dst: service.vip.ip().into(),
            sport: Port::new(client.port()),
            dport: Port::new(service.vip.port()),
        };
        let (dataplane, now) = (self.dataplane.clone(), self.now());
        self.own.tasks.spawn(async move {
            let explained = match dataplane.steering(key, members).await {
                Some(Ok(Some(steering))) => Ok(Box::new(told(client, now, &service, &leaving, &steering))),
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

/// The connections of those that get no new ones. Once they are over, or when somebody is out for long, there is
/// nothing left to count.
async fn left(snapshot: &Snapshot, dataplane: &actor::Handle) -> Vec<Left> {
    /// Each looks at every connection there is.
    const MOST: usize = 8;
    const LINGER: Millis = Millis::secs(10);
    let present = snapshot.services.iter().flat_map(|service| &service.backends);
    let present = present.filter_map(|of| Some((of.id, of.generation, of.ending?)));
    let leaving = snapshot.leaving.iter().map(|of| (of.id, of.generation, of.ending));
    let ending = present.chain(leaving).filter(|(_, _, of)| snapshot.t_ms <= of.until_ms + LINGER);
    let mut all = Vec::new();
    for (backend, generation, _) in ending.take(MOST) {
        match dataplane.connections(backend, generation).await {
            Some(Ok(connections)) => all.push(Left { backend, connections }),
            Some(Err(error)) => warn!(error = chain(&error), "cannot count connections"),
            None => return all,
        }
    }
    all
}

fn unreadable(error: &dataplane::Error) -> Problem {
    warn!(error = chain(error), "cannot read the maps");
    Problem {
        kind: ProblemKind::Unavailable,
        error: format!("cannot read the maps: {}", chain(error)),
        remedy: "this needs CAP_SYS_ADMIN, which root has".to_owned(),
    }
}

/// With names in place of ids.
fn told(
    client: SocketAddr,
    now: Instant,
    service: &ServiceSnapshot,
    leaving: &[LeavingSnapshot],
    steering: &steering::Steering,
) -> Explanation {
    let names: BTreeMap<BackendId, &str> =
        service.backends.iter().map(|backend| (backend.id, backend.name.as_str())).collect();
    let name = |id: BackendId| {
        let former = || {
            let of = leaving.iter().find(|of| of.id == id).and_then(|of| of.name.as_deref());
            of.map_or_else(|| format!("(id {id}, no longer configured)"), |name| format!("{name} (removed)"))
        };
        names.get(&id).map_or_else(former, |name| (*name).to_owned())
    };
    let ending = |id: BackendId| {
        let present = service.backends.iter().find(|of| of.id == id).and_then(|of| of.ending);
        present.or_else(|| leaving.iter().find(|of| of.id == id).map(|of| of.ending))
    };
    let choice = |choice: steering::Choice| {
        let (by, tries, reason) = match choice {
            steering::Choice::Pinned(_) => (By::Connection, None, None),
            steering::Choice::Trial(_) => (By::Trial, None, None),
            steering::Choice::Table { tries, .. } => (By::Table, Some(tries), None),
            steering::Choice::Nobody(reason) => (By::Nobody, None, Some(reason.name().to_owned())),
        };
        Choice { by, backend: choice.backend().map(name), tries, reason }
    };
    let steering::Steering { hash, slot, in_slot, pinned, seats, choice: chosen, without } = steering;
    let pin = |pinned: &steering::Pinned| Pin {
        stage: match pinned.stage {
            steering::Stage::Flow => Stage::Flow,
            steering::Stage::Handshake => Stage::Handshake,
        },
        backend: name(pinned.backend),
        alive: pinned.alive,
        trial: pinned.trial,
        closing: pinned.closing,
        nat: pinned.nat,
        address: pinned.address,
        keeps_syn: pinned.keeps_syn,
        ending: ending(pinned.backend),
    };
    let seat =
        |seat: &steering::Seat| TrialSeat { backend: name(seat.backend), left: seat.left, takes: seat.takes };
    Explanation {
        service: service.name.clone(),
        vip: service.vip,
        client,
        t_ms: now,
        fallback: service.fallback,
        hash: format!("{hash:#018x}"),
        slot: *slot,
        in_slot: in_slot.map(name),
        pinned: pinned.as_ref().map(pin),
        seats: seats.iter().map(seat).collect(),
        choice: choice(*chosen),
        without: without.map(choice),
    }
}
