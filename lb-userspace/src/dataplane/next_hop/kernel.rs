//! Routes, neighbours and links, as the kernel reports them by rtnetlink.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::{StreamExt as _, TryStreamExt as _};
use netlink_packet_route::{
    AddressFamily,
    link::{InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, VlanProtocol},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteType, RouteVia},
};
use rtnetlink::{Handle, RouteMessageBuilder};
use tracing::debug;

use crate::dataplane::error::chain;

pub(super) struct Route {
    pub(super) ifindex: u32,
    pub(super) gateway: Option<IpAddr>,
    pub(super) source: IpAddr,
}

/// Where the kernel would send a packet.
pub(super) enum Destination {
    /// Send it by this route.
    Host(Route),
    /// Take it itself.
    Local,
    /// Send it to many.
    NotUnicast,
    /// Drop it.
    Nowhere,
}

pub(super) async fn destination(handle: &Handle, to: IpAddr) -> Result<Destination, rtnetlink::Error> {
    let request = match to {
        IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(v4, 32).build(),
        IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(v6, 128).build(),
    };
    let answer = match handle.route().get(request).execute().boxed().try_next().await {
        Ok(Some(answer)) => answer,
        Ok(None) => return Ok(Destination::Nowhere),
        // No route, or one of the types `unreachable`, `blackhole`, `prohibit`.
        Err(rtnetlink::Error::NetlinkError(error)) if NOWHERE.contains(&-error.raw_code()) => {
            return Ok(Destination::Nowhere);
        }
        Err(error) => return Err(error),
    };
    match answer.header.kind {
        RouteType::Local | RouteType::Anycast => return Ok(Destination::Local),
        RouteType::Broadcast | RouteType::Multicast => return Ok(Destination::NotUnicast),
        _ => {}
    }
    let (mut ifindex, mut gateway, mut source) = (None, None, None);
    for attribute in answer.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(index),
            RouteAttribute::Gateway(address) => gateway = plain(address),
            // Of the other family (RFC 8950).
            RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some(address.into()),
            RouteAttribute::Via(RouteVia::Inet(address)) => gateway = Some(address.into()),
            RouteAttribute::PrefSource(address) => source = plain(address),
            _ => {}
        }
    }
    // Without a source the node has no address of this family there.
    let route = ifindex.zip(source).map(|(ifindex, source)| Route { ifindex, gateway, source });
    Ok(route.map_or(Destination::Nowhere, Destination::Host))
}

const NOWHERE: [i32; 5] = [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EINVAL, libc::EACCES, libc::ENODEV];

/// The interfaces by which routes for the longest prefix of an address leave: the paths of one route, and routes of
/// other metrics. `attached`: the kernel is asked for the latter by interface.
pub(super) async fn ways(handle: &Handle, to: IpAddr, attached: &BTreeSet<u32>) -> BTreeSet<u32> {
    let Some((prefix, mut found)) = route_to(handle, to, None).await else { return BTreeSet::new() };
    for index in attached {
        if found.contains(index) {
            continue;
        }
        if let Some((length, others)) = route_to(handle, to, Some(*index)).await
            && length == prefix
        {
            found.extend(others);
        }
    }
    found
}

/// The length of the longest prefix that has a route, by this interface if one is given, and the interfaces of the
/// route.
async fn route_to(handle: &Handle, to: IpAddr, by: Option<u32>) -> Option<(u8, BTreeSet<u32>)> {
    let mut request = match to {
        IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(v4, 32).build(),
        IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(v6, 128).build(),
    };
    request.header.flags |= RouteFlags::FibMatch;
    request.attributes.extend(by.map(RouteAttribute::Oif));
    let answer = handle.route().get(request).execute().boxed().try_next().await.ok().flatten()?;
    let mut found = BTreeSet::new();
    for attribute in &answer.attributes {
        match attribute {
            RouteAttribute::Oif(index) => {
                found.insert(*index);
            }
            RouteAttribute::MultiPath(paths) => found.extend(paths.iter().map(|path| path.interface_index)),
            _ => {}
        }
    }
    Some((answer.header.destination_prefix_length, found))
}

pub(super) fn plain(address: RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(v4.into()),
        RouteAddress::Inet6(v6) => Some(v6.into()),
        // Addresses of other protocols.
        _ => None,
    }
}

pub(super) struct Neighbour {
    pub(super) mac: [u8; 6],
    /// The kernel has not confirmed it lately.
    pub(super) stale: bool,
}

pub(super) async fn neighbours(
    handle: &Handle,
) -> Result<BTreeMap<(u32, IpAddr), Neighbour>, rtnetlink::Error> {
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
    Some((address?, Neighbour { mac: mac?, stale: !fresh.contains(&state) }))
}

/// An interface.
#[derive(Clone, Copy, Default)]
pub(super) struct Device {
    /// The node's own address on it.
    pub(super) mac: [u8; 6],
    /// It is up, and the device below it has a link.
    pub(super) has_link: bool,
    /// For the device of a VLAN: the interface that its frames leave by, and the VLAN's id.
    pub(super) below: Option<(u32, u16)>,
    /// For a device on another one: the device below it, by which its frames come.
    pub(super) lower: Option<u32>,
    /// The bridge or bond that it is a port of.
    pub(super) master: Option<u32>,
}

pub(super) async fn links(handle: &Handle) -> Result<BTreeMap<u32, Device>, rtnetlink::Error> {
    let mut found = BTreeMap::new();
    let mut dump = handle.link().get().execute();
    while let Some(message) = dump.try_next().await? {
        found.insert(message.header.index, device(&message));
    }
    Ok(found)
}

fn device(message: &LinkMessage) -> Device {
    let (mut device, mut lower, mut id, mut stacked, mut elsewhere) =
        (Device::default(), None, None, false, false);
    device.has_link = message.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => device.mac = bytes.as_slice().try_into().unwrap_or_default(),
            LinkAttribute::Link(index) => lower = Some(*index),
            LinkAttribute::Controller(index) => device.master = Some(*index),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                id = infos.iter().find_map(vlan_id);
                stacked = infos.iter().any(is_stacked);
            }
            _ => {}
        }
    }
    device.below = lower.zip(id);
    // An index in another network namespace means another device here. The `lower` of a veth is its other end.
    device.lower = lower.filter(|_| stacked && !elsewhere);
    device
}

const fn is_stacked(info: &LinkInfo) -> bool {
    matches!(info, LinkInfo::Kind(InfoKind::IpVlan | InfoKind::MacVlan | InfoKind::MacVtap | InfoKind::Vlan))
}

/// The unicast addresses that interfaces accept beside their own, with the index of the interface: those of macvlan
/// devices, and what an operator has added.
pub(super) async fn filters(handle: &Handle) -> Result<Vec<(u32, [u8; 6])>, rtnetlink::Error> {
    let mut found = Vec::new();
    let mut dump = handle.neighbours().get().set_address_family(AddressFamily::Bridge).execute();
    while let Some(message) = dump.try_next().await? {
        found.extend(filter(&message));
    }
    Ok(found)
}

/// An address in an interface's own filter. A tunnel has the addresses behind its other end in the same list, each
/// with a destination.
fn filter(message: &NeighbourMessage) -> Option<(u32, [u8; 6])> {
    let own = message.header.flags.contains(NeighbourFlags::Own);
    let remote = |attribute: &NeighbourAttribute| matches!(attribute, NeighbourAttribute::Destination(_));
    if !own || message.header.state != NeighbourState::Permanent || message.attributes.iter().any(remote) {
        return None;
    }
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok(),
        _ => None,
    })?;
    (mac[0] & 1 == 0).then_some((message.header.ifindex, mac))
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

/// Asks the kernel to resolve a neighbour, as if it had to send a packet there (`NTF_USE`).
pub(super) async fn resolve(handle: &Handle, ifindex: u32, address: IpAddr) {
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
