//! `allow` and `deny` of a service: the clients that it accepts.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use lb_common::MAX_SOURCES;
use lb_core::config::{Prefix, Sources};

use super::reader::{Node, Table, quoted};

/// `vip`: as far as it was right. `all`: how many prefixes other services have named, to which these are added.
pub(super) fn read(table: &Table<'_>, vip: Option<SocketAddr>, all: &mut usize) -> Option<Sources> {
    let mut seen = HashMap::new();
    let mut of = |key| table.or(key, Vec::new(), |node| prefixes(node, vip, &mut seen, all));
    let (allow, deny) = (of("allow"), of("deny"));
    Some(Sources { allow: allow?.value, deny: deny?.value })
}

/// No prefix may stand in the lists twice: it would not be clear which entry holds.
fn prefixes<'a>(
    node: &Node<'a>,
    vip: Option<SocketAddr>,
    seen: &mut HashMap<Prefix, Node<'a>>,
    all: &mut usize,
) -> Option<Vec<Prefix>> {
    let items = node.items("an array of prefixes", &format!("{} = [\"10.0.0.0/8\"]", node.key()))?;
    *all += items.len();
    if *all > MAX_SOURCES as usize {
        return node.reject(
            format!("more than {MAX_SOURCES} prefixes of all services together are not possible"),
            "use shorter prefixes that contain several of them",
        );
    }
    let prefixes: Vec<_> = items
        .iter()
        .map(|item| {
            let prefix = prefix(item)?;
            if vip.is_some_and(|vip| vip.is_ipv4() != prefix.address.is_ipv4()) {
                return item.reject(
                    format!(
                        "{} has another IP version than the VIP: no client comes from there",
                        shown(prefix)
                    ),
                    "remove it",
                );
            }
            if let Some(first) = seen.insert(prefix, item.clone()) {
                return item.conflict(
                    format!("the prefix {} is named twice", shown(prefix)),
                    "remove one of them; of two that differ, the longer one decides",
                    first.span,
                    "first named here",
                );
            }
            Some(prefix)
        })
        .collect();
    prefixes.into_iter().collect()
}

/// `10.0.0.0/8`, or an address alone.
fn prefix(node: &Node<'_>) -> Option<Prefix> {
    const HELP: &str = "write an address and how many of its bits count, for example `\"10.0.0.0/8\"`";
    let Some(text) = node.as_str() else { return node.reject("this is not a prefix", HELP) };
    let (address, length) =
        text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let Ok(address) = address.parse::<IpAddr>() else {
        return node.reject(format!("{} is not a prefix", quoted(text)), HELP);
    };
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let digits = |length: &str| {
        length.bytes().all(|byte| byte.is_ascii_digit()).then(|| length.parse().ok()).flatten()
    };
    let Some(length) = length.map_or(Some(whole), digits).filter(|length| *length <= whole) else {
        return node.reject(
            format!("{} is not a prefix", quoted(text)),
            format!("write 0 to {whole} after the `/`"),
        );
    };
    let prefix = Prefix { address: begin(address, length), length };
    if prefix.address != address {
        return node.reject(
            format!("{} has bits behind its length", quoted(text)),
            format!("did you mean `\"{}\"`?", shown(prefix)),
        );
    }
    if matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
        return node.reject(format!("{} is IPv4 written as IPv6", quoted(text)), "write it as IPv4");
    }
    Some(prefix)
}

/// The first address of a prefix.
fn begin(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

fn shown(prefix: Prefix) -> String {
    format!("{}/{}", prefix.address, prefix.length)
}
