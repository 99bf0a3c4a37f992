//! The packet path as the daemon sees it: map writes in, counters and answers out.
//!
//! [`Dataplane`] is what a plan is carried out on. [`bpf::Bpf`] is the kernel's;
//! [`memory::Memory`] is a stand-in that fails on script. [`actor`] runs either on a
//! thread of its own, because swapping a table waits for the packets that still read
//! the old one.

pub mod actor;
pub mod bpf;
pub mod device;
pub mod host;
pub mod memory;
pub mod next_hop;
mod path_warning;
mod redirect;
pub mod steering;

use std::net::IpAddr;

use lb_common::{
    abi::{Addr, BackendCounters, FlowKey, Link},
    reason::Reason,
};
use lb_core::io::{BackendId, Generation, Member, ServiceId, Step};

pub use path_warning::PathWarning;
use steering::Steering;

/// Where plans are carried out.
pub trait Dataplane: Send + 'static {
    /// Carries out one step. Steps are absolute: one that failed may be repeated.
    fn apply(&mut self, step: &Step) -> Result<(), Error>;

    /// Backends at this address are reached this way from now on.
    fn set_next_hop(&mut self, address: IpAddr, hop: NextHop) -> Result<(), Error>;

    fn counters(&mut self) -> Result<Counters, Error>;

    /// Where a SYN of this client would go now. `members`: of the service's table. `None`: no service has
    /// that destination.
    fn steering(&mut self, key: &FlowKey<Addr>, members: &[Member]) -> Result<Option<Steering>, Error>;

    /// The connections of a backend. Counting them looks at every connection there is, which takes a
    /// while; it may be done on another thread.
    fn connections(&mut self, backend: BackendId, generation: Generation) -> Count;
}

/// A count that is still to be made.
pub type Count = Box<dyn FnOnce() -> Result<u64, Error> + Send>;

/// How an address is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    pub ifindex: u32,
    /// The VLAN in which frames leave there. 0: without a tag.
    pub vlan: u16,
    /// Unresolved while the neighbour has not answered.
    pub link: Link,
    /// Our preferred address on the way there.
    pub source: IpAddr,
    /// By way of a router.
    pub routed: bool,
    pub path_warning: Option<PathWarning>,
}

/// What was counted since the maps were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// In the order of their ids.
    pub backends: Vec<(BackendId, BackendCounters)>,
    /// Connections that the daemon ended because their backend is out, since it started. In the order of the ids.
    pub ended: Vec<(BackendId, bpf::ResetCounts)>,
    /// Backends whose next hop does not answer: they get no new connections.
    pub unreachable: Vec<BackendId>,
    /// Backends whose connections may not work, though their next hop answers.
    pub path_warnings: Vec<(BackendId, PathWarning)>,
    /// Only those that are not zero.
    pub drops: Vec<(ServiceId, Reason, u64)>,
    pub forgotten: bpf::ExpiredFlows,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("map {map}")]
    Map {
        map: &'static str,
        #[source]
        source: aya::maps::MapError,
    },
    #[error("map {map}: {detail}")]
    Scripted { map: &'static str, detail: String },
}

/// An error and what caused it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        // Some errors repeat their source in their own text.
        if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
        source = cause.source();
    }
    line
}
