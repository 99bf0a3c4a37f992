//! Objects of Kubernetes and Istio, as one picture.
//!
//! A service of Shunt is a port at which clients come in, with the backends of one route: a server of a Gateway with
//! its VirtualService, or the port of a Service that no Gateway leads to.

mod backends;
mod breaker;
mod destination_rule;
mod entrance;
mod gateway;
mod kube_service;
mod object;
mod outlier;
mod probe;
mod virtual_service;
mod workload;

use std::collections::BTreeSet;

use self::{
    destination_rule::Rule,
    entrance::Entrance,
    gateway::Gateway,
    kube_service::{KubeService, Slice},
    object::{Id, Kind, Object},
    virtual_service::VirtualService,
    workload::Workload,
};
use super::{
    Text,
    draft::{self, Draft, Service},
    given::Given,
    note::{NoteCode, Weight},
    yaml,
};

/// Everything that was read.
#[derive(Default)]
struct Picture<'n> {
    workloads: Vec<Workload<'n>>,
    services: Vec<KubeService<'n>>,
    slices: Vec<Slice<'n>>,
    gateways: Vec<Gateway<'n>>,
    virtual_services: Vec<VirtualService<'n>>,
    rules: Vec<Rule<'n>>,
}

pub(super) fn draft(texts: &[Text], given: &Given<'_>) -> Option<Draft> {
    let read = |text: &Text| yaml::documents(&text.name, &text.text, given.notes);
    // All files are read, so that an error of one hides no other.
    let documents: Vec<_> = texts.iter().map(read).collect();
    let documents: Vec<_> =
        documents.into_iter().collect::<Option<Vec<_>>>()?.into_iter().flatten().collect();
    let objects = object::all(&documents, given.notes);
    let picture = Picture::of(&objects);
    drop(objects);
    let entrances = entrance::all(&picture);
    if given.notes.weight() < Some(Weight::Error) {
        picture.report_unused(&entrances);
    }
    let names = names(&entrances);
    let one = |(entrance, name): (&Entrance<'_, '_>, String)| service(&picture, entrance, name, given);
    let services = entrances.iter().zip(names).filter_map(one).collect();
    Some(Draft { entries: Vec::new(), services })
}

impl<'n> Picture<'n> {
    fn of(objects: &[Object<'n>]) -> Self {
        let mut picture = Self::default();
        let mut seen: Vec<(Kind, &Id)> = Vec::new();
        for object in objects {
            // A Deployment and a StatefulSet may share a name; that matters to nobody here.
            let known = (object.kind, &object.id);
            if object.kind != Kind::Workload && seen.contains(&known) {
                let message = format!("{} is there twice", object.id);
                object.metadata.note(NoteCode::Conflict, message, "remove one of them");
                object.fields.ignore_rest();
                continue;
            }
            seen.push(known);
            match object.kind {
                Kind::Workload => picture.workloads.extend(workload::read(object)),
                Kind::Service => picture.services.extend(kube_service::read(object)),
                Kind::EndpointSlice => picture.slices.extend(kube_service::read_slice(object)),
                Kind::Gateway => picture.gateways.extend(gateway::read(object)),
                Kind::VirtualService => picture.virtual_services.extend(virtual_service::read(object)),
                Kind::DestinationRule => picture.rules.extend(destination_rule::read(object)),
            }
        }
        picture
    }

    fn service(&self, id: &Id) -> Option<&KubeService<'n>> {
        self.services.iter().find(|service| service.id == *id)
    }

    /// The rule of a Service. One with a host of its own comes before one with a `*`.
    fn rule(&self, of: &Id) -> Option<&Rule<'n>> {
        let own = |rule: &&Rule<'_>| Id::of_host(rule.host, &rule.namespace) == *of;
        let long = format!("{}.{}.svc.cluster.local", of.name, of.namespace);
        let wild = |rule: &&Rule<'_>| rule.host.strip_prefix('*').is_some_and(|rest| long.ends_with(rest));
        self.rules.iter().find(own).or_else(|| self.rules.iter().find(wild))
    }

    /// A rule that holds for nothing is a breaker that somebody misses.
    fn report_unused(&self, entrances: &[Entrance<'_, '_>]) {
        let targets = || entrances.iter().flat_map(|entrance| &entrance.targets);
        for rule in &self.rules {
            let holds = |id: &Id| self.rule(id).is_some_and(|other| std::ptr::eq(other, rule));
            if !targets().any(|target| holds(&target.service.id)) {
                let message = "the rule holds for no service of the result";
                rule.field.note(NoteCode::NotCarried, message, "is the Service with its route in the input?");
            }
        }
    }
}

/// A name for each, as short as it can be.
fn names(entrances: &[Entrance<'_, '_>]) -> Vec<String> {
    let of = |entrance: &Entrance<'_, '_>| entrance.service().id.clone();
    let mut used = BTreeSet::new();
    let mut names = Vec::new();
    for entrance in entrances {
        let id = of(entrance);
        let same_name = |other: &&Entrance<'_, '_>| of(other).name == id.name;
        let mut name = match entrances.iter().filter(same_name).any(|other| of(other) != id) {
            true => format!("{}.{}", id.namespace, id.name),
            false => id.name.clone(),
        };
        if entrances.iter().filter(|other| of(other) == id).count() > 1 {
            name = format!("{name}-{}", entrance.label);
        }
        let name = draft::unused(&draft::name(&name), |name| used.contains(name));
        used.insert(name.clone());
        names.push(name);
    }
    names
}

fn service(
    picture: &Picture<'_>,
    entrance: &Entrance<'_, '_>,
    name: String,
    given: &Given<'_>,
) -> Option<Service> {
    let found = backends::find(picture, entrance, given);
    let mut service = Service::new(name, entrance.about.clone());
    let is_ipv6 = found.as_ref().is_some_and(backends::Found::is_ipv6);
    let vip = given.vip(&service.name, (entrance.port, entrance.at.clone()), entrance.own.clone(), is_ipv6);
    let found = found?;
    service.entries.push(vip);
    service.entries.extend(entrance.entries.iter().cloned());
    let destination_rule::Keys { breaker, service: more } =
        breaker::entries(picture, entrance, &found, given);
    // The DestinationRule goes before the Service.
    service.entries.retain(|entry| !more.iter().any(|other| other.key == entry.key));
    service.entries.extend(more);
    service.breaker = breaker;
    service.probe = probe::find(picture, entrance, &found);
    (service.backends, service.discovery) = (found.members, found.discovery);
    Some(service)
}
