//! `[service.NAME.probe.http]` and `[service.NAME.probe.https]`.

use lb_core::config::HttpProbe;

use super::{
    super::{
        reader::{Node, Table, quoted},
        value,
    },
    tls,
};

/// Header fields that the prober sets itself.
const OWN_HEADERS: [&str; 5] = ["host", "connection", "content-length", "transfer-encoding", "upgrade"];

pub(super) fn read_tls(table: &Table<'_>) -> Option<HttpProbe> {
    let host = table.node("host").and_then(Node::as_str);
    let (tls, probe) = (tls::read(table, host), read(table));
    Some(HttpProbe { tls: Some(tls?), ..probe? })
}

pub(super) fn read_plain(table: &Table<'_>) -> Option<HttpProbe> {
    let (plain, probe) = (tls::none(table, "write `[service.NAME.probe.https]`"), read(table));
    plain.and(probe)
}

fn read(table: &Table<'_>) -> Option<HttpProbe> {
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
    let expect_body = expect_body(table, method.as_ref().map(|method| method.value.as_str()));
    Some(HttpProbe {
        method: method?.value,
        path: path?.value,
        host: host?.value,
        headers: headers?.value,
        expect: expect?.value,
        expect_body: expect_body?,
        fail_fast: fail_fast?,
        tls: None,
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
            format!("a path cannot contain {}", quoted(&bad.to_string())),
            "write it percent-encoded, `%20` for a blank",
        );
    }
    if text.len() > LONGEST {
        return node.reject(format!("the path has {} bytes", text.len()), format!("use at most {LONGEST}"));
    }
    Some(text.to_owned())
}

fn expect_body(table: &Table<'_>, method: Option<&str>) -> Option<Option<String>> {
    const EXAMPLE: &str = "expect_body = \"ready\"";
    const LONGEST: usize = 1024;
    let Some(node) = table.node("expect_body") else { return Some(None) };
    let Some(text) = node.as_str() else { return node.expected("a text", EXAMPLE) };
    if text.is_empty() {
        return node.reject("every body has the empty text", "write a text, or remove the key");
    }
    if text.len() > LONGEST {
        return node.reject(format!("the text has {} bytes", text.len()), format!("use at most {LONGEST}"));
    }
    match (method, table.node("method")) {
        (Some("HEAD"), Some(method)) => node.conflict(
            "a response to HEAD has no body",
            "remove `expect_body`, or write `method = \"GET\"`",
            method.span.clone(),
            "the method",
        ),
        (Some(_) | None, Some(_) | None) => Some(Some(text.to_owned())),
    }
}

pub(super) fn host(node: &Node<'_>) -> Option<String> {
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
