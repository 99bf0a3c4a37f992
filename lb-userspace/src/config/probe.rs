//! `[service.NAME.probe.http]` and `[service.NAME.probe.tcp]`.

use lb_core::{
    config::{HttpProbe, Probe, ProbeKind},
    time::Millis,
};

use super::{
    keys,
    reader::{Node, Table, quoted},
    value,
};

const DEFAULT_INTERVAL: Millis = Millis::secs(2);
const DEFAULT_TIMEOUT: Millis = Millis::secs(1);
/// A probe more often than this is a load, not a probe.
const LEAST_INTERVAL: Millis = Millis(10);
/// Percent either way. With more, two probes might meet.
const MOST_JITTER: u32 = 50;
const MOST_IN_A_ROW: u32 = 1000;

/// Header fields that the prober itself decides on.
const OWN_HEADERS: [&str; 5] = ["host", "connection", "content-length", "transfer-encoding", "upgrade"];

pub(super) fn read(node: &Node<'_>) -> Option<Probe> {
    const KIND: &str = "[service.web.probe.http]";
    let table = node.table(&keys::PROBE, KIND)?;
    match (table.entry("http"), table.entry("tcp")) {
        (Some(http), Some(tcp)) => {
            let (first, second) =
                if http.key.span.start < tcp.key.span.start { (http, tcp) } else { (tcp, http) };
            second.key.conflict(
                "a service has one probe",
                "remove one of `probe.http` and `probe.tcp`",
                first.key.span.clone(),
                "the other probe",
            )
        }
        (Some(http), None) => {
            let table = http.value.table(&keys::PROBE_HTTP, KIND)?;
            let (kind, pace) = (read_http(&table), read_pace(&table));
            Some(Probe { kind: ProbeKind::Http(kind?), ..pace? })
        }
        (None, Some(tcp)) => read_pace(&tcp.value.table(&keys::PROBE_TCP, "[service.web.probe.tcp]")?),
        (None, None) if table.is_empty() => node.absent(
            "the probe has no kind",
            "write `[service.NAME.probe.http]` or `[service.NAME.probe.tcp]`",
        ),
        // Whatever is there was noted as unknown.
        (None, None) => None,
    }
}

/// What all kinds have; as a TCP probe.
fn read_pace(table: &Table<'_>) -> Option<Probe> {
    let interval = table.or("interval", DEFAULT_INTERVAL, |node| value::duration(node, LEAST_INTERVAL));
    let timeout = match table.node("timeout") {
        Some(node) => value::duration(node, Millis(1)).and_then(|timeout| match &interval {
            Some(interval) if timeout > interval.value => node.conflict(
                format!("the timeout is above the interval, {}", value::shown(interval.value)),
                "lower `timeout` or raise `interval`: a probe ends before the next begins",
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
    let rise = table.or("rise", 2, |node| node.integer(1..=MOST_IN_A_ROW));
    let fall = table.or("fall", 3, |node| node.integer(1..=MOST_IN_A_ROW));
    Some(Probe {
        kind: ProbeKind::Tcp,
        interval: interval?.value,
        timeout: timeout?,
        rise: rise?.value,
        fall: fall?.value,
        fast_interval: fast_interval?,
        down_interval: down_interval?,
        jitter: u8::try_from(jitter?.value).expect("read as at most 50"),
    })
}

fn read_http(table: &Table<'_>) -> Option<HttpProbe> {
    let default = HttpProbe::default();
    let method = table.or("method", default.method, method);
    let path = table.or("path", default.path, path);
    let host = table.or("host", default.host, |node| host(node).map(Some));
    let headers = table.or("headers", default.headers, headers);
    let expect = table.or("expect", default.expect, |node| value::statuses(node, "expect = [\"200-399\"]"));
    let fail_fast = match table.node("fail_fast") {
        Some(node) if node.is_empty_array() => Some(Vec::new()),
        Some(node) => value::statuses(node, "fail_fast = [\"500-599\"]"),
        None => Some(default.fail_fast),
    };
    Some(HttpProbe {
        method: method?.value,
        path: path?.value,
        host: host?.value,
        headers: headers?.value,
        expect: expect?.value,
        fail_fast: fail_fast?,
    })
}

fn method(node: &Node<'_>) -> Option<String> {
    const METHODS: [(&str, &str); 4] =
        [("GET", "GET"), ("HEAD", "HEAD"), ("OPTIONS", "OPTIONS"), ("POST", "POST")];
    value::choice(node, &METHODS).map(str::to_owned)
}

/// Path and query of a request target (RFC 9112 section 3.2.1).
fn path(node: &Node<'_>) -> Option<String> {
    const EXAMPLE: &str = "path = \"/healthz\"";
    const LONGEST: usize = 2048;
    let Some(text) = node.as_str() else { return node.expected("a path", EXAMPLE) };
    if !text.starts_with('/') {
        return node.reject(
            format!("{} does not begin with `/`", quoted(text)),
            format!("write only the path, for example `{EXAMPLE}`"),
        );
    }
    if let Some(bad) =
        text.chars().find(|&c| !c.is_ascii_alphanumeric() && !"-._~!$&'()*+,;=:@/?%".contains(c))
    {
        return node.reject(
            format!("a path cannot hold {}", quoted(&bad.to_string())),
            "write it percent-encoded, `%20` for a blank",
        );
    }
    if text.len() > LONGEST {
        return node.reject(format!("the path has {} bytes", text.len()), format!("use at most {LONGEST}"));
    }
    Some(text.to_owned())
}

fn host(node: &Node<'_>) -> Option<String> {
    const EXAMPLE: &str = "host = \"shop.example\"";
    let Some(text) = node.as_str() else { return node.expected("a host", EXAMPLE) };
    let inside = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    if text.is_empty() || text.len() > 255 || !text.chars().all(inside) {
        return node
            .reject(format!("{} is not a host", quoted(text)), format!("write for example `{EXAMPLE}`"));
    }
    Some(text.to_owned())
}

/// Fields of a request, names as tokens and values in visible ASCII (RFC 9110 section 5).
fn headers(node: &Node<'_>) -> Option<Vec<(String, String)>> {
    const EXAMPLE: &str = "headers = { X-Probe = \"shunt\" }";
    let mut seen: Vec<String> = Vec::new();
    let mut headers = Some(Vec::new());
    for entry in node.entries("a table of headers", EXAMPLE)? {
        let lower = entry.name.to_ascii_lowercase();
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let name: Option<()> = if lower.is_empty() || lower.len() > 256 || !lower.chars().all(token) {
            entry.key.reject(
                format!("{} is not the name of a header", quoted(entry.name)),
                "use letters, digits and `-`",
            )
        } else if lower == "host" {
            entry.key.reject("`host` is a key of its own", "write `host = \"…\"` beside `path`")
        } else if OWN_HEADERS.contains(&lower.as_str()) {
            entry.key.reject(format!("the probe itself sets {}", quoted(entry.name)), "remove it")
        } else if seen.contains(&lower) {
            entry.key.reject(format!("the header {} is set twice", quoted(entry.name)), "remove one of them")
        } else {
            Some(())
        };
        seen.push(lower);
        let value = header_value(&entry.value);
        match (headers.as_mut(), name, value) {
            (Some(headers), Some(()), Some(value)) => headers.push((entry.name.to_owned(), value)),
            (Some(_) | None, Some(()) | None, Some(_) | None) => headers = None,
        }
    }
    headers
}

fn header_value(node: &Node<'_>) -> Option<String> {
    let Some(text) = node.as_str() else {
        return node.expected("the text of a header", "headers = { X-Probe = \"shunt\" }");
    };
    if text.trim() == text && text.len() <= 4096 && text.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
        return Some(text.to_owned());
    }
    node.reject(
        format!("{} cannot be the value of a header", quoted(text)),
        "use visible ASCII characters, no blank at the ends",
    )
}
