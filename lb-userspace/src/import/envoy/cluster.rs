//! Clusters: backends, health checks, outlier detection.

use std::net::SocketAddr;

use lb_core::time::Millis;

use super::{
    health,
    listener::{Share, socket},
    outlier,
};
use crate::import::{
    draft::{self, Entry, Member, Origin, Probe, Service, span},
    fields::{Field, Fields},
    given::Given,
    limits,
    note::NoteCode,
};

/// A weight of 1 of a listener is this much, so that it can be divided among backends.
const SCALE: i64 = 100;
/// Shunt's default weight, which stands for Envoy's 1.
const WEIGHT: i64 = 100;

pub(super) struct Cluster<'n> {
    pub(super) name: &'n str,
    endpoints: Vec<Endpoint>,
    /// The addresses are not in the file.
    is_elsewhere: bool,
    pub(super) outlier: Option<Vec<Entry>>,
    /// More keys of the breaker.
    pub(super) breaker: Vec<Entry>,
    /// Keys of the service.
    pub(super) service: Vec<Entry>,
    pub(super) probe: Option<Probe>,
    pub(super) field: Field<'n>,
}

struct Endpoint {
    address: SocketAddr,
    weight: Option<i64>,
    /// It serves only while no other does.
    is_fallback: bool,
    origin: Origin,
}

/// Names, logs, and a proxy's own connections.
const QUIET: &[&str] = &[
    "alt_stat_name",
    "close_connections_on_host_health_failure",
    "connection_pool_per_downstream_connection",
    "dns_lookup_family",
    "dns_refresh_rate",
    "dns_resolvers",
    "http2_protocol_options",
    "ignore_health_on_host_removal",
    "max_requests_per_connection",
    "metadata",
    "per_connection_buffer_limit_bytes",
    "respect_dns_ttl",
    "track_cluster_stats",
    "typed_extension_protocol_options",
    "upstream_connection_options",
];

pub(super) fn read<'n>(field: &Field<'n>) -> Option<Cluster<'n>> {
    let fields = field.map()?;
    fields.ignore(QUIET);
    let mut breaker = Vec::new();
    connect_timeout(&fields, &mut breaker);
    common(&fields, &mut breaker);
    balancer(&fields, &mut breaker);
    let service = limits_of(&fields);
    if let Some(tls) = fields.get("transport_socket") {
        let message = "Shunt does not begin TLS: backends get what the client sends";
        tls.note(NoteCode::NeedsTls, message, "let clients speak TLS to the backends");
    }
    let outlier = fields.get("outlier_detection").and_then(|outlier| outlier::entries(&outlier));
    let checks = fields.get("health_checks").and_then(|checks| checks.list()).unwrap_or_default();
    if let Some(second) = checks.get(1) {
        second.note(NoteCode::NotCarried, "a service of Shunt has one probe", "");
    }
    let probe = checks.first().and_then(health::probe);
    let kind = fields.get("type");
    let is_elsewhere = match kind.as_ref().map(|kind| kind.text()) {
        None | Some(Some("STATIC")) => false,
        Some(Some("STRICT_DNS" | "LOGICAL_DNS" | "EDS")) => true,
        Some(Some("ORIGINAL_DST")) => {
            let message = "Shunt does not connect clients to the address that they asked for";
            kind?.note(NoteCode::NeedsProxy, message, "");
            return None;
        }
        Some(Some(other)) => return kind?.bad(format!("{other:?} is not a type of a cluster")),
        Some(None) => return None,
    };
    fields.ignore(&["eds_cluster_config"]);
    let mut endpoints = Vec::new();
    if let Some(assignment) = fields.get("load_assignment").and_then(|assignment| assignment.map()) {
        assignment.ignore(&["cluster_name"]);
        let message = "Shunt has no rule like it";
        assignment.refuse(&["policy"], NoteCode::NotCarried, message, "");
        for locality in assignment.get("endpoints").and_then(|all| all.list()).into_iter().flatten() {
            self::locality(&locality, is_elsewhere, &mut endpoints);
        }
    }
    let name = fields.required("name")?.text()?;
    Some(Cluster { name, endpoints, is_elsewhere, outlier, breaker, service, probe, field: field.clone() })
}

fn connect_timeout(fields: &Fields<'_>, breaker: &mut Vec<Entry>) {
    let entry = match fields.get("connect_timeout") {
        Some(field) => field.duration().map(|timeout| Entry::new("connect_timeout", span(timeout), &field)),
        None => {
            let origin = Origin::Default { of: "Envoy", field: "connect_timeout" };
            Some(Entry::new("connect_timeout", span(Millis::secs(5)), origin))
        }
    };
    breaker.extend(entry);
}

fn common(fields: &Fields<'_>, breaker: &mut Vec<Entry>) {
    const FIELD: &str = "healthy_panic_threshold";
    let of_default = || {
        Entry::new("panic_threshold", 50, Origin::Default { of: "Envoy", field: FIELD })
            .differs("In Envoy, too, a cluster with fewer good backends uses all of them")
    };
    let Some(common) = fields.get("common_lb_config").and_then(|common| common.map()) else {
        return breaker.push(of_default());
    };
    common.ignore(&[
        "ignore_new_hosts_until_first_hc",
        "update_merge_window",
        "close_connections_on_host_set_change",
    ]);
    let message = "the places of backends do not count in Shunt";
    let keys = ["locality_weighted_lb_config", "zone_aware_lb_config"];
    common.refuse(&keys, NoteCode::NotCarried, message, "write `weight` of each backend");
    let Some(field) = common.get(FIELD) else { return breaker.push(of_default()) };
    let value = field.map().and_then(|percent| match percent.get("value") {
        Some(value) => match value.node.value {
            crate::import::yaml::Value::Float(value) => Some((value.round() as i64).clamp(0, 100)),
            _ => value.integer(0..=100),
        },
        None => Some(0),
    });
    breaker.extend(value.map(|value| Entry::new("panic_threshold", value, &field)));
}

fn balancer(fields: &Fields<'_>, breaker: &mut Vec<Entry>) -> Option<()> {
    for key in ["round_robin_lb_config", "least_request_lb_config"] {
        let Some(config) = fields.get(key).and_then(|config| config.map()) else { continue };
        config.ignore_rest();
        let Some(slow) = config.get("slow_start_config").and_then(|slow| slow.map()) else { continue };
        slow.ignore_rest();
        if let Some(window) = slow.get("slow_start_window") {
            let differs = "Shunt raises the share in five steps";
            let entry = Entry::new("slow_start", span(window.duration()?), &window).differs(differs);
            breaker.push(entry);
        }
    }
    fields.ignore(&["maglev_lb_config", "ring_hash_lb_config"]);
    let message = "Shunt does not choose backends by labels of a request";
    fields.refuse(&["lb_subset_config"], NoteCode::NeedsProxy, message, "");
    let policy = fields.get("lb_policy")?;
    match policy.text()? {
        "MAGLEV" => {}
        "ROUND_ROBIN" | "LEAST_REQUEST" | "RANDOM" | "RING_HASH" => {
            let message = "Shunt spreads connections evenly by a Maglev table, whatever the policy";
            policy.note(NoteCode::Differs, message, "");
        }
        other => {
            let message = format!("Shunt has no balancer like {other}");
            policy.note(NoteCode::NotCarried, message, "");
        }
    }
    Some(())
}

/// Keys of the service.
fn limits_of(fields: &Fields<'_>) -> Vec<Entry> {
    let mut entries = Vec::new();
    if let Some(breakers) = fields.get("circuit_breakers").and_then(|breakers| breakers.map()) {
        breakers.ignore_rest();
        for (list, key) in
            [("thresholds", "max_connections"), ("per_host_thresholds", "max_connections_per_backend")]
        {
            for threshold in breakers.get(list).and_then(|all| all.list()).into_iter().flatten() {
                entries.extend(threshold_of(&threshold, key));
            }
        }
    }
    if !entries.iter().any(|entry| entry.key == "max_connections") {
        let message =
            "Envoy opens at most 1024 connections to a cluster that says nothing; Shunt has no limit then";
        fields.of.note(NoteCode::Differs, message, "write `max_connections` of the service");
    }
    entries
}

fn threshold_of(field: &Field<'_>, key: &'static str) -> Option<Entry> {
    let threshold = field.map()?;
    let proxy = "it limits a proxy; Shunt forwards packets and holds no requests";
    let keys =
        ["max_connection_pools", "max_pending_requests", "max_requests", "max_retries", "retry_budget"];
    threshold.refuse(&keys, NoteCode::ProxyOnly, proxy, "");
    threshold.ignore(&["track_remaining"]);
    let is_high = threshold.get("priority").is_some_and(|priority| priority.text() == Some("HIGH"));
    let most = threshold.get("max_connections")?;
    let number = most.integer(0..=i64::from(u32::MAX))?;
    if is_high {
        most.note(NoteCode::ProxyOnly, "requests of high priority have no limit of their own in Shunt", "");
        return None;
    }
    let differs = "Envoy counts its own connections to the cluster, Shunt those of the clients";
    limits::entry(key, number, &most).map(|entry| entry.differs(differs))
}

fn locality(field: &Field<'_>, is_elsewhere: bool, endpoints: &mut Vec<Endpoint>) -> Option<()> {
    let fields = field.map()?;
    fields.ignore(&["locality", "metadata", "proximity"]);
    let message = "the places of backends do not count in Shunt";
    let help = "write `weight` of each backend";
    fields.refuse(&["load_balancing_weight"], NoteCode::NotCarried, message, help);
    let priority = fields.get("priority");
    let level = priority.as_ref().map_or(Some(0), |priority| priority.integer(0..=128))?;
    if level > 1 {
        let message = "Shunt has two levels; this one joins the fallback of level 1";
        priority.as_ref()?.note(NoteCode::NotCarried, message, "");
    }
    for entry in fields.get("lb_endpoints").and_then(|all| all.list()).into_iter().flatten() {
        let entry = entry.map()?;
        entry.ignore(&["metadata"]);
        let weight = match entry.get("load_balancing_weight") {
            Some(weight) => Some(weight.integer(1..=128)?),
            None => None,
        };
        let status = entry.get("health_status");
        let endpoint = entry.required("endpoint")?.map()?;
        endpoint.ignore(&["hostname"]);
        if let Some(check) = endpoint.get("health_check_config") {
            let message = "a probe that goes elsewhere for one backend";
            check.note(NoteCode::NotCarried, message, "write `probe_address` of this backend");
        }
        let address = endpoint.required("address")?;
        if is_elsewhere {
            // A name, which the command line has to explain.
            continue;
        }
        let (ip, port, origin) = socket(&address)?;
        match status.as_ref().map(|status| status.text()) {
            None | Some(Some("UNKNOWN" | "HEALTHY")) => {}
            Some(Some(other)) => {
                let message = format!("the endpoint is {other}, so it is left out");
                status.as_ref()?.note(NoteCode::Surprise, message, "");
                continue;
            }
            Some(None) => return None,
        }
        let address = SocketAddr::new(ip, port);
        endpoints.push(Endpoint { address, weight, is_fallback: level > 0, origin });
    }
    Some(())
}

impl Cluster<'_> {
    /// Its backends, into the service. `false`: there are none.
    pub(super) fn add_members(
        &self,
        share: &Share<'_>,
        is_split: bool,
        given: &Given<'_>,
        service: &mut Service,
    ) -> bool {
        let addresses = given.backends(self.name);
        let named = addresses.iter().map(|address| Endpoint {
            address: *address,
            weight: None,
            is_fallback: false,
            origin: Origin::Option("--backend"),
        });
        let named: Vec<_> = named.collect();
        let endpoints = if named.is_empty() { &self.endpoints } else { &named };
        let own = endpoints.iter().filter(|endpoint| !endpoint.is_fallback).count();
        if own == 0 {
            let message = match self.is_elsewhere {
                true => "the addresses of this cluster are names, or another server has them",
                false => "the cluster has no endpoint",
            };
            let help = format!("give --backend {}=ADDRESS:PORT", self.name);
            self.field.note(NoteCode::Unresolved, message, help);
            return false;
        }
        let each = is_split.then(|| share.weight * SCALE / i64::try_from(own).unwrap_or(i64::MAX));
        for (at, endpoint) in endpoints.iter().enumerate() {
            let there = service.backends.iter().chain(&service.fallback);
            if there.clone().any(|member| member.address == endpoint.address) {
                continue;
            }
            let called = draft::name(&format!("{}-{}", self.name, at + 1));
            let called = draft::unused(&called, |name| there.clone().any(|member| member.name == name));
            let weight = match (each, endpoint.weight) {
                (Some(each), weight) => Some(each * weight.unwrap_or(1)),
                (None, Some(weight)) => Some(weight * WEIGHT),
                (None, None) => None,
            };
            let weight = weight.map(|weight| u16::try_from(weight.clamp(1, 65535)).unwrap_or(u16::MAX));
            let member = Member {
                name: called,
                address: endpoint.address,
                weight: weight.filter(|weight| i64::from(*weight) != WEIGHT),
                max_connections: None,
                origin: endpoint.origin.clone(),
            };
            match endpoint.is_fallback {
                true => service.fallback.push(member),
                false => service.backends.push(member),
            }
        }
        true
    }

    pub(super) fn has_same_rules(&self, other: &Self) -> bool {
        let values = |entries: &[Entry]| -> Vec<(&'static str, String)> {
            entries.iter().map(|entry| (entry.key, entry.value.to_string())).collect()
        };
        let rules = |cluster: &Self| {
            let probe = cluster.probe.as_ref().map(|probe| (probe.kind, values(&probe.entries)));
            (
                cluster.outlier.as_deref().map(values),
                values(&cluster.breaker),
                values(&cluster.service),
                probe,
            )
        };
        rules(self) == rules(other)
    }
}
