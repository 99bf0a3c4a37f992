//! wrk, the load generator of closed loops.

use anyhow::{Context, Result, ensure};
use lb_userspace::lab::Host;

/// What one run of wrk said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) requests_per_second: f64,
    pub(super) p99_ms: f64,
    /// Connects, reads, writes and time-outs that failed, and answers other than 2xx and 3xx.
    pub(super) errors: u64,
}

pub(super) fn run(client: &Host, url: &str, connections: u32, close: bool, seconds: u32) -> Result<Outcome> {
    let (connections, seconds) = (connections.to_string(), format!("{seconds}s"));
    let mut words = vec!["wrk", "--latency", "-t", "1", "-c", &connections, "-d", &seconds];
    if close {
        words.extend(["-H", "Connection: close"]);
    }
    words.push(url);
    let text = client.run(&words)?;
    let outcome = read(&text).with_context(|| format!("wrk said:\n{text}"))?;
    ensure!(outcome.requests_per_second > 0.0, "no request succeeded; wrk said:\n{text}");
    Ok(outcome)
}

fn read(text: &str) -> Option<Outcome> {
    let after = |label: &str| {
        text.lines().find_map(|line| line.trim().strip_prefix(label)).map(|rest| rest.trim().to_owned())
    };
    let failed = |rest: String| -> u64 {
        // `connect 0, read 12, write 0, timeout 3`
        rest.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok()).sum()
    };
    Some(Outcome {
        requests_per_second: after("Requests/sec:")?.parse().ok()?,
        p99_ms: milliseconds(&after("99%")?)?,
        errors: after("Socket errors:").map_or(0, failed)
            + after("Non-2xx or 3xx responses:").map_or(0, failed),
    })
}

/// `871.00us`, `1.23ms`, `2.01s`
fn milliseconds(text: &str) -> Option<f64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "us" => 0.001,
        "ms" => 1.0,
        "s" => 1_000.0,
        "m" => 60_000.0,
        _ => return None,
    };
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
             Requests/sec:  11374.30\nTransfer/sec:      1.76MB\n";
        assert_eq!(
            read(text),
            Some(Outcome { requests_per_second: 11_374.30, p99_ms: 0.8715, errors: 54_321 })
        );
        assert_eq!(read("unable to connect"), None);
    }
}
