//! Routes, neighbours and links, as the kernel reports them by rtnetlink.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::{StreamExt as _, TryStreamExt as _};
use netlink_packet_route::{
    link::{InfoData, InfoVlan, LinkAttribute, LinkInfo, LinkMessage, VlanProtocol},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute},
};
use rtnetlink::{Handle, RouteMessageBuilder};
use tracing::debug;

use crate::dataplane::error::chain;

pub(super) struct Route {
    pub(super) ifindex: u32,
    pub(super) gateway: Option<IpAddr>,
    pub(super) source: IpAddr,
}

/// The route that the kernel would use.
pub(super) async fn route(handle: &Handle, to: IpAddr) -> Option<Route> {
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

/// The addresses of an interface.
#[derive(Clone, Copy, Default)]
pub(super) struct Device {
    /// The node's own address on it.
    pub(super) mac: [u8; 6],
    /// For the device of a VLAN: the interface that its frames leave by, and the VLAN's id.
    pub(super) below: Option<(u32, u16)>,
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
