//! The objects of a cluster: kind, name and namespace, and the rest unread.

use crate::import::{
    fields::{Field, Fields},
    note::{NoteCode, Notes},
    yaml::{Node, Value},
};

/// Kinds that say nothing about how traffic is served, or that others repeat.
const QUIET: &[&str] = &[
    "ConfigMap",
    "ControllerRevision",
    "CronJob",
    "CustomResourceDefinition",
    "ClusterRole",
    "ClusterRoleBinding",
    "Endpoints",
    "Event",
    "HorizontalPodAutoscaler",
    "Job",
    "Lease",
    "LimitRange",
    "Namespace",
    "Node",
    "PersistentVolumeClaim",
    "Pod",
    "PodDisruptionBudget",
    "ReplicaSet",
    "ResourceQuota",
    "Role",
    "RoleBinding",
    "Secret",
    "ServiceAccount",
    "ServiceMonitor",
    "Telemetry",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Workload,
    Service,
    EndpointSlice,
    Gateway,
    VirtualService,
    DestinationRule,
}

impl Kind {
    fn read(group: &str, version: &str, kind: &str) -> Option<Self> {
        let istio = group == "networking.istio.io" && matches!(version, "v1alpha3" | "v1beta1" | "v1");
        Some(match kind {
            "Deployment" | "StatefulSet" | "DaemonSet" if group == "apps" => Self::Workload,
            "Service" if group.is_empty() => Self::Service,
            "EndpointSlice" if group == "discovery.k8s.io" => Self::EndpointSlice,
            "Gateway" if istio => Self::Gateway,
            "VirtualService" if istio => Self::VirtualService,
            "DestinationRule" if istio => Self::DestinationRule,
            _ => return None,
        })
    }
}

/// A name within its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Id {
    /// `name`, or `namespace/name`, as an object of `namespace` writes it.
    pub(super) fn of(text: &str, namespace: &str) -> Self {
        let (namespace, name) = match text.split_once('/') {
            Some((".", name)) => (namespace, name),
            Some(both) => both,
            None => (namespace, text),
        };
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// `name`, `name.namespace`, or longer with `svc.cluster.local`.
    pub(super) fn of_host(host: &str, namespace: &str) -> Self {
        let mut parts = host.split('.');
        let name = parts.next().unwrap_or_default();
        let namespace = parts.next().unwrap_or(namespace);
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

pub(super) struct Object<'n> {
    pub(super) kind: Kind,
    pub(super) id: Id,
    /// The whole object.
    pub(super) field: Field<'n>,
    pub(super) metadata: Field<'n>,
    pub(super) fields: Fields<'n>,
}

/// The objects of all documents, those of lists, too.
pub(super) fn all<'n>(documents: &'n [Node], notes: &'n Notes) -> Vec<Object<'n>> {
    let mut objects = Vec::new();
    for node in documents.iter().filter(|node| node.value != Value::Null) {
        add(Field::root(node, notes), &mut objects);
    }
    objects
}

fn add<'n>(field: Field<'n>, objects: &mut Vec<Object<'n>>) {
    let Some(fields) = field.map() else { return };
    fields.ignore_rest();
    let kind = fields.required("kind").and_then(|kind| Some((kind.text()?, kind)));
    let api = fields.required("apiVersion").and_then(|version| version.text());
    let (Some((kind, kind_field)), Some(api)) = (kind, api) else { return };
    if kind.ends_with("List") && fields.has("items") {
        let items = fields.get("items").and_then(|items| items.list());
        items.into_iter().flatten().for_each(|item| add(item, objects));
        return;
    }
    let (group, version) = api.split_once('/').unwrap_or(("", api));
    let Some(known) = Kind::read(group, version, kind) else {
        if !QUIET.contains(&kind) {
            let message = format!("the import does not read the kind {kind} of {api}");
            let help = "see whether it changes how your traffic is served";
            kind_field.note(NoteCode::UnknownKind, message, help);
        }
        return;
    };
    let Some(metadata) = fields.required("metadata") else { return };
    let Some(meta) = metadata.map() else { return };
    meta.ignore_rest();
    let Some(name) = meta.required("name").and_then(|name| name.text()) else { return };
    let namespace = match meta.get("namespace") {
        Some(namespace) => match namespace.text() {
            Some(namespace) => namespace,
            None => return,
        },
        None => "default",
    };
    let id = Id { namespace: namespace.to_owned(), name: name.to_owned() };
    let fields = field.map().expect("it was one above");
    fields.ignore(&["apiVersion", "kind", "metadata", "status"]);
    drop(meta);
    objects.push(Object { kind: known, id, metadata, fields, field: field.clone() });
}
