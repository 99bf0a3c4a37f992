//! Where the backends of an entrance are: given, in EndpointSlices, or in the file that `shunt-kube` keeps.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use super::{
    Picture,
    entrance::{Entrance, Target},
    kube_service::{Endpoint, Slice},
    workload::{Labels, Workload, selects},
};
use crate::import::{
    draft::{self, Entry, Member, Origin},
    given::Given,
    note::NoteCode,
};

/// A weight of 1 of a route is this much, so that it can be divided among backends.
const SCALE: i64 = 100;

pub(super) struct Found {
    pub(super) members: Vec<Member>,
    pub(super) discovery: Option<Entry>,
}

impl Found {
    pub(super) fn is_ipv6(&self) -> bool {
        self.members.first().is_some_and(|member| member.address.is_ipv6())
    }
}

pub(super) fn find(picture: &Picture<'_>, entrance: &Entrance<'_, '_>, given: &Given<'_>) -> Option<Found> {
    let mut all: Vec<Member> = Vec::new();
    let mut is_whole = true;
    for target in &entrance.targets {
        let Some(members) = of_target(picture, target, given) else {
            if let ([_], None) = (entrance.targets.as_slice(), target.subset) {
                return Some(Found { members: Vec::new(), discovery: Some(discovery(target, given)) });
            }
            let message = "nothing in the input says where these backends are";
            let help = "give --backend DEPLOYMENT=ADDRESS:PORT, or add the EndpointSlices";
            target.service.field.note(NoteCode::Unresolved, message, help);
            is_whole = false;
            continue;
        };
        let weight = target.weight.as_ref().map(|(weight, _)| share(*weight, members.len()));
        for member in members {
            if all.iter().any(|other| other.address == member.address) {
                continue;
            }
            let name = draft::unused(&member.name, |name| all.iter().any(|other| other.name == name));
            all.push(Member { name, weight: weight.or(member.weight), ..member });
        }
    }
    is_whole.then_some(Found { members: all, discovery: None })
}

fn share(weight: i64, members: usize) -> u16 {
    let members = i64::try_from(members).unwrap_or(i64::MAX).max(1);
    u16::try_from((weight * SCALE / members).clamp(1, 65535)).unwrap_or(u16::MAX)
}

/// `None`: the input says nothing of addresses.
fn of_target(picture: &Picture<'_>, target: &Target<'_, '_>, given: &Given<'_>) -> Option<Vec<Member>> {
    let workloads = workloads(picture, target);
    given_members(target, &workloads, given).or_else(|| of_slices(picture, target, &workloads))
}

/// The workloads whose pods the target has.
pub(super) fn workloads<'p, 'n>(picture: &'p Picture<'n>, target: &Target<'_, '_>) -> Vec<&'p Workload<'n>> {
    let service = target.service;
    let none = Labels::new();
    let rule = picture.rule(&service.id);
    let subset = rule.and_then(|rule| rule.subsets.iter().find(|subset| Some(subset.name) == target.subset));
    let narrow = subset.map_or(&none, |subset| &subset.labels);
    let has = |workload: &&Workload<'_>| {
        workload.id.namespace == service.id.namespace
            && selects(&service.selector, &workload.labels)
            && (narrow.is_empty() || selects(narrow, &workload.labels))
    };
    picture.workloads.iter().filter(has).collect()
}

/// By `--backend` of each Deployment, or of the Service where the input has none.
fn given_members(
    target: &Target<'_, '_>,
    workloads: &[&Workload<'_>],
    given: &Given<'_>,
) -> Option<Vec<Member>> {
    if workloads.is_empty() {
        let addresses = given.backends(&target.service.id.name);
        return (!addresses.is_empty()).then(|| numbered(&target.service.id.name, &addresses));
    }
    let found: Vec<_> =
        workloads.iter().map(|workload| (*workload, given.backends(&workload.id.name))).collect();
    if found.iter().all(|(_, addresses)| addresses.is_empty()) {
        return None;
    }
    let mut members = Vec::new();
    for (workload, addresses) in found {
        let name = &workload.id.name;
        match (&workload.replicas, addresses.len()) {
            (Some((0, _)), _) => continue,
            (_, 0) => {
                let message = format!("--backend is given for others of its Service and not for {name}");
                let help = format!("give --backend {name}=ADDRESS:PORT");
                let place = target.service.field.place();
                given.notes.add(NoteCode::Unresolved, Some(place), "", message, help);
            }
            (Some((replicas, field)), known) if *replicas != known as i64 => {
                let message = format!("{name} has {replicas} replicas, and --backend gives {known} of them");
                field.note(NoteCode::Surprise, message, "");
            }
            (_, _) => {}
        }
        members.extend(numbered(name, &addresses));
    }
    Some(members)
}

fn numbered(name: &str, addresses: &[SocketAddr]) -> Vec<Member> {
    let called = |at: usize| match addresses.len() {
        1 => draft::name(name),
        _ => draft::name(&format!("{name}-{}", at + 1)),
    };
    let member = |(at, address): (usize, &SocketAddr)| Member {
        name: called(at),
        address: *address,
        weight: None,
        max_connections: None,
        origin: Origin::Option("--backend"),
    };
    addresses.iter().enumerate().map(member).collect()
}

fn of_slices(
    picture: &Picture<'_>,
    target: &Target<'_, '_>,
    workloads: &[&Workload<'_>],
) -> Option<Vec<Member>> {
    let slices: Vec<_> = picture.slices.iter().filter(|slice| slice.of == target.service.id).collect();
    if slices.is_empty() {
        return None;
    }
    let port = |slice: &Slice<'_>| {
        let named = slice.ports.iter().find(|(name, _)| *name == target.port.name);
        named.or(if slice.ports.len() == 1 { slice.ports.first() } else { None }).map(|(_, port)| *port)
    };
    let wanted = |endpoint: &Endpoint<'_>| {
        let of = |workload: &&Workload<'_>| {
            let rest = endpoint.name.and_then(|name| name.strip_prefix(workload.id.name.as_str()));
            rest.is_some_and(|rest| rest.starts_with('-'))
        };
        target.subset.is_none() || workloads.iter().any(of)
    };
    let mut all: Vec<(SocketAddr, &Endpoint<'_>)> = Vec::new();
    for slice in slices {
        let Some(port) = port(slice) else { continue };
        let endpoints = slice.endpoints.iter().filter(|endpoint| wanted(endpoint));
        all.extend(endpoints.map(|endpoint| (SocketAddr::new(endpoint.address, port), endpoint)));
    }
    // A service has one IP version. Where pods have both, that is IPv4.
    let has_ipv4 = all.iter().any(|(address, _)| address.is_ipv4());
    all.retain(|(address, _)| matches!(address.ip(), IpAddr::V4(_)) == has_ipv4);
    let is_ready = |endpoint: &Endpoint<'_>| endpoint.ready && !endpoint.terminating;
    // KEP-1669: without one that is ready, those that still serve while they end.
    let none_is_ready = !all.iter().any(|(_, endpoint)| is_ready(endpoint));
    let is_used = |endpoint: &Endpoint<'_>| {
        is_ready(endpoint) || (none_is_ready && endpoint.serving && endpoint.terminating)
    };
    let mut members: Vec<Member> = Vec::new();
    let mut names = BTreeSet::new();
    for (address, endpoint) in all {
        if !is_used(endpoint) {
            endpoint.field.note(NoteCode::Surprise, "the pod is not ready, so it is left out", "");
            continue;
        }
        let called = endpoint.name.map_or_else(|| format!("pod-{}", address.ip()), str::to_owned);
        let name = draft::unused(&draft::name(&called), |name| names.contains(name));
        names.insert(name.clone());
        members.push(Member {
            name,
            address,
            weight: None,
            max_connections: None,
            origin: Origin::from(&endpoint.field),
        });
    }
    Some(members)
}

fn discovery(target: &Target<'_, '_>, given: &Given<'_>) -> Entry {
    let id = &target.service.id;
    let file =
        format!("{}/{}.{}.{}.json", given.options.discovery, id.namespace, id.name, target.port.label());
    let message = "the backends come from the file that shunt-kube keeps; Shunt must reach the pods without \
                   an overlay";
    let help = "else give the NodePorts: --backend DEPLOYMENT=NODE:PORT";
    target.service.field.note(NoteCode::Differs, message, help);
    Entry::new("file", file, &target.port.field)
}
