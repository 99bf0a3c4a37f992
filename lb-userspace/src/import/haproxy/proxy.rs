//! A proxy: its binds, servers, checks, and the options that mean something to Shunt.

use std::net::IpAddr;

use lb_core::time::Millis;

use super::{
    balance,
    say::{note, number, origin, time},
    section::{Kind, Section},
    words::{Line, Word},
};
use crate::import::{
    draft::{Entry, Origin, span},
    limits,
    note::{NoteCode, Notes},
};

pub(super) struct Proxy<'s> {
    pub(super) section: &'s Section,
    pub(super) binds: Vec<Bind>,
    pub(super) default_backend: Option<Word>,
    /// `server` lines.
    pub(super) servers: Vec<&'s Line>,
    /// `default-server` lines, in their order.
    pub(super) default_servers: Vec<&'s Line>,
    /// `option httpchk`, `http-check`, `option tcp-check` and the like.
    pub(super) checks: Vec<&'s Line>,
    /// Keys of the service's table.
    pub(super) entries: Vec<Entry>,
    /// Keys of the breaker.
    pub(super) breaker: Vec<Entry>,
    /// `timeout check`.
    pub(super) check_timeout: Option<(Millis, Origin)>,
}

pub(super) struct Bind {
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
    pub(super) origin: Origin,
}

/// Logs, names, and a proxy's own limits and buffers.
const QUIET: &[&str] = &[
    "backlog",
    "description",
    "disabled",
    "email-alert",
    "enabled",
    "errorfile",
    "errorfiles",
    "errorloc",
    "errorloc302",
    "errorloc303",
    "fullconn",
    "grace",
    "hash-balance-factor",
    "hash-preserve-affinity",
    "hash-type",
    "id",
    "load-server-state-from-file",
    "log",
    "log-format",
    "log-format-sd",
    "log-steps",
    "log-tag",
    "max-keep-alive-queue",
    "max-session-srv-conns",
    "mode",
    "monitor-uri",
    "rate-limit",
    "retry-on",
    "server-state-file-name",
    "source",
    "stats",
    "unique-id-format",
    "unique-id-header",
];
/// Options of which the same holds.
const QUIET_OPTIONS: &[&str] = &[
    "abortonclose",
    "accept-invalid-http-request",
    "accept-invalid-http-response",
    "allbackups",
    "checkcache",
    "clitcpka",
    "contstats",
    "dontlog-normal",
    "dontlognull",
    "http-buffer-request",
    "http-ignore-probes",
    "http-keep-alive",
    "http-no-delay",
    "http-pretend-keepalive",
    "http-server-close",
    "http-use-htx",
    "httpclose",
    "httplog",
    "httpslog",
    "idle-close-on-response",
    "independent-streams",
    "log-health-checks",
    "log-separate-errors",
    "logasap",
    "nolinger",
    "prefer-last-server",
    "socket-stats",
    "splice-auto",
    "splice-request",
    "splice-response",
    "srvtcpka",
    "tcp-smart-accept",
    "tcp-smart-connect",
    "tcpka",
    "tcplog",
];
const LONGEST_TIMEOUT: Millis = Millis::secs(1800);

pub(super) fn read<'s>(section: &'s Section, notes: &Notes) -> Proxy<'s> {
    let mut proxy = Proxy {
        section,
        binds: Vec::new(),
        default_backend: None,
        servers: Vec::new(),
        default_servers: Vec::new(),
        checks: Vec::new(),
        entries: Vec::new(),
        breaker: Vec::new(),
        check_timeout: None,
    };
    let is_tcp = section.lines.iter().rev().find(|line| line[0].text == "mode");
    let is_tcp = is_tcp.and_then(|line| line.get(1)).is_none_or(|mode| mode.text == "tcp");
    for (at, line) in section.lines.iter().enumerate() {
        read_line(&mut proxy, line, at < section.inherited, is_tcp, notes);
    }
    proxy
}

fn read_line<'s>(proxy: &mut Proxy<'s>, line: &'s Line, is_inherited: bool, is_tcp: bool, notes: &Notes) {
    let first = &line[0];
    let second = line.get(1).map_or("", |word| word.text.as_str());
    match (first.text.as_str(), second) {
        ("bind", _) => bind(proxy, line, notes),
        ("default_backend", _) => proxy.default_backend = line.get(1).cloned(),
        ("server", _) => proxy.servers.push(line),
        ("default-server", _) => proxy.default_servers.push(line),
        // It means something to proxies with servers.
        ("balance", _) if proxy.section.kind == Kind::Frontend => {}
        ("balance", _) => replace(proxy, "affinity", balance::read(line, notes)),
        (
            "option",
            "httpchk" | "tcp-check" | "ssl-hello-chk" | "mysql-check" | "pgsql-check" | "redis-check",
        )
        | ("option", "smtpchk" | "ldap-check" | "spop-check" | "external-check")
        | ("http-check" | "tcp-check" | "external-check", _) => proxy.checks.push(line),
        ("option", "redispatch") | ("redispatch", _) => redispatch(proxy, line),
        ("retries", _) => {}
        ("timeout", name) => timeout(proxy, line, name, is_tcp, notes),
        ("option", name) if QUIET_OPTIONS.contains(&name) => {}
        ("no", "option") => {
            let name = line.get(2).map_or("", |word| word.text.as_str());
            proxy.entries.retain(|entry| !(name == "redispatch" && entry.key == "redispatch"));
        }
        ("maxconn", _) if proxy.section.kind == Kind::Backend => {}
        ("maxconn", _) => {
            let most = line.get(1).and_then(|most| number(most, 0..=i32::MAX.unsigned_abs(), notes));
            let entry = most.and_then(|most| limits::entry("max_connections", most.into(), origin(line)));
            replace(proxy, "max_connections", entry);
        }
        ("stick-table", _) => {}
        ("stick", "on" | "store-request" | "match") => {
            if let Some(entry) = balance::stick(line, notes) {
                replace(proxy, "affinity", Some(entry));
            }
        }
        (name, _) if QUIET.contains(&name) => {}
        // Defaults for HTTP have no effect in a proxy with `mode tcp`.
        ("option", "forwardfor" | "originalto" | "http_proxy" | "transparent") if is_inherited && is_tcp => {}
        _ => {
            let message = "Shunt forwards packets: it has no rules for requests, and changes nothing in them";
            let shown = Word { text: format!("{} {second}", first.text).trim().to_owned(), ..first.clone() };
            note(notes, NoteCode::NeedsProxy, &shown, message);
        }
    }
}

/// A later line replaces an earlier one.
fn replace(proxy: &mut Proxy<'_>, key: &str, entry: Option<Entry>) {
    proxy.entries.retain(|other| other.key != key);
    proxy.entries.extend(entry);
}

fn redispatch(proxy: &mut Proxy<'_>, line: &Line) {
    let differs = "Shunt sends a handshake that is not answered to another backend";
    replace(proxy, "redispatch", Some(Entry::new("redispatch", true, origin(line)).differs(differs)));
}

fn bind(proxy: &mut Proxy<'_>, line: &Line, notes: &Notes) {
    let Some(addresses) = line.get(1) else {
        return note(notes, NoteCode::MissingField, &line[0], "the bind has no address");
    };
    for word in line.iter().skip(2) {
        match word.text.as_str() {
            "ssl" => {
                let message = "Shunt does not end TLS, so this bind is left out";
                return note(notes, NoteCode::NeedsTls, word, message);
            }
            "accept-proxy" | "accept-netscaler-cip" => {
                let message = "Shunt does not read a PROXY header; backends get it as it is";
                note(notes, NoteCode::NeedsProxy, word, message);
            }
            "transparent" => note(notes, NoteCode::NotCarried, word, "Shunt serves its VIP only"),
            _ => {}
        }
    }
    for text in addresses.text.split(',') {
        let text = text.trim_start_matches("ipv4@").trim_start_matches("ipv6@");
        let text = text.trim_start_matches("ipv4:").trim_start_matches("ipv6:");
        let Some((host, port)) = text.rsplit_once(':') else {
            note(notes, NoteCode::NotCarried, addresses, "this is not an address with a port");
            continue;
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let address = match host {
            "" | "*" => Ok(None),
            host => host.parse().map(Some),
        };
        match (address, port.parse::<u16>()) {
            (Ok(address), Ok(port)) if port > 0 => {
                proxy.binds.push(Bind { address, port, origin: origin(line) });
            }
            (Ok(_), _) if port.contains('-') => {
                note(notes, NoteCode::NotCarried, addresses, "a service of Shunt has one port");
            }
            (Ok(_), _) => note(notes, NoteCode::WrongValue, addresses, format!("{port:?} is not a port")),
            (Err(_), _) => {
                note(
                    notes,
                    NoteCode::NotCarried,
                    addresses,
                    "Shunt serves IP addresses, not names or sockets",
                );
            }
        }
    }
}

fn timeout(proxy: &mut Proxy<'_>, line: &Line, name: &str, is_tcp: bool, notes: &Notes) {
    let Some(word) = line.get(2) else {
        return note(notes, NoteCode::MissingField, &line[0], "the timeout has no value");
    };
    let Some(time) = time(&word.text) else {
        let message = format!("{:?} is not a time such as 5s or 500ms", word.text);
        return note(notes, NoteCode::WrongValue, word, message);
    };
    let mut set = |entry: Entry| {
        proxy.breaker.retain(|other| other.key != entry.key);
        proxy.breaker.push(entry);
    };
    match name {
        "check" => proxy.check_timeout = Some((time, origin(line))),
        "connect" if time <= LONGEST_TIMEOUT => {
            set(Entry::new("connect_timeout", span(time), origin(line)));
        }
        // A server that answers HTTP later gets a 504 in HAProxy. With other protocols silence is no failure.
        "server" if !is_tcp && time <= LONGEST_TIMEOUT => {
            let differs = "Shunt counts a later response as a failure and does not end the request";
            set(Entry::new("response_timeout", span(time), origin(line)).differs(differs));
        }
        _ => {}
    }
}
