//! A draft as TOML for people, and as rows for a table.

use std::fmt::Write as _;

use serde::Serialize;

use super::{
    Format,
    draft::{Draft, Entry, Member, Origin, Service},
    note::{Note, Weight},
};
use crate::printable::printable;

const WIDTH: usize = 100;

/// One line of the result, for `--explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// `dr.yaml:12:17`, or empty.
    pub place: String,
    /// The field of the input, or what stands in for it.
    pub field: String,
    /// `service.web.breaker.interval`
    pub key: String,
    pub value: String,
    /// Empty: the meaning is the same.
    pub differs: String,
}

pub(super) fn toml(format: Format, files: &[&str], draft: &Draft, notes: &[Note]) -> String {
    let mut out = String::new();
    let from = files.join(", ");
    comment(
        &mut out,
        &format!(
            "Shunt's configuration, made by `shunt import {}` from {from}. Behind each line stands the place \
             that it came from.",
            format.name()
        ),
    );
    let said = |weight| notes.iter().filter(move |note| note.weight == weight);
    for (weight, title) in [
        (Weight::Loss, "Not carried. Traffic is served in another way than before:"),
        (Weight::Remark, "Remarks:"),
    ] {
        if said(weight).next().is_some() {
            out += "#\n";
            comment(&mut out, title);
        }
        for note in said(weight) {
            comment(&mut out, &format!("- {}", shown(note)));
        }
    }
    out.push('\n');
    for entry in &draft.entries {
        line(&mut out, entry);
    }
    for service in &draft.services {
        self::service(&mut out, service);
    }
    out
}

fn shown(note: &Note) -> String {
    let place = note.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
    let field = if note.field.is_empty() { String::new() } else { format!("{}: ", note.field) };
    format!("{place}{field}{}", note.message)
}

fn service(out: &mut String, service: &Service) {
    let name = &service.name;
    out.push('\n');
    comment(out, &format!("{}.", service.about));
    header(out, name, "");
    for entry in &service.entries {
        line(out, entry);
    }
    if let Some(discovery) = &service.discovery {
        header(out, name, ".discovery");
        line(out, discovery);
    } else {
        header(out, name, ".backends");
        members(out, &service.backends);
    }
    if !service.fallback.is_empty() {
        header(out, name, ".fallback");
        members(out, &service.fallback);
    }
    if let Some(probe) = &service.probe {
        header(out, name, &format!(".probe.{}", probe.kind));
        for entry in &probe.entries {
            line(out, entry);
        }
    }
    header(out, name, ".breaker");
    for entry in &service.breaker {
        line(out, entry);
    }
}

/// A service's table, or one inside it.
fn header(out: &mut String, service: &str, inside: &str) {
    if !inside.is_empty() {
        out.push('\n');
    }
    let _ = writeln!(out, "[service.{}{inside}]", bare(service));
}

/// A key as TOML writes it.
fn bare(name: &str) -> String {
    let is_bare = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if is_bare { name.to_owned() } else { format!("\"{name}\"") }
}

fn members(out: &mut String, members: &[Member]) {
    for member in members {
        placed(out, &format!("{} = {}", bare(&member.name), value(member)), &member.origin);
    }
}

fn value(member: &Member) -> String {
    let Member { address, weight, max_connections, .. } = member;
    let weight = weight.map(|weight| format!(", weight = {weight}")).unwrap_or_default();
    let most = max_connections.map(|most| format!(", max_connections = {most}")).unwrap_or_default();
    match format!("{weight}{most}") {
        more if more.is_empty() => format!("\"{address}\""),
        more => format!("{{ address = \"{address}\"{more} }}"),
    }
}

fn line(out: &mut String, entry: &Entry) {
    if !entry.differs.is_empty() {
        comment(out, &format!("{}.", entry.differs));
    }
    placed(out, &format!("{} = {}", entry.key, entry.value), &entry.origin);
}

/// A line with its place behind it, or above it if it is long. An end of line in the input must not end the comment.
fn placed(out: &mut String, line: &str, origin: &Origin) {
    let from = match origin {
        Origin::Field { path, place } => format!("{place} {}", tail(path)),
        Origin::Default { of, field } => format!("{of}'s default of {field}"),
        Origin::Option(option) => (*option).to_owned(),
        Origin::Both { path, place, option } => format!("{place} {}, {option}", tail(path)),
    };
    let from = printable(&from);
    if line.chars().count() + from.chars().count() + 4 <= WIDTH {
        let _ = writeln!(out, "{line}  # {from}");
    } else {
        comment(out, &from);
        let _ = writeln!(out, "{line}");
    }
}

/// The last two names of a path. Words of a line are shown as they are.
fn tail(path: &str) -> &str {
    if path.contains(' ') {
        return path;
    }
    path.rmatch_indices('.').nth(1).map_or(path, |(at, _)| &path[at + 1..])
}

/// Comment lines of at most [`WIDTH`] columns. A word that is longer stands alone. No character of the input ends one.
fn comment(out: &mut String, text: &str) {
    let text = printable(text);
    let mut columns = 0;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let wide = word.chars().count();
        if columns > 0 && columns + 1 + wide > WIDTH {
            out.push('\n');
            columns = 0;
        }
        if columns == 0 {
            out.push('#');
            columns = 1;
        }
        out.push(' ');
        out.push_str(word);
        columns += 1 + wide;
    }
    if columns > 0 {
        out.push('\n');
    }
}

pub(super) fn rows(draft: &Draft) -> Vec<Row> {
    let mut rows: Vec<_> = draft.entries.iter().map(|entry| row("", entry)).collect();
    for service in &draft.services {
        let name = bare(&service.name);
        let at = |inside: &str| format!("service.{name}{inside}.");
        let of = |inside: &str, entries: &[Entry]| -> Vec<Row> {
            entries.iter().map(|entry| row(&at(inside), entry)).collect()
        };
        rows.extend(of("", &service.entries));
        rows.extend(service.discovery.iter().map(|entry| row(&at(".discovery"), entry)));
        for (inside, members) in [(".backends", &service.backends), (".fallback", &service.fallback)] {
            rows.extend(members.iter().map(|member| {
                let key = format!("{}{}", at(inside), bare(&member.name));
                from(&member.origin, key, value(member), "")
            }));
        }
        if let Some(probe) = &service.probe {
            rows.extend(of(&format!(".probe.{}", probe.kind), &probe.entries));
        }
        rows.extend(of(".breaker", &service.breaker));
    }
    rows
}

fn row(at: &str, entry: &Entry) -> Row {
    from(&entry.origin, format!("{at}{}", entry.key), entry.value.to_string(), entry.differs)
}

fn from(origin: &Origin, key: String, value: String, differs: &str) -> Row {
    let (place, field) = match origin {
        Origin::Field { path, place } => (place.to_string(), path.clone()),
        Origin::Default { of, field } => (String::new(), format!("{of}'s default of {field}")),
        Origin::Option(option) => (String::new(), (*option).to_owned()),
        Origin::Both { path, place, option } => (place.to_string(), format!("{path}, {option}")),
    };
    Row { place, field, key, value, differs: differs.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::note::Place;

    #[test]
    fn comments_keep_to_their_columns() {
        let mut out = String::new();
        comment(&mut out, &format!("{} {} a\nvip = 1", "word ".repeat(30), "x".repeat(120)));
        assert!(out.lines().all(|line| line.starts_with("# ") || line.starts_with("#")), "{out}");
        assert!(out.lines().filter(|line| line.len() > WIDTH).count() == 1, "{out}");
        assert!(!out.contains("\nvip"), "{out}");
    }

    /// A word of HAProxy may have an end of line in it.
    #[test]
    fn no_input_ends_a_comment() {
        let place = Place { file: "a\nb".into(), line: 1, column: 1 };
        let origin = Origin::Field { path: "server x\n[service.evil]".to_owned(), place };
        let mut out = String::new();
        placed(&mut out, "a = 1", &origin);
        placed(&mut out, &format!("b = \"{}\"", "x".repeat(90)), &origin);
        assert_eq!(out.lines().filter(|line| !line.starts_with('#')).count(), 2, "{out}");
    }

    #[test]
    fn a_path_is_shown_by_its_end() {
        assert_eq!(tail("spec.trafficPolicy.outlierDetection.interval"), "outlierDetection.interval");
        assert_eq!((tail("a.b"), tail("a")), ("a.b", "a"));
        assert_eq!(tail("bind 192.0.2.1:80"), "bind 192.0.2.1:80");
    }
}
