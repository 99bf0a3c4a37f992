//! A bootstrap of Envoy's API v3: listeners with one way to one cluster, and the clusters.

mod cluster;
mod health;
mod listener;
mod outlier;

use self::{
    cluster::Cluster,
    listener::{Listener, Share},
};
use super::{
    Text,
    draft::{self, Draft, Entry, Service},
    fields::Field,
    given::Given,
    note::NoteCode,
    policy, yaml,
    yaml::Value,
};

/// Parts of a bootstrap that say nothing about how traffic is served.
const QUIET: &[&str] = &[
    "admin",
    "cluster_manager",
    "default_regex_engine",
    "deferred_stat_options",
    "enable_dispatcher_stats",
    "flags_path",
    "header_prefix",
    "layered_runtime",
    "memory_allocator_manager",
    "node",
    "overload_manager",
    "stats_config",
    "stats_flush_interval",
    "stats_sinks",
    "tracing",
    "watchdog",
    "watchdogs",
];

pub(super) fn draft(texts: &[Text], given: &Given<'_>) -> Option<Draft> {
    let read = |text: &Text| yaml::documents(&text.name, &text.text, given.notes);
    let documents: Vec<_> = texts.iter().map(read).collect();
    let documents: Vec<_> =
        documents.into_iter().collect::<Option<Vec<_>>>()?.into_iter().flatten().collect();
    let (mut listeners, mut clusters) = (Vec::new(), Vec::new());
    for document in documents.iter().filter(|document| document.value != Value::Null) {
        bootstrap(&Field::root(document, given.notes), &mut listeners, &mut clusters);
    }
    twice(&clusters);
    let mut services: Vec<Service> = Vec::new();
    for listener in &listeners {
        let Some(service) = service(listener, &clusters, given, &services) else { continue };
        services.push(service);
    }
    for cluster in &clusters {
        if !listeners.iter().flat_map(|listener| &listener.shares).any(|share| share.cluster == cluster.name)
        {
            let message = "no listener of the result leads to this cluster";
            cluster.field.note(NoteCode::NotCarried, message, "");
        }
    }
    Some(Draft { entries: Vec::new(), services })
}

fn bootstrap<'n>(field: &Field<'n>, listeners: &mut Vec<Listener<'n>>, clusters: &mut Vec<Cluster<'n>>) {
    let Some(root) = field.map() else { return };
    root.ignore(QUIET);
    let message = "resources that a server sends are not in the file";
    root.refuse(&["dynamic_resources"], NoteCode::NotCarried, message, "import a dump of the configuration");
    // Without the frame, as the parts of a file are often shown.
    let resources = root.get("static_resources").and_then(|resources| resources.map());
    let from = resources.as_ref().unwrap_or(&root);
    if let Some(resources) = &resources {
        let message = "Shunt does not end or begin TLS";
        resources.refuse(&["secrets"], NoteCode::NeedsTls, message, "");
    }
    for listener in from.get("listeners").and_then(|all| all.list()).into_iter().flatten() {
        listeners.extend(listener::read(&listener));
    }
    for cluster in from.get("clusters").and_then(|all| all.list()).into_iter().flatten() {
        clusters.extend(cluster::read(&cluster));
    }
}

fn twice(clusters: &[Cluster<'_>]) {
    for (at, cluster) in clusters.iter().enumerate() {
        if clusters[..at].iter().any(|other| other.name == cluster.name) {
            let message = format!("the cluster {:?} is there twice", cluster.name);
            cluster.field.note(NoteCode::Conflict, message, "remove one of them");
        }
    }
}

fn service(
    listener: &Listener<'_>,
    clusters: &[Cluster<'_>],
    given: &Given<'_>,
    others: &[Service],
) -> Option<Service> {
    let mut parts: Vec<(&Share<'_>, &Cluster<'_>)> = Vec::new();
    for share in &listener.shares {
        let Some(cluster) = clusters.iter().find(|cluster| cluster.name == share.cluster) else {
            let message = format!("the cluster {:?} is not in the input", share.cluster);
            share.field.note(NoteCode::Unresolved, message, "add its file");
            return None;
        };
        parts.push((share, cluster));
    }
    let (_, first) = *parts.first()?;
    let called = draft::name(listener.name.unwrap_or(first.name));
    let name = draft::unused(&called, |name| others.iter().any(|other| other.name == name));
    let about = format!("Listener {}, port {}", listener.name.unwrap_or("without a name"), listener.port);
    let mut service = Service::new(name, about);
    let mut is_whole = true;
    for (share, cluster) in &parts {
        is_whole &= cluster.add_members(share, parts.len() > 1, given, &mut service);
    }
    let is_ipv6 = service.backends.first().is_some_and(|member| member.address.is_ipv6());
    let vip = given.vip(&service.name, (listener.port, listener.at.clone()), listener.own.clone(), is_ipv6);
    if !is_whole {
        return None;
    }
    for (share, cluster) in parts.iter().skip(1) {
        if !cluster.has_same_rules(first) {
            let message =
                "the clusters of one listener have rules of their own; the first one's hold for all";
            share.field.note(NoteCode::NotCarried, message, "");
        }
    }
    service.entries.push(vip);
    service.entries.extend(listener.entries.iter().cloned());
    service.entries.extend(first.service.iter().cloned());
    service.probe = first.probe.clone();
    service.breaker = breaker(first, listener, service.backends.len(), given);
    Some(service)
}

fn breaker(cluster: &Cluster<'_>, listener: &Listener<'_>, backends: usize, given: &Given<'_>) -> Vec<Entry> {
    let mut entries = match &cluster.outlier {
        Some(outlier) => outlier.clone(),
        None => vec![policy::without_outlier("Envoy", "outlier_detection")],
    };
    entries.extend(cluster.breaker.iter().cloned());
    entries.extend(listener.breaker.iter().cloned());
    if cluster.outlier.is_some() {
        policy::warn_of_ceiling(&entries, backends, "Envoy", given.notes);
        entries.extend(policy::own_or_faithful("Envoy", given));
    }
    entries
}
