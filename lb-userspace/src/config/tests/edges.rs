//! The last value that is right, and the first that is not.

use lb_common::MAX_SOURCES;

use super::*;
use crate::config::{reader::quoted, value::shown};

/// The errors of `SMALL` with this in the place of a line.
fn errors(line: usize, text: &str) -> Vec<String> {
    match parse("shunt.toml", &small_with(line, text)) {
        Ok(_) => Vec::new(),
        Err(diagnostics) => diagnostics.iter().map(|one| one.message.clone()).collect(),
    }
}

const TOP: usize = 2;
const SERVICE: usize = 5;
const BREAKER: usize = 12;

#[test]
fn the_limits_of_values() {
    let path = |length: usize| format!("control_socket = \"/{}\"", "x".repeat(length - 1));
    let size = |size: &str| format!("record = {{ path = \"/r\", max_size = \"{size}\" }}");
    for (line, fine, beyond, message) in [
        (TOP, path(107), path(108), "the path has 108 bytes, at most 107 are possible"),
        (TOP, size("1MiB"), size("1023KiB"), "`1023KiB` is too small"),
        (TOP, size("1024GiB"), size("1025GiB"), "`1025GiB` is too large"),
        (
            TOP,
            "timeouts.established = \"24h\"".to_owned(),
            "timeouts.established = \"1441m\"".to_owned(),
            "`1441m` is too long",
        ),
        (
            TOP,
            "nat_ports = \"20000-20000\"".to_owned(),
            "nat_ports = \"20001-20000\"".to_owned(),
            "`20001-20000` runs backwards",
        ),
        (
            BREAKER,
            "connect_timeout = \"30m\"".to_owned(),
            "connect_timeout = \"1801s\"".to_owned(),
            "Shunt cannot wait longer than 30m",
        ),
        (
            BREAKER,
            "max_ejection_time = \"8760h\"".to_owned(),
            "max_ejection_time = \"8761h\"".to_owned(),
            "`8761h` is too long",
        ),
        (
            BREAKER,
            "base_ejection_time = \"10m\"\nmax_ejection_time = \"10m\"".to_owned(),
            "base_ejection_time = \"10m\"\nmax_ejection_time = \"9m\"".to_owned(),
            "the longest ejection is below `base_ejection_time`, 10m",
        ),
        (
            BREAKER,
            "half_open_trials = 0\nhalf_open_successes = 0".to_owned(),
            "half_open_trials = 1\nhalf_open_successes = 0".to_owned(),
            "a half-open backend would be readmitted without one good response",
        ),
        (
            BREAKER,
            "success_rate_stdev_factor = 1.234".to_owned(),
            "success_rate_stdev_factor = 1.2345".to_owned(),
            "`1.2345` is not a factor",
        ),
        (
            BREAKER,
            "success_rate_stdev_factor = 1.5".to_owned(),
            "success_rate_stdev_factor = +1.5".to_owned(),
            "`+1.5` is not a factor",
        ),
    ] {
        assert_eq!(errors(line, &fine), Vec::<String>::new(), "{fine}");
        assert_eq!(errors(line, &beyond), [message], "{beyond}");
    }
}

#[test]
fn what_looks_right_and_is_not() {
    for (line, text, message) in [
        (4, "vip = \"203.0.113:80\"", "`203.0.113:80` is not an address with a port"),
        (4, "vip = \"[::ffff:10.0.0.1]:80\"", "::ffff:10.0.0.1 is an IPv4 address written as IPv6"),
        (11, "path = \"/\"\nexpect = [\"0204\"]", "`0204` is not a status"),
        (1, "interfaces = [\"a\\\"b'c/d\"]", "`a\"b'c/d` cannot be the name of an interface"),
    ] {
        let found = errors(line, text);
        assert!(found.iter().any(|one| one == message), "{text}: {found:?}");
    }
    let no_kind = SMALL.replace("[service.web.probe.http]\npath = \"/healthz\"", "[service.web.probe]");
    assert_eq!(wrong(&no_kind).iter().next().expect("one").message, "the probe has no kind");
    assert_eq!(quoted("a\"b'c\n"), "`a\"b'c\\n`");
}

#[test]
fn spans_are_shown_in_the_largest_unit() {
    let spans =
        [(0, "0s"), (1, "1ms"), (1500, "1500ms"), (90_000, "90s"), (5_400_000, "90m"), (7_200_000, "2h")];
    for (ms, text) in spans {
        assert_eq!(shown(Millis(ms)), text);
    }
}

#[test]
fn each_syntax_error_has_its_own_remedy() {
    for (text, help) in [
        ("interfaces = [\"eth0\",,\"b\"]\n", "separate values by commas and close the array with `]`"),
        ("interfaces = [\"eth0\"\n", "separate values by commas and close the array with `]`"),
        ("[[service\n", "close the header with `]`"),
        ("[service\n", "close the header with `]`"),
        ("timeouts = { closing = \"1s\"\n", "separate entries by commas and close the table with `}`"),
        (
            "instance = 'x\n",
            "the file is TOML: `key = \"value\"`, tables as `[service.web]`, comments after `#`",
        ),
    ] {
        assert_eq!(wrong(text).iter().next().expect("one at least").help, help, "{text}");
    }
}

#[test]
fn a_file_may_have_a_mebibyte() {
    let fill = |length: usize| format!("{SMALL}#{}", "x".repeat(length - SMALL.len() - 1));
    right(&fill(MAX_BYTES));
    assert!(read("a.toml", fill(MAX_BYTES).as_bytes()).is_ok());
    let large = read("a.toml", fill(MAX_BYTES + 1).as_bytes()).expect_err("too large");
    assert!(large.to_string().contains("larger than 1024 KiB"), "{large}");
    let bytes = [b"#".repeat(MAX_BYTES - 1), vec![0xff]].concat();
    let no_text = parse_bytes("a.toml", &bytes).expect_err("no text");
    assert!(no_text.to_string().contains("not UTF-8"), "{no_text}");
}

#[test]
fn the_place_of_bytes_that_are_no_text_is_one_column_wide() {
    let shown = parse_bytes("a.toml", b"\n\n\nlog = \"\xff\"\n").expect_err("no text").render(false);
    assert!(shown.contains("\n  |        ^\n"), "{shown}");
}

#[test]
fn prefixes_of_all_services_are_counted_together() {
    let prefixes = |first: u32, count: u32| {
        let address = |n| format!("\"{}\"", std::net::Ipv4Addr::from_bits(0x0a00_0000 + n));
        (first..first + count).map(address).collect::<Vec<_>>().join(",")
    };
    let half = MAX_SOURCES / 2;
    let file = |more: u32| {
        let web = small_with(SERVICE, &format!("allow = [{}]", prefixes(0, half)));
        let deny = prefixes(half, half + more);
        format!(
            "{web}[service.b]\nvip = \"203.0.113.11:80\"\nbackends.b = \"10.0.0.13:80\"\ndeny = [{deny}]\n"
        )
    };
    right(&file(0));
    let many = wrong(&file(1));
    assert!(many.to_string().contains("more than 16384 prefixes of all services"), "{many}");
}

#[test]
fn each_service_has_a_table_of_its_own() {
    let service = |name: &str, port: u32, count: u32| {
        let one = |n: u32| format!("b{n} = \"10.{port}.{}.{}:80\"\n", n / 250, n % 250 + 1);
        let backends: String = (0..count).map(one).collect();
        format!("[service.{name}]\nvip = \"192.0.2.1:{port}\"\n[service.{name}.backends]\n{backends}")
    };
    let file = format!("interfaces = [\"eth0\"]\n{}{}", service("a", 1, 655), service("b", 2, 300));
    assert!(right(&file).warnings.is_none());
}

#[test]
fn an_error_in_one_line_counts_the_others() {
    assert_eq!(wrong("interfaces = []").to_string().matches("more)").count(), 1);
    let one = wrong(&small_with(TOP, "nat_ports = 1"));
    assert!(!one.to_string().contains("more)"), "{one}");
    let two = wrong(&small_with(TOP, "nat_ports = 1\nvlans = 1"));
    assert!(two.to_string().ends_with("(and 1 more)"), "{two}");
    assert_eq!(format!("{two:?}"), two.render(false));
}

#[test]
fn the_levels_of_the_log_have_their_names() {
    let all = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
    assert_eq!(all.map(|level| level.to_string()), ["error", "warn", "info", "debug", "trace"]);
}
