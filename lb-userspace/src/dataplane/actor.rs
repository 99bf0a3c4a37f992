//! The thread that owns a dataplane.
//!
//! There is one thread, because the order of map writes is the order of the plans. It ends after the current plan when
//! its [`Handle`] is dropped. If it leaves a plan half done, a repeated plan completes it.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use lb_common::abi::{Addr, FlowKey};
use lb_core::io::{BackendId, Generation, Member, Plan, Step, StepFailure};
use nix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::{
    Count, Counters, Counts, Dataplane, Error, NextHop, OwnMacs, chain, client_ways::Moved,
    steering::Steering,
};

/// The result of a plan.
#[derive(Debug)]
pub struct Report {
    pub plan: u64,
    pub result: Result<(), StepFailure>,
    /// When its first and its last write were in force, in `CLOCK_MONOTONIC` nanoseconds.
    pub first_ns: u64,
    pub last_ns: u64,
    /// Whether it took a backend out of new connections.
    pub ejects: bool,
}

enum Command {
    Apply(Plan),
    NextHop(IpAddr, NextHop),
    OwnMacs(OwnMacs),
    Clients(Moved, oneshot::Sender<Count>),
    NatAddresses(Vec<IpAddr>),
    Counters(oneshot::Sender<Result<Counters, Error>>),
    Steering(FlowKey<Addr>, Vec<Member>, oneshot::Sender<Result<Option<Steering>, Error>>),
    Connections(Vec<(BackendId, Generation)>, oneshot::Sender<Counts>),
    ConnectionsBy(BTreeSet<u32>, oneshot::Sender<Count>),
}

/// Sends commands to the thread. Their queue has no bound, but the engine has at most one plan for each service in
/// it, and next hops come only as fast as neighbours change.
#[derive(Clone)]
pub struct Handle {
    commands: Sender<Command>,
}

impl Handle {
    pub fn apply(&self, plan: Plan) {
        self.send(Command::Apply(plan));
    }

    pub fn set_next_hop(&self, address: IpAddr, hop: NextHop) {
        self.send(Command::NextHop(address, hop));
    }

    pub fn set_own_macs(&self, macs: OwnMacs) {
        self.send(Command::OwnMacs(macs));
    }

    pub fn set_nat_addresses(&self, addresses: Vec<IpAddr>) {
        self.send(Command::NatAddresses(addresses));
    }

    /// How many connections follow. `None`: the thread has ended.
    pub async fn follow_clients(&self, moved: Moved) -> Option<Result<u64, Error>> {
        let (reply, count) = oneshot::channel();
        self.send(Command::Clients(moved, reply));
        // As for a count.
        tokio::task::spawn_blocking(count.await.ok()?).await.ok()
    }

    /// `None`: the thread has ended.
    pub async fn counters(&self) -> Option<Result<Counters, Error>> {
        let (reply, counters) = oneshot::channel();
        self.send(Command::Counters(reply));
        counters.await.ok()
    }

    /// Where a SYN of this client would go. The outer `None`: the thread has ended.
    pub async fn steering(
        &self,
        key: FlowKey<Addr>,
        members: Vec<Member>,
    ) -> Option<Result<Option<Steering>, Error>> {
        let (reply, steering) = oneshot::channel();
        self.send(Command::Steering(key, members, reply));
        steering.await.ok()
    }

    /// How many connections each of these backends has. `None`: the thread has ended.
    pub async fn connections(&self, of: Vec<(BackendId, Generation)>) -> Option<Result<Vec<u64>, Error>> {
        let (reply, count) = oneshot::channel();
        self.send(Command::Connections(of, reply));
        // Not on the thread of the plans, because an ejection must not wait for the count.
        tokio::task::spawn_blocking(count.await.ok()?).await.ok()
    }

    /// How many connections have clients behind these interfaces. `None`: the thread has ended.
    pub async fn connections_by(&self, interfaces: BTreeSet<u32>) -> Option<Result<u64, Error>> {
        let (reply, count) = oneshot::channel();
        self.send(Command::ConnectionsBy(interfaces, reply));
        tokio::task::spawn_blocking(count.await.ok()?).await.ok()
    }

    fn send(&self, command: Command) {
        if self.commands.send(command).is_err() {
            warn!("the dataplane thread has ended");
        }
    }
}

/// Starts the thread. Reports arrive in the order of the plans. 64 of them wait while the daemon is busy; after that the
/// thread waits.
pub fn spawn(dataplane: impl Dataplane) -> std::io::Result<(Handle, mpsc::Receiver<Report>)> {
    let (commands, queue) = channel();
    let (reports, inbox) = mpsc::channel(64);
    thread::Builder::new().name("dataplane".to_owned()).spawn(move || serve(dataplane, &queue, &reports))?;
    Ok((Handle { commands }, inbox))
}

fn serve(mut dataplane: impl Dataplane, queue: &Receiver<Command>, reports: &mpsc::Sender<Report>) {
    while let Ok(command) = queue.recv() {
        match command {
            Command::Apply(plan) => {
                if reports.blocking_send(carry_out(&mut dataplane, &plan)).is_err() {
                    return;
                }
            }
            Command::NextHop(address, hop) => {
                if let Err(error) = dataplane.set_next_hop(address, hop) {
                    warn!(%address, error = chain(&error), "next hop not written; it will be tried again");
                }
            }
            Command::OwnMacs(macs) => {
                if let Err(error) = dataplane.set_own_macs(&macs) {
                    warn!(
                        error = chain(&error),
                        "the node's MAC addresses not written; it will be tried again"
                    );
                }
            }
            Command::NatAddresses(addresses) => dataplane.set_nat_addresses(&addresses),
            Command::Clients(moved, reply) => {
                let _ = reply.send(dataplane.follow_clients(moved));
            }
            Command::Counters(reply) => {
                // The caller may have gone.
                let _ = reply.send(dataplane.counters());
            }
            Command::Steering(key, members, reply) => {
                let _ = reply.send(dataplane.steering(&key, &members));
            }
            Command::ConnectionsBy(interfaces, reply) => {
                let _ = reply.send(dataplane.connections_by(interfaces));
            }
            Command::Connections(backends, reply) => {
                let _ = reply.send(dataplane.connections(backends));
            }
        }
    }
}

fn carry_out(dataplane: &mut impl Dataplane, plan: &Plan) -> Report {
    let mut first_ns = 0;
    let mut result = Ok(());
    for (index, step) in plan.steps.iter().enumerate() {
        if let Err(error) = dataplane.apply(step) {
            result = Err(StepFailure { index, error: chain(&error) });
            break;
        }
        if index == 0 {
            first_ns = monotonic_ns();
        }
    }
    let ejects =
        plan.steps.iter().any(|step| matches!(step, Step::Backend { admit: lb_core::io::Admit::None, .. }));
    Report { plan: plan.id, result, first_ns, last_ns: monotonic_ns(), ejects }
}

/// The clock of the program's time stamps.
pub fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC is always there");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

#[cfg(test)]
mod tests;
