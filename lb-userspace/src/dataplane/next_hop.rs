//! How the backends are reached, asked of the kernel and kept fresh.
//!
//! One task, owned by the daemon and safe to abort at any point: it only reads the
//! kernel's tables and asks it to resolve neighbours. It looks when something changes in
//! the routes, neighbours or links, and every [`REFRESH`] at the latest, which also keeps
//! the kernel's neighbour entries from going stale: frames that XDP forwards do not.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _};
use lb_common::abi::Link;
use netlink_packet_route::{
    link::{InfoData, InfoKind, InfoVlan, LinkAttribute, LinkInfo, LinkMessage, VlanProtocol},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute},
};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use tokio::{sync::watch, time::timeout};
use tracing::{debug, info, warn};

use super::{NextHop, PathWarning, actor, chain, redirect::Redirects};

/// After this long the tables are read again although nothing was heard.
const REFRESH: Duration = Duration::from_secs(1);

/// Changes come in bursts; this long they are gathered, at most.
const SETTLE: Duration = Duration::from_millis(20);

/// Where the program is attached.
#[derive(Clone, Debug, Default)]
pub struct Ports {
    /// Those whose frames are looked at.
    pub vlans: Vec<u16>,
    pub attached: BTreeSet<u32>,
    /// In native mode, where frames are redirected from driver to driver.
    pub native: bool,
}

/// Follows the next hops of `addresses` and tells the dataplane of each change. Ends when
/// the sender of `addresses` is dropped.
pub async fn follow(
    dataplane: actor::Handle,
    mut addresses: watch::Receiver<Vec<IpAddr>>,
    ports: Ports,
) -> io::Result<()> {
    // Before Linux 6.3 nobody can tell.
    let redirects = ports.native.then(Redirects::open).and_then(Result::ok);
    let path_warning = |ifindex: u32| {
        if !ports.attached.contains(&ifindex) {
            return Some(PathWarning::NotAttached);
        }
        let taken = redirects.as_ref().and_then(|redirects| redirects.taken_by(ifindex).ok());
        (taken == Some(false)).then_some(PathWarning::NoRedirect)
    };
    let groups =
        [MulticastGroup::Neigh, MulticastGroup::Link, MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route];
    let (connection, handle, mut changes) = rtnetlink::new_multicast_connection(&groups)?;
    let connection = tokio::spawn(connection);
    let mut known = BTreeMap::new();
    loop {
        let wanted = addresses.borrow_and_update().clone();
        if let Err(error) = look(&handle, &wanted, &ports.vlans, &mut known, &dataplane, &path_warning).await
        {
            warn!(error = chain(&error), "cannot read the kernel's routes and neighbours");
        }
        tokio::select! {
            changed = addresses.changed() => if changed.is_err() { break },
            heard = timeout(REFRESH, changes.next()) => if matches!(heard, Ok(None)) {
                return Err(io::Error::other("the kernel closed the netlink socket"));
            }
        }
        // Runs out, unless the socket is closed, which the next turn finds.
        let _ = timeout(SETTLE, async { while changes.next().await.is_some() {} }).await;
    }
    connection.abort();
    Ok(())
}

async fn look(
    handle: &Handle,
    addresses: &[IpAddr],
    vlans: &[u16],
    known: &mut BTreeMap<IpAddr, NextHop>,
    dataplane: &actor::Handle,
    path_warning: &(impl Fn(u32) -> Option<PathWarning> + Sync),
) -> Result<(), rtnetlink::Error> {
    known.retain(|address, _| addresses.contains(address));
    let links = links(handle).await?;
    let neighbours = neighbours(handle).await?;
    let mut path_warnings = BTreeMap::new();
    for address in addresses {
        let Some(route) = route(handle, *address).await else {
            if !known.contains_key(address) {
                debug!(%address, "no route");
            }
            continue;
        };
        let via = route.gateway.unwrap_or(*address);
        let neighbour = neighbours.get(&(route.ifindex, via));
        if neighbour.is_none_or(|entry| entry.tired) {
            resolve(handle, route.ifindex, via).await;
        }
        let device = links.get(&route.ifindex).copied().unwrap_or_default();
        // XDP does not send through a VLAN's device: the frame gets its tag here and leaves by the one below.
        let (ifindex, vlan) = device.below.unwrap_or((route.ifindex, 0));
        let mut hop = NextHop {
            ifindex,
            vlan,
            link: Link::new(neighbour.map(|entry| entry.mac).unwrap_or_default(), device.mac),
            source: route.source,
            routed: route.gateway.is_some(),
            path_warning: *path_warnings.entry(route.ifindex).or_insert_with(|| path_warning(route.ifindex)),
        };
        if let Some(before) = known.get(address)
            && !hop.link.is_resolved()
            && (before.ifindex, before.vlan) == (hop.ifindex, hop.vlan)
        {
            // The kernel is asking again; the old answer is better than none.
            hop.link = before.link;
        }
        let before = known.insert(*address, hop);
        if before != Some(hop) {
            if hop.link.is_resolved() {
                info!(%address, %via, ifindex, vlan, source = %hop.source, "next hop");
            } else {
                warn!(%address, %via, ifindex, vlan, "next hop does not answer yet");
            }
            if vlan != 0 && !vlans.contains(&vlan) {
                warn!(%address, vlan, "its replies come in a VLAN that is not looked at: add it to `vlans`");
            }
        }
        // Every time: a write that failed is thereby tried again, and one that holds costs nothing.
        dataplane.set_next_hop(*address, hop);
    }
    Ok(())
}

/// Whether one of these interfaces is the end of a virtual Ethernet pair.
pub async fn any_is_veth(interfaces: &[String]) -> io::Result<bool> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let mut found = false;
    for interface in interfaces {
        let mut links = handle.link().get().match_name(interface.clone()).execute();
        // One that is not there is somebody else's error to report.
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

struct Route {
    ifindex: u32,
    gateway: Option<IpAddr>,
    source: IpAddr,
}

/// The kernel's answer to "how would you send there".
async fn route(handle: &Handle, to: IpAddr) -> Option<Route> {
    let request = match to {
        IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(v4, 32).build(),
        IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(v6, 128).build(),
    };
    let answer = handle.route().get(request).execute().boxed().try_next().await.ok().flatten()?;
    let (mut ifindex, mut gateway, mut source) = (None, None, None);
    for attribute in answer.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(index),
            RouteAttribute::Gateway(address) => gateway = plain(address),
            RouteAttribute::PrefSource(address) => source = plain(address),
            _ => {}
        }
    }
    Some(Route { ifindex: ifindex?, gateway, source: source? })
}

fn plain(address: RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(v4.into()),
        RouteAddress::Inet6(v6) => Some(v6.into()),
        // Other protocols' addresses.
        _ => None,
    }
}

struct Neighbour {
    mac: [u8; 6],
    /// Not confirmed lately: worth asking again.
    tired: bool,
}

async fn neighbours(handle: &Handle) -> Result<BTreeMap<(u32, IpAddr), Neighbour>, rtnetlink::Error> {
    let mut found = BTreeMap::new();
    let mut dump = handle.neighbours().get().execute();
    while let Some(message) = dump.try_next().await? {
        if let Some((address, entry)) = neighbour(&message) {
            found.insert((message.header.ifindex, address), entry);
        }
    }
    Ok(found)
}

fn neighbour(message: &NeighbourMessage) -> Option<(IpAddr, Neighbour)> {
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            _ => {}
        }
    }
    let state = message.header.state;
    if state == NeighbourState::Failed || state == NeighbourState::Incomplete {
        return None;
    }
    let fresh = [NeighbourState::Reachable, NeighbourState::Permanent, NeighbourState::Noarp];
    Some((address?, Neighbour { mac: mac?, tired: !fresh.contains(&state) }))
}

/// What an interface is.
#[derive(Clone, Copy, Default)]
struct Device {
    /// Our own address on it.
    mac: [u8; 6],
    /// Of a VLAN's device: the interface that its frames leave by, and its id.
    below: Option<(u32, u16)>,
}

async fn links(handle: &Handle) -> Result<BTreeMap<u32, Device>, rtnetlink::Error> {
    let mut found = BTreeMap::new();
    let mut dump = handle.link().get().execute();
    while let Some(message) = dump.try_next().await? {
        found.insert(message.header.index, device(&message));
    }
    Ok(found)
}

fn device(message: &LinkMessage) -> Device {
    let (mut device, mut lower, mut id) = (Device::default(), None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => device.mac = bytes.as_slice().try_into().unwrap_or_default(),
            LinkAttribute::Link(index) => lower = Some(*index),
            LinkAttribute::LinkInfo(infos) => id = infos.iter().find_map(vlan_id),
            _ => {}
        }
    }
    device.below = lower.zip(id);
    device
}

/// The id of an 802.1Q device.
fn vlan_id(info: &LinkInfo) -> Option<u16> {
    let LinkInfo::Data(InfoData::Vlan(facts)) = info else { return None };
    let other = |fact: &InfoVlan| matches!(fact, InfoVlan::Protocol(protocol) if *protocol != VlanProtocol::Ieee8021Q);
    if facts.iter().any(other) {
        return None;
    }
    facts.iter().find_map(|fact| if let InfoVlan::Id(id) = fact { Some(*id) } else { None })
}

/// Has the kernel resolve a neighbour as if a packet were to be sent (`NTF_USE`).
async fn resolve(handle: &Handle, ifindex: u32, address: IpAddr) {
    let request = handle
        .neighbours()
        .add(ifindex, address)
        .state(NeighbourState::None)
        .flags(NeighbourFlags::Use)
        .replace();
    if let Err(error) = request.execute().await {
        debug!(%address, error = chain(&error), "cannot ask for the neighbour");
    }
}
