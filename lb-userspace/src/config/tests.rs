use lb_core::{
    config::{
        BackoffDecay, Breaker, Connections, Detector, HalfOpenExit, Limits, Mode, NoBackend, OnOut, Prefix,
        ProbeKind,
    },
    time::Millis,
};

use super::*;

mod discovery;
mod edges;
mod limits;
mod probes;
mod report;
mod wrong;

/// The least that is right, with a probe and a breaker. Tests replace its lines.
const SMALL: &str = r#"interfaces = ["eth0"]
nat_ports = "1024-32767"
[service.web]
vip = "203.0.113.10:80"
mode = "nat"
[service.web.backends]
web-1 = "10.0.0.11:8080"
web-2 = "10.0.0.12:8080"
[service.web.probe.http]
path = "/healthz"
[service.web.breaker]
interval = "5s"
"#;

/// `SMALL` with line `number` replaced by `text`, which may be several lines.
fn small_with(number: usize, text: &str) -> String {
    let mut lines: Vec<_> = SMALL.lines().collect();
    lines[number - 1] = text;
    lines.join("\n") + "\n"
}

fn right(text: &str) -> File {
    parse("shunt.toml", text).unwrap_or_else(|diagnostics| panic!("{diagnostics:?}"))
}

fn wrong(text: &str) -> Diagnostics {
    match parse("shunt.toml", text) {
        Ok(file) => panic!("accepted as {file:#?}"),
        Err(diagnostics) => diagnostics,
    }
}

fn lines(diagnostics: &Diagnostics) -> Vec<String> {
    diagnostics
        .iter()
        .map(|d| format!("{}:{} [{}] {} | {}", d.line, d.column, d.path, d.message, d.help))
        .collect()
}

#[test]
fn prefixes_are_read_in_both_families() {
    let read = |vip: &str, backend: &str, list: &str| {
        let text = SMALL.replace("203.0.113.10:80", vip).replace("mode = \"nat\"", list);
        let text = text.replace("10.0.0.11:8080", backend).replace("web-2 = \"10.0.0.12:8080\"\n", "");
        right(&text).core.services[0].sources.clone()
    };
    let prefix = |address: &str, length| Prefix { address: address.parse().expect("literal"), length };
    let four = read(
        "203.0.113.10:80",
        "10.0.0.11:8080",
        "allow = [\"0.0.0.0/0\", \"10.1.2.3\"]\ndeny = [\"10.0.0.0/8\"]",
    );
    assert_eq!(four.allow, [prefix("0.0.0.0", 0), prefix("10.1.2.3", 32)]);
    assert_eq!(four.deny, [prefix("10.0.0.0", 8)]);
    let six =
        read("[2001:db8::1]:80", "[fd00::1]:80", "deny = [\"::/0\", \"2001:db8:8000::/33\", \"fd00::9\"]");
    assert_eq!(six.deny, [prefix("::", 0), prefix("2001:db8:8000::", 33), prefix("fd00::9", 128)]);
    assert!(six.allow.is_empty());
}

#[test]
fn each_error_has_its_place_and_remedy() {
    for (line, text, expected) in wrong::WRONG {
        assert_eq!(lines(&wrong(&small_with(*line, text))), *expected, "line {line}: {text}");
    }
}

#[test]
fn all_errors_come_at_once() {
    let text = r#"interfaces = []
xdp_mode = "fast"
[service.web]
vip = "203.0.113.10:0"
moed = "nat"
[service.web.backends]
web-1 = "10.0.0.11"
[service.web.breaker]
interval = 5
min_serving = 2
[service.api]
vip = "203.0.113.11:80"
"#;
    let places: Vec<_> = wrong(text).iter().map(|d| (d.line, d.column)).collect();
    assert_eq!(places, [(1, 14), (2, 12), (4, 7), (5, 1), (7, 9), (9, 12), (10, 15), (11, 1)]);
}

#[test]
fn a_misspelt_key_is_not_reported_as_missing() {
    let text = SMALL.replace("[service.", "[services.");
    assert_eq!(lines(&wrong(&text)), ["3:2 [services] unknown key `services` | did you mean `service`?"]);
    let rendered = wrong("").render(false);
    assert!(rendered.contains("`interfaces` is missing") && rendered.contains("no service is configured"));
}

#[test]
fn syntax_errors_do_not_hide_wrong_values() {
    let text = small_with(1, "interfaces = [eth0]\nxdp_mode = \"fast\"\nlog = \"info");
    let places: Vec<_> = wrong(&text).iter().map(|d| (d.line, d.column)).collect();
    assert_eq!(places, [(1, 15), (2, 12), (3, 12)]);
}

#[test]
fn defaults_are_filled_in() {
    let file = right(&small_with(12, ""));
    assert_eq!(file.instance, "default");
    assert_eq!(file.interfaces, ["eth0"]);
    assert_eq!(file.xdp_mode, XdpMode::Auto);
    assert_eq!(file.control_socket, Path::new("/run/shunt/control.sock"));
    assert_eq!(file.state_file, Path::new("/var/lib/shunt/state.json"));
    assert_eq!(file.bpffs, Path::new("/sys/fs/bpf"));
    assert_eq!(file.nat_addresses, Vec::<IpAddr>::new());
    assert_eq!(file.nat_ports, 1024..=32767);
    assert_eq!((file.max_flows, file.max_new_flows_per_second), (131_072, 500_000));
    assert_eq!((file.max_source_share, file.min_path_mtu), (10, MinPathMtu { ipv4: 552, ipv6: 1280 }));
    assert_eq!(file.log, LogLevel::Info);
    let [service] = &file.core.services[..] else { panic!("one service") };
    assert_eq!((service.mode, service.no_backend, service.evidence), (Mode::Nat, NoBackend::Reset, true));
    let Connections { on_eject, on_drain, drain_timeout, redispatch } = service.connections;
    assert_eq!((on_eject, on_drain), (OnOut::Reset, OnOut::Drain));
    assert_eq!((drain_timeout, redispatch), (Millis::secs(60), false));
    assert_eq!((service.limits, service.affinity), (Limits::default(), None));
    assert_eq!(service.fallback, []);
    assert_eq!(service.backends.iter().map(|backend| backend.weight).collect::<Vec<_>>(), [100, 100]);
    assert_eq!(service.breaker, Breaker::default());
    let probe = service.probe.as_ref().expect("configured");
    assert_eq!((probe.interval, probe.timeout, probe.rise, probe.fall), (Millis(2000), Millis(1000), 2, 3));
    let ProbeKind::Http(http) = &probe.kind else { panic!("an HTTP probe") };
    assert_eq!((&*http.method, &*http.path, &http.host), ("GET", "/healthz", &None));
    assert_eq!(http.expect, [200..=399]);
}

#[test]
fn times_of_silence_are_read() {
    let text =
        small_with(1, "interfaces = [\"eth0\"]\ntimeouts = { established = \"1h\", handshake = \"10s\" }");
    let wanted =
        Timeouts { established: Millis::secs(3600), handshake: Millis::secs(10), ..Timeouts::default() };
    assert_eq!(right(&text).timeouts, wanted);
    assert_eq!(right(SMALL).timeouts, Timeouts::default());
    let text =
        small_with(1, "interfaces = [\"eth0\"]\nmax_source_share = 100\nmin_path_mtu = { ipv4 = 576 }");
    let file = right(&text);
    assert_eq!((file.max_source_share, file.min_path_mtu), (100, MinPathMtu { ipv4: 576, ipv6: 1280 }));
}

#[test]
fn every_key_is_read() {
    let text = small_with(
        12,
        r#"enforce = false
shadow = ["success_rate_l4", "consecutive_5xx"]
probe_uneject = true
slow_start = "30s"
panic_threshold = 40
consecutive_5xx = 0x10
consecutive_gateway_failure = 4
split_l4_failures = true
consecutive_l4_failure = 6
confirm_l4_failures = false
min_clients = 4
connect_timeout = "5s"
response_timeout = "30s"
success_rate_min_responses = 11
success_rate_min_backends = 2
success_rate_stdev_factor = 1.25
failure_percentage_threshold = 30
failure_percentage_min_responses = 12
failure_percentage_min_backends = 3
error_rate_threshold = 10
error_rate_window = "20s"
error_rate_min_responses = 13
slow_threshold = "250ms"
slow_rate_threshold = 40
slow_rate_window = "1m"
slow_rate_min_responses = 14
errors = ["500", "502-504", 599]
interval = "1m30s"
base_ejection_time = "2h"
max_ejection_time_jitter = "500ms"
max_ejection_percent = 100
always_eject_one = true
min_serving = 0
half_open_trials = 7
half_open_exit = "wait"
probe_readmits = false
backoff_decay = "time"
"#,
    );
    let breaker = &right(&text).core.services[0].breaker;
    let expected = Breaker {
        enforce: false,
        shadow: [Detector::SuccessRateL4, Detector::Consecutive5xx].into(),
        probe_uneject: true,
        slow_start: Millis(30_000),
        panic_threshold: 40,
        consecutive_5xx: 16,
        consecutive_gateway_failure: 4,
        split_l4_failures: true,
        consecutive_l4_failure: 6,
        confirm_l4_failures: false,
        min_clients: 4,
        connect_timeout: Millis(5000),
        response_timeout: Millis(30_000),
        success_rate_min_responses: 11,
        success_rate_min_backends: 2,
        success_rate_stdev_factor: 1250,
        failure_percentage_threshold: 30,
        failure_percentage_min_responses: 12,
        failure_percentage_min_backends: 3,
        error_rate_threshold: 10,
        error_rate_window: Millis(20_000),
        error_rate_min_responses: 13,
        slow_threshold: Millis(250),
        slow_rate_threshold: 40,
        slow_rate_window: Millis(60_000),
        slow_rate_min_responses: 14,
        errors: vec![500..=500, 502..=504, 599..=599],
        interval: Millis(90_000),
        base_ejection_time: Millis(7_200_000),
        max_ejection_time: Millis(7_200_000),
        max_ejection_time_jitter: Millis(500),
        max_ejection_percent: 100,
        always_eject_one: true,
        min_serving: 0,
        half_open_trials: 7,
        half_open_successes: 7,
        half_open_timeout: Millis(90_000),
        half_open_exit: HalfOpenExit::Wait,
        probe_readmits: false,
        backoff_decay: BackoffDecay::Time,
    };
    assert_eq!(*breaker, expected);
}

#[test]
fn a_fallback_is_written_as_backends_are() {
    let text = small_with(
        9,
        "[service.web.fallback]\nsorry = { address = \"10.0.0.19:80\", weight = 7 }\nstill = \"10.0.0.20:80\"\n[service.web.probe.http]",
    );
    let service = &right(&text).core.services[0];
    let names: Vec<_> = service.everyone().map(|of| (of.name.as_str(), of.weight)).collect();
    assert_eq!(names, [("web-1", 100), ("web-2", 100), ("sorry", 7), ("still", 100)]);
    assert_eq!((service.backends.len(), service.fallback.len()), (2, 2));
}

#[test]
fn a_factor_is_plain_or_in_thousandths() {
    for (text, thousandths) in
        [("0", 0), ("2", 2000), ("1.9", 1900), ("1900", 1900), ("0.001", 1), ("10.0", 10_000), ("100", 100)]
    {
        let text = small_with(12, &format!("success_rate_stdev_factor = {text}"));
        assert_eq!(right(&text).core.services[0].breaker.success_rate_stdev_factor, thousandths);
    }
    for text in ["-1.0", "1e3", "nan", "1.2345", "10.001", "11", "10001", "\"1.9\""] {
        assert_eq!(wrong(&small_with(12, &format!("success_rate_stdev_factor = {text}"))).iter().count(), 1);
    }
}

#[test]
fn every_key_of_a_probe_is_read() {
    let text = small_with(
        10,
        r#"interval = "4s"
timeout = "3s"
rise = 5
fall = 6
fast_interval = "500ms"
down_interval = "20s"
jitter = 25
fail_fast = ["500-502", 504]
"#,
    );
    let probe = right(&text).core.services[0].probe.clone().expect("configured");
    assert_eq!((probe.interval, probe.timeout, probe.rise, probe.fall), (Millis(4000), Millis(3000), 5, 6));
    assert_eq!((probe.fast_interval, probe.down_interval), (Millis(500), Millis(20_000)));
    assert_eq!(probe.jitter, 25);
    let ProbeKind::Http(http) = &probe.kind else { panic!("an HTTP probe") };
    assert_eq!(http.fail_fast, [500..=502, 504..=504]);
}

#[test]
fn other_intervals_of_a_probe_are_the_interval() {
    let probe = right(&small_with(10, "interval = \"300ms\"")).core.services[0].probe.clone();
    let probe = probe.expect("configured");
    assert_eq!((probe.fast_interval, probe.down_interval, probe.jitter), (Millis(300), Millis(300), 10));
}

#[test]
fn given_values_override_the_derived_ones() {
    let text = small_with(
        12,
        "max_ejection_time = \"1m\"\nhalf_open_successes = 1\nhalf_open_timeout = \"50ms\"\nhalf_open_trials = 0",
    );
    let breaker = &right(&text).core.services[0].breaker;
    assert_eq!(breaker.max_ejection_time, Millis::secs(60));
    assert_eq!((breaker.half_open_trials, breaker.half_open_successes), (0, 1));
    assert_eq!(breaker.half_open_timeout, Millis(50));
}

#[test]
fn a_timeout_that_is_not_given_fits_into_the_interval() {
    let probe = right(&small_with(10, "interval = \"300ms\"")).core.services[0].probe.clone();
    assert_eq!(probe.expect("configured").timeout, Millis(300));
}

#[test]
fn another_instance_has_another_socket() {
    let file = right(&small_with(2, "instance = \"blue\""));
    assert_eq!(file.control_socket, Path::new("/run/shunt/blue.sock"));
    assert_eq!(file.state_file, Path::new("/var/lib/shunt/blue.json"));
    let file = right(&small_with(2, "instance = \"blue\"\ncontrol_socket = \"/tmp/x\""));
    assert_eq!(file.control_socket, Path::new("/tmp/x"));
}

#[test]
fn services_and_backends_keep_the_order_of_the_file() {
    let text = r#"interfaces = ["eth0"]
[service.zebra]
vip = "203.0.113.10:80"
backends = { z = "10.0.0.3:1", b = "10.0.0.1:1", a = { weight = 7, address = "10.0.0.2:1" } }
[service.ant]
vip = "203.0.113.10:81"
backends.z = "10.0.0.3:1"
"#;
    let services = right(text).core.services;
    assert_eq!(services.iter().map(|service| &*service.name).collect::<Vec<_>>(), ["zebra", "ant"]);
    let backends: Vec<_> = services[0].backends.iter().map(|b| (&*b.name, b.weight)).collect();
    assert_eq!(backends, [("z", 100), ("b", 100), ("a", 7)]);
}

#[test]
fn the_example_is_right_and_its_comments_are_the_defaults() {
    let file = right(EXAMPLE);
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => format!("{rest}\n"),
            Some(_) | None => format!("{line}\n"),
        })
        .collect();
    assert_ne!(uncommented, EXAMPLE);
    assert_eq!(right(&uncommented), file);
}

#[test]
fn the_example_shows_every_key() {
    let tables = [
        &keys::ROOT,
        &keys::RECORD,
        &keys::TIMEOUTS,
        &keys::SERVICE,
        &keys::DISCOVERY,
        &keys::BACKEND,
        &keys::PROBE,
        &keys::PROBE_HTTP,
        &keys::PROBE_HTTPS,
        &keys::PROBE_TCP,
        &keys::PROBE_GRPC,
        &keys::BREAKER,
    ];
    for key in tables.into_iter().flat_map(|keys| keys.known) {
        let shown = EXAMPLE.lines().any(|line| {
            let line = line.trim_start_matches('#');
            line.starts_with(&format!("{key} = "))
                || line.contains(&format!(".{key}]"))
                || line.contains(&format!(".{key}."))
                || line.contains(&format!(" {key} = "))
                || line.starts_with(&format!("[{key}."))
                || line.starts_with(&format!("[{key}]"))
        });
        assert!(shown, "{key}");
    }
}
