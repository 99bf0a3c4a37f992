//! wrk, the load generator of closed loops.

use anyhow::{Context, Result, ensure};
use lb_lab::Host;

use super::Sample;
use crate::machine::Busy;

pub(super) fn run(client: &Host, url: &str, connections: u32, close: bool, seconds: u32) -> Result<Sample> {
    let (connections, seconds) = (connections.to_string(), format!("{seconds}s"));
    let mut words = vec!["wrk", "--latency", "-t", "1", "-c", &connections, "-d", &seconds];
    // A large body may take longer than its default of two seconds.
    words.extend(["--timeout", "10s"]);
    if close {
        words.extend(["-H", "Connection: close"]);
    }
    words.push(url);
    let busy = Busy::begin()?;
    let text = client.run(&words)?;
    let (_, idle) = busy.end()?;
    let sample = read(&text, idle).with_context(|| format!("wrk said:\n{text}"))?;
    ensure!(sample.rate > 0.0, "no request succeeded; wrk said:\n{text}");
    Ok(sample)
}

fn read(text: &str, idle: f64) -> Option<Sample> {
    let after = |label: &str| {
        text.lines().find_map(|line| line.trim().strip_prefix(label)).map(|rest| rest.trim().to_owned())
    };
    let failed = |rest: String| -> u64 {
        // `connect 0, read 12, write 0, timeout 3`
        rest.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok()).sum()
    };
    Some(Sample {
        rate: after("Requests/sec:")?.parse().ok()?,
        gbits: bytes(&after("Transfer/sec:")?)? * 8.0 / 1e9,
        p50_ms: milliseconds(&after("50%")?)?,
        p99_ms: milliseconds(&after("99%")?)?,
        cpu_us: None,
        idle,
        background: 0.0,
        // Connects, reads, writes and time-outs that failed, and answers other than 2xx and 3xx.
        errors: after("Socket errors:").map_or(0, failed)
            + after("Non-2xx or 3xx responses:").map_or(0, failed),
    })
}

/// `871.00us`, `1.23ms`, `2.01s`
fn milliseconds(text: &str) -> Option<f64> {
    scaled(text, &[("us", 0.001), ("ms", 1.0), ("s", 1e3), ("m", 60e3)])
}

/// `512.00B`, `1.76MB`, in powers of 1024.
fn bytes(text: &str) -> Option<f64> {
    const K: f64 = 1024.0;
    scaled(text, &[("B", 1.0), ("KB", K), ("MB", K * K), ("GB", K * K * K), ("TB", K * K * K * K)])
}

fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let (_, factor) = units.iter().find(|(unit, _)| *unit == &text[digits.len()..])?;
    Some(digits.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says() {
        let text = "Running 2s test @ http://203.0.113.10/\n  1 threads and 64 connections\n  \
             Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency     1.51ms    1.14ms  20.93ms   89.94%\n    \
             Req/Sec    11.39k     1.01k   12.85k    71.43%\n  Latency Distribution\n     50%    1.20ms\n     \
             75%    1.76ms\n     90%    2.62ms\n     99%  871.50us\n  23895 requests in 2.10s, 3.69MB read\n  \
             Socket errors: connect 1, read 20, write 300, timeout 4000\n  Non-2xx or 3xx responses: 50000\n\
             Requests/sec:  11374.30\nTransfer/sec:      1.50GB\n";
        let expected = Sample {
            rate: 11_374.30,
            gbits: 12.884_901_888,
            p50_ms: 1.2,
            p99_ms: 0.8715,
            cpu_us: None,
            idle: 0.25,
            background: 0.0,
            errors: 54_321,
        };
        assert_eq!(read(text, 0.25), Some(expected));
        assert_eq!(read("unable to connect", 0.0), None);
    }
}
