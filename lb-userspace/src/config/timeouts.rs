//! `[timeouts]`.

use std::ops::RangeInclusive;

use lb_core::time::Millis;

use super::{
    Timeouts, keys,
    reader::{Node, Table, quoted},
    value,
};

/// No connection is silent for longer than a day. Many established ones are silent for a few seconds.
const ESTABLISHED: RangeInclusive<Millis> = Millis::secs(10)..=Millis::secs(24 * 3600);
const CLOSING: RangeInclusive<Millis> = Millis::secs(1)..=Millis::secs(3600);
/// With less, a client could not repeat a SYN that was lost.
const HANDSHAKE: RangeInclusive<Millis> = Millis::secs(2)..=Millis::secs(300);

pub(super) fn read(root: &Table<'_>) -> Option<Timeouts> {
    let default = Timeouts::default();
    let Some(node) = root.node("timeouts") else {
        return if root.is_misspelt("timeouts") { None } else { Some(default) };
    };
    let table = node.table(&keys::TIMEOUTS, "[timeouts]")?;
    let established = table.or("established", default.established, |node| within(node, &ESTABLISHED));
    let closing = table.or("closing", default.closing, |node| within(node, &CLOSING));
    let handshake = table.or("handshake", default.handshake, |node| within(node, &HANDSHAKE));
    Some(Timeouts { established: established?.value, closing: closing?.value, handshake: handshake?.value })
}

fn within(node: &Node<'_>, range: &RangeInclusive<Millis>) -> Option<Millis> {
    let span = value::duration(node, *range.start())?;
    if span > *range.end() {
        let longest = value::shown(*range.end());
        let text = node.as_str().unwrap_or_default();
        return node
            .reject(format!("{} is too long", quoted(text)), format!("write at most `\"{longest}\"`"));
    }
    Some(span)
}
