//! A dataplane without a kernel, for tests of the daemon. It fails by a script.

use std::{
    collections::{BTreeSet, VecDeque},
    net::IpAddr,
};

use lb_common::abi::{Addr, FlowKey};
use lb_core::io::{BackendId, Generation, Member, Step};

use super::{
    Count, Counters, Counts, Dataplane, Error, NextHop, OwnMacs, client_ways::Moved, steering::Steering,
};

/// Remembers the steps and next hops that it gets.
#[derive(Debug, Default)]
pub struct Memory {
    /// Steps that were carried out, oldest first.
    pub done: Vec<Step>,
    /// One entry for each step. A text makes the step fail with it. Empty: all steps succeed.
    pub script: VecDeque<Option<String>>,
    pub next_hops: Vec<(IpAddr, NextHop)>,
}

impl Dataplane for Memory {
    fn apply(&mut self, step: &Step) -> Result<(), Error> {
        if let Some(detail) = self.script.pop_front().flatten() {
            return Err(Error::new("BACKENDS", detail));
        }
        self.done.push(step.clone());
        Ok(())
    }

    fn set_next_hop(&mut self, address: IpAddr, hop: NextHop) -> Result<(), Error> {
        self.next_hops.push((address, hop));
        Ok(())
    }

    fn set_own_macs(&mut self, _: &OwnMacs) -> Result<(), Error> {
        Ok(())
    }

    fn set_nat_addresses(&mut self, _: &[IpAddr]) {}

    fn follow_clients(&mut self, _: Moved) -> Count {
        Box::new(|| Ok(0))
    }

    fn counters(&mut self) -> Result<Counters, Error> {
        Ok(Counters::default())
    }

    fn steering(&mut self, _: &FlowKey<Addr>, _: &[Member]) -> Result<Option<Steering>, Error> {
        Ok(None)
    }

    fn connections(&mut self, backends: Vec<(BackendId, Generation)>) -> Counts {
        Box::new(move || Ok(vec![0; backends.len()]))
    }

    fn connections_by(&mut self, _: BTreeSet<u32>) -> Count {
        Box::new(|| Ok(0))
    }
}
