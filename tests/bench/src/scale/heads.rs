//! How many mirrored heads a second a core reads and accounts, and from how many on some are lost.
//!
//! One CPU plays exchanges through the program, with more or fewer other segments between them; another one reads the
//! ring as the daemon's loop does: a look every 20 ms, or 5 in a rush, to the end, each record through the mirror into the engine. All
//! responses are good, so that nothing wakes the reader earlier.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use lb_common::abi::ExchangeRecord;
use lb_core::{
    Engine, Settings,
    config::{Backend, Breaker, Config, Limits, Mode, NoBackend, Service, Sources},
    io::{Input, Output},
    time::Instant,
};
use lb_lab::{clock, signals};
use lb_tests::kernel::{Family, Kernel, NAT_PORTS};
use lb_userspace::evidence::{self, Heads};
use serde::Serialize;

use crate::{
    packet::{
        Pinned,
        cases::{BACKENDS, Counts, exchange_among},
        wrapper::Wrapper,
    },
    statistics::Spread,
};

const FLOWS: u32 = 1_024;
const MAX_FLOWS: u32 = 16_384;
/// Heads that are in the ring when the reader alone is measured.
const FILL: u32 = 8_192;
/// Segments beside each exchange, with its two a power of two; and of how many of eight connections there are exchanges.
const MIXES: [(u32, u32); 7] = [(62, 8), (30, 8), (14, 6), (14, 7), (14, 8), (6, 8), (2, 8)];
/// A second and core: what the specification allows for.
const PROMISED: f64 = 500_000.0;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// That one core takes from a full ring and accounts, a second.
    pub(crate) read_per_second: Spread,
    pub(crate) rows: Vec<Row>,
}

/// One mix of segments.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) heads_per_second: f64,
    pub(crate) segments_per_second: f64,
    pub(crate) lost_percent: f64,
    /// Of the reader's time.
    pub(crate) busy_percent: f64,
}

/// `small`: only the first and the last mix.
pub(super) fn run(repetitions: u32, small: bool, span: Duration) -> Result<Report> {
    let mut read_per_second = Vec::new();
    for _ in 0..repetitions {
        read_per_second.push(alone()?);
    }
    let mixes = MIXES.iter().enumerate().filter(|(place, _)| !small || place % (MIXES.len() - 1) == 0);
    let rows = mixes.map(|(_, mix)| mix).map(|mix| best(repetitions, *mix, span)).collect::<Result<_>>()?;
    Ok(Report { read_per_second: Spread::of(read_per_second).context("no repetitions")?, rows })
}

/// Heads a second out of a ring that nobody fills meanwhile.
fn alone() -> Result<f64> {
    let _pinned = Pinned::to_last_cpu().context("staying on one CPU")?;
    let (mut kernel, wrapper) = prepare(0, 8)?;
    let mut reader = Reader::new();
    let (mut heads, mut took) = (0, Duration::ZERO);
    for _ in 0..16 {
        wrapper.run(2 * FILL)?;
        let begun = clock::now();
        heads += reader.look(&mut kernel);
        took += clock::now() - begun;
    }
    ensure!(heads == 16 * u64::from(FILL), "{heads} heads of {} were in the ring", 16 * FILL);
    reader.check(heads)?;
    Ok(heads as f64 / took.as_secs_f64())
}

/// The run with the least loss: a reader that others on the machine hold up loses heads that it could have read.
fn best(repetitions: u32, mix: (u32, u32), span: Duration) -> Result<Row> {
    let mut best: Option<Row> = None;
    for _ in 0..repetitions {
        let row = together(mix, span)?;
        if best.as_ref().is_none_or(|best| row.lost_percent < best.lost_percent) {
            best = Some(row);
        }
    }
    best.context("no repetitions")
}

/// Both at the same time, each on a CPU.
fn together((others, of_eight): (u32, u32), span: Duration) -> Result<Row> {
    if signals::interrupted() {
        bail!("interrupted");
    }
    eprintln!("scale: heads, {of_eight} of {} segments", 8 * (others + 2));
    let (mut kernel, wrapper) = prepare(others, of_eight)?;
    let before = Counts::read(&mut kernel);
    let done = AtomicBool::new(false);
    // Long test runs: between two of them the reader could catch up.
    let passes = 1 << 21;
    thread::scope(|scope| {
        let producer = scope.spawn(|| -> Result<(u64, Duration)> {
            let _done = SetWhenDropped(&done);
            let _pinned = Pinned::to_last_cpu().context("staying on one CPU")?;
            let (mut played, mut took) = (0, Duration::ZERO);
            while took < span {
                let (ns, _) = wrapper.run(passes)?;
                took += Duration::from_nanos((ns * f64::from(passes)) as u64);
                played += u64::from(passes);
            }
            Ok((played, took))
        });
        let _pinned = Pinned::to_cpu_from_last(1).context("staying on one CPU")?;
        let mut reader = Reader::new();
        let (mut read, mut busy, begun) = (0, Duration::ZERO, clock::now());
        loop {
            let last = done.load(Ordering::Acquire);
            let looked = clock::now();
            let now = reader.look(&mut kernel);
            read += now;
            let took = clock::now() - looked;
            busy += took;
            if last {
                break;
            }
            thread::sleep(evidence::read_interval(now as usize).saturating_sub(took));
        }
        let elapsed = clock::now() - begun;
        let (played, took) = producer.join().expect("the producer does not panic")?;
        let counted = Counts::read(&mut kernel).since(before).heads;
        ensure!(counted == read, "{read} heads were read of {counted} in the ring");
        reader.check(read)?;
        // Test runs end with a round.
        let wanted = played * u64::from(of_eight) / u64::from(8 * (others + 2));
        Ok(Row {
            heads_per_second: wanted as f64 / took.as_secs_f64(),
            segments_per_second: played as f64 / took.as_secs_f64(),
            lost_percent: 100.0 * wanted.saturating_sub(read) as f64 / wanted as f64,
            busy_percent: 100.0 * busy.as_secs_f64() / elapsed.as_secs_f64(),
        })
    })
}

/// Says that the producer has ended, however it did.
struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn prepare(others: u32, of_eight: u32) -> Result<(Kernel, Wrapper)> {
    let mut kernel = Kernel::with(BACKENDS, NAT_PORTS, MAX_FLOWS);
    let flows = FLOWS.min(Wrapper::MOST / (others + 2));
    let script = exchange_among(&mut kernel, flows, others, of_eight)?;
    let mut wrapper = Wrapper::new(kernel.program().fd()?, Family::V4)?;
    wrapper.play(&script.records, &script.frame)?;
    Ok((kernel, wrapper))
}

/// The work of the daemon's loop on a head.
struct Reader {
    mirror: Heads,
    engine: Engine,
    begun: Duration,
}

impl Reader {
    fn new() -> Self {
        let mut reader = Self {
            mirror: Heads::new(),
            engine: Engine::new(Settings { seed: 1, ..Settings::default() }, Instant(0)),
            begun: clock::now(),
        };
        reader.handle(Input::Config(Arc::new(config())));
        reader
    }

    /// Everything that is in the ring: how many.
    fn look(&mut self, kernel: &mut Kernel) -> u64 {
        let mut count = 0;
        while let Some(record) = kernel.head() {
            count += 1;
            self.account(&record);
        }
        count
    }

    fn account(&mut self, record: &ExchangeRecord) {
        let Some(reading) = self.mirror.read(record) else { return };
        self.handle(Input::Outcome {
            backend: reading.backend,
            generation: reading.generation,
            outcome: reading.outcome,
            ttfb: (reading.since_request_ns > 0).then(|| Duration::from_nanos(reading.since_request_ns)),
            client: Some(reading.client),
            context: lb_core::io::Context::default(),
        });
    }

    fn handle(&mut self, input: Input) {
        let now = Instant((clock::now() - self.begun).as_millis() as u64);
        self.engine.handle(input, now);
        while let Some(output) = self.engine.poll_output() {
            if let Output::Dataplane(plan) = output {
                self.engine.handle(Input::Applied { plan: plan.id, result: Ok(()) }, now);
            }
        }
    }

    /// That the engine knew the backends, and counted.
    fn check(&self, read: u64) -> Result<()> {
        let snapshot = self.engine.snapshot(Instant((clock::now() - self.begun).as_millis() as u64));
        let backends = snapshot.services.iter().flat_map(|service| &service.backends);
        let counted: u64 = backends.map(|backend| backend.responses.s2xx).sum();
        ensure!(counted == read, "the engine counted {counted} responses of {read}");
        Ok(())
    }
}

/// The service of the packet fixtures, as the engine sees it.
fn config() -> Config {
    let backends = (0..BACKENDS).map(|id| Backend {
        name: format!("b{id}"),
        address: lb_tests::kernel::backend_address(id),
        weight: 100,
        probe_address: None,
        max_connections: None,
        discovered: None,
    });
    let service = Service {
        name: "s".to_owned(),
        vip: (Ipv4Addr::new(203, 0, 113, 10), 80).into(),
        mode: Mode::Nat,
        no_backend: NoBackend::Reset,
        evidence: true,
        connections: Default::default(),
        fallback: Vec::new(),
        sources: Sources::default(),
        limits: Limits::default(),
        affinity: None,
        backends: backends.collect(),
        probe: None,
        breaker: Breaker::default(),
    };
    Config { services: vec![service] }
}

impl Report {
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!(
                "scale: mirrored heads; promised: at least {PROMISED:.0} a second on one core without loss"
            ),
            format!(
                "  one core reads and accounts {:.0} a second ({:.0}..{:.0})",
                self.read_per_second.median, self.read_per_second.least, self.read_per_second.most
            ),
            format!("  {:>12} {:>12} {:>9} {:>22}", "heads/s", "segments/s", "lost", "reader busy"),
        ];
        for row in &self.rows {
            lines.push(format!(
                "  {:>12.0} {:>12.0} {:>8.2}% {:>21.0}%",
                row.heads_per_second, row.segments_per_second, row.lost_percent, row.busy_percent
            ));
        }
        lines
    }

    /// The highest rate at which none was lost.
    fn without_loss(&self) -> f64 {
        let lossless = self.rows.iter().filter(|row| row.lost_percent == 0.0);
        lossless.map(|row| row.heads_per_second).fold(0.0, f64::max)
    }

    pub(super) fn broken_promise(&self) -> Option<String> {
        let most = self.without_loss();
        (most < PROMISED)
            .then(|| format!("scale: heads were lost from {most:.0} a second on, promised are {PROMISED:.0}"))
    }

    pub(super) fn implausible(&self) -> Vec<String> {
        let slow = self.read_per_second.median < 1_000.0;
        slow.then(|| format!("scale: {:.0} heads/s", self.read_per_second.median)).into_iter().collect()
    }
}
