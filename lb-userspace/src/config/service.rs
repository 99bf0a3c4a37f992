//! `[service.NAME]` with its backends, and checks between services.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use lb_core::{
    config::{Backend, Breaker, Connections, Mode, NoBackend, OnOut, Service},
    time::Millis,
};

use super::{
    Code, Discovery, breaker, discovery, keys, limits, probe,
    reader::{Entry, Node, Placed, Table, quoted},
    sources, value,
};

const EXAMPLE: &str = "[service.web]";
const VIP: &str = "vip = \"203.0.113.10:80\"";
const BACKENDS: &str = "backends = { web-1 = \"10.0.0.11:8080\" }";
const FALLBACK: &str = "fallback = { sorry = \"10.0.0.19:8080\" }";
const DEFAULT_WEIGHT: u32 = 100;
const LONGEST_DRAIN: Millis = Millis::secs(24 * 3600);

/// Addresses so far, also of services that have other errors.
#[derive(Default)]
struct Addresses<'a> {
    vips: HashMap<SocketAddr, Node<'a>>,
    backends: Vec<(SocketAddr, Node<'a>)>,
    /// Source prefixes of all services.
    sources: usize,
}

/// All services, and the sources of those that are discovered.
pub(super) type Services = (Vec<Service>, BTreeMap<String, Discovery>);

pub(super) fn read_all(node: &Node<'_>) -> Option<Services> {
    let entries = node.entries("tables of services", EXAMPLE)?;
    if entries.is_empty() {
        return no_services(node);
    }
    let most = lb_common::MAX_SERVICES as usize;
    if let Some(entry) = entries.get(most) {
        return entry.key.reject(
            format!("there are {} services, at most {most} are possible", entries.len()),
            "remove some, or run a second instance",
        );
    }
    let mut addresses = Addresses::default();
    let services: Vec<_> = entries.iter().map(|entry| read(entry, &mut addresses)).collect();
    let apart = check_between(&addresses);
    let services: Option<Vec<_>> = services.into_iter().collect();
    let sourced = |(service, source): (Service, Option<Discovery>)| {
        let source = source.map(|source| (service.name.clone(), source));
        (service, source)
    };
    let (services, sources): (Vec<_>, Vec<_>) = apart.and(services)?.into_iter().map(sourced).unzip();
    Some((services, sources.into_iter().flatten().collect()))
}

pub(super) fn no_services<T>(node: &Node<'_>) -> Option<T> {
    node.absent(
        "no service is configured",
        format!("add a table such as `{EXAMPLE}`, with `vip` and `backends`"),
    )
}

fn read<'a>(entry: &Entry<'a>, addresses: &mut Addresses<'a>) -> Option<(Service, Option<Discovery>)> {
    let name = value::checked_name(&entry.key, entry.name);
    let table = entry.value.table(&keys::SERVICE, EXAMPLE)?;
    let vip = table.required("vip", VIP, |node| read_vip(node, addresses));
    let mode = table.or("mode", Mode::default(), read_mode);
    let no_backend = table.or("no_backend", NoBackend::default(), |node| {
        let choices = [("reset", NoBackend::Reset), ("drop", NoBackend::Drop), ("any", NoBackend::Any)];
        value::choice(node, &choices)
    });
    let evidence = table.or("evidence", true, Node::boolean);
    let connections = read_connections(&table, evidence.as_ref());
    let limits = limits::read(&table);
    let affinity = limits::read_affinity(&table, vip);
    let sources = sources::read(&table, vip, &mut addresses.sources);
    let first = addresses.backends.len();
    let mut own = Own::default();
    let discovery = table.or("discovery", None, |node| discovery::read(node).map(Some));
    let (backends, count) = match (table.node("backends"), table.entry("discovery")) {
        (Some(node), Some(discovery)) => {
            let none = discovery.key.conflict(
                "the service has `backends` and `discovery`",
                "remove one of them: either this file names the backends, or the discovery file does",
                node.span.clone(),
                "the backends",
            );
            (none, usize::MAX)
        }
        (Some(node), None) => read_backends(node, BACKENDS, &mut own, addresses),
        // Their number is not known here.
        (None, Some(_)) => (Some(Vec::new()), usize::MAX),
        (None, None) if table.is_misspelt("discovery") => (None, usize::MAX),
        (None, None) => {
            let help = format!("add for example `{BACKENDS}`");
            (table.node.absent("`backends` is missing", help), usize::MAX)
        }
    };
    let fallback = match table.node("fallback") {
        Some(node) => read_backends(node, FALLBACK, &mut own, addresses).0,
        None => Some(Vec::new()),
    };
    if let Some(node) = table.node("backends") {
        warn_of_coarse_table(node, addresses.backends.len() - first);
    }
    let families = vip.and_then(|vip| one_family(vip, &addresses.backends[first..]));
    let probe = table.or("probe", None, |node| probe::read(node).map(Some));
    let breaker = table.or("breaker", Breaker::default(), |node| breaker::read(node, count));
    families?;
    let service = Service {
        name: name?,
        vip: vip?,
        mode: mode?.value,
        no_backend: no_backend?.value,
        evidence: evidence?.value,
        connections: connections?,
        limits: limits?,
        affinity: affinity?,
        sources: sources?,
        backends: backends?,
        fallback: fallback?,
        probe: probe?.value,
        breaker: breaker?.value,
    };
    Some((service, discovery?.value))
}

fn read_connections(table: &Table<'_>, evidence: Option<&Placed<bool>>) -> Option<Connections> {
    let default = Connections::default();
    let blind = evidence.is_some_and(|evidence| !evidence.value);
    let on_out = |key, default| {
        table.or(key, if blind { OnOut::Drain } else { default }, |node| {
            let choice = value::choice(node, &[("drain", OnOut::Drain), ("reset", OnOut::Reset)])?;
            if blind && choice == OnOut::Reset {
                return node.reject(
                    "without evidence Shunt does not know where a request begins",
                    format!(
                        "write `evidence = true`, or `{key} = \"drain\"`: then connections end by `drain_timeout`"
                    ),
                );
            }
            Some(choice)
        })
    };
    if let (Some(node), None) = (table.node("on_eject"), table.node("on_drain"))
        && node.as_str() == Some("reset")
    {
        node.warn(
            Code::OnDrainIsApart,
            "this no longer holds for backends that are drained, disabled or removed: their connections continue",
            "write `on_drain = \"reset\"` or `\"drain\"` beside it",
        );
    }
    let (on_eject, on_drain) = (on_out("on_eject", default.on_eject), on_out("on_drain", default.on_drain));
    let drain_timeout =
        table.or("drain_timeout", default.drain_timeout, |node| match value::duration(node, Millis(0))? {
            longer if longer > LONGEST_DRAIN => node.reject(
                format!("a drain of {} is too long", value::shown(longer)),
                format!("write at most `\"{}\"`", value::shown(LONGEST_DRAIN)),
            ),
            timeout => Some(timeout),
        });
    let redispatch = table.or("redispatch", default.redispatch, Node::boolean);
    Some(Connections {
        on_eject: on_eject?.value,
        on_drain: on_drain?.value,
        drain_timeout: drain_timeout?.value,
        redispatch: redispatch?.value,
    })
}

fn read_vip<'a>(node: &Node<'a>, addresses: &mut Addresses<'a>) -> Option<SocketAddr> {
    let vip = value::endpoint(node, VIP)?;
    if let Some(first) = addresses.vips.get(&vip) {
        return node.conflict(
            format!("the VIP {vip} is used twice"),
            "give each service a VIP address and port of its own",
            first.span.clone(),
            "first used here",
        );
    }
    addresses.vips.insert(vip, node.clone());
    Some(vip)
}

/// Where each backend has few slots of the Maglev table, the shares come out rough.
fn warn_of_coarse_table(node: &Node<'_>, backends: usize) {
    const LEAST_SLOTS: usize = 100;
    let slots = lb_common::TABLE_SLOTS;
    if backends * LEAST_SLOTS > slots {
        node.warn(
            Code::CoarseTable,
            format!(
                "{backends} backends share {slots} slots, so shares differ by more than one in {LEAST_SLOTS}"
            ),
            format!("split the service, or give it at most {} backends", slots / LEAST_SLOTS),
        );
    }
}

/// Shunt does not translate between IP versions.
fn one_family(vip: SocketAddr, backends: &[(SocketAddr, Node<'_>)]) -> Option<()> {
    let family = |address: &SocketAddr| if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let mut same = Some(());
    for (address, node) in backends {
        if family(address) != family(&vip) {
            same = node.reject(
                format!("the backend is {}, the VIP is {}", family(address), family(&vip)),
                "give the service backends of the VIP's IP version; two services may have the same servers",
            );
        }
    }
    same
}

fn read_mode(node: &Node<'_>) -> Option<Mode> {
    const LATER: [&str; 2] = ["dsr-l2", "dsr-ipip"];
    match node.as_str() {
        Some(mode) if LATER.contains(&mode) => {
            node.reject(format!("mode `{mode}` is not supported yet"), "write `mode = \"nat\"` or `\"dnat\"`")
        }
        Some(_) | None => value::choice(node, &[("nat", Mode::Nat), ("dnat", Mode::Dnat)]),
    }
}

/// Names and addresses of one service, with its fallback.
#[derive(Default)]
struct Own<'a> {
    names: HashMap<&'a str, Node<'a>>,
    addresses: HashMap<SocketAddr, Node<'a>>,
}

/// The backends, or those of the fallback, and how many there are.
fn read_backends<'a>(
    node: &Node<'a>,
    example: &str,
    own: &mut Own<'a>,
    addresses: &mut Addresses<'a>,
) -> (Option<Vec<Backend>>, usize) {
    let Some(entries) = node.entries("a table of backends", example) else { return (None, usize::MAX) };
    if entries.is_empty() {
        let none = match node.key() {
            "fallback" => node.absent("the fallback has no backend", "add one, or remove the table"),
            _ => {
                node.absent("the service has no backend", "add one, for example `web-1 = \"10.0.0.11:8080\"`")
            }
        };
        return (none, usize::MAX);
    }
    let backends: Vec<_> = entries
        .iter()
        .map(|entry| {
            let name = value::checked_name(&entry.key, entry.name);
            let name = match own.names.get(entry.name) {
                Some(first) => entry.key.conflict(
                    format!("the name {} is used twice in this service", quoted(entry.name)),
                    "give it another name; a backend cannot be in the fallback and outside it",
                    first.span.clone(),
                    "first used here",
                ),
                None => {
                    own.names.insert(entry.name, entry.key.clone());
                    name
                }
            };
            let (address, more) = read_backend(&entry.value);
            let address = address.and_then(|(address, node)| {
                addresses.backends.push((address, node.clone()));
                match own.addresses.get(&address) {
                    Some(first) => node.conflict(
                        format!("the address {address} is used twice in this service"),
                        "remove one of them; `weight` gives a backend a larger share",
                        first.span.clone(),
                        "first used here",
                    ),
                    None => {
                        own.addresses.insert(address, node);
                        Some(address)
                    }
                }
            });
            let (name, address, More { weight, probe_address, max_connections }) = (name?, address?, more?);
            Some(Backend { name, address, weight, probe_address, max_connections, discovered: None })
        })
        .collect();
    (backends.into_iter().collect(), entries.len())
}

/// An address, and its place in the file.
type At<'a> = (SocketAddr, Node<'a>);

/// The rest of a backend.
struct More {
    weight: u16,
    probe_address: Option<SocketAddr>,
    max_connections: Option<u32>,
}

/// A backend is an address, or a table with the address and more.
fn read_backend<'a>(node: &Node<'a>) -> (Option<At<'a>>, Option<More>) {
    const ADDRESS: &str = "web-1 = \"10.0.0.11:8080\"";
    const TABLE: &str = "web-1 = { address = \"10.0.0.11:8080\", weight = 50 }";
    let placed = |node: &Node<'a>| value::endpoint(node, ADDRESS).map(|address| (address, node.clone()));
    if !node.is_table() {
        let more = More { weight: DEFAULT_WEIGHT as u16, probe_address: None, max_connections: None };
        return (placed(node), Some(more));
    }
    let Some(table) = node.table(&keys::BACKEND, TABLE) else { return (None, None) };
    let address = table.required("address", TABLE, placed);
    let weight = table.or("weight", DEFAULT_WEIGHT, |node| node.integer(1..=u32::from(u16::MAX)));
    let elsewhere = |node: &Node<'_>| value::endpoint(node, "probe_address = \"10.0.0.11:9000\"").map(Some);
    let probe_address = table.or("probe_address", None, elsewhere);
    let max_connections = table.or("max_connections", None, |node| limits::count(node).map(Some));
    let more = || {
        let weight = u16::try_from(weight?.value).ok()?;
        Some(More { weight, probe_address: probe_address?.value, max_connections: max_connections?.value })
    };
    (address, more())
}

/// Checks that no backend is a VIP, and that all backends fit into the maps.
fn check_between(addresses: &Addresses<'_>) -> Option<()> {
    let mut apart = Some(());
    for (address, node) in &addresses.backends {
        if let Some(vip) = addresses.vips.get(address) {
            apart = node.conflict(
                format!("the backend {address} is a VIP"),
                "name the address of the server itself, not of the service",
                vip.span.clone(),
                "the VIP",
            );
        }
    }
    let most = lb_common::MAX_BACKENDS as usize;
    if let Some((_, node)) = addresses.backends.get(most) {
        apart = node.reject(
            format!("there are {} backends, at most {most} are possible", addresses.backends.len()),
            "remove some, or run a second instance",
        );
    }
    apart
}
