//! `[service.NAME.discovery]`.

use std::ops::RangeInclusive;

use lb_core::time::Millis;

use super::{
    Discovery, keys,
    reader::{Node, quoted},
    value,
};

/// `PATH_MAX`, roughly.
const LONGEST_PATH: usize = 4000;
/// More often costs more than it finds, and after an hour nobody waits any more.
const INTERVAL: RangeInclusive<Millis> = Millis(100)..=Millis::secs(3600);

pub(super) fn read(node: &Node<'_>) -> Option<Discovery> {
    const FILE: &str = "file = \"/run/shunt/discovery/web.json\"";
    let table = node.table(&keys::DISCOVERY, "[service.web.discovery]")?;
    let file = table.required("file", FILE, |node| value::absolute_path(node, FILE, LONGEST_PATH));
    let interval = table.or("interval", Discovery::INTERVAL, |node| {
        let span = value::duration(node, *INTERVAL.start())?;
        if span > *INTERVAL.end() {
            let text = quoted(node.as_str().unwrap_or_default());
            let longest = value::shown(*INTERVAL.end());
            return node.reject(format!("{text} is too long"), format!("write at most `\"{longest}\"`"));
        }
        Some(span)
    });
    Some(Discovery { file: file?, interval: interval?.value })
}
