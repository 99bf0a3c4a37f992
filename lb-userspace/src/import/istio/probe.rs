//! The probe of an entrance, from the readiness probes of its workloads.

use super::{
    Picture,
    backends::{self, Found},
    entrance::Entrance,
    workload::{Port, Readiness, Workload},
};
use crate::import::{
    draft::{Entry, Origin, Probe},
    note::NoteCode,
};

/// A readiness probe with the number of its port.
struct Asked<'p, 'n> {
    readiness: &'p Readiness<'n>,
    port: Option<u16>,
}

pub(super) fn find(picture: &Picture<'_>, entrance: &Entrance<'_, '_>, found: &Found) -> Option<Probe> {
    let mut all = Vec::new();
    let mut without = Vec::new();
    for target in &entrance.targets {
        for workload in backends::workloads(picture, target) {
            match &workload.readiness {
                Some(readiness) => {
                    let at = readiness.port.as_ref().and_then(|port| number(port, workload));
                    let own = number(&target.port.target, workload);
                    all.push(Asked { readiness, port: at.filter(|_| at != own) });
                }
                None => without.push(workload),
            }
        }
    }
    let first = all.first()?;
    for other in &all[1..] {
        if !is_same(first, other) {
            let message =
                "Deployments of one Service have different readiness probes; the first one's is used";
            other.readiness.field.note(NoteCode::NotCarried, message, "");
        }
    }
    for workload in without {
        let message = format!("{} has no readiness probe; Shunt probes it like the others", workload.id.name);
        first.readiness.field.note(NoteCode::NotCarried, message, "");
    }
    let mut probe = first.readiness.probe.clone();
    if let (Some(port), Some(field)) = (first.port, &first.readiness.port) {
        let (Port::Number(_, place) | Port::Name(_, place)) = field;
        probe.entries.push(Entry::new("port", i64::from(port), Origin::from(place)));
        if found.members.iter().any(|member| member.origin == Origin::Option("--backend")) {
            let message = "the probe has a port of its own; it must be open at each --backend, too";
            place.note(NoteCode::Surprise, message, "");
        }
    }
    Some(probe)
}

/// A port's number. A name is that of a container's port.
fn number(port: &Port<'_>, workload: &Workload<'_>) -> Option<u16> {
    match port {
        Port::Number(number, _) => Some(*number),
        Port::Name(name, field) => {
            let found = workload.ports.iter().find(|(own, _)| *own == Some(name));
            if found.is_none() {
                let message = format!("no container of {} has a port {name:?}", workload.id.name);
                field.note(NoteCode::Unresolved, message, "");
            }
            found.map(|(_, number)| *number)
        }
    }
}

fn is_same(one: &Asked<'_, '_>, other: &Asked<'_, '_>) -> bool {
    let values = |asked: &Asked<'_, '_>| -> Vec<(&'static str, String)> {
        asked.readiness.probe.entries.iter().map(|entry| (entry.key, entry.value.to_string())).collect()
    };
    one.port == other.port
        && one.readiness.probe.kind == other.readiness.probe.kind
        && values(one) == values(other)
}
