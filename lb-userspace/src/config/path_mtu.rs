//! `min_path_mtu`.

use std::ops::RangeInclusive;

use super::{
    MinPathMtu, keys,
    reader::{Node, Table},
};

/// No IPv4 link is narrower than 68 bytes (RFC 791), and no IPv6 link than 1280 (RFC 8200). With more than 1500 the
/// program would drop the errors of usual links.
const IPV4: RangeInclusive<u32> = 68..=1500;
const IPV6: RangeInclusive<u32> = 1280..=1500;

pub(super) fn read(root: &Table<'_>) -> Option<MinPathMtu> {
    let default = MinPathMtu::default();
    let Some(node) = root.node("min_path_mtu") else {
        return if root.is_misspelt("min_path_mtu") { None } else { Some(default) };
    };
    let table = node.table(&keys::MIN_PATH_MTU, "min_path_mtu = { ipv4 = 552, ipv6 = 1280 }")?;
    let ipv4 = table.or("ipv4", default.ipv4, |node| within(node, IPV4));
    let ipv6 = table.or("ipv6", default.ipv6, |node| within(node, IPV6));
    Some(MinPathMtu { ipv4: ipv4?.value, ipv6: ipv6?.value })
}

fn within(node: &Node<'_>, range: RangeInclusive<u32>) -> Option<u16> {
    node.integer(range).and_then(|bytes| u16::try_from(bytes).ok())
}
