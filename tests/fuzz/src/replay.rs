//! Lines for replay: each is taken or refused with a place and a remedy, reads back what was written, and
//! none upsets the engine; the same lines decide the same.

use lb_core::time::Instant;
use lb_userspace::{
    config,
    journal::line,
    replay::{Options, Record, Replay},
};

/// Later than this is only more of the same, and takes its time.
const LATEST: Instant = Instant(3_600_000);

const CONFIG: &str = r#"
interfaces = ["lo"]
[service.web]
vip = "203.0.113.10:80"
no_backend = "any"
[service.web.backends]
a = "10.0.0.11:80"
b = { address = "10.0.0.12:80", weight = 1 }
[service.web.probe.http]
fail_fast = ["500-599"]
[service.web.breaker]
split_l4_failures = true
consecutive_l4_failure = 2
consecutive_5xx = 2
error_rate_threshold = 50
error_rate_min_responses = 4
slow_threshold = "10ms"
slow_rate_min_responses = 4
success_rate_stdev_factor = 1.0
success_rate_min_responses = 2
success_rate_min_backends = 2
max_ejection_percent = 100
max_ejection_time_jitter = "1s"
slow_start = "10s"
interval = "5s"
base_ejection_time = "10s"
[service.api]
vip = "203.0.113.10:81"
[service.api.backends]
a = "10.0.0.11:81"
"#;

pub(crate) fn run(data: &[u8]) {
    assert_eq!(recorded(data), recorded(data), "the same lines, the same records");
}

fn recorded(data: &[u8]) -> Vec<Record> {
    let config = config::parse("fuzz.toml", CONFIG).expect("it is right").core;
    let mut replay = Replay::new(config, Options::default()).expect("it fits");
    let mut records = Vec::new();
    for bytes in data.split(|byte| *byte == b'\n') {
        let line = match line::parse(bytes) {
            Ok(Some(line)) if line.at <= LATEST => line,
            Ok(_) => continue,
            Err(error) => {
                assert!((1..=bytes.len().max(1) + 1).contains(&error.column), "{error:?}");
                assert!(!error.message.is_empty() && !error.help.is_empty(), "{error:?}");
                continue;
            }
        };
        let mut written = Vec::new();
        line.write(&mut written);
        assert_eq!(line::parse(&written).as_ref(), Ok(&Some(line.clone())), "it reads back");
        if let Err(unfit) = replay.take(&line) {
            assert!(!unfit.message.is_empty() && !unfit.help.is_empty(), "{unfit:?}");
        }
        records.extend(std::iter::from_fn(|| replay.next_record()));
    }
    let total = replay.summary().total;
    assert!(total.client_errors <= total.responses && total.errors <= total.responses, "{total:?}");
    records
}
