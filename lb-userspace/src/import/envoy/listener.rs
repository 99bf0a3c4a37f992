//! Listeners: a port with one way to go.

use std::net::IpAddr;

use lb_core::time::Millis;

use crate::import::{
    draft::{Entry, Origin, span},
    fields::{Field, Fields},
    limits,
    note::NoteCode,
};

pub(super) struct Listener<'n> {
    pub(super) name: Option<&'n str>,
    pub(super) port: u16,
    /// Where the port stands.
    pub(super) at: Origin,
    /// An address that is not "all of the node's".
    pub(super) own: Option<(IpAddr, Origin)>,
    /// At least one.
    pub(super) shares: Vec<Share<'n>>,
    pub(super) entries: Vec<Entry>,
    /// Keys of the breaker that the route gives.
    pub(super) breaker: Vec<Entry>,
}

/// A cluster, with its weight.
pub(super) struct Share<'n> {
    pub(super) cluster: &'n str,
    pub(super) weight: i64,
    pub(super) field: Field<'n>,
}

/// How a listener takes connections, not where it sends them.
const QUIET: &[&str] = &[
    "access_log",
    "bind_to_port",
    "connection_balance_config",
    "continue_on_listener_filters_timeout",
    "enable_reuse_port",
    "listener_filters_timeout",
    "metadata",
    "per_connection_buffer_limit_bytes",
    "reuse_port",
    "socket_options",
    "stat_prefix",
    "tcp_backlog_size",
    "traffic_direction",
];
/// Of the HTTP connection manager and the TCP proxy: logs, names, limits of a proxy's own.
const QUIET_FILTER: &[&str] = &[
    "@type",
    "access_log",
    "access_log_options",
    "codec_type",
    "common_http_protocol_options",
    "generate_request_id",
    "http2_protocol_options",
    "http_protocol_options",
    "idle_timeout",
    "max_connect_attempts",
    "normalize_path",
    "merge_slashes",
    "path_with_escaped_slashes_action",
    "request_headers_timeout",
    "request_timeout",
    "server_name",
    "stat_prefix",
    "stream_idle_timeout",
    "tracing",
    "use_remote_address",
    "xff_num_trusted_hops",
];
/// Envoy's default of a route's timeout.
const ROUTE_TIMEOUT: Millis = Millis::secs(15);
const LONGEST_TIMEOUT: Millis = Millis::secs(1800);

pub(super) fn read<'n>(field: &Field<'n>) -> Option<Listener<'n>> {
    let fields = field.map()?;
    fields.ignore(QUIET);
    let name = fields.get("name").and_then(|name| name.text());
    let filters = fields.get("listener_filters").and_then(|filters| filters.list());
    for filter in filters.into_iter().flatten() {
        let inspector = filter.map().and_then(|filter| {
            filter.ignore_rest();
            filter.get("name")?.text()
        });
        if !inspector.is_some_and(|name| name.contains("inspector")) {
            filter.note(NoteCode::NeedsProxy, "Shunt does not read or change a connection's begin", "");
        }
    }
    let address = fields.required("address").and_then(|address| socket(&address));
    let chains = fields.required("filter_chains")?.list()?;
    let (address, port, place) = address?;
    if let Some(second) = chains.get(1) {
        let message = "Shunt sends every connection of a port to the same backends";
        second.note(NoteCode::NeedsProxy, message, "give each its own port or VIP");
    }
    let mut listener = Listener {
        name,
        port,
        at: place.clone(),
        own: (!address.is_unspecified()).then_some((address, place)),
        shares: Vec::new(),
        entries: Vec::new(),
        breaker: Vec::new(),
    };
    let chain = chains.first()?.map()?;
    chain.ignore(&["metadata", "name"]);
    if let Some(rule) = chain.get("filter_chain_match")
        && rule.map().is_some_and(|rule| {
            rule.ignore_rest();
            rule.entries().next().is_some()
        })
    {
        let message = "Shunt does not choose by names or addresses of a connection";
        rule.note(NoteCode::NeedsProxy, message, "");
    }
    if let Some(tls) = chain.get("transport_socket") {
        let message = "Shunt does not end TLS, so this listener is left out";
        tls.note(NoteCode::NeedsTls, message, "let the backends end it");
        chain.ignore_rest();
        return None;
    }
    for filter in chain.required("filters")?.list()? {
        network_filter(&filter, &mut listener);
    }
    if listener.shares.is_empty() {
        field.note(NoteCode::NotCarried, "the listener leads to no cluster, so it is left out", "");
        return None;
    }
    Some(listener)
}

/// Address and port of a `socket_address`.
pub(super) fn socket(field: &Field<'_>) -> Option<(IpAddr, u16, Origin)> {
    let fields = field.map()?;
    let socket = fields.required("socket_address")?;
    let inner = socket.map()?;
    inner.ignore(&["ipv4_compat", "protocol", "resolver_name"]);
    let (address, port) = (inner.required("address"), inner.required("port_value"));
    Some((address?.address()?, port?.port()?, Origin::from(&socket)))
}

/// `tcp_proxy`, or the HTTP connection manager. Others see or change the traffic.
fn network_filter<'n>(field: &Field<'n>, listener: &mut Listener<'n>) -> Option<()> {
    let filter = field.map()?;
    let name = filter.required("name")?;
    let text = name.text()?;
    let config = filter.get("typed_config");
    match text {
        "envoy.filters.network.tcp_proxy" | "envoy.tcp_proxy" => {
            let config = config?.map()?;
            config.ignore(QUIET_FILTER);
            if let Some(hash) = config.get("hash_policy") {
                hash_policy(&hash, listener);
            }
            cluster_of(&config, listener);
        }
        "envoy.filters.network.http_connection_manager" | "envoy.http_connection_manager" => {
            manager(&config?.map()?, listener);
        }
        _ => {
            let message = format!("Shunt has no filter like {text}");
            name.note(NoteCode::NeedsProxy, message, "");
            filter.ignore_rest();
        }
    }
    Some(())
}

fn manager<'n>(config: &Fields<'n>, listener: &mut Listener<'n>) -> Option<()> {
    config.ignore(QUIET_FILTER);
    for filter in config.get("http_filters").and_then(|all| all.list()).into_iter().flatten() {
        let Some(filter) = filter.map() else { continue };
        filter.ignore_rest();
        let Some(name) = filter.required("name") else { continue };
        if name.text().is_some_and(|name| !name.ends_with(".router")) {
            let message = "Shunt does not look into requests or change them";
            name.note(NoteCode::NeedsProxy, message, "");
        }
    }
    let sent = "routes that a server sends are not in the file";
    config.refuse(&["rds", "scoped_routes"], NoteCode::NotCarried, sent, "");
    let routes = config.get("route_config")?.map()?;
    routes.ignore(&["name", "validate_clusters", "ignore_port_in_host_matching"]);
    let hosts = routes.required("virtual_hosts")?.list()?;
    if let Some(second) = hosts.get(1) {
        let message = "Shunt does not look at the Host header; only one virtual host is served";
        second.note(NoteCode::NeedsProxy, message, "give each its own port or VIP");
    }
    let host = hosts.first()?.map()?;
    host.ignore(&["name"]);
    for domain in host.get("domains").and_then(|all| all.list()).into_iter().flatten() {
        if domain.text().is_some_and(|text| text != "*") {
            let message = "Shunt does not look at the Host header: this port serves requests for every host";
            domain.note(NoteCode::Differs, message, "");
        }
    }
    let all = host.required("routes")?.list()?;
    let at = all.iter().position(is_for_all);
    if at.is_none()
        && let Some(first) = all.first()
    {
        let message = "the route takes some requests only, Shunt sends it all";
        first.note(NoteCode::NeedsProxy, message, "");
    }
    let at = at.unwrap_or(0);
    for (other, field) in all.iter().enumerate().filter(|(other, _)| *other != at) {
        if other < at {
            let message = "Shunt sends every request of a port to the same backends";
            field.note(NoteCode::NeedsProxy, message, "give each its own port or VIP");
        } else {
            field.note(NoteCode::Surprise, "the route before it takes everything, so it is never used", "");
        }
    }
    route(all.get(at)?, listener)
}

/// Whether a route takes every request.
fn is_for_all(field: &Field<'_>) -> bool {
    let Some(fields) = field.map() else { return false };
    fields.ignore_rest();
    let Some(rule) = fields.get("match").and_then(|rule| rule.map()) else { return false };
    rule.ignore_rest();
    rule.entries().count() == 1 && rule.get("prefix").is_some_and(|prefix| prefix.text() == Some("/"))
}

fn route<'n>(field: &Field<'n>, listener: &mut Listener<'n>) -> Option<()> {
    let fields = field.map()?;
    fields.ignore(&["decorator", "match", "metadata", "name", "stat_prefix"]);
    let elsewhere = "Shunt answers no request itself";
    fields.refuse(&["direct_response", "redirect"], NoteCode::NeedsProxy, elsewhere, "");
    let action = fields.get("route")?.map()?;
    if let Some(retry) = action.get("retry_policy")
        && let Some(policy) = retry.map()
    {
        policy.ignore_rest();
        let differs = "Shunt sends a handshake to another backend, and never repeats a request";
        listener.entries.push(Entry::new("redispatch", true, &retry).differs(differs));
    }
    let (timeout, origin) = match action.get("timeout") {
        Some(field) => (field.duration()?, Origin::from(&field)),
        None => (ROUTE_TIMEOUT, Origin::Default { of: "Envoy", field: "route.timeout" }),
    };
    if timeout > LONGEST_TIMEOUT {
        let message = "Shunt does not watch a response for longer than 30 m";
        action.of.note(NoteCode::NotCarried, message, "");
    } else if timeout.0 > 0 {
        let differs = "Shunt counts a later response as a failure and does not end the request";
        listener.breaker.push(Entry::new("response_timeout", span(timeout), origin).differs(differs));
    }
    if let Some(hash) = action.get("hash_policy") {
        hash_policy(&hash, listener);
    }
    cluster_of(&action, listener)
}

/// The address of a client chooses its backend, or something that only a proxy sees.
fn hash_policy<'n>(field: &Field<'n>, listener: &mut Listener<'n>) -> Option<()> {
    for one in field.list()? {
        let fields = one.map()?;
        fields.ignore_rest();
        // Of a route, or of `tcp_proxy`.
        let properties = fields.get("connection_properties").and_then(|properties| properties.map());
        let of_route = properties.is_some_and(|properties| {
            properties.get("source_ip").is_some_and(|source| source.boolean() == Some(true))
        });
        if of_route || fields.get("source_ip").is_some() {
            if !listener.entries.iter().any(|entry| entry.key == "affinity") {
                listener.entries.push(limits::by_source(&one));
            }
        } else {
            one.note(NoteCode::NeedsProxy, "Shunt does not look into requests to choose a backend", "");
        }
    }
    Some(())
}

/// `cluster`, or `weighted_clusters`.
fn cluster_of<'n>(fields: &Fields<'n>, listener: &mut Listener<'n>) -> Option<()> {
    if let Some(field) = fields.get("cluster") {
        listener.shares.push(Share { cluster: field.text()?, weight: 1, field });
    }
    let weighted = fields.get("weighted_clusters")?.map()?;
    weighted.ignore(&["total_weight"]);
    for entry in weighted.required("clusters")?.list()? {
        let entry = entry.map()?;
        let name = entry.required("name")?;
        let weight = entry.get("weight").map_or(Some(1), |weight| weight.integer(0..=100_000))?;
        if weight > 0 {
            listener.shares.push(Share { cluster: name.text()?, weight, field: name });
        }
    }
    Some(())
}
