//! Requests at a fixed rate: their latency, and what they cost.
//!
//! A request's latency begins when it was due, not when a thread was free to send it: a peer that stalls
//! must not slow its own measurement down (coordinated omission). Its cost is the time that all CPUs were not idle,
//! client and server included, since work in softirq is charged to no process. The weakness of that: whatever
//! else the machine does counts too, and `/proc/stat` counts in hundredths of a second. So what the machine does by
//! itself is looked at just before, and only differences to another peer of the same repetition say anything.

use std::{net::SocketAddr, thread, time::Duration};

use anyhow::{Result, ensure};
use lb_lab::Host;
use lb_tests::load::{Connections, Load};

use super::Sample;
use crate::machine::Busy;

/// So long it is watched what the CPUs do without us.
const BACKGROUND: Duration = Duration::from_millis(300);

pub(super) fn run(
    client: &Host,
    target: SocketAddr,
    (rate, workers, connections): (u64, usize, Connections),
    span: Duration,
) -> Result<Sample> {
    let quiet = Busy::begin()?;
    thread::sleep(BACKGROUND.min(span));
    let background = 1.0 - quiet.end()?.1;
    let busy = Busy::begin()?;
    let load = Load::start(client, target, rate, workers, connections);
    thread::sleep(span);
    let samples = load.stop();
    let (busy, idle) = busy.end()?;
    let good = samples.iter().filter(|sample| sample.answer == Ok(200));
    let mut latencies: Vec<_> = good.map(|sample| sample.ended.saturating_sub(sample.due)).collect();
    ensure!(!latencies.is_empty(), "no request succeeded");
    latencies.sort();
    let at = |hundredths: usize| latencies[(latencies.len() * hundredths / 100).min(latencies.len() - 1)];
    let ms = |latency: Duration| latency.as_secs_f64() * 1e3;
    Ok(Sample {
        rate: latencies.len() as f64 / span.as_secs_f64(),
        gbits: 0.0,
        p50_ms: ms(at(50)),
        p99_ms: ms(at(99)),
        cpu_us: Some(busy.as_secs_f64() * 1e6 / samples.len() as f64),
        idle,
        background,
        errors: (samples.len() - latencies.len()) as u64,
    })
}
