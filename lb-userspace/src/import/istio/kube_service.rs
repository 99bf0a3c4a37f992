//! Services of Kubernetes.

use std::net::IpAddr;

use super::{
    object::{Id, Object},
    workload::{Labels, Port, labels},
};
use crate::import::{
    draft::{Entry, Origin},
    fields::{Field, Fields},
    limits,
    note::NoteCode,
};

pub(super) struct KubeService<'n> {
    pub(super) id: Id,
    pub(super) selector: Labels,
    pub(super) ports: Vec<ServicePort<'n>>,
    /// Keys of the service's table.
    pub(super) entries: Vec<Entry>,
    /// Its own addresses outside the cluster.
    pub(super) addresses: Vec<(IpAddr, Origin)>,
    pub(super) field: Field<'n>,
}

pub(super) struct ServicePort<'n> {
    pub(super) name: Option<&'n str>,
    pub(super) port: u16,
    /// Where `port` stands.
    pub(super) field: Field<'n>,
    /// Of the pod.
    pub(super) target: Port<'n>,
}

impl ServicePort<'_> {
    /// As `shunt-kube` calls its file.
    pub(super) fn label(&self) -> String {
        self.name.map_or_else(|| self.port.to_string(), str::to_owned)
    }
}

/// Of no meaning for a balancer on a node.
const QUIET: &[&str] = &[
    "allocateLoadBalancerNodePorts",
    "clusterIP",
    "clusterIPs",
    "healthCheckNodePort",
    "internalTrafficPolicy",
    "ipFamilies",
    "ipFamilyPolicy",
    "loadBalancerClass",
    "sessionAffinityConfig",
    "trafficDistribution",
];

pub(super) fn read<'n>(object: &Object<'n>) -> Option<KubeService<'n>> {
    let spec = object.fields.required("spec")?.map()?;
    spec.ignore(QUIET);
    let selector = spec.get("selector").and_then(|selector| {
        let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        Some(selector.texts()?.into_iter().map(own).collect())
    });
    let mut entries = Vec::new();
    let mut addresses = Vec::new();
    if let Some(kind) = spec.get("type")
        && kind.text()? == "ExternalName"
    {
        let message = "a name outside the cluster is no set of backends";
        kind.note(NoteCode::NotCarried, message, "write a service with addresses");
        spec.ignore_rest();
        return None;
    }
    if let Some(affinity) = spec.get("sessionAffinity")
        && affinity.text()? != "None"
    {
        let differs =
            "Kubernetes forgets a client after three hours of silence, Shunt computes its backend each time";
        entries.push(limits::by_source(&affinity).differs(differs));
    }
    if let Some(policy) = spec.get("externalTrafficPolicy")
        && policy.text()? == "Local"
    {
        let message =
            "Shunt uses all backends, those of other nodes, too; `mode = \"dnat\"` keeps client addresses";
        policy.note(NoteCode::Differs, message, "");
    }
    if let Some(publish) = spec.get("publishNotReadyAddresses")
        && publish.boolean()?
    {
        let message = "backends that are not ready get no connections";
        publish.note(NoteCode::NotCarried, message, "");
    }
    if let Some(ranges) = spec.get("loadBalancerSourceRanges") {
        let texts: Option<Vec<_>> = ranges.list()?.iter().map(|range| range.text()).collect();
        entries.push(Entry::new("allow", texts?, &ranges));
    }
    own_addresses(&spec, &mut addresses);
    let ports: Vec<_> = spec.required("ports")?.list()?.iter().filter_map(port).collect();
    Some(KubeService {
        id: object.id.clone(),
        selector: selector.unwrap_or_default(),
        ports,
        entries,
        addresses,
        field: object.field.clone(),
    })
}

fn own_addresses(spec: &Fields<'_>, addresses: &mut Vec<(IpAddr, Origin)>) {
    let mut add = |field: &Field<'_>| addresses.extend(field.address().map(|ip| (ip, Origin::from(field))));
    if let Some(address) = spec.get("loadBalancerIP") {
        add(&address);
    }
    for address in spec.get("externalIPs").and_then(|all| all.list()).into_iter().flatten() {
        add(&address);
    }
}

fn port<'n>(field: &Field<'n>) -> Option<ServicePort<'n>> {
    let fields = field.map()?;
    fields.ignore(&["appProtocol", "nodePort"]);
    let name = fields.get("name").and_then(|name| name.text());
    let number = fields.required("port")?;
    let target = fields.get("targetPort");
    if let Some(protocol) = fields.get("protocol")
        && protocol.text()? != "TCP"
    {
        protocol.note(NoteCode::NotCarried, "Shunt balances TCP only, so this port is left out", "");
        return None;
    }
    let port = number.port()?;
    let target = match target {
        Some(target) => Port::read(&target)?,
        None => Port::Number(port, number.clone()),
    };
    Some(ServicePort { name, port, field: number, target })
}

/// An EndpointSlice.
pub(super) struct Slice<'n> {
    /// Of the Service.
    pub(super) of: Id,
    pub(super) ports: Vec<(Option<&'n str>, u16)>,
    pub(super) endpoints: Vec<Endpoint<'n>>,
}

pub(super) struct Endpoint<'n> {
    pub(super) address: IpAddr,
    /// The pod's name.
    pub(super) name: Option<&'n str>,
    pub(super) ready: bool,
    pub(super) serving: bool,
    pub(super) terminating: bool,
    pub(super) field: Field<'n>,
}

pub(super) fn read_slice<'n>(object: &Object<'n>) -> Option<Slice<'n>> {
    const SERVICE: &str = "kubernetes.io/service-name";
    object.fields.ignore(&["addressType"]);
    let ports = object.fields.get("ports").and_then(|ports| ports.list());
    let endpoints = object.fields.get("endpoints").and_then(|endpoints| endpoints.list());
    let labels = labels(&object.metadata.map()?, "labels").unwrap_or_default();
    let Some((_, service)) = labels.into_iter().find(|(key, _)| key == SERVICE) else {
        let message = format!("an EndpointSlice without the label {SERVICE} belongs to no Service");
        object.field.note(NoteCode::Unresolved, message, "");
        return None;
    };
    let port = |field: &Field<'n>| {
        let fields = field.map()?;
        fields.ignore_rest();
        let name = fields.get("name").and_then(|name| name.text()).filter(|name| !name.is_empty());
        Some((name, fields.required("port")?.port()?))
    };
    Some(Slice {
        of: Id { namespace: object.id.namespace.clone(), name: service },
        ports: ports.into_iter().flatten().filter_map(|field| port(&field)).collect(),
        endpoints: endpoints.into_iter().flatten().filter_map(|field| endpoint(&field)).collect(),
    })
}

fn endpoint<'n>(field: &Field<'n>) -> Option<Endpoint<'n>> {
    let fields = field.map()?;
    fields.ignore(&["deprecatedTopology", "hints", "hostname", "nodeName", "topology", "zone"]);
    let addresses = fields.required("addresses")?.list()?;
    let name = fields.get("targetRef").and_then(|target| {
        let target = target.map()?;
        target.ignore_rest();
        target.get("name")?.text()
    });
    let conditions = fields.get("conditions").and_then(|conditions| conditions.map());
    let condition = |key: &str| conditions.as_ref()?.get(key)?.boolean();
    // A condition that is absent means ready (KEP-752).
    let ready = condition("ready").unwrap_or(true);
    Some(Endpoint {
        // Consumers use the first (the API says so).
        address: addresses.first().and_then(|address| address.address())?,
        name,
        ready,
        serving: condition("serving").unwrap_or(ready),
        terminating: condition("terminating").unwrap_or(false),
        field: field.clone(),
    })
}
