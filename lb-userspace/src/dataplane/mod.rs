//! The packet path as the daemon sees it: map writes go in, counters and reports come out.
//!
//! [`Dataplane`] is the port. The adapter [`bpf::Bpf`] writes the kernel's maps; [`memory::Memory`] stands in for it in
//! tests and fails by a script. [`actor`] runs either on a thread of its own, because a new Maglev table is in force
//! only after the kernel has waited for the packets that still read the old one.

pub mod actor;
pub mod bpf;
pub mod cgroup;
pub mod client_ways;
mod counters;
pub mod device;
mod error;
pub mod host;
pub mod interfaces;
pub mod memory;
pub mod next_hop;
mod path_warning;
mod redirect;
pub mod steering;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_common::abi::{Addr, FlowKey, Link, OwnAddr, OwnMac, OwnWay};
use lb_core::io::{BackendId, Generation, Member, Step};

use self::{client_ways::Moved, steering::Steering};
pub use self::{
    counters::{Counters, ExpiredFlows, LimitCounts, ResetCounts},
    error::{Error, chain},
    path_warning::PathWarning,
};

/// Carries out plans.
pub trait Dataplane: Send + 'static {
    /// Carries out one step. Steps are absolute: a step that failed may be repeated.
    fn apply(&mut self, step: &Step) -> Result<(), Error>;

    /// From now on frames to backends at this address leave by this next hop.
    fn set_next_hop(&mut self, address: IpAddr, hop: NextHop) -> Result<(), Error>;

    /// From now on the program takes frames that are addressed to these, and no others.
    fn set_own_macs(&mut self, macs: &OwnMacs) -> Result<(), Error>;

    /// From now on new connections have these as their source, per family; without any, the route's own.
    fn set_nat_addresses(&mut self, addresses: &[IpAddr]);

    /// Connections whose ways to their clients have moved go by the new ones. It visits every flow, as a count of
    /// connections does, and counts those that it moves.
    fn follow_clients(&mut self, moved: Moved) -> Count;

    fn counters(&mut self) -> Result<Counters, Error>;

    /// Where a SYN of this client would go now. `members`: the members of the service's Maglev table. `None`: no
    /// service has that destination.
    fn steering(&mut self, key: &FlowKey<Addr>, members: &[Member]) -> Result<Option<Steering>, Error>;

    /// Counts the connections of each of these backends, half-open handshakes included. The count visits every flow,
    /// which takes a while; the caller may run it on another thread.
    fn connections(&mut self, backends: Vec<(BackendId, Generation)>) -> Counts;

    /// Counts the connections whose clients are behind these interfaces. It visits every flow, too.
    fn connections_by(&mut self, interfaces: BTreeSet<u32>) -> Count;
}

/// The unicast MAC addresses of the node's interfaces, each with the usual one of its interface.
pub type OwnMacs = BTreeMap<OwnMac, [u8; 6]>;

/// A count that the caller has yet to run.
pub type Count = Box<dyn FnOnce() -> Result<u64, Error> + Send>;

/// The same for several backends, in their order.
pub type Counts = Box<dyn FnOnce() -> Result<Vec<u64>, Error> + Send>;

/// How frames reach an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    pub ifindex: u32,
    /// The VLAN in which frames leave there. 0: without a tag.
    pub vlan: u16,
    /// Other interfaces and VLANs by which a route leads to the address.
    pub also: [OwnWay; OwnAddr::WAYS - 1],
    /// Unresolved while the neighbour has not answered.
    pub link: Link,
    /// The node's preferred address on the way there.
    pub source: IpAddr,
    /// The next hop is a router.
    pub routed: bool,
    pub path_warning: Option<PathWarning>,
}
