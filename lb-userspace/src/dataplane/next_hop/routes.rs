//! The kernel's routes to clients.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use lb_common::abi::Link;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteType, RouteVia},
};
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_core::{NetlinkMessage, NetlinkPayload},
};

use super::kernel::{Device, plain};
use crate::dataplane::client_ways::{ClientWay, Routes};

/// A host with more routes has them from a routing protocol, and reading them at each of its changes would take too long.
pub(super) const MOST: usize = 4096;

/// The gateway of a route, and its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Gateway {
    pub(super) ifindex: u32,
    pub(super) via: IpAddr,
}

/// The gateways by prefix: its length and its first address. `None`: a route without one, or with several.
pub(super) type Table = BTreeMap<(u8, IpAddr), Option<Gateway>>;

/// Whether a message may be about a route. The kernel says nothing of routes that go with their link.
pub(super) fn may_change_routes(message: &NetlinkMessage<RouteNetlinkMessage>) -> bool {
    use RouteNetlinkMessage::{DelLink, DelRoute, NewLink, NewRoute};
    matches!(
        &message.payload,
        NetlinkPayload::InnerMessage(NewRoute(_) | DelRoute(_) | NewLink(_) | DelLink(_))
    )
}

/// The unicast routes of the main table. `None`: there are more than [`MOST`].
pub(super) async fn routes(handle: &Handle) -> Result<Option<Table>, rtnetlink::Error> {
    let mut best = BTreeMap::new();
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
    for request in [v4, v6] {
        if !read(handle.route().get(request).execute().boxed(), &mut best).await? {
            return Ok(None);
        }
    }
    Ok(Some(best.into_iter().map(|(prefix, (_, gateway))| (prefix, gateway)).collect()))
}

/// Of the routes for a prefix the one with the least metric counts. False: there are too many.
async fn read(
    mut dump: impl Stream<Item = Result<RouteMessage, rtnetlink::Error>> + Unpin,
    best: &mut BTreeMap<(u8, IpAddr), (u32, Option<Gateway>)>,
) -> Result<bool, rtnetlink::Error> {
    while let Some(message) = dump.try_next().await? {
        let Some((prefix, metric, gateway)) = route(&message) else { continue };
        if best.get(&prefix).is_none_or(|(known, _)| metric < *known) {
            best.insert(prefix, (metric, gateway));
        }
        if best.len() > MOST {
            return Ok(false);
        }
    }
    Ok(true)
}

fn route(message: &RouteMessage) -> Option<((u8, IpAddr), u32, Option<Gateway>)> {
    let header = &message.header;
    let dead = header.flags.intersects(RouteFlags::Dead | RouteFlags::Linkdown);
    let mut table = u32::from(header.table);
    let (mut to, mut via, mut ifindex, mut metric) = (None, None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(address) => to = plain(address.clone()),
            RouteAttribute::Gateway(address) => via = plain(address.clone()),
            RouteAttribute::Via(RouteVia::Inet(address)) => via = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => via = Some((*address).into()),
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::Priority(number) => metric = *number,
            _ => {}
        }
    }
    if dead || header.kind != RouteType::Unicast || table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return None;
    }
    let everything: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        _ => Ipv6Addr::UNSPECIFIED.into(),
    };
    let gateway = ifindex.zip(via).map(|(ifindex, via)| Gateway { ifindex, via });
    Some(((header.destination_prefix_length, to.unwrap_or(everything)), metric, gateway))
}

/// The ways by these routes. `mac`: the last known address of a neighbour.
pub(super) fn ways(
    table: &Table,
    links: &BTreeMap<u32, Device>,
    mac: impl Fn(u32, IpAddr) -> Option<[u8; 6]>,
) -> Routes {
    let way = |Gateway { ifindex, via }: &Gateway| {
        let device = links.get(ifindex)?;
        let (out, vlan) = device.below.unwrap_or((*ifindex, 0));
        Some(ClientWay { ifindex: out, vlan, link: Link::new(mac(*ifindex, *via)?, device.mac) })
    };
    table.iter().map(|(prefix, gateway)| (*prefix, gateway.as_ref().and_then(way))).collect()
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use netlink_packet_route::route::RouteAddress;

    use super::*;

    fn message(to: Option<[u8; 4]>, length: u8, via: u8, metric: u32) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = length;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.kind = RouteType::Unicast;
        message.attributes.extend(to.map(|to| RouteAttribute::Destination(RouteAddress::Inet(to.into()))));
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet([10, 0, 0, via].into())));
        message.attributes.push(RouteAttribute::Oif(via.into()));
        message.attributes.push(RouteAttribute::Priority(metric));
        message
    }

    async fn of(messages: Vec<RouteMessage>) -> Vec<(String, u32)> {
        let mut best = BTreeMap::new();
        let all = stream::iter(messages.into_iter().map(Ok));
        assert!(read(all, &mut best).await.expect("no error"));
        let shown = |((length, to), (_, gateway)): ((u8, IpAddr), (u32, Option<Gateway>))| {
            (format!("{to}/{length}"), gateway.map_or(0, |gateway| gateway.ifindex))
        };
        best.into_iter().map(shown).collect()
    }

    #[tokio::test]
    async fn the_least_metric_of_a_living_route_counts() {
        let mut dead = message(None, 0, 1, 0);
        dead.header.flags |= RouteFlags::Linkdown;
        let mut other_table = message(None, 0, 2, 0);
        other_table.header.table = 100;
        let mut blackhole = message(Some([10, 9, 0, 0]), 16, 3, 0);
        blackhole.header.kind = RouteType::BlackHole;
        let found = of(vec![
            dead,
            message(None, 0, 5, 200),
            message(None, 0, 4, 100),
            other_table,
            blackhole,
            message(Some([10, 1, 0, 0]), 16, 6, 0),
        ]);
        assert_eq!(found.await, [("0.0.0.0/0".to_owned(), 4), ("10.1.0.0/16".to_owned(), 6)]);
    }

    #[tokio::test]
    async fn a_host_with_a_table_of_the_internet_is_left_alone() {
        let many = (0..=MOST as u32).map(|n| message(Some((n << 8).to_be_bytes()), 24, 1, 0));
        let mut best = BTreeMap::new();
        assert!(!read(stream::iter(many.map(Ok)), &mut best).await.expect("no error"));
    }

    #[test]
    fn a_gateway_without_an_address_is_no_way() {
        let prefix = |length| (length, Ipv4Addr::UNSPECIFIED.into());
        let via = |last: u8| IpAddr::from([10, 0, 0, last]);
        let table = Table::from([
            (prefix(0), Some(Gateway { ifindex: 7, via: via(1) })),
            (prefix(1), Some(Gateway { ifindex: 7, via: via(2) })),
            (prefix(2), Some(Gateway { ifindex: 8, via: via(1) })),
            (prefix(3), None),
        ]);
        let device = Device { mac: [4; 6], below: Some((2, 10)), ..Device::default() };
        let found = ways(&table, &BTreeMap::from([(7, device)]), |_, to| (to == via(1)).then_some([3; 6]));
        let way = ClientWay { ifindex: 2, vlan: 10, link: Link::new([3; 6], [4; 6]) };
        let wanted = [(prefix(0), Some(way)), (prefix(1), None), (prefix(2), None), (prefix(3), None)];
        assert_eq!(found, Routes::from_iter(wanted));
    }
}
