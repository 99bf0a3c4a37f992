//! `[service.NAME.probe.KIND]`, of one kind, and the keys that all kinds have.

use lb_core::{
    config::{Probe, ProbeKind},
    time::Millis,
};

use super::{
    keys,
    reader::{Entry, Node, Table},
    value,
};

mod grpc;
mod http;
mod tls;

const DEFAULT_INTERVAL: Millis = Millis::secs(2);
const DEFAULT_TIMEOUT: Millis = Millis::secs(1);
/// More frequent probes are a load for the backend.
const LEAST_INTERVAL: Millis = Millis(10);
/// In percent, up or down. With more, two probes could overlap.
const MOST_JITTER: u32 = 50;
const MOST_IN_A_ROW: u32 = 1000;

pub(super) fn read(node: &Node<'_>) -> Option<Probe> {
    let table = node.table(&keys::PROBE, "[service.web.probe.http]")?;
    let mut kinds: Vec<_> = keys::PROBE.known.iter().filter_map(|kind| table.entry(kind)).collect();
    kinds.sort_by_key(|kind| kind.key.span.start);
    match kinds.as_slice() {
        [first, second, ..] => second.key.conflict(
            "a service has one probe",
            format!("remove one of `probe.{}` and `probe.{}`", first.name, second.name),
            first.key.span.clone(),
            "the other probe",
        ),
        [kind] => read_kind(kind),
        [] if table.is_empty() => node.absent(
            "the probe has no kind",
            "write `[service.NAME.probe.http]`, or `https`, `tcp`, `grpc` for `http`",
        ),
        // The keys that it has were noted as unknown.
        [] => None,
    }
}

fn read_kind(entry: &Entry<'_>) -> Option<Probe> {
    let example = format!("[service.web.probe.{}]", entry.name);
    let (keys, read): (_, fn(&Table<'_>) -> Option<ProbeKind>) = match entry.name {
        "http" => (&keys::PROBE_HTTP, |table| http::read_plain(table).map(ProbeKind::Http)),
        "https" => (&keys::PROBE_HTTPS, |table| http::read_tls(table).map(ProbeKind::Http)),
        "grpc" => (&keys::PROBE_GRPC, |table| grpc::read(table).map(ProbeKind::Grpc)),
        _ => (&keys::PROBE_TCP, |_| Some(ProbeKind::Tcp)),
    };
    let table = entry.value.table(keys, &example)?;
    let (kind, pace) = (read(&table), read_pace(&table));
    Some(Probe { kind: kind?, ..pace? })
}

/// The keys of all kinds. The caller sets the kind.
fn read_pace(table: &Table<'_>) -> Option<Probe> {
    let interval = table.or("interval", DEFAULT_INTERVAL, |node| value::duration(node, LEAST_INTERVAL));
    let timeout = match table.node("timeout") {
        Some(node) => value::duration(node, Millis(1)).and_then(|timeout| match &interval {
            Some(interval) if timeout > interval.value => node.conflict(
                format!("the timeout is above the interval, {}", value::shown(interval.value)),
                "lower `timeout` or raise `interval`: a probe must end before the next one begins",
                interval.span.clone(),
                "the interval",
            ),
            Some(_) | None => Some(timeout),
        }),
        None => interval.as_ref().map(|interval| DEFAULT_TIMEOUT.min(interval.value)),
    };
    let pace = |key| match table.node(key) {
        Some(node) => value::duration(node, LEAST_INTERVAL),
        None => interval.as_ref().map(|interval| interval.value),
    };
    let (fast_interval, down_interval) = (pace("fast_interval"), pace("down_interval"));
    let jitter = table.or("jitter", u32::from(Probe::default().jitter), |node| node.integer(0..=MOST_JITTER));
    let fail_open =
        table.or("fail_open_percent", u32::from(Probe::default().fail_open_percent), value::percent);
    let port = table.or("port", None, |node| node.integer(1..=u32::from(u16::MAX)).map(Some));
    let rise = table.or("rise", 2, |node| node.integer(1..=MOST_IN_A_ROW));
    let fall = table.or("fall", 3, |node| node.integer(1..=MOST_IN_A_ROW));
    Some(Probe {
        kind: ProbeKind::Tcp,
        port: port?.value.map(|port| u16::try_from(port).expect("read as at most 65535")),
        interval: interval?.value,
        timeout: timeout?,
        rise: rise?.value,
        fall: fall?.value,
        fast_interval: fast_interval?,
        down_interval: down_interval?,
        jitter: u8::try_from(jitter?.value).expect("read as at most 50"),
        fail_open_percent: u8::try_from(fail_open?.value).expect("read as at most 100"),
    })
}
