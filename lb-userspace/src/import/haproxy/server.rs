//! `server` lines, with what `default-server` says before them.

use std::net::{IpAddr, SocketAddr};

use lb_core::time::Millis;

use super::{
    proxy::Proxy,
    say::{at_time, note, number, origin},
    times::CheckTimes,
    words::{Line, Word},
};
use crate::{
    config::MAX_CONNECTIONS,
    import::{
        draft::{self, Entry, Member, Origin, Service, span},
        given::Given,
        note::{NoteCode, Notes},
    },
};

/// Shunt's default weight. HAProxy's is 1, and every weight is relative.
const WEIGHT: u32 = 100;

/// The words of a server.
#[derive(Clone, Default)]
pub(super) struct Server<'s> {
    /// `check`
    pub(super) check: Option<&'s Word>,
    pub(super) times: CheckTimes<'s>,
    pub(super) port: Option<(u16, &'s Word)>,
    pub(super) check_ssl: bool,
    pub(super) is_insecure: bool,
    pub(super) sni: Option<&'s Word>,
    weight: Option<u32>,
    max_connections: Option<(u32, &'s Word)>,
    is_backup: bool,
    is_disabled: bool,
    slowstart: Option<(Millis, &'s Word)>,
    observe: Option<&'s Word>,
    error_limit: Option<(u32, &'s Word)>,
    on_error: Option<&'s Word>,
    on_marked_down: Option<&'s Word>,
}

/// Words alone that say nothing about how traffic is served.
const QUIET: &[&str] = &[
    "agent-check",
    "allow-0rtt",
    "no-check",
    "no-check-ssl",
    "no-send-proxy",
    "no-ssl-reuse",
    "no-tls-tickets",
    "no-backup",
    "enabled",
    "tfo",
];
/// The same, with a value behind them.
const QUIET_PAIRS: &[&str] = &[
    "agent-addr",
    "agent-inter",
    "agent-port",
    "agent-send",
    "alpn",
    "check-alpn",
    "check-proto",
    "ciphers",
    "ciphersuites",
    "guid",
    "id",
    "init-addr",
    "log-proto",
    "max-reuse",
    "minconn",
    "namespace",
    "pool-low-conn",
    "pool-max-conn",
    "pool-purge-delay",
    "proto",
    "resolve-net",
    "resolve-opts",
    "resolve-prefer",
    "source",
    "ssl-max-ver",
    "ssl-min-ver",
    "tcp-ut",
    "track",
];

impl<'s> Server<'s> {
    fn read(&mut self, words: &'s [Word], notes: &Notes) {
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || {
                let value = words.next();
                if value.is_none() {
                    note(notes, NoteCode::MissingField, word, "its value is missing");
                }
                value
            };
            match word.text.as_str() {
                "check" => self.check = Some(word),
                "backup" => self.is_backup = true,
                "disabled" => self.is_disabled = true,
                "check-ssl" => self.check_ssl = true,
                "weight" => self.weight = value().and_then(|value| number(value, 0..=256, notes)),
                "port" => {
                    self.port = value().and_then(|value| {
                        Some((u16::try_from(number(value, 1..=65535, notes)?).ok()?, value))
                    });
                }
                "inter" | "fastinter" | "downinter" => {
                    if let Some(value) = value() {
                        self.times.set_time(&word.text, value, notes);
                    }
                }
                "rise" | "fall" => {
                    let count = value().and_then(|value| Some((number(value, 1..=1000, notes)?, value)));
                    self.times.set_count(&word.text, count);
                }
                "slowstart" => {
                    self.slowstart = value().and_then(|value| Some((at_time(value, notes)?, value)))
                }
                "observe" => self.observe = value(),
                "error-limit" => {
                    self.error_limit =
                        value().and_then(|value| Some((number(value, 1..=1_000_000, notes)?, value)));
                }
                "on-error" => self.on_error = value(),
                "on-marked-down" => self.on_marked_down = value(),
                "on-marked-up" => {
                    value();
                    note(notes, NoteCode::NotCarried, word, "Shunt leaves other backends' connections alone");
                }
                "verify" => self.is_insecure = value().is_some_and(|value| value.text == "none"),
                "check-sni" | "sni" => self.sni = value(),
                "ca-file" | "crt" | "crl-file" | "verifyhost" | "check-via-socks4" => {
                    value();
                }
                "ssl" => {
                    let message = "Shunt does not begin TLS: backends get what the client sends";
                    note(notes, NoteCode::NeedsTls, word, message);
                }
                "send-proxy" | "send-proxy-v2" | "send-proxy-v2-ssl" | "send-proxy-v2-ssl-cn" => {
                    let message = "Shunt adds no PROXY header; `mode = \"dnat\"` keeps client addresses";
                    note(notes, NoteCode::NeedsProxy, word, message);
                }
                "maxconn" => {
                    self.max_connections = value().and_then(|value| {
                        Some((number(value, 0..=i32::MAX.unsigned_abs(), notes)?, value))
                            .filter(|(most, _)| *most > 0)
                    });
                }
                "maxqueue" => {
                    value();
                    note(notes, NoteCode::ProxyOnly, word, "it limits a proxy; Shunt has no queue");
                }
                "cookie" | "redir" => {
                    value();
                    note(
                        notes,
                        NoteCode::NeedsProxy,
                        word,
                        "Shunt does not look into requests or change them",
                    );
                }
                "addr" => {
                    value();
                    let message = "write `probe_address` of this backend";
                    note(notes, NoteCode::NotCarried, word, message);
                }
                "resolvers" => {
                    value();
                    note(notes, NoteCode::NotCarried, word, "Shunt does not resolve names");
                }
                text if QUIET.contains(&text) => {}
                text if QUIET_PAIRS.contains(&text) => {
                    value();
                }
                _ => note(notes, NoteCode::UnknownField, word, "the import does not know this word"),
            }
        }
    }
}

/// Each server, with its line. A second caller makes no second notes.
pub(super) fn all<'s>(proxy: &Proxy<'s>, notes: &Notes) -> Vec<(&'s Line, Server<'s>)> {
    let mut template = Server::default();
    for line in &proxy.default_servers {
        template.read(&line[1..], notes);
    }
    let read = |line: &&'s Line| {
        let mut server = template.clone();
        server.read(line.get(3..).unwrap_or_default(), notes);
        (*line, server)
    };
    proxy.servers.iter().map(read).collect()
}

/// Backends and fallback, into the service. `false`: some have no address.
pub(super) fn add_members(back: &Proxy<'_>, given: &Given<'_>, service: &mut Service) -> bool {
    let mut is_whole = true;
    for (line, server) in all(back, given.notes) {
        let (Some(name), Some(address)) = (line.get(1), line.get(2)) else {
            note(given.notes, NoteCode::MissingField, &line[0], "a server has a name and an address");
            is_whole = false;
            continue;
        };
        let named = given.backends(&name.text);
        let (address, from) = match (named.first(), endpoint(&address.text)) {
            (Some(given), _) => (*given, Origin::Option("--backend")),
            (None, Some(address)) => (address, origin(line)),
            (None, None) => {
                let message = format!("{:?} is not an IP address with a port", address.text);
                let help = format!("give --backend {}=ADDRESS:PORT", name.text);
                given.notes.add(NoteCode::Unresolved, Some(&address.place), &name.text, message, help);
                is_whole = false;
                continue;
            }
        };
        if server.is_disabled || server.weight == Some(0) {
            let message = "the server is out of use, so it is left out";
            note(given.notes, NoteCode::Surprise, name, message);
            continue;
        }
        let weight = server.weight.map(|weight| weight * WEIGHT).filter(|weight| *weight != WEIGHT);
        let called = draft::name(&name.text);
        let is_used =
            |name: &str| service.backends.iter().chain(&service.fallback).any(|member| member.name == name);
        let member = Member {
            name: draft::unused(&called, is_used),
            address,
            weight: weight.and_then(|weight| u16::try_from(weight).ok()),
            max_connections: server.max_connections.map(|(most, _)| most.min(MAX_CONNECTIONS)),
            origin: from,
        };
        if server.is_backup { service.fallback.push(member) } else { service.backends.push(member) }
    }
    if is_whole && service.backends.is_empty() {
        let message = "the backend has no server that is used";
        given.notes.add(NoteCode::Unresolved, Some(&back.section.head.place), "", message, "");
        return false;
    }
    is_whole
}

fn endpoint(text: &str) -> Option<SocketAddr> {
    let text = text.trim_start_matches("ipv4@").trim_start_matches("ipv6@");
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    // IPv6 without brackets: the last colon is before the port.
    let (host, port) = text.rsplit_once(':')?;
    Some(SocketAddr::new(host.parse::<IpAddr>().ok()?, port.parse().ok().filter(|port| *port > 0)?))
}

/// Keys of the service's table.
pub(super) fn entries(back: &Proxy<'_>, notes: &Notes) -> Vec<Entry> {
    let servers = all(back, notes);
    let Some((_, first)) = servers.first() else { return Vec::new() };
    let ends =
        |server: &Server<'_>| server.on_marked_down.is_some_and(|word| word.text == "shutdown-sessions");
    if servers.iter().any(|(_, server)| ends(server) != ends(first)) {
        let word = &servers[0].0[0];
        note(notes, NoteCode::NotCarried, word, "servers differ in `on-marked-down`; the first one's holds");
    }
    match first.on_marked_down {
        Some(word) if ends(first) => {
            let from = Origin::Field { path: "on-marked-down".to_owned(), place: word.place.clone() };
            let differs = "Shunt resets a connection at its next request, so that no response is cut";
            vec![Entry::new("on_eject", "reset", from).differs(differs)]
        }
        Some(_) | None => {
            let from = Origin::Default { of: "HAProxy", field: "on-marked-down" };
            vec![Entry::new("on_eject", "drain", from)]
        }
    }
}

/// The breaker of servers that are observed. `None`: they are not.
pub(super) fn observed(back: &Proxy<'_>, notes: &Notes) -> Option<Vec<Entry>> {
    let servers = all(back, notes);
    let (_, first) = servers.iter().find(|(_, server)| server.observe.is_some())?;
    let observe = first.observe?;
    let from = |word: &Word, path: &str| Origin::Field { path: path.to_owned(), place: word.place.clone() };
    let by_default = |field| Origin::Default { of: "HAProxy", field };
    if let Some((line, _)) = servers.iter().find(|(_, server)| {
        server.observe.map(|word| &word.text) != Some(&observe.text)
            || server.error_limit.map(|(limit, _)| limit) != first.error_limit.map(|(limit, _)| limit)
    }) {
        let message = "servers differ in `observe` or `error-limit`; a service of Shunt has one breaker";
        note(notes, NoteCode::NotCarried, &line[0], message);
    }
    let (limit, limit_from) = match first.error_limit {
        Some((limit, word)) => (limit, from(word, "error-limit")),
        None => (10, by_default("error-limit")),
    };
    let mut entries = Vec::new();
    if observe.text == "layer4" {
        entries.push(Entry::new("consecutive_5xx", 0, from(observe, "observe layer4")));
        entries.push(Entry::new("split_l4_failures", true, from(observe, "observe layer4")));
        entries.push(Entry::new("consecutive_l4_failure", i64::from(limit), limit_from));
    } else {
        // 501 and 505 are good answers to both.
        entries.push(Entry::new("consecutive_5xx", i64::from(limit), limit_from));
    }
    let action = match first.on_error {
        Some(word) => (word.text.as_str(), from(word, "on-error")),
        None => ("fail-check", by_default("on-error")),
    };
    let out = first.times.time_out();
    let differs = match action.0 {
        "mark-down" => "In HAProxy the server returns when `rise` checks have passed",
        _ => "In HAProxy the errors count as failed checks; Shunt ejects",
    };
    entries.push(Entry::new("base_ejection_time", span(out), action.1).differs(differs));
    if first.check.is_some() {
        entries.push(Entry::new("probe_uneject", true, by_default("on-error")));
    }
    entries.push(Entry::new("max_ejection_percent", 100, by_default("observe")));
    if let Some((window, word)) = first.slowstart {
        let differs = "Shunt raises the share in five steps";
        entries.push(Entry::new("slow_start", span(window), from(word, "slowstart")).differs(differs));
    }
    Some(entries)
}
