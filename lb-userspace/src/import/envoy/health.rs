//! `health_checks` of a cluster.

use lb_core::time::Millis;

use crate::import::{
    draft::{Entry, Probe, span},
    fields::{Field, Fields},
    note::NoteCode,
    yaml::Value,
};

pub(super) fn probe(field: &Field<'_>) -> Option<Probe> {
    let fields = field.map()?;
    fields.ignore(&[
        "always_log_health_check_failures",
        "always_log_health_check_success",
        "event_log_path",
        "event_logger",
        "event_service",
        "initial_jitter",
        "no_traffic_healthy_interval",
        "no_traffic_interval",
        "reuse_connection",
        "tls_options",
    ]);
    let message = "a probe of its own kind of connection";
    let keys = ["transport_socket_match_criteria", "alt_port", "custom_health_check", "interval_jitter"];
    let mut entries = Vec::new();
    if let Some(jitter) = fields.get("interval_jitter_percent") {
        entries.push(Entry::new("jitter", jitter.integer(0..=100)?, &jitter));
    }
    let kind = if let Some(http) = fields.get("http_health_check") {
        self::http(&http.map()?, &mut entries)?;
        "http"
    } else if let Some(grpc) = fields.get("grpc_health_check") {
        let grpc = grpc.map()?;
        text(&grpc, "service_name", "service", &mut entries)?;
        text(&grpc, "authority", "host", &mut entries)?;
        "grpc"
    } else {
        if let Some(tcp) = fields.get("tcp_health_check").and_then(|tcp| tcp.map()) {
            let message = "Shunt's tcp probe is a handshake and sends nothing";
            tcp.refuse(&["send", "receive"], NoteCode::NotCarried, message, "");
        }
        "tcp"
    };
    fields.refuse(&keys, NoteCode::NotCarried, message, "");
    let times = [
        ("interval", "interval", true),
        ("timeout", "timeout", true),
        ("unhealthy_interval", "down_interval", false),
        ("unhealthy_edge_interval", "fast_interval", false),
    ];
    for (name, key, is_required) in times {
        let field = if is_required { fields.required(name) } else { fields.get(name) };
        if let Some(field) = field {
            entries.push(Entry::new(key, span(field.duration()?), &field));
        }
    }
    fields.ignore(&["healthy_edge_interval"]);
    for (name, key) in [("healthy_threshold", "rise"), ("unhealthy_threshold", "fall")] {
        let field = fields.required(name)?;
        entries.push(Entry::new(key, field.integer(1..=1000)?, &field));
    }
    shorten(&mut entries);
    Some(Probe { kind, entries })
}

/// Envoy allows a timeout above the interval.
fn shorten(entries: &mut [Entry]) {
    let of = |key: &str| {
        let entry = entries.iter().find(|entry| entry.key == key)?;
        Some((crate::config::parse_duration(entry.value.as_str()?)?, entry.value.clone()))
    };
    let (Some((interval, text)), Some((timeout, _))) = (of("interval"), of("timeout")) else { return };
    if timeout > interval && interval > Millis(0) {
        for entry in entries.iter_mut().filter(|entry| entry.key == "timeout") {
            entry.value = text.clone();
            entry.differs = "Envoy allows a timeout above the interval, Shunt does not";
        }
    }
}

fn text(fields: &Fields<'_>, name: &str, key: &'static str, entries: &mut Vec<Entry>) -> Option<()> {
    if let Some(field) = fields.get(name) {
        let text = field.text()?;
        if !text.is_empty() {
            entries.push(Entry::new(key, text, &field));
        }
    }
    Some(())
}

fn http(http: &Fields<'_>, entries: &mut Vec<Entry>) -> Option<()> {
    http.ignore(&["codec_client_type", "response_buffer_size", "retriable_statuses"]);
    let path = http.required("path")?;
    entries.push(Entry::new("path", path.text()?, &path));
    text(http, "host", "host", entries)?;
    if let Some(method) = http.get("method") {
        let name = method.text()?;
        if matches!(name, "GET" | "HEAD" | "OPTIONS" | "POST") {
            entries.push(Entry::new("method", name, &method));
        } else if name != "METHOD_UNSPECIFIED" {
            method.note(NoteCode::NotCarried, format!("Shunt's probe does not send {name}"), "");
        }
    }
    let message = "a probe with a field of its own";
    let keys = ["send", "receive", "service_name_matcher", "request_headers_to_remove"];
    http.refuse(&keys, NoteCode::NotCarried, message, "");
    headers(http, entries)?;
    let Some(expected) = http.get("expected_statuses") else {
        let origin = crate::import::draft::Origin::Default { of: "Envoy", field: "expected_statuses" };
        entries.push(Entry::new("expect", vec!["200"], origin));
        return Some(());
    };
    let mut ranges = Vec::new();
    for range in expected.list()? {
        let fields = range.map()?;
        let (start, end) = (fields.required("start")?, fields.required("end")?);
        // The end is not part of the range.
        let (first, last) = (start.integer(100..=599)?, end.integer(101..=600)? - 1);
        if last < first {
            return range.bad(format!("no status is from {first} to below {}", last + 1));
        }
        ranges.push(if first == last { first.to_string() } else { format!("{first}-{last}") });
    }
    entries.push(Entry::new("expect", ranges, &expected));
    Some(())
}

fn headers(http: &Fields<'_>, entries: &mut Vec<Entry>) -> Option<()> {
    let Some(field) = http.get("request_headers_to_add") else { return Some(()) };
    let mut all = toml::Table::new();
    for header in field.list()? {
        let option = header.map()?;
        option.ignore_rest();
        let header = option.required("header")?.map()?;
        let (key, value) = (header.required("key")?.text()?, header.required("value")?);
        if let Value::Text(text) = &value.node.value {
            all.insert(key.to_owned(), text.as_str().into());
        }
    }
    if !all.is_empty() {
        entries.push(Entry::new("headers", all, &field));
    }
    Some(())
}
