//! One look at the paths to addresses that nobody follows yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use lb_core::snapshot::PathState;

use super::{
    kernel::{Destination, destination, links},
    paths::of_device,
};

/// The paths to these addresses if the program were attached to these interfaces. Nobody is asked for a neighbour, so
/// [`PathState::NoNeighbour`] is not among them.
pub async fn look(
    addresses: impl Iterator<Item = IpAddr> + Send,
    interfaces: &[String],
    vlans: &[u16],
) -> io::Result<BTreeMap<IpAddr, PathState>> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let found = async {
        let links = links(&handle).await?;
        let index = |name: &String| nix::net::if_::if_nametoindex(name.as_str()).ok();
        let attached: BTreeSet<u32> = interfaces.iter().filter_map(index).collect();
        let mut found = BTreeMap::new();
        for address in addresses {
            let path = match destination(&handle, address).await? {
                Destination::Host(route) => of_device(route.ifindex, &links, &attached, vlans),
                Destination::Local => PathState::Local,
                Destination::NotUnicast => PathState::NotUnicast,
                Destination::Nowhere => PathState::NoRoute,
            };
            found.insert(address, path);
        }
        Ok(found)
    };
    let found = found.await.map_err(|error: rtnetlink::Error| io::Error::other(error));
    connection.abort();
    found
}
