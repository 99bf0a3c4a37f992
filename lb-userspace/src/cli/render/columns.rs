//! The columns of the status table: their content and colour.

use lb_core::snapshot::{
    BackendSnapshot, BreakerState, Effective, OperatorState, ProbeState, ServiceSnapshot,
};

use super::{
    Wide,
    table::{
        self, Cell,
        Side::{self, Left, Right},
    },
    text::{exact_share, printable, share, short},
};
use crate::{
    cli::palette::{Paint, Palette},
    control::model::{BackendTraffic, Counters, LimitUse, ResetCounts, Status},
};

pub(super) fn table(
    status: &Status,
    service: &ServiceSnapshot,
    wide: Wide,
    width: usize,
    palette: Palette,
) -> Vec<String> {
    let (columns, limit) = if wide.0 { (WIDE, None) } else { (NARROW, Some(width)) };
    let rows = service.backends.iter().map(|backend| {
        let row = Row::new(status, service, backend);
        columns.iter().map(|column| (column.cell)(&row)).collect()
    });
    let heads: Vec<_> = columns.iter().map(|column| (column.title, column.side)).collect();
    table::lines(&heads, &rows.collect::<Vec<_>>(), limit, palette)
}

struct Row<'a> {
    backend: &'a BackendSnapshot,
    /// `None`: the daemon could not read the counters.
    traffic: Option<&'a BackendTraffic>,
}

impl<'a> Row<'a> {
    fn new(status: &'a Status, service: &ServiceSnapshot, backend: &'a BackendSnapshot) -> Self {
        let traffic = status
            .traffic
            .iter()
            .find(|traffic| traffic.service == service.name && traffic.backend == backend.name);
        Self { backend, traffic }
    }

    fn count(&self, number: fn(&Counters) -> u64, text: fn(u64) -> String) -> Cell {
        self.traffic.map_or_else(|| Cell::plain("-"), |traffic| Cell::plain(text(number(&traffic.counters))))
    }
}

struct Column {
    title: &'static str,
    side: Side,
    cell: fn(&Row<'_>) -> Cell,
}

const fn left(title: &'static str, cell: fn(&Row<'_>) -> Cell) -> Column {
    Column { title, side: Left, cell }
}

const fn right(title: &'static str, cell: fn(&Row<'_>) -> Cell) -> Column {
    Column { title, side: Right, cell }
}

const NARROW: &[Column] = &[
    left("NAME", name),
    left("ADDRESS", |row| Cell::plain(row.backend.address.to_string())),
    left("STATE", state),
    left("OPERATOR", operator),
    left("PROBE", probe),
    left("BREAKER", breaker),
    right("SHARE", |row| Cell::plain(share(row.backend.share))),
    right("CONNS", |row| row.count(|counters| counters.connections, short)),
    right("2xx", |row| Cell::plain(short(row.backend.responses.s2xx))),
    right("3xx", |row| Cell::plain(short(row.backend.responses.s3xx))),
    right("4xx", |row| Cell::plain(short(row.backend.responses.s4xx))),
    right("5xx", |row| alarming(row.backend.responses.s5xx, short)),
    right("L4", |row| alarming(row.backend.responses.l4_failures, short)),
    left("LAST-PROBE", last_probe),
];

const WIDE: &[Column] = &[
    left("NAME", name),
    right("ID", |row| exact(row.backend.id.0.into())),
    right("GEN", |row| exact(row.backend.generation.0.into())),
    left("ADDRESS", |row| Cell::plain(row.backend.address.to_string())),
    right("WEIGHT", |row| exact(row.backend.weight.into())),
    left("STATE", state),
    left("OPERATOR", operator),
    left("PROBE", probe),
    left("BREAKER", breaker),
    right("EJECTION", |row| exact(row.backend.ejection.into())),
    right("RUN-5xx", |row| exact(row.backend.run_5xx.into())),
    right("SHARE", |row| Cell::plain(exact_share(row.backend.share))),
    right("CONNS", |row| row.count(|counters| counters.connections, as_is)),
    right("TRIALS", |row| row.count(|counters| counters.trials, as_is)),
    right("ESTABLISHED", |row| row.count(|counters| counters.established, as_is)),
    right("1xx", |row| exact(row.backend.responses.s1xx)),
    right("2xx", |row| exact(row.backend.responses.s2xx)),
    right("3xx", |row| exact(row.backend.responses.s3xx)),
    right("4xx", |row| exact(row.backend.responses.s4xx)),
    right("5xx", |row| alarming(row.backend.responses.s5xx, as_is)),
    right("L4-FAILURES", |row| alarming(row.backend.responses.l4_failures, as_is)),
    right("ANSWERED", |row| exact(row.backend.responses.answered)),
    right("TTFB-50%", |row| ttfb(row, 0.5)),
    right("TTFB-99%", |row| ttfb(row, 0.99)),
    right("OPAQUE", |row| row.count(|counters| counters.opaque, as_is)),
    right("PIPELINED", |row| row.count(|counters| counters.pipelined, as_is)),
    right("RESET", |row| resets(row, |resets| resets.at_request)),
    right("IDLE-RESET", |row| resets(row, |resets| resets.idle)),
    right("DRAIN-RESET", |row| resets(row, |resets| resets.drain)),
    right("REDISPATCHED", |row| row.count(|counters| counters.redispatched, as_is)),
    right("OPEN", |row| limit(row, |limit| limit.used)),
    right("LIMIT", |row| limit(row, |limit| limit.limit)),
    right("SPILLED", |row| row.count(|counters| counters.spilled, as_is)),
    right("HEADS", |row| row.count(|counters| counters.heads, as_is)),
    right("LOST", |row| alarming(row.backend.responses.lost, as_is)),
    right("PKTS-TO", |row| row.count(|counters| counters.packets_to, as_is)),
    right("BYTES-TO", |row| row.count(|counters| counters.bytes_to, as_is)),
    right("PKTS-FROM", |row| row.count(|counters| counters.packets_from, as_is)),
    right("BYTES-FROM", |row| row.count(|counters| counters.bytes_from, as_is)),
    left("LAST-PROBE", last_probe),
];

fn name(row: &Row<'_>) -> Cell {
    let BackendSnapshot { name, fallback, .. } = row.backend;
    Cell::plain(if *fallback { format!("{name} (fallback)") } else { name.clone() })
}

/// This share of the times to first byte is below the bound that the cell shows.
fn ttfb(row: &Row<'_>, share: f64) -> Cell {
    let Some(BackendTraffic { counters, .. }) = row.traffic else { return Cell::plain("-") };
    let answered = counters.ttfb.iter().any(|count| *count > 0);
    Cell::plain(match counters.ttfb_us(share) {
        _ if !answered => "-".to_owned(),
        None => "above 1 s".to_owned(),
        Some(us @ 0..1000) => format!("{us} us"),
        Some(us) => format!("{:.1} ms", us as f64 / 1000.0),
    })
}

fn resets(row: &Row<'_>, number: fn(&ResetCounts) -> u64) -> Cell {
    row.traffic.map_or_else(|| Cell::plain("-"), |traffic| exact(number(&traffic.resets)))
}

/// Of a service without limits connections do not count.
fn limit(row: &Row<'_>, number: fn(&LimitUse) -> u32) -> Cell {
    let limit = row.traffic.and_then(|traffic| traffic.limit);
    limit.map_or_else(|| Cell::plain("-"), |limit| exact(number(&limit).into()))
}

fn exact(number: u64) -> Cell {
    Cell::plain(as_is(number))
}

fn as_is(number: u64) -> String {
    number.to_string()
}

/// A number that should be 0.
fn alarming(number: u64, text: fn(u64) -> String) -> Cell {
    Cell::painted(text(number), if number == 0 { Paint::Plain } else { Paint::Warning })
}

fn state(row: &Row<'_>) -> Cell {
    let state = row.backend.effective;
    Cell::painted(state.to_string(), paint(state))
}

/// A name in the colour of its state.
pub(super) fn painted(state: Effective, name: &str, palette: Palette) -> String {
    palette.paint(paint(state), &printable(name))
}

const fn paint(state: Effective) -> Paint {
    match state {
        Effective::Serving => Paint::Good,
        Effective::Trial | Effective::Draining => Paint::Warning,
        Effective::Ejected | Effective::Down | Effective::Unreachable => Paint::Bad,
        Effective::Disabled => Paint::Faint,
    }
}

fn operator(row: &Row<'_>) -> Cell {
    let operator = row.backend.operator;
    let paint = match operator {
        OperatorState::Enabled => Paint::Plain,
        OperatorState::Draining => Paint::Warning,
        OperatorState::Disabled => Paint::Faint,
    };
    Cell::painted(operator.to_string(), paint)
}

fn probe(row: &Row<'_>) -> Cell {
    let probe = row.backend.probe;
    let paint = match probe {
        ProbeState::None | ProbeState::Up => Paint::Plain,
        ProbeState::Unknown => Paint::Warning,
        ProbeState::Down => Paint::Bad,
    };
    Cell::painted(probe.to_string(), paint)
}

fn breaker(row: &Row<'_>) -> Cell {
    let breaker = row.backend.breaker;
    let paint = match breaker {
        BreakerState::Closed => Paint::Plain,
        BreakerState::HalfOpen => Paint::Warning,
        BreakerState::Open => Paint::Bad,
    };
    Cell::painted(breaker.to_string(), paint)
}

fn last_probe(row: &Row<'_>) -> Cell {
    Cell::plain(row.backend.last_probe.as_deref().unwrap_or("-"))
}
