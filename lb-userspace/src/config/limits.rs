//! The limits of connections of a service and of its backends, and affinity.

use std::{net::SocketAddr, num::NonZeroU8};

use lb_core::config::{Limits, Overflow};

use super::{
    reader::{Node, Table},
    value,
};

/// The largest `max_connections`: more than a flow table holds. A limit above it would limit nothing.
pub(crate) const MAX_CONNECTIONS: u32 = 1 << 24;

/// A number of connections. 0: no limit.
pub(super) fn count(node: &Node<'_>) -> Option<u32> {
    node.integer_such_as(1000, 0..=MAX_CONNECTIONS)
}

pub(super) fn read(table: &Table<'_>) -> Option<Limits> {
    let default = Limits::default();
    let max_connections = table.or("max_connections", default.max_connections, count);
    let each = table.or("max_connections_per_backend", default.max_connections_per_backend, count);
    let overflow = table.or("overflow", default.overflow, |node| {
        let choices = [
            ("reset", Overflow::Reset),
            ("drop", Overflow::Drop),
            ("queue-by-retry", Overflow::QueueByRetry),
        ];
        value::choice(node, &choices)
    });
    Some(Limits {
        max_connections: max_connections?.value,
        max_connections_per_backend: each?.value,
        overflow: overflow?.value,
    })
}

/// How many bits of a client's address choose its backend. `None`: the whole tuple does.
pub(super) fn read_affinity(table: &Table<'_>, vip: Option<SocketAddr>) -> Option<Option<NonZeroU8>> {
    let source =
        table.or("affinity", false, |node| value::choice(node, &[("none", false), ("source", true)]));
    let most = if vip.is_some_and(|vip| vip.is_ipv6()) { 128 } else { 32 };
    let prefix = table.or("affinity_prefix", most, |node| node.integer_such_as(most * 3 / 4, 1..=most));
    let (source, bits) = (source?, prefix?.value);
    match table.node("affinity_prefix") {
        Some(node) if !source.value => node.reject(
            "without affinity this has no effect",
            "write `affinity = \"source\"` beside it, or remove it",
        ),
        _ => Some(NonZeroU8::new(bits as u8).filter(|_| source.value)),
    }
}
