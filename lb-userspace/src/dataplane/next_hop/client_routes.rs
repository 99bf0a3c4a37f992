//! Connections follow the routes to their clients.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
};

use rtnetlink::Handle;
use tracing::{info, warn};

use super::{
    kernel::{Device, Neighbour, resolve},
    moved::Known,
    routes::{Gateway, MOST, Table, routes, ways},
};
use crate::dataplane::{
    actor,
    client_ways::{Moved, Routes},
    error::chain,
};

/// A gateway that answers does so within some milliseconds. The kernel itself gives up after three seconds.
const TRIES: u32 = 16;

/// The routes that connections have followed.
#[derive(Default)]
pub(super) struct ClientRoutes {
    known: Option<Table>,
    /// The ways by them, as they were last.
    ways: Routes,
    /// How often the gateways of new routes were asked for their addresses. 0: no route is new.
    tries: u32,
    too_many: bool,
    /// The gateways that the log has named.
    named: BTreeSet<Gateway>,
}

/// The kernel, its interfaces and its neighbours.
type Kernel<'a> = (&'a Handle, &'a BTreeMap<u32, Device>, &'a BTreeMap<(u32, IpAddr), Neighbour>);

impl ClientRoutes {
    /// Connections follow new routes to other gateways, once the kernel knows their addresses. `changed`: routes may have.
    pub(super) async fn follow(
        &mut self,
        dataplane: &actor::Handle,
        (handle, links, neighbours): Kernel<'_>,
        macs: &Known,
        changed: bool,
    ) -> Result<(), rtnetlink::Error> {
        let mac = |ifindex, via| macs.mac(ifindex, via);
        if let Some(known) = &self.known {
            // Each time, because their devices may be gone when the routes are.
            self.ways = ways(known, links, mac).or(&self.ways);
            ask(handle, known, neighbours).await;
            self.name(macs);
        }
        if self.too_many || !changed && self.tries == 0 {
            return Ok(());
        }
        let Some(now) = routes(handle).await? else {
            info!(most = MOST, "too many routes: connections follow their clients and neighbours only");
            *self = Self { too_many: true, ..Self::default() };
            return Ok(());
        };
        let Some(before) = &self.known else {
            self.take(ways(&now, links, mac), now);
            return Ok(());
        };
        if *before == now {
            self.tries = 0;
            return Ok(());
        }
        let silent = silent(before, &now, neighbours);
        if !silent.is_empty() && self.tries < TRIES {
            self.tries += 1;
            for Gateway { ifindex, via } in silent {
                resolve(handle, ifindex, via).await;
            }
            return Ok(());
        }
        let ways = ways(&now, links, mac);
        let moved = Moved::Routes { before: mem::take(&mut self.ways), now: ways.clone() };
        match dataplane.follow_clients(moved).await {
            Some(Ok(0)) | None => {}
            Some(Ok(connections)) => info!(connections, "connections follow a route to another gateway"),
            Some(Err(error)) => warn!(error = chain(&error), "connections do not follow a route"),
        }
        self.take(ways, now);
        Ok(())
    }

    /// These are the routes that connections follow from now on.
    fn take(&mut self, ways: Routes, table: Table) {
        (self.ways, self.known, self.tries) = (ways, Some(table), 0);
    }

    /// Names each gateway in the log, once the kernel knows its address.
    fn name(&mut self, macs: &Known) {
        let gateways = self.known.iter().flat_map(|table| table.values().flatten());
        for gateway @ Gateway { ifindex, via } in gateways {
            if macs.mac(*ifindex, *via).is_some() && self.named.insert(*gateway) {
                info!(%via, ifindex, "connections follow this gateway");
            }
        }
    }
}

/// The gateways whose addresses are kept fresh. More are a mesh, not uplinks.
const FRESH: usize = 64;

/// Has the kernel ask the gateways that it does not know, or not for sure. Only a known one can be recognised in a
/// connection.
async fn ask(handle: &Handle, known: &Table, neighbours: &BTreeMap<(u32, IpAddr), Neighbour>) {
    let gateways: BTreeSet<&Gateway> = known.values().flatten().collect();
    for Gateway { ifindex, via } in gateways.into_iter().take(FRESH) {
        if neighbours.get(&(*ifindex, *via)).is_none_or(|entry| entry.stale) {
            resolve(handle, *ifindex, *via).await;
        }
    }
}

/// The gateways of new routes whose addresses the kernel does not know.
fn silent(before: &Table, now: &Table, neighbours: &BTreeMap<(u32, IpAddr), Neighbour>) -> BTreeSet<Gateway> {
    let was: BTreeSet<&Gateway> = before.values().flatten().collect();
    let is_silent = |gateway: &&Gateway| {
        !was.contains(gateway) && !neighbours.contains_key(&(gateway.ifindex, gateway.via))
    };
    now.values().flatten().filter(is_silent).copied().collect()
}
