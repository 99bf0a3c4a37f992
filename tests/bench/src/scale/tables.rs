//! The writes of an ejection: a service's table, built, written and swapped.

use std::{
    hint::black_box,
    os::fd::AsFd as _,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{MapFd, MapInfo};
use lb_core::{
    io::{BackendId, Member, Step},
    maglev,
};
use lb_lab::clock;
use lb_tests::kernel::{Kernel, NAT_PORTS, SERVICE, backend_address};
use serde::Serialize;

use crate::{packet::syscall, statistics::Spread};

const BACKENDS: [u16; 3] = [10, 100, 650];
/// The limit of the specification for 100 backends, in milliseconds.
const PROMISED: f64 = 5.0;
const PROMISED_FOR: u16 = 100;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) backends: u16,
    pub(crate) build_ms: Spread,
    /// From the start of the step until the new table steers: build, fill a new array, swap.
    pub(crate) in_force_ms: Spread,
    /// Until the step has returned: no packet is still being steered by the old table. The kernel waits for an RCU grace
    /// period, which is milliseconds on an idle machine and more on a busy one.
    pub(crate) returned_ms: Spread,
}

pub(super) fn run(repetitions: u32) -> Result<Vec<Row>> {
    eprintln!("scale: tables");
    let mut kernel = Kernel::with(1, NAT_PORTS, 4_096);
    let tables = tables_of(&mut kernel)?;
    let mut rows = Vec::new();
    for backends in BACKENDS {
        let members: Vec<Member> = (0..backends)
            .map(|id| Member { id: BackendId(id), weight: 100, address: backend_address(id) })
            .collect();
        let mut values: [Vec<f64>; 3] = Default::default();
        for _ in 0..repetitions * 5 {
            let begun = clock::now();
            drop(black_box(maglev::build(&members)));
            let built = clock::now() - begun;
            let table = Step::Table { service: SERVICE, members: members.clone() };
            let [in_force, returned] = swap(&mut kernel, &tables, &table)?;
            for (values, time) in values.iter_mut().zip([built, in_force, returned]) {
                values.push(time.div_duration_f64(Duration::from_millis(1)));
            }
        }
        let [build_ms, in_force_ms, returned_ms] = values.map(|values| Spread::of(values).expect("some"));
        rows.push(Row { backends, build_ms, in_force_ms, returned_ms });
    }
    Ok(rows)
}

/// Applies the step: how long until the kernel's map has another table, and until the step returned.
fn swap(kernel: &mut Kernel, tables: &MapFd, step: &Step) -> Result<[Duration; 2]> {
    let before = syscall::read(tables.as_fd(), SERVICE.0.into())?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| -> Result<Duration> {
            loop {
                let last = done.load(Ordering::Acquire);
                if syscall::read(tables.as_fd(), SERVICE.0.into())? != before {
                    return Ok(clock::now());
                }
                ensure!(!last, "the step has not changed the table");
            }
        });
        let begun = clock::now();
        kernel.apply(step);
        let returned = clock::now() - begun;
        done.store(true, Ordering::Release);
        let in_force = watch.join().expect("the watch does not panic")?;
        Ok([in_force.saturating_sub(begun), returned])
    })
}

/// The map of all tables. Its value for a service is the id of that service's table.
fn tables_of(kernel: &mut Kernel) -> Result<MapFd> {
    let info = kernel.program().info().context("asking for the program")?;
    for id in info.map_ids().context("asking for the program's maps")?.unwrap_or_default() {
        let map = MapInfo::from_id(id).context("asking for a map")?;
        if map.name_as_str() == Some("TABLES") {
            return map.fd().context("opening a map");
        }
    }
    bail!("the program has no TABLES")
}

pub(super) fn lines(rows: &[Row]) -> Vec<String> {
    let mut lines = vec![
        format!(
            "scale: a table of 65 537 slots; promised for {PROMISED_FOR} backends: in force in less than {PROMISED} ms"
        ),
        format!(
            "  {:>8} {:>9} {:>14}   {:>11} {:>14}   {:>11} {:>14}",
            "backends", "build ms", "least..most", "in force ms", "least..most", "returned ms", "least..most"
        ),
    ];
    let spread = |of: &Spread| format!("{:.2}..{:.2}", of.least, of.most);
    for row in rows {
        lines.push(format!(
            "  {:>8} {:>9.2} {:>14}   {:>11.2} {:>14}   {:>11.2} {:>14}",
            row.backends,
            row.build_ms.median,
            spread(&row.build_ms),
            row.in_force_ms.median,
            spread(&row.in_force_ms),
            row.returned_ms.median,
            spread(&row.returned_ms)
        ));
    }
    lines
}

pub(super) fn broken_promise(rows: &[Row]) -> Option<String> {
    let row = rows.iter().find(|row| row.backends == PROMISED_FOR)?;
    let took = row.in_force_ms.median;
    (took >= PROMISED)
        .then(|| format!("scale: a table takes {took:.2} ms, promised is less than {PROMISED} ms"))
}

pub(super) fn implausible(rows: &[Row]) -> Vec<String> {
    let wrong = rows.iter().filter(|row| !(row.build_ms.median > 0.0 && row.returned_ms.median < 10_000.0));
    wrong.map(|row| format!("scale: the table of {} backends: {:?}", row.backends, row.returned_ms)).collect()
}
