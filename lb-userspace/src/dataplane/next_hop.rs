//! Follows the next hops of the backends and the node's own MAC addresses, as the kernel knows them.
//!
//! One task, owned by the daemon and safe to abort at any point: it only reads the kernel's tables and asks the kernel
//! to resolve neighbours. It reads when routes, neighbours or links change, and every [`REFRESH`] at the latest. Asking
//! also keeps the kernel's neighbour entries fresh, which frames that XDP forwards do not. It also reports which paths do
//! not work.

mod client_routes;
mod kernel;
mod look;
mod moved;
mod own_macs;
mod paths;
mod routes;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _};
use lb_common::abi::{Link, OwnAddr, OwnWay};
use lb_core::snapshot::PathState;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo};
use rtnetlink::{Handle, MulticastGroup};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{info, warn};

use self::{
    client_routes::ClientRoutes,
    kernel::{Destination, Device, Neighbour, Route, destination, filters, links, neighbours, resolve, ways},
    moved::Known,
    own_macs::{own_macs, ports},
    paths::{Faults, of_device},
    routes::may_change_routes,
};
pub use self::{look::look, paths::Paths};
use super::{
    NextHop, actor, client_ways::Moved, error::chain, interfaces::Interface, path_warning::PathWarning,
    redirect::Redirects,
};

/// After this long the task reads the tables again although the kernel has reported no change.
const REFRESH: Duration = Duration::from_secs(1);

/// Changes come in bursts. The task gathers them for at most this long.
const SETTLE: Duration = Duration::from_millis(20);

/// Addresses of documents (RFC 5737, RFC 3849), which no host has: the routes to them are the default routes.
const ANYWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// The node, as far as paths depend on it.
#[derive(Clone, Debug)]
pub struct Ports {
    /// The VLANs whose frames the program looks at.
    pub vlans: Vec<u16>,
    /// The interfaces that the program is attached to.
    pub interfaces: watch::Receiver<Vec<Interface>>,
    /// In native mode drivers redirect frames to each other.
    pub native: bool,
    pub nat_addresses: Vec<IpAddr>,
}

/// Follows the next hops of `addresses`. The dataplane gets each next hop, `paths` what does not work. Ends when the sender
/// of `addresses` is dropped.
pub async fn follow(
    dataplane: actor::Handle,
    mut addresses: watch::Receiver<Vec<IpAddr>>,
    ports: Ports,
    paths: watch::Sender<Paths>,
) -> io::Result<()> {
    let groups = [
        MulticastGroup::Neigh,
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    let (connection, handle, mut changes) = rtnetlink::new_multicast_connection(&groups)?;
    let connection = tokio::spawn(connection);
    let mut interfaces = ports.interfaces.clone();
    let mut follower = Follower::new(handle, dataplane, ports);
    let mut refresh = interval(REFRESH);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut is_tick, mut routes_changed) = (false, true);
    loop {
        let wanted = addresses.borrow_and_update().clone();
        match follower.update(&wanted, is_tick, routes_changed).await {
            Ok(()) => {
                let found = follower.paths();
                follower.use_nat_addresses(&found);
                paths.send_if_modified(|known| {
                    let is_new = *known != found;
                    *known = found;
                    is_new
                });
            }
            Err(error) => {
                warn!(error = chain(&error), "cannot read the kernel's routes and neighbours");
            }
        }
        routes_changed = false;
        tokio::select! {
            changed = addresses.changed() => {
                if changed.is_err() {
                    break;
                }
                is_tick = false;
            }
            // Its sender lives as long as the daemon.
            Ok(()) = interfaces.changed() => is_tick = false,
            _ = refresh.tick() => is_tick = true,
            heard = changes.next() => {
                let Some((message, _)) = heard else {
                    return Err(io::Error::other("the kernel closed the netlink socket"));
                };
                routes_changed = may_change_routes(&message);
                is_tick = false;
            }
        }
        // Times out, unless the socket is closed. Then the next turn finds that.
        let rest = async {
            while let Some((message, _)) = changes.next().await {
                routes_changed |= may_change_routes(&message);
            }
        };
        let _ = timeout(SETTLE, rest).await;
    }
    connection.abort();
    Ok(())
}

/// Links, neighbours, and the interfaces that the program is attached to.
type Tables<'a> = (&'a BTreeMap<u32, Device>, &'a BTreeMap<(u32, IpAddr), Neighbour>, &'a BTreeSet<u32>);

/// Follows the paths, and remembers what it has reported.
struct Follower {
    handle: Handle,
    dataplane: actor::Handle,
    ports: Ports,
    /// Before Linux 6.3 the kernel does not report this.
    redirects: Option<Redirects>,
    /// Whether an interface takes redirected frames, as far as this look has asked.
    taken: BTreeMap<u32, bool>,
    known: BTreeMap<IpAddr, NextHop>,
    neighbours: Known,
    routes: ClientRoutes,
    faults: Faults,
    nat: Faults,
    /// The NAT addresses that new connections get.
    used_nat: Vec<IpAddr>,
}

impl Follower {
    fn new(handle: Handle, dataplane: actor::Handle, ports: Ports) -> Self {
        let redirects = ports.native.then(Redirects::open).and_then(Result::ok);
        let used_nat = ports.nat_addresses.clone();
        Self {
            handle,
            dataplane,
            ports,
            redirects,
            taken: BTreeMap::new(),
            known: BTreeMap::new(),
            neighbours: Known::default(),
            routes: ClientRoutes::default(),
            faults: Faults::default(),
            nat: Faults::default(),
            used_nat,
        }
    }

    fn paths(&self) -> Paths {
        Paths { faults: self.faults.counting().collect(), nat_addresses: self.nat_addresses() }
    }

    /// New connections use the NAT addresses that the node has. If it has none of a family, nothing changes: the backends
    /// are out, and another source would be a surprise.
    fn use_nat_addresses(&mut self, paths: &Paths) {
        let has = |address: &IpAddr| paths.nat_addresses.get(address) == Some(&true);
        let all = &self.ports.nat_addresses;
        let any_of_family =
            |of: &IpAddr| all.iter().any(|other| other.is_ipv4() == of.is_ipv4() && has(other));
        let used: Vec<IpAddr> =
            all.iter().filter(|address| has(address) || !any_of_family(address)).copied().collect();
        if used == self.used_nat {
            return;
        }
        for address in all.iter().filter(|address| !has(address)) {
            warn!(%address, "the node does not have this NAT address: no new connection uses it");
        }
        self.dataplane.set_nat_addresses(used.clone());
        self.used_nat = used;
    }

    fn nat_addresses(&self) -> BTreeMap<IpAddr, bool> {
        let absent: BTreeSet<IpAddr> = self.nat.counting().map(|(address, _)| address).collect();
        self.ports.nat_addresses.iter().map(|address| (*address, !absent.contains(address))).collect()
    }

    /// Reads the kernel's tables once, and gives the next hop of each address to the dataplane.
    async fn update(
        &mut self,
        addresses: &[IpAddr],
        is_tick: bool,
        routes_changed: bool,
    ) -> Result<(), rtnetlink::Error> {
        self.known.retain(|address, _| addresses.contains(address));
        self.faults.retain(|address| addresses.contains(&address));
        self.taken.clear();
        let links = links(&self.handle).await?;
        // Without its filters, for example in a kernel that does not list them, an interface has at least its own.
        let filters = filters(&self.handle).await.unwrap_or_default();
        let attached: BTreeSet<u32> =
            self.ports.interfaces.borrow().iter().filter_map(|interface| interface.index).collect();
        self.dataplane.set_own_macs(own_macs(&attached, &links, &filters));
        let neighbours = neighbours(&self.handle).await?;
        self.follow_neighbours(&neighbours, &links).await;
        let kernel = (&self.handle, &links, &neighbours);
        self.routes.follow(&self.dataplane, kernel, &self.neighbours, routes_changed).await?;
        for address in addresses {
            let found = match destination(&self.handle, *address).await? {
                Destination::Host(route) => {
                    self.hop(*address, &route, (&links, &neighbours, &attached), is_tick).await
                }
                Destination::Local => PathState::Local,
                Destination::NotUnicast => PathState::NotUnicast,
                Destination::Nowhere => PathState::NoRoute,
            };
            self.faults.note(*address, found, is_tick);
        }
        for address in &self.ports.nat_addresses {
            let found = match destination(&self.handle, *address).await? {
                Destination::Local => PathState::Ok,
                Destination::Host(_) | Destination::NotUnicast | Destination::Nowhere => {
                    PathState::NoNatAddress
                }
            };
            self.nat.note(*address, found, is_tick);
        }
        Ok(())
    }

    /// Connections follow the gateways of their clients. The kernel learns of a change only where it has an entry, so the
    /// entries of the default gateways are kept fresh: also of those in other tables, and where routes are too many.
    async fn follow_neighbours(
        &mut self,
        neighbours: &BTreeMap<(u32, IpAddr), Neighbour>,
        links: &BTreeMap<u32, Device>,
    ) {
        let moved = self.neighbours.note(neighbours, links);
        if !moved.is_empty() {
            match self.dataplane.follow_clients(Moved::Neighbours(moved)).await {
                Some(Ok(0)) | None => {}
                Some(Ok(connections)) => info!(connections, "connections follow a neighbour to another MAC"),
                Some(Err(error)) => warn!(error = chain(&error), "connections do not follow a neighbour"),
            }
        }
        for nobody in ANYWHERE {
            let route = destination(&self.handle, nobody).await;
            let Ok(Destination::Host(Route { ifindex, gateway: Some(via), .. })) = route else { continue };
            if neighbours.get(&(ifindex, via)).is_none_or(|entry| entry.stale) {
                resolve(&self.handle, ifindex, via).await;
            }
        }
    }

    /// False only if the kernel says so.
    fn takes_redirected(&mut self, ifindex: u32) -> bool {
        let Some(redirects) = &self.redirects else { return true };
        *self.taken.entry(ifindex).or_insert_with(|| redirects.taken_by(ifindex).unwrap_or(true))
    }

    /// The other ways to an address. Routes that have changed are news, so the kernel is not asked at each tick.
    async fn also(
        &mut self,
        address: IpAddr,
        first: (u32, u16),
        (links, _, attached): Tables<'_>,
        is_tick: bool,
    ) -> [OwnWay; OwnAddr::WAYS - 1] {
        if let Some(before) = self.known.get(&address).filter(|_| is_tick) {
            return before.also;
        }
        let mut also = [OwnWay::default(); OwnAddr::WAYS - 1];
        let ways = ways(&self.handle, address, attached).await;
        let below = |index: u32| links.get(&index).and_then(|device| device.below).unwrap_or((index, 0));
        // Where the program is attached to a bond, the frames come by its ports.
        let by_ports = ports(first.0, links).map(|port| (port, first.1));
        let others = by_ports.chain(ways.into_iter().map(below).filter(|way| *way != first));
        for (place, (ifindex, vlan)) in also.iter_mut().zip(others) {
            *place = OwnWay { ifindex, vlan, zero: 0 };
        }
        also
    }

    /// Gives the dataplane the next hop of an address. Returns whether its path works.
    async fn hop(
        &mut self,
        address: IpAddr,
        route: &Route,
        (links, neighbours, attached): Tables<'_>,
        is_tick: bool,
    ) -> PathState {
        let via = route.gateway.unwrap_or(address);
        let neighbour = neighbours.get(&(route.ifindex, via));
        if neighbour.is_none_or(|entry| entry.stale) {
            resolve(&self.handle, route.ifindex, via).await;
        }
        let device = links.get(&route.ifindex).copied().unwrap_or_default();
        // XDP does not send through the device of a VLAN: the program tags the frame, and it leaves by the device below.
        let (ifindex, vlan) = device.below.unwrap_or((route.ifindex, 0));
        let mut hop = NextHop {
            ifindex,
            vlan,
            also: self.also(address, (ifindex, vlan), (links, neighbours, attached), is_tick).await,
            link: Link::new(neighbour.map(|entry| entry.mac).unwrap_or_default(), device.mac),
            source: route.source,
            routed: route.gateway.is_some(),
            path_warning: (!self.takes_redirected(ifindex)).then_some(PathWarning::NoRedirect),
        };
        let before = self.known.get(&address).copied();
        if let Some(before) = before
            && !hop.link.is_resolved()
            && (before.ifindex, before.vlan) == (hop.ifindex, hop.vlan)
        {
            // The kernel asks again. Until then the old answer is the best one.
            hop.link = before.link;
        }
        self.known.insert(address, hop);
        if before != Some(hop) {
            if hop.link.is_resolved() {
                info!(%address, %via, ifindex, vlan, source = %hop.source, "next hop");
            } else {
                warn!(%address, %via, ifindex, vlan, "next hop does not answer yet");
            }
        }
        // Each time, because this repeats a write that failed. The dataplane ignores a next hop that it has.
        self.dataplane.set_next_hop(address, hop);
        match of_device(route.ifindex, links, attached, &self.ports.vlans) {
            PathState::Ok if !hop.link.is_resolved() => PathState::NoNeighbour,
            of_device => of_device,
        }
    }
}

/// Whether one of these interfaces is the end of a virtual Ethernet pair.
pub async fn any_is_veth(interfaces: &[String]) -> io::Result<bool> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let mut found = false;
    for interface in interfaces {
        let mut links = handle.link().get().match_name(interface.clone()).execute();
        // The start reports an interface that does not exist.
        while let Ok(Some(message)) = links.try_next().await {
            found |= message.attributes.iter().any(|attribute| {
                matches!(attribute, LinkAttribute::LinkInfo(infos)
                    if infos.contains(&LinkInfo::Kind(InfoKind::Veth)))
            });
        }
    }
    connection.abort();
    Ok(found)
}
