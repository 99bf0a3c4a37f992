//! Health checks: kind and times of the probe.

use super::{
    proxy::Proxy,
    say::{note, origin},
    server,
    times::INTER,
    words::Line,
};
use crate::import::{
    draft::{Entry, Origin, Probe, span},
    note::{NoteCode, Notes},
};

/// The one probe of a service. `None`: no server has a check.
pub(super) fn probe(back: &Proxy<'_>, notes: &Notes) -> Option<Probe> {
    let servers = server::all(back, notes);
    let (_, first) = servers.iter().find(|(_, server)| server.check.is_some())?;
    for (line, other) in &servers {
        let is_same = other.check.is_some()
            && other.times.is_same(&first.times)
            && other.port.map(|(port, _)| port) == first.port.map(|(port, _)| port);
        if !is_same {
            let message = "servers differ in their checks; a service of Shunt has one probe, the first one's";
            note(notes, NoteCode::NotCarried, line.get(1).unwrap_or(&line[0]), message);
        }
    }
    let mut entries = Vec::new();
    let mut kind = kind(back, &mut entries, notes);
    if kind == "http" && first.check_ssl {
        kind = "https";
        if let Some(sni) = first.sni {
            let name = sni.text.trim_start_matches("str(").trim_end_matches(')');
            let from = Origin::Field { path: "check-sni".to_owned(), place: sni.place.clone() };
            entries.push(Entry::new("server_name", name, from));
        }
        if first.is_insecure {
            entries.push(Entry::new(
                "insecure",
                true,
                Origin::Default { of: "the server", field: "verify none" },
            ));
        }
    }
    entries.extend(first.times.entries());
    let interval = first.times.inter.map_or(INTER, |(time, _)| time);
    let (timeout, from) = match &back.check_timeout {
        Some((timeout, from)) => (*timeout, from.clone()),
        None => (interval, Origin::Default { of: "HAProxy", field: "timeout check" }),
    };
    entries.push(Entry::new("timeout", span(timeout.min(interval)), from));
    if let Some((port, word)) = first.port {
        let from = Origin::Field { path: "port".to_owned(), place: word.place.clone() };
        entries.push(Entry::new("port", i64::from(port), from));
    }
    Some(Probe { kind, entries })
}

/// `http` or `tcp`, with the request and what must come back.
fn kind(back: &Proxy<'_>, entries: &mut Vec<Entry>, notes: &Notes) -> &'static str {
    let mut kind = "tcp";
    let set = |entries: &mut Vec<Entry>, entry: Entry| {
        entries.retain(|other| other.key != entry.key);
        entries.push(entry);
    };
    for line in &back.checks {
        let words: Vec<&str> = line.iter().map(|word| word.text.as_str()).collect();
        match words.as_slice() {
            ["option", "httpchk", rest @ ..] => {
                kind = "http";
                let (method, path) = match rest {
                    [] => ("OPTIONS", "/"),
                    [path] => ("OPTIONS", *path),
                    [method, path, ..] => (*method, *path),
                };
                method_of(line, method, entries, notes);
                set(entries, Entry::new("path", path, origin(line)));
                if let Some(host) = rest.get(2).and_then(|version| host_of(version)) {
                    set(entries, Entry::new("host", host, origin(line)));
                }
            }
            ["http-check", "send", rest @ ..] => send(line, rest, entries, notes),
            ["http-check", "expect", rest @ ..] => expect(line, rest, entries, notes),
            ["http-check", "connect" | "disable-on-404" | "send-state" | "comment", ..] => {}
            ["option", "tcp-check"] => {}
            _ => {
                let message = "Shunt's tcp probe is a handshake and sends nothing";
                note(notes, NoteCode::NotCarried, &line[0], message);
            }
        }
    }
    if kind == "http" && !entries.iter().any(|entry| entry.key == "expect") {
        let from = Origin::Default { of: "HAProxy", field: "http-check expect" };
        entries.push(Entry::new("expect", vec!["200-399"], from));
    }
    kind
}

fn method_of(line: &Line, method: &str, entries: &mut Vec<Entry>, notes: &Notes) {
    if matches!(method, "GET" | "HEAD" | "OPTIONS" | "POST") {
        entries.retain(|other| other.key != "method");
        entries.push(Entry::new("method", method, origin(line)));
    } else {
        let message = format!("Shunt's probe does not send {method}");
        note(notes, NoteCode::NotCarried, &line[0], message);
    }
}

/// The Host that old files write behind the version: `HTTP/1.1\r\nHost: www`.
fn host_of(version: &str) -> Option<&str> {
    let (_, rest) = version.split_once("Host:")?;
    Some(rest.trim()).filter(|host| !host.is_empty())
}

fn send(line: &Line, rest: &[&str], entries: &mut Vec<Entry>, notes: &Notes) {
    let mut words = rest.iter();
    let mut headers = toml::Table::new();
    let set = |entry: Entry, entries: &mut Vec<Entry>| {
        entries.retain(|other| other.key != entry.key);
        entries.push(entry);
    };
    while let Some(word) = words.next() {
        match *word {
            "meth" => {
                if let Some(method) = words.next() {
                    method_of(line, method, entries, notes);
                }
            }
            "uri" => {
                if let Some(path) = words.next() {
                    set(Entry::new("path", *path, origin(line)), entries);
                }
            }
            "ver" => {
                words.next();
            }
            "hdr" => match (words.next(), words.next()) {
                (Some(name), Some(value)) if name.eq_ignore_ascii_case("host") => {
                    set(Entry::new("host", *value, origin(line)), entries);
                }
                (Some(name), Some(value)) => {
                    headers.insert((*name).to_owned(), (*value).into());
                }
                (_, _) => note(notes, NoteCode::MissingField, &line[0], "a header has a name and a value"),
            },
            _ => {
                words.next();
                let message = format!("Shunt's probe has nothing like {word}");
                note(notes, NoteCode::NotCarried, &line[0], message);
            }
        }
    }
    if !headers.is_empty() {
        set(Entry::new("headers", headers, origin(line)), entries);
    }
}

fn expect(line: &Line, rest: &[&str], entries: &mut Vec<Entry>, notes: &Notes) {
    let mut set = |entry: Entry| {
        entries.retain(|other| other.key != entry.key);
        entries.push(entry);
    };
    match rest {
        ["status", statuses] => {
            let all: Vec<String> = statuses.split(',').map(str::to_owned).collect();
            set(Entry::new("expect", all, origin(line)));
        }
        ["string", text] => set(Entry::new("expect_body", *text, origin(line))),
        ["rstatus", pattern] if is_class(pattern) => {
            let class = pattern.trim_start_matches('^').chars().next().unwrap_or('2');
            set(Entry::new("expect", vec![format!("{class}00-{class}99")], origin(line)));
        }
        _ => {
            let message = "Shunt's probe knows `status`, `string`, and classes such as `rstatus ^2`";
            note(notes, NoteCode::NotCarried, &line[0], message);
        }
    }
}

/// A pattern that means one class of statuses: `^2`, `2..`, `2[0-9][0-9]`.
fn is_class(pattern: &str) -> bool {
    let pattern = pattern.trim_start_matches('^').trim_end_matches('$');
    let mut chars = pattern.chars();
    let is_first = chars.next().is_some_and(|c| ('1'..='5').contains(&c));
    is_first && matches!(chars.as_str(), "" | ".." | "[0-9][0-9]" | "[0-9]{2}" | "\\d\\d" | "xx")
}
