//! Deployments, StatefulSets and DaemonSets: labels, ports, and the readiness probe.

use lb_core::time::Millis;

use super::object::{Id, Object};
use crate::import::{
    draft::{Entry, Origin, Probe, span},
    fields::{Field, Fields},
    note::NoteCode,
};

/// Labels, or a selector of them.
pub(super) type Labels = Vec<(String, String)>;

pub(super) struct Workload<'n> {
    pub(super) id: Id,
    pub(super) labels: Labels,
    /// Container ports, with their names.
    pub(super) ports: Vec<(Option<&'n str>, u16)>,
    /// At most one container's.
    pub(super) readiness: Option<Readiness<'n>>,
    pub(super) replicas: Option<(i64, Field<'n>)>,
}

/// A readiness probe without its port.
#[derive(Clone)]
pub(super) struct Readiness<'n> {
    pub(super) probe: Probe,
    pub(super) port: Option<Port<'n>>,
    pub(super) field: Field<'n>,
}

/// A port by number or by name.
#[derive(Clone)]
pub(super) enum Port<'n> {
    Number(u16, Field<'n>),
    Name(&'n str, Field<'n>),
}

impl<'n> Port<'n> {
    pub(super) fn read(field: &Field<'n>) -> Option<Self> {
        match &field.node.value {
            crate::import::yaml::Value::Text(name) => Some(Self::Name(name, field.clone())),
            _ => field.port().map(|port| Self::Number(port, field.clone())),
        }
    }
}

pub(super) fn read<'n>(object: &Object<'n>) -> Option<Workload<'n>> {
    let spec = object.fields.required("spec")?.map()?;
    // The rest is about how pods are replaced, and where they keep their data.
    spec.ignore_rest();
    let replicas = spec.get("replicas").and_then(|field| Some((field.integer(0..=100_000)?, field)));
    let template = spec.required("template")?.map()?;
    template.ignore_rest();
    let labels = template.get("metadata").and_then(|metadata| labels(&metadata.map()?, "labels"));
    let pod = template.required("spec")?.map()?;
    pod.ignore_rest();
    let containers: Vec<_> = pod.required("containers")?.list()?.iter().filter_map(Field::map).collect();
    let mut ports = Vec::new();
    let mut probes = Vec::new();
    for container in &containers {
        container.ignore_rest();
        for port in container.get("ports").and_then(|ports| ports.list()).into_iter().flatten() {
            let Some(port) = port.map() else { continue };
            port.ignore_rest();
            let number = port.required("containerPort").and_then(|number| number.port());
            let name = port.get("name").and_then(|name| name.text());
            ports.extend(number.map(|number| (name, number)));
        }
        probes.extend(container.get("readinessProbe").and_then(|probe| readiness(&probe)));
    }
    if let Some(second) = probes.get(1) {
        let message = "a second container has a readiness probe; Shunt's service has one probe";
        second.field.note(NoteCode::NotCarried, message, "");
    }
    Some(Workload {
        id: object.id.clone(),
        labels: labels.unwrap_or_default(),
        ports,
        readiness: probes.into_iter().next(),
        replicas,
    })
}

pub(super) fn labels(of: &Fields<'_>, key: &str) -> Option<Labels> {
    of.ignore_rest();
    let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    of.get(key).and_then(|labels| labels.texts()).map(|labels| labels.into_iter().map(own).collect())
}

/// Whether the labels have everything that the selector asks for. An empty one selects nothing.
pub(super) fn selects(selector: &Labels, labels: &Labels) -> bool {
    !selector.is_empty() && selector.iter().all(|wanted| labels.contains(wanted))
}

fn readiness<'n>(field: &Field<'n>) -> Option<Readiness<'n>> {
    let fields = field.map()?;
    fields.ignore(&["terminationGracePeriodSeconds"]);
    if let Some(delay) = fields.get("initialDelaySeconds") {
        delay.note(NoteCode::Differs, "Shunt probes from the start; a pod that is not up yet is down", "");
    }
    let mut entries = Vec::new();
    let (kind, port) = if let Some(get) = fields.get("httpGet") {
        http(&get, &mut entries)?
    } else if let Some(socket) = fields.get("tcpSocket") {
        let socket = socket.map()?;
        refuse_host(&socket);
        ("tcp", socket.required("port").and_then(|port| Port::read(&port)))
    } else if let Some(grpc) = fields.get("grpc") {
        let grpc = grpc.map()?;
        if let Some(service) = grpc.get("service").filter(|service| service.text() != Some("")) {
            entries.push(Entry::new("service", service.text()?, &service));
        }
        ("grpc", grpc.required("port").and_then(|port| Port::read(&port)))
    } else {
        fields.refuse(
            &["exec"],
            NoteCode::NotCarried,
            "Shunt cannot run a command in a pod, so the service has no probe",
            "add a probe that asks over the network",
        );
        fields.ignore_rest();
        return None;
    };
    let seconds = |key: &'static str, name, default: u64, least| {
        let (seconds, origin) = match fields.get(key) {
            Some(field) => (u64::try_from(field.integer(1..=86_400)?).ok()?, Origin::from(&field)),
            None => (default, Origin::Default { of: "Kubernetes", field: key }),
        };
        Some(Entry::new(name, span(Millis::secs(seconds.max(least))), origin))
    };
    let number = |key: &'static str, name, default| match fields.get(key) {
        Some(field) => Some(Entry::new(name, field.integer(1..=1000)?, &field)),
        None => Some(Entry::new(name, default, Origin::Default { of: "Kubernetes", field: key })),
    };
    let interval = seconds("periodSeconds", "interval", 10, 1);
    let timeout = seconds("timeoutSeconds", "timeout", 1, 1);
    let (rise, fall) = (number("successThreshold", "rise", 1_i64), number("failureThreshold", "fall", 3));
    let (interval, mut timeout) = (interval?, timeout?);
    if period(&timeout) > period(&interval) {
        timeout.value = interval.value.clone();
        timeout.differs = "Kubernetes allows a timeout above the period, Shunt does not";
    }
    entries.extend([interval, timeout, rise?, fall?]);
    Some(Readiness { probe: Probe { kind, entries }, port, field: field.clone() })
}

fn period(entry: &Entry) -> Millis {
    entry.value.as_str().and_then(crate::config::parse_duration).unwrap_or_default()
}

fn refuse_host(fields: &Fields<'_>) {
    let message = "a probe of another host than the pod";
    fields.refuse(&["host"], NoteCode::NotCarried, message, "write `probe_address` of each backend");
}

fn http<'n>(field: &Field<'n>, entries: &mut Vec<Entry>) -> Option<(&'static str, Option<Port<'n>>)> {
    let get = field.map()?;
    refuse_host(&get);
    let path = get.get("path").map(|path| Some(Entry::new("path", path.text()?, &path)));
    entries.extend(path.flatten());
    if let Some(headers) = get.get("httpHeaders") {
        let mut more = toml::Table::new();
        for header in headers.list()? {
            let header = header.map()?;
            let (name, value) = (header.required("name")?, header.required("value")?);
            let (text, value_text) = (name.text()?, value.text()?);
            if text.eq_ignore_ascii_case("host") {
                entries.push(Entry::new("host", value_text, &value));
            } else {
                more.insert(text.to_owned(), value_text.into());
            }
        }
        if !more.is_empty() {
            entries.push(Entry::new("headers", more, &headers));
        }
    }
    let scheme = get.get("scheme");
    let kind = match scheme.as_ref().map(|scheme| scheme.text()) {
        Some(Some("HTTPS")) => {
            // The kubelet does not verify it either.
            entries.push(Entry::new("insecure", true, scheme.as_ref().expect("it was read")));
            "https"
        }
        Some(Some("HTTP")) | None => "http",
        Some(Some(other)) => return scheme?.bad(format!("{other:?} is neither HTTP nor HTTPS")),
        Some(None) => return None,
    };
    Some((kind, get.required("port").and_then(|port| Port::read(&port))))
}
