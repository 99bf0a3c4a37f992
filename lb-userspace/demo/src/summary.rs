//! The last words: what clients saw, and what another balancer made of the same case.

use std::{collections::BTreeMap, fs, path::Path};

use lb_core::event::EventKind;

use super::{
    load::{Kind, Outcome, Sample},
    moment::{Report, Step},
    scene::{APP, LONE},
    view::line,
};

/// Good answers that an Envoy with the same detector gave its clients, one connection each.
const ENVOY: [(&str, &str); 2] = [(APP, "99.5 %"), (LONE, "0.8 %")];

/// Whether nothing was left behind.
pub(super) fn print(report: &Report, lab: &str) -> bool {
    let seen = report.steps.iter().filter(|step| matches!(step, Step::Seen(_))).count();
    line(&format!("\n{seen} of {} steps seen in {:.0} s", report.steps.len(), report.lasted.as_secs_f64()));
    line(&format!(
        "\n{:<8} {:<18} {:>9} {:>8} {:>8} {:>10} {:>9}",
        "service", "clients", "requests", "500s", "no reply", "good", "Envoy"
    ));
    for (service, kind, name) in [
        (APP, Kind::Fresh, "new connections"),
        (APP, Kind::Kept, "keep-alive"),
        (LONE, Kind::Fresh, "new connections"),
        (LONE, Kind::Kept, "keep-alive"),
    ] {
        line(&row(report, service, kind, name));
    }
    for failure in mute(report) {
        line(&failure);
    }
    let count = |service: &str, kind: EventKind| {
        report.events.iter().filter(|event| event.service == service && event.kind == kind).count()
    };
    line(&format!(
        "\n{APP}: {} ejections, {} trials, {} readmissions; {LONE}: {} ejections, {} refused by the floor",
        count(APP, EventKind::Eject),
        count(APP, EventKind::Trial),
        count(APP, EventKind::Readmit),
        count(LONE, EventKind::Eject),
        count(LONE, EventKind::Refused),
    ));
    line("Envoy: outlier detection with the same rule in the same case. It keeps 99.5 % with a good backend");
    line("beside the bad one, and ejects the lone one: 0.8 % good, where doing nothing gives 50 %.");
    line(
        "This run is short, so the failures before the first ejection weigh more than they would in an hour.",
    );
    let left = left_behind(lab);
    let listed = if left.is_empty() { "nothing".to_owned() } else { left.join(", ") };
    line(&format!("Left behind: {listed}."));
    left.is_empty()
}

fn row(report: &Report, service: &str, kind: Kind, name: &str) -> String {
    let all =
        report.samples.iter().filter(|(visited, _)| *visited == service).flat_map(|(_, samples)| samples);
    let own: Vec<&Sample> = all.filter(|sample| sample.kind == kind).collect();
    let good = own.iter().filter(|sample| sample.is_good()).count();
    let mute = own.iter().filter(|sample| matches!(sample.outcome, Outcome::Error(_))).count();
    let rate = if own.is_empty() { "-".to_owned() } else { tenths(good, own.len()) };
    let envoy = ENVOY.iter().find(|(case, _)| *case == service && kind == Kind::Fresh);
    format!(
        "{service:<8} {name:<18} {:>9} {:>8} {mute:>8} {rate:>10} {:>9}",
        own.len(),
        own.len() - good - mute,
        envoy.map_or("", |(_, good)| good),
    )
}

/// Requests without an answer, by what the client's system said, with one that a packet trace can be searched for.
fn mute(report: &Report) -> Vec<String> {
    let mut kinds: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for sample in report.samples.iter().flat_map(|(_, samples)| samples) {
        if let Outcome::Error(kind) = sample.outcome {
            let from = sample.local.map_or("no connection".to_owned(), |local| format!("from {local}"));
            let first = || (0, format!("{from}, {:.3} s after boot", sample.begun.as_secs_f64()));
            kinds.entry(kind.to_string()).or_insert_with(first).0 += 1;
        }
    }
    kinds
        .iter()
        .map(|(kind, (count, first))| format!("no reply: {count} × {kind}; the first {first}"))
        .collect()
}

pub(super) fn tenths(part: usize, whole: usize) -> String {
    let tenths = part * 1000 / whole;
    format!("{}.{} %", tenths / 10, tenths % 10)
}

/// Everything that still carries the lab's name.
pub(super) fn left_behind(lab: &str) -> Vec<String> {
    let folders = ["/run/netns", "/tmp", "/sys/fs/bpf/shunt"];
    let instance = lab.strip_prefix("shunt-").unwrap_or(lab);
    let mut found = Vec::new();
    for folder in folders {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(lab) || name == instance {
                found.push(Path::new(folder).join(name).display().to_string());
            }
        }
    }
    found
}
