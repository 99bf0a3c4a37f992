//! VirtualServices: which destination takes the requests.

use lb_core::time::Millis;

use super::{
    gateway::{Protocol, every_host},
    object::{Id, Object},
};
use crate::import::{
    fields::{Field, Fields},
    note::NoteCode,
};

pub(super) struct VirtualService<'n> {
    pub(super) id: Id,
    /// Empty: for callers within the mesh.
    pub(super) gateways: Vec<(Id, Field<'n>)>,
    pub(super) hosts: Vec<&'n str>,
    pub(super) routes: Vec<Route<'n>>,
}

#[derive(Clone)]
pub(super) struct Route<'n> {
    pub(super) protocol: Protocol,
    pub(super) destinations: Vec<Destination<'n>>,
    /// Only what arrives at this port of the gateway.
    pub(super) port: Option<u16>,
    /// It takes everything that reaches it.
    pub(super) is_for_all: bool,
    pub(super) retries: Option<Field<'n>>,
    pub(super) timeout: Option<(Millis, Field<'n>)>,
    pub(super) field: Field<'n>,
}

#[derive(Clone)]
pub(super) struct Destination<'n> {
    pub(super) host: &'n str,
    pub(super) subset: Option<&'n str>,
    pub(super) port: Option<u16>,
    pub(super) weight: Option<i64>,
    pub(super) field: Field<'n>,
}

/// Fields that change a request or an answer on its way.
const CHANGES: &[&str] = &["corsPolicy", "fault", "headers", "mirror", "mirrors", "rewrite"];
/// Fields by which no backend answers.
const ELSEWHERE: &[&str] = &["delegate", "directResponse", "redirect"];

pub(super) fn read<'n>(object: &Object<'n>) -> Option<VirtualService<'n>> {
    let spec = object.fields.required("spec")?.map()?;
    spec.ignore(&["exportTo"]);
    let namespace = &object.id.namespace;
    let mut gateways = Vec::new();
    for gateway in spec.get("gateways").and_then(|all| all.list()).into_iter().flatten() {
        let name = gateway.text()?;
        if name != "mesh" {
            gateways.push((Id::of(name, namespace), gateway));
        }
    }
    let hosts = spec.get("hosts").and_then(|hosts| {
        if !gateways.is_empty() {
            every_host(&hosts);
        }
        hosts.list()?.iter().map(Field::text).collect()
    });
    let mut routes = Vec::new();
    for (key, protocol) in [("http", Protocol::Http), ("tls", Protocol::Tls), ("tcp", Protocol::Tcp)] {
        for field in spec.get(key).and_then(|all| all.list()).into_iter().flatten() {
            routes.extend(route(&field, protocol));
        }
    }
    Some(VirtualService { id: object.id.clone(), gateways, hosts: hosts.unwrap_or_default(), routes })
}

fn route<'n>(field: &Field<'n>, protocol: Protocol) -> Option<Route<'n>> {
    let fields = field.map()?;
    // The percentage belongs to a mirror, which is refused.
    fields.ignore(&["mirrorPercent", "mirrorPercentage", "mirror_percent", "name"]);
    let changes = "Shunt does not change requests or answers, nor copy them";
    fields.refuse(CHANGES, NoteCode::NeedsProxy, changes, "");
    let elsewhere = "Shunt answers no request itself; the route is left out";
    fields.refuse(ELSEWHERE, NoteCode::NeedsProxy, elsewhere, "");
    let (is_for_all, port) = matches(&fields, protocol);
    let retries = fields.get("retries");
    let timeout = fields.get("timeout").and_then(|field| Some((field.duration()?, field)));
    let destinations = match fields.get("route") {
        Some(route) => route.list()?.iter().filter_map(destination).collect(),
        None => Vec::new(),
    };
    if destinations.is_empty() {
        if !ELSEWHERE.iter().any(|key| fields.has(key)) {
            field.note(NoteCode::MissingField, "the route has no destination", "");
        }
        return None;
    }
    Some(Route { protocol, destinations, port, is_for_all, retries, timeout, field: field.clone() })
}

/// Whether a route takes everything, and the port that it asks for.
fn matches(fields: &Fields<'_>, protocol: Protocol) -> (bool, Option<u16>) {
    let Some(field) = fields.get("match") else { return (true, None) };
    let Some(conditions) = field.list() else { return (true, None) };
    let mut port = None;
    let mut is_for_all = conditions.is_empty();
    for condition in &conditions {
        let Some(keys) = condition.map() else { continue };
        keys.ignore_rest();
        let is_everything = |key: &str, value: &Field<'_>| match (key, protocol) {
            ("name", _) => true,
            ("gateways", _) => true,
            ("uri", Protocol::Http) => {
                let Some(uri) = value.map() else { return true };
                uri.ignore_rest();
                uri.get("prefix").is_some_and(|prefix| prefix.text() == Some("/"))
            }
            ("sniHosts", Protocol::Tls) => {
                value.list().into_iter().flatten().any(|host| host.text() == Some("*"))
            }
            ("port", _) => true,
            _ => false,
        };
        if let Some(asked) = keys.get("port") {
            port = asked.port();
        }
        let rest = keys.entries().find(|(key, value)| !is_everything(key, value));
        match rest {
            None => is_for_all = true,
            Some((_, rest)) => {
                let message = "Shunt sends every connection of a port to the same backends";
                rest.note(NoteCode::NeedsProxy, message, "give each its own port or VIP");
            }
        }
    }
    (is_for_all, port)
}

fn destination<'n>(field: &Field<'n>) -> Option<Destination<'n>> {
    let fields = field.map()?;
    let message = "Shunt does not change requests or answers";
    fields.refuse(&["headers"], NoteCode::NeedsProxy, message, "");
    let weight = fields.get("weight").and_then(|weight| weight.integer(0..=100_000));
    let to = fields.required("destination")?;
    let inner = to.map()?;
    let port = inner.get("port").and_then(|port| {
        let port = port.map()?;
        port.required("number")?.port()
    });
    Some(Destination {
        host: inner.required("host")?.text()?,
        subset: inner.get("subset").and_then(|subset| subset.text()),
        port,
        weight,
        field: to.clone(),
    })
}
