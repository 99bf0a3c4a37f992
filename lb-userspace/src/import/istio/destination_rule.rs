//! DestinationRules: the breaker, the pool, and the balancer of a destination.

use super::{
    object::Object,
    outlier,
    workload::{Labels, labels},
};
use crate::import::{
    draft::{Entry, span},
    fields::{Field, Fields},
    limits,
    note::NoteCode,
};

pub(super) struct Rule<'n> {
    pub(super) host: &'n str,
    pub(super) namespace: String,
    pub(super) policy: Policy,
    /// By port of the Service.
    pub(super) ports: Vec<(u16, Policy)>,
    pub(super) subsets: Vec<Subset<'n>>,
    pub(super) field: Field<'n>,
}

pub(super) struct Subset<'n> {
    pub(super) name: &'n str,
    pub(super) labels: Labels,
    pub(super) policy: Policy,
    pub(super) ports: Vec<(u16, Policy)>,
}

/// The parts of a traffic policy. A part that is there replaces that of the level above as a whole.
#[derive(Clone, Default)]
pub(super) struct Policy {
    /// Keys of the breaker.
    pub(super) outlier: Option<Vec<Entry>>,
    pub(super) pool: Option<Keys>,
    pub(super) balancer: Option<Keys>,
}

/// Keys of two tables.
#[derive(Clone, Default)]
pub(super) struct Keys {
    pub(super) breaker: Vec<Entry>,
    pub(super) service: Vec<Entry>,
}

impl Policy {
    /// This one, and where it says nothing, the other.
    pub(super) fn or(&self, above: &Self) -> Self {
        Self {
            outlier: self.outlier.clone().or_else(|| above.outlier.clone()),
            pool: self.pool.clone().or_else(|| above.pool.clone()),
            balancer: self.balancer.clone().or_else(|| above.balancer.clone()),
        }
    }
}

impl Rule<'_> {
    /// The policy of a port of the Service. A port's own settings replace the others as a whole.
    pub(super) fn policy(&self, subset: Option<&str>, port: u16) -> Policy {
        let of = |policy: &Policy, ports: &[(u16, Policy)]| {
            ports.iter().find(|(of, _)| *of == port).map_or_else(|| policy.clone(), |(_, own)| own.clone())
        };
        let whole = of(&self.policy, &self.ports);
        match self.subsets.iter().find(|own| Some(own.name) == subset) {
            Some(own) => of(&own.policy, &own.ports).or(&whole),
            None => whole,
        }
    }
}

pub(super) fn read<'n>(object: &Object<'n>) -> Option<Rule<'n>> {
    let spec = object.fields.required("spec")?.map()?;
    spec.ignore(&["exportTo"]);
    let narrow = "the rule holds for some callers only; in Shunt it holds for all";
    spec.refuse(&["workloadSelector"], NoteCode::NotCarried, narrow, "");
    let (policy, ports) = policies(&spec);
    let mut subsets = Vec::new();
    for subset in spec.get("subsets").and_then(|all| all.list()).into_iter().flatten() {
        let Some(fields) = subset.map() else { continue };
        let (policy, ports) = policies(&fields);
        let Some(name) = fields.required("name").and_then(|name| name.text()) else { continue };
        let labels = labels(&fields, "labels").unwrap_or_default();
        subsets.push(Subset { name, labels, policy, ports });
    }
    let host = spec.required("host")?;
    Some(Rule {
        host: host.text()?,
        namespace: object.id.namespace.clone(),
        policy,
        ports,
        subsets,
        field: host,
    })
}

/// The policy of all ports, and those of single ones.
fn policies(of: &Fields<'_>) -> (Policy, Vec<(u16, Policy)>) {
    let Some(fields) = of.get("trafficPolicy").and_then(|policy| policy.map()) else {
        return (Policy::default(), Vec::new());
    };
    let mut ports = Vec::new();
    for field in fields.get("portLevelSettings").and_then(|all| all.list()).into_iter().flatten() {
        let Some(own) = field.map() else { continue };
        let number = own.required("port").and_then(|port| port.map()?.required("number")?.port());
        let policy = policy(&own);
        ports.extend(number.map(|number| (number, policy)));
    }
    (policy(&fields), ports)
}

fn policy(fields: &Fields<'_>) -> Policy {
    let message = "Shunt does not speak to backends itself";
    fields.refuse(&["proxyProtocol", "tunnel"], NoteCode::NeedsProxy, message, "");
    if let Some(tls) = fields.get("tls").and_then(|tls| tls.map()) {
        let mode = tls.get("mode");
        match mode.as_ref().map(|mode| mode.text()) {
            Some(Some("DISABLE")) => {}
            Some(None) => {}
            Some(Some(_)) | None => {
                let field = mode.unwrap_or_else(|| tls.of.clone());
                let message = "Shunt does not begin TLS: backends get what the client sends";
                field.note(NoteCode::NeedsTls, message, "let clients speak TLS to the backends");
                tls.ignore_rest();
            }
        }
    }
    Policy {
        outlier: fields.get("outlierDetection").and_then(|field| outlier::entries(&field)),
        pool: fields.get("connectionPool").and_then(|field| pool(&field)),
        balancer: fields.get("loadBalancer").and_then(|field| balancer(&field)),
    }
}

fn pool(field: &Field<'_>) -> Option<Keys> {
    const PROXY: &str = "it limits a proxy; Shunt forwards packets and holds no requests";
    let pool = field.map()?;
    let mut keys = Keys::default();
    if let Some(tcp) = pool.get("tcp").and_then(|tcp| tcp.map()) {
        if let Some(most) = tcp.get("maxConnections") {
            let differs =
                "In Istio each proxy counts its own connections, here the node counts those of all clients";
            let number = most.integer(0..=i64::from(u32::MAX))?;
            keys.service
                .extend(limits::entry("max_connections", number, &most).map(|entry| entry.differs(differs)));
        }
        if let Some(timeout) = tcp.get("connectTimeout") {
            keys.breaker.push(Entry::new("connect_timeout", span(timeout.duration()?), &timeout));
        }
        let others = ["idleTimeout", "maxConnectionDuration", "tcpKeepalive"];
        tcp.refuse(&others, NoteCode::ProxyOnly, PROXY, "");
    }
    if let Some(http) = pool.get("http").and_then(|http| http.map()) {
        for (_, field) in http.entries() {
            field.note(NoteCode::ProxyOnly, PROXY, "");
        }
        http.ignore_rest();
    }
    Some(keys)
}

fn balancer(field: &Field<'_>) -> Option<Keys> {
    let fields = field.map()?;
    let mut entries = Keys::default();
    if let Some(simple) = fields.get("simple") {
        match simple.text()? {
            "UNSPECIFIED" | "ROUND_ROBIN" | "RANDOM" | "LEAST_CONN" | "LEAST_REQUEST" => {
                let message = "Shunt spreads connections evenly by a Maglev table, whatever the policy";
                simple.note(NoteCode::Differs, message, "");
            }
            "PASSTHROUGH" => {
                let message = "Shunt does not connect clients to the address that they asked for";
                simple.note(NoteCode::NeedsProxy, message, "");
            }
            other => return simple.bad(format!("{other:?} is not a policy of a load balancer")),
        }
    }
    if let Some(hash) = fields.get("consistentHash").and_then(|hash| hash.map()) {
        let keys = ["httpCookie", "httpHeaderName", "httpQueryParameterName"];
        let message = "Shunt does not look into requests to choose a backend";
        hash.refuse(&keys, NoteCode::NeedsProxy, message, "");
        if let Some(source) = hash.get("useSourceIp")
            && source.boolean()?
        {
            entries.service.push(limits::by_source(&source));
        }
        hash.ignore(&["maglev", "minimumRingSize", "ringHash"]);
    }
    if let Some(locality) = fields.get("localityLbSetting").and_then(|locality| locality.map()) {
        let is_off = locality.get("enabled").is_some_and(|enabled| enabled.boolean() == Some(false));
        if is_off {
            locality.ignore_rest();
        }
        let message = "the places of backends are not in the input";
        let help = "write `weight` of each backend, or put the far ones into `fallback`";
        let keys = ["distribute", "failover", "failoverPriority"];
        if !is_off {
            locality.refuse(&keys, NoteCode::NotCarried, message, help);
        }
    }
    if let Some(seconds) = fields.get("warmupDurationSecs") {
        entries.breaker.push(Entry::new("slow_start", span(seconds.duration()?), &seconds));
    }
    if let Some(warmup) = fields.get("warmup").and_then(|warmup| warmup.map()) {
        warmup.ignore(&["aggression", "minimumPercent"]);
        if let Some(duration) = warmup.get("duration") {
            let differs = "Shunt raises the share in five steps";
            entries
                .breaker
                .push(Entry::new("slow_start", span(duration.duration()?), &duration).differs(differs));
        }
    }
    Some(entries)
}
