//! Follows the next hops of the backends and the node's own MAC addresses, as the kernel knows them.
//!
//! One task, owned by the daemon and safe to abort at any point: it only reads the kernel's tables and asks the kernel
//! to resolve neighbours. It reads when routes, neighbours or links change, and every [`REFRESH`] at the latest. Asking
//! also keeps the kernel's neighbour entries fresh, which frames that XDP forwards do not.

mod kernel;
mod own_macs;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _};
use lb_common::abi::Link;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo};
use rtnetlink::{Handle, MulticastGroup};
use tokio::{sync::watch, time::timeout};
use tracing::{debug, info, warn};

use self::{
    kernel::{filters, links, neighbours, resolve, route},
    own_macs::own_macs,
};
use super::{NextHop, actor, error::chain, path_warning::PathWarning, redirect::Redirects};

/// After this long the task reads the tables again although the kernel has reported no change.
const REFRESH: Duration = Duration::from_secs(1);

/// Changes come in bursts. The task gathers them for at most this long.
const SETTLE: Duration = Duration::from_millis(20);

/// Where the program is attached.
#[derive(Clone, Debug, Default)]
pub struct Ports {
    /// The VLANs whose frames the program looks at.
    pub vlans: Vec<u16>,
    pub attached: BTreeSet<u32>,
    /// In native mode drivers redirect frames to each other.
    pub native: bool,
}

/// Follows the next hops of `addresses` and gives each to the dataplane. Ends when the sender of `addresses` is dropped.
pub async fn follow(
    dataplane: actor::Handle,
    mut addresses: watch::Receiver<Vec<IpAddr>>,
    ports: Ports,
) -> io::Result<()> {
    // Before Linux 6.3 the kernel does not report this.
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
        if let Err(error) = update(&handle, &wanted, &ports, &mut known, &dataplane, &path_warning).await {
            warn!(error = chain(&error), "cannot read the kernel's routes and neighbours");
        }
        tokio::select! {
            changed = addresses.changed() => if changed.is_err() { break },
            heard = timeout(REFRESH, changes.next()) => if matches!(heard, Ok(None)) {
                return Err(io::Error::other("the kernel closed the netlink socket"));
            }
        }
        // Times out, unless the socket is closed. Then the next turn finds that.
        let _ = timeout(SETTLE, async { while changes.next().await.is_some() {} }).await;
    }
    connection.abort();
    Ok(())
}

/// Reads the kernel's tables once, and gives the next hop of each address to the dataplane.
async fn update(
    handle: &Handle,
    addresses: &[IpAddr],
    ports: &Ports,
    known: &mut BTreeMap<IpAddr, NextHop>,
    dataplane: &actor::Handle,
    path_warning: &(impl Fn(u32) -> Option<PathWarning> + Sync),
) -> Result<(), rtnetlink::Error> {
    known.retain(|address, _| addresses.contains(address));
    let links = links(handle).await?;
    // Without its filters, for example in a kernel that does not list them, an interface has at least its own.
    let filters = filters(handle).await.unwrap_or_default();
    dataplane.set_own_macs(own_macs(&ports.attached, &links, &filters));
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
        if neighbour.is_none_or(|entry| entry.stale) {
            resolve(handle, route.ifindex, via).await;
        }
        let device = links.get(&route.ifindex).copied().unwrap_or_default();
        // XDP does not send through the device of a VLAN: the program tags the frame, and it leaves by the device below.
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
            // The kernel asks again. Until then the old answer is the best one.
            hop.link = before.link;
        }
        let before = known.insert(*address, hop);
        if before != Some(hop) {
            if hop.link.is_resolved() {
                info!(%address, %via, ifindex, vlan, source = %hop.source, "next hop");
            } else {
                warn!(%address, %via, ifindex, vlan, "next hop does not answer yet");
            }
            if vlan != 0 && !ports.vlans.contains(&vlan) {
                warn!(%address, vlan, "its replies come in a VLAN that is not looked at: add it to `vlans`");
            }
        }
        // Each time, because this repeats a write that failed. The dataplane ignores a next hop that it has.
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
