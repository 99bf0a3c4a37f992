//! The thread that owns a dataplane.
//!
//! One thread, because the order of map writes is the order of the plans. It ends when
//! its [`Handle`] is dropped, after the plan under way; nothing it leaves behind is half done
//! in a way that a repeated plan would not mend.

use std::{
    net::IpAddr,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use lb_common::abi::{Addr, FlowKey};
use lb_core::io::{BackendId, Generation, Member, Plan, Step, StepFailure};
use nix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::{Count, Counters, Dataplane, Error, NextHop, chain, steering::Steering};

/// What became of a plan.
#[derive(Debug)]
pub struct Report {
    pub plan: u64,
    pub result: Result<(), StepFailure>,
    /// When its first write was in force, and its last, `CLOCK_MONOTONIC` nanoseconds.
    pub first_ns: u64,
    pub last_ns: u64,
    /// Whether it took a backend out of new connections.
    pub ejects: bool,
}

enum Command {
    Apply(Plan),
    NextHop(IpAddr, NextHop),
    Counters(oneshot::Sender<Result<Counters, Error>>),
    Steering(FlowKey<Addr>, Vec<Member>, oneshot::Sender<Result<Option<Steering>, Error>>),
    Connections(BackendId, Generation, oneshot::Sender<Count>),
}

/// Talks to the thread. Commands queue without bound, but the engine has one plan per
/// service under way and next hops come as fast as neighbours change.
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

    /// `None` when the thread is gone.
    pub async fn counters(&self) -> Option<Result<Counters, Error>> {
        let (answer, counters) = oneshot::channel();
        self.send(Command::Counters(answer));
        counters.await.ok()
    }

    /// Where a SYN of this client would go. The outer `None` when the thread is gone.
    pub async fn steering(
        &self,
        key: FlowKey<Addr>,
        members: Vec<Member>,
    ) -> Option<Result<Option<Steering>, Error>> {
        let (answer, steering) = oneshot::channel();
        self.send(Command::Steering(key, members, answer));
        steering.await.ok()
    }

    /// How many connections a backend has. `None` when the thread is gone.
    pub async fn connections(&self, id: BackendId, generation: Generation) -> Option<Result<u64, Error>> {
        let (answer, count) = oneshot::channel();
        self.send(Command::Connections(id, generation, answer));
        // Not on the thread of the plans: an ejection must not wait for it.
        tokio::task::spawn_blocking(count.await.ok()?).await.ok()
    }

    fn send(&self, command: Command) {
        if self.commands.send(command).is_err() {
            warn!("the dataplane thread has ended");
        }
    }
}

/// Starts the thread. Reports arrive in the order of the plans; 64 of them wait while the
/// daemon is busy, then the thread does.
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
            Command::Counters(answer) => {
                // Whoever asked may have gone.
                let _ = answer.send(dataplane.counters());
            }
            Command::Steering(key, members, answer) => {
                let _ = answer.send(dataplane.steering(&key, &members));
            }
            Command::Connections(id, generation, answer) => {
                let _ = answer.send(dataplane.connections(id, generation));
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

/// The clock of the XDP program's time stamps.
pub fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC is always there");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

#[cfg(test)]
mod tests;
