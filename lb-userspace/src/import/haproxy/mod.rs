//! A configuration of HAProxy: frontends with one backend each, and listens.

mod balance;
mod check;
mod proxy;
mod say;
mod section;
mod server;
mod times;
mod words;

use std::net::IpAddr;

use self::{
    proxy::{Bind, Proxy},
    section::{Kind, Section},
};
use super::{
    Text,
    draft::{self, Draft, Entry, Origin, Service},
    given::Given,
    note::NoteCode,
    policy,
};

const HAPROXY: &str = "HAProxy";

pub(super) fn draft(texts: &[Text], given: &Given<'_>) -> Option<Draft> {
    let read = |text: &Text| words::lines(&text.name, &text.text, given.notes);
    let lines: Vec<_> = texts.iter().map(read).collect();
    let lines = lines.into_iter().collect::<Option<Vec<_>>>()?.into_iter().flatten().collect();
    let sections = section::all(lines, given.notes);
    twice(&sections, given);
    let proxies: Vec<_> = sections.iter().map(|section| proxy::read(section, given.notes)).collect();
    for proxy in &proxies {
        // Also those to which nothing leads: their errors are errors.
        server::all(proxy, given.notes);
    }
    let mut services: Vec<Service> = Vec::new();
    for front in proxies.iter().filter(|proxy| proxy.section.kind != Kind::Backend) {
        let Some(back) = back(front, &proxies, given) else { continue };
        for bind in &front.binds {
            let several = front.binds.len() > 1;
            services.extend(service(front, back, bind, several, given, &services));
        }
    }
    for proxy in proxies.iter().filter(|proxy| proxy.section.kind == Kind::Backend) {
        if !proxies
            .iter()
            .any(|front| front.default_backend.as_ref().is_some_and(|to| to.text == proxy.section.name))
        {
            let head = &proxy.section.head;
            let message = format!("no frontend of the result leads to the backend {}", proxy.section.name);
            given.notes.add(NoteCode::NotCarried, Some(&head.place), "", message, "");
        }
    }
    Some(Draft { entries: Vec::new(), services })
}

fn twice(sections: &[Section], given: &Given<'_>) {
    for (at, section) in sections.iter().enumerate() {
        let same = |other: &&Section| other.name == section.name && other.kind == section.kind;
        if sections[..at].iter().any(|other| same(&other)) {
            let message = format!("{} {} is there twice", section.head.text, section.name);
            given.notes.add(NoteCode::Conflict, Some(&section.head.place), "", message, "rename one of them");
        }
    }
}

/// Where a frontend's connections go: a `listen` to itself.
fn back<'p, 's>(front: &'p Proxy<'s>, proxies: &'p [Proxy<'s>], given: &Given<'_>) -> Option<&'p Proxy<'s>> {
    if front.section.kind == Kind::Listen && !front.servers.is_empty() {
        return Some(front);
    }
    let head = &front.section.head;
    let Some(to) = &front.default_backend else {
        let message = format!("{} leads to no backend, so it is left out", front.section.name);
        given.notes.add(NoteCode::NotCarried, Some(&head.place), "", message, "");
        return None;
    };
    let is_it = |proxy: &&Proxy<'_>| {
        proxy.section.name == to.text && matches!(proxy.section.kind, Kind::Backend | Kind::Listen)
    };
    let found = proxies.iter().find(is_it);
    if found.is_none() {
        let message = format!("there is no backend {:?}", to.text);
        given.notes.add(NoteCode::Unresolved, Some(&to.place), "default_backend", message, "");
    }
    found
}

fn service(
    front: &Proxy<'_>,
    back: &Proxy<'_>,
    bind: &Bind,
    is_one_of_several: bool,
    given: &Given<'_>,
    others: &[Service],
) -> Option<Service> {
    let called = draft::name(&front.section.name);
    let called = if is_one_of_several { format!("{called}-{}", bind.port) } else { called };
    let name = draft::unused(&called, |name| others.iter().any(|other| other.name == name));
    let about = match std::ptr::eq(front, back) {
        true => format!("Listen {}, port {}", front.section.name, bind.port),
        false => format!(
            "Frontend {}, port {}, to the backend {}",
            front.section.name, bind.port, back.section.name
        ),
    };
    let mut service = Service::new(name, about);
    let is_whole = server::add_members(back, given, &mut service);
    let is_ipv6 = service.backends.first().is_some_and(|member| member.address.is_ipv6());
    let own = bind.address.map(|address| (address, bind.origin.clone()));
    let own = own.filter(|(address, _): &(IpAddr, Origin)| !address.is_unspecified());
    let vip = given.vip(&service.name, (bind.port, bind.origin.clone()), own, is_ipv6);
    if !is_whole {
        return None;
    }
    service.entries.push(vip);
    service.entries.extend(front.entries.iter().cloned());
    if !std::ptr::eq(front, back) {
        let is_new = |entry: &&Entry| !front.entries.iter().any(|own| own.key == entry.key);
        service.entries.extend(back.entries.iter().filter(is_new).cloned());
    }
    service.entries.extend(server::entries(back, given.notes));
    service.entries.extend(overflow(&service));
    service.probe = check::probe(back, given.notes);
    service.breaker = breaker(back, given);
    Some(service)
}

/// HAProxy queues the connections above a limit.
fn overflow(service: &Service) -> Option<Entry> {
    let is_limit = |entry: &Entry| entry.key == "max_connections";
    let members = || service.backends.iter().chain(&service.fallback);
    if !service.entries.iter().any(is_limit) && members().all(|member| member.max_connections.is_none()) {
        return None;
    }
    let differs = "In HAProxy a connection above the limit waits in a queue; in Shunt its client tries again";
    let entry = Entry::new("overflow", "queue-by-retry", Origin::Default { of: HAPROXY, field: "maxconn" });
    Some(entry.differs(differs))
}

fn breaker(back: &Proxy<'_>, given: &Given<'_>) -> Vec<Entry> {
    let mut entries = match server::observed(back, given.notes) {
        Some(observed) => observed,
        None => vec![policy::without_outlier(HAPROXY, "observe")],
    };
    entries.extend(back.breaker.iter().cloned());
    entries
}
