//! Where clients come in, and to which Services that leads.

use std::net::IpAddr;

use lb_core::time::Millis;

use super::{
    Picture,
    gateway::{Protocol, Server},
    kube_service::{KubeService, ServicePort},
    object::Id,
    virtual_service::{Destination, Route, VirtualService},
};
use crate::import::{
    draft::{Entry, Origin, span},
    note::NoteCode,
};

/// The longest time that the breaker can watch.
const LONGEST_TIMEOUT: Millis = Millis::secs(1800);

/// A port of a VIP.
pub(super) struct Entrance<'p, 'n> {
    pub(super) port: u16,
    /// Where the port stands.
    pub(super) at: Origin,
    /// A name that no other of its Service has: `http`, `8081`.
    pub(super) label: String,
    pub(super) about: String,
    pub(super) own: Option<(IpAddr, Origin)>,
    /// At least one.
    pub(super) targets: Vec<Target<'p, 'n>>,
    /// Keys of the service's table.
    pub(super) entries: Vec<Entry>,
    /// Keys of the breaker that the route gives.
    pub(super) breaker: Vec<Entry>,
}

/// A port of a Service, with its share.
pub(super) struct Target<'p, 'n> {
    pub(super) service: &'p KubeService<'n>,
    pub(super) port: &'p ServicePort<'n>,
    pub(super) subset: Option<&'n str>,
    /// `None`: it is the only one.
    pub(super) weight: Option<(i64, Origin)>,
}

impl<'p, 'n> Entrance<'p, 'n> {
    /// The first of its Services.
    pub(super) fn service(&self) -> &'p KubeService<'n> {
        self.targets[0].service
    }
}

pub(super) fn all<'p, 'n>(picture: &'p Picture<'n>) -> Vec<Entrance<'p, 'n>> {
    let mut entrances: Vec<Entrance<'p, 'n>> = Vec::new();
    for virtual_service in &picture.virtual_services {
        for (id, field) in &virtual_service.gateways {
            let Some(gateway) = picture.gateways.iter().find(|gateway| gateway.id == *id) else {
                let message = format!("the Gateway {id} is not in the input, so these routes have no port");
                field.note(NoteCode::NotCarried, message, "add its file");
                continue;
            };
            for server in &gateway.servers {
                let Some(entrance) = of_server(picture, id, server, virtual_service) else { continue };
                let address = |entrance: &Entrance<'_, '_>| {
                    (entrance.port, entrance.own.as_ref().map(|(address, _)| *address))
                };
                if entrances.iter().any(|other| address(other) == address(&entrance)) {
                    let message = format!("port {} of {id} serves another route already", server.port);
                    let help = "Shunt has no Host routing: give each its own port or VIP";
                    field.note(NoteCode::NeedsProxy, message, help);
                } else {
                    entrances.push(entrance);
                }
            }
        }
    }
    let by_gateways = entrances.len();
    for service in &picture.services {
        let leads = |entrance: &Entrance<'_, '_>| {
            entrance.targets.iter().any(|target| target.service.id == service.id)
        };
        if !entrances[..by_gateways].iter().any(leads) {
            entrances.extend(service.ports.iter().filter_map(|port| of_service(picture, service, port)));
        }
    }
    entrances
}

fn of_server<'p, 'n>(
    picture: &'p Picture<'n>,
    gateway: &Id,
    server: &Server<'n>,
    virtual_service: &VirtualService<'n>,
) -> Option<Entrance<'p, 'n>> {
    let fits = |route: &&Route<'_>| {
        let protocol = route.protocol == server.protocol
            || (route.protocol == Protocol::Tcp && server.protocol == Protocol::Tls);
        protocol && route.port.is_none_or(|port| port == server.port)
    };
    let route = chosen(virtual_service.routes.iter().filter(fits).collect())?;
    let mut entrance = Entrance {
        port: server.port,
        at: Origin::from(&server.field),
        label: server.port.to_string(),
        about: format!(
            "Port {} of the Gateway {gateway}, by the VirtualService {}",
            server.port, virtual_service.id
        ),
        own: server.bind.clone(),
        targets: targets(picture, route, &virtual_service.id.namespace, None)?,
        entries: Vec::new(),
        breaker: Vec::new(),
    };
    entrance.entries.extend(entrance.service().entries.iter().cloned());
    of_route(route, &mut entrance);
    Some(entrance)
}

/// The route that takes everything, else the first. Those behind it never have a turn, also in Istio.
fn chosen<'r, 'n>(routes: Vec<&'r Route<'n>>) -> Option<&'r Route<'n>> {
    let at = routes.iter().position(|route| route.is_for_all).unwrap_or(0);
    for late in routes.iter().skip(at + 1).filter(|_| routes[at].is_for_all) {
        late.field.note(NoteCode::Surprise, "the route before it takes everything, so it is never used", "");
    }
    routes.get(at).copied()
}

fn of_service<'p, 'n>(
    picture: &'p Picture<'n>,
    service: &'p KubeService<'n>,
    port: &'p ServicePort<'n>,
) -> Option<Entrance<'p, 'n>> {
    let named = |virtual_service: &&VirtualService<'_>| {
        let is_of = |host: &str| Id::of_host(host, &virtual_service.id.namespace) == service.id;
        virtual_service.gateways.is_empty() && virtual_service.hosts.iter().any(|host| is_of(host))
    };
    let route = picture.virtual_services.iter().find(named).and_then(|own| {
        let fits = |route: &&Route<'_>| route.port.is_none_or(|asked| asked == port.port);
        Some((chosen(own.routes.iter().filter(fits).collect())?, own))
    });
    let own = Target { service, port, subset: None, weight: None };
    let mut entrance = Entrance {
        port: port.port,
        at: Origin::from(&port.field),
        label: port.label(),
        about: format!("Port {} of the Service {}", port.port, service.id),
        own: service.addresses.first().cloned(),
        targets: match route {
            Some((route, own)) => targets(picture, route, &own.id.namespace, Some(port.port))?,
            None => vec![own],
        },
        entries: service.entries.clone(),
        breaker: Vec::new(),
    };
    if let Some((route, _)) = route {
        of_route(route, &mut entrance);
    }
    Some(entrance)
}

/// `asked`: the port at which the client has come, where a destination names none.
fn targets<'p, 'n>(
    picture: &'p Picture<'n>,
    route: &Route<'n>,
    namespace: &str,
    asked: Option<u16>,
) -> Option<Vec<Target<'p, 'n>>> {
    let is_split = route.destinations.len() > 1;
    let mut targets = Vec::new();
    let mut is_whole = true;
    for destination in &route.destinations {
        if is_split && destination.weight.unwrap_or(0) == 0 {
            continue;
        }
        match target(picture, destination, namespace, asked) {
            Some(target) => {
                let weight = destination.weight.map(|weight| (weight, Origin::from(&destination.field)));
                targets.push(Target { weight: weight.filter(|_| is_split), ..target });
            }
            None => is_whole = false,
        }
    }
    (is_whole && !targets.is_empty()).then_some(targets)
}

fn target<'p, 'n>(
    picture: &'p Picture<'n>,
    destination: &Destination<'n>,
    namespace: &str,
    asked: Option<u16>,
) -> Option<Target<'p, 'n>> {
    let id = Id::of_host(destination.host, namespace);
    let field = &destination.field;
    let Some(service) = picture.service(&id) else {
        field.note(NoteCode::Unresolved, format!("the Service {id} is not in the input"), "add its file");
        return None;
    };
    let wanted = destination.port.or(asked);
    let port = match wanted {
        Some(wanted) => service.ports.iter().find(|port| port.port == wanted),
        None if service.ports.len() == 1 => service.ports.first(),
        None => None,
    };
    let Some(port) = port else {
        let has: Vec<_> = service.ports.iter().map(|port| port.port.to_string()).collect();
        let which = wanted.map_or("a destination port".to_owned(), |port| format!("port {port}"));
        let message = format!("{id} has {}, and {which} is asked for", ports(&has));
        field.note(NoteCode::Unresolved, message, "write `port.number` of one of them");
        return None;
    };
    if let Some(subset) = destination.subset
        && !picture.rule(&id).is_some_and(|rule| rule.subsets.iter().any(|own| own.name == subset))
    {
        let message = format!("no DestinationRule of {id} has the subset {subset:?}");
        field.note(NoteCode::Unresolved, message, "add its file");
        return None;
    }
    Some(Target { service, port, subset: destination.subset, weight: None })
}

fn ports(numbers: &[String]) -> String {
    match numbers {
        [] => "no TCP port".to_owned(),
        [one] => format!("port {one}"),
        several => format!("ports {}", several.join(", ")),
    }
}

/// The wishes of a route, as near as Shunt comes to them.
fn of_route(route: &Route<'_>, entrance: &mut Entrance<'_, '_>) {
    if let Some(retries) = &route.retries
        && let Some(fields) = retries.map()
    {
        fields.ignore_rest();
        let attempts = fields.get("attempts").and_then(|attempts| attempts.integer(0..=1000));
        if attempts != Some(0) {
            let differs = "Shunt sends a handshake to another backend, and never repeats a request";
            entrance.entries.push(Entry::new("redispatch", true, retries).differs(differs));
        }
    }
    match &route.timeout {
        Some((timeout, field)) if *timeout > LONGEST_TIMEOUT => {
            field.note(NoteCode::NotCarried, "Shunt does not watch a response for longer than 30 m", "");
        }
        Some((timeout, field)) if timeout.0 > 0 => {
            let differs = "Shunt counts a later response as a failure and does not end the request";
            let entry = Entry::new("response_timeout", span(*timeout), field).differs(differs);
            entrance.breaker.push(entry);
        }
        Some(_) | None => {}
    }
}
