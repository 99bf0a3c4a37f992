//! Sections of a configuration of HAProxy: what a proxy says, with what its defaults say.

use super::words::{Line, Word};
use crate::import::note::{NoteCode, Notes};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Global,
    Defaults,
    Frontend,
    Backend,
    Listen,
}

/// A section.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) kind: Kind,
    pub(super) name: String,
    /// The line that begins it.
    pub(super) head: Word,
    /// Those of its defaults come first.
    pub(super) lines: Vec<Line>,
    /// How many of the lines come from its defaults.
    pub(super) inherited: usize,
}

/// Sections that say nothing about how traffic is served.
const QUIET: &[&str] =
    &["cache", "crt-store", "http-errors", "log-forward", "mailers", "peers", "program", "ring", "userlist"];

/// All proxies, in the order of the files.
pub(super) fn all(lines: Vec<Line>, notes: &Notes) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut defaults: Vec<(String, Vec<Line>)> = Vec::new();
    let mut open: Option<Section> = None;
    let mut is_quiet = false;
    for line in lines {
        let first = &line[0];
        let kind = match first.text.as_str() {
            "global" => Kind::Global,
            "defaults" => Kind::Defaults,
            "frontend" => Kind::Frontend,
            "backend" => Kind::Backend,
            "listen" => Kind::Listen,
            quiet if QUIET.contains(&quiet) => {
                close(open.take(), &mut sections, &mut defaults);
                is_quiet = true;
                continue;
            }
            "resolvers" | "fcgi-app" => {
                close(open.take(), &mut sections, &mut defaults);
                let message = format!("Shunt has no section like {}", first.text);
                notes.add(NoteCode::NotCarried, Some(&first.place), &first.text, message, "");
                is_quiet = true;
                continue;
            }
            _ => {
                match &mut open {
                    Some(section) => section.lines.push(line),
                    None if is_quiet => {}
                    None => {
                        let message = format!("{:?} stands in no section", first.text);
                        notes.add(
                            NoteCode::Syntax,
                            Some(&first.place),
                            "",
                            message,
                            "is this HAProxy's file?",
                        );
                        return sections;
                    }
                }
                continue;
            }
        };
        close(open.take(), &mut sections, &mut defaults);
        is_quiet = false;
        let name = line.get(1).map(|word| word.text.clone()).unwrap_or_default();
        let has_name = matches!(kind, Kind::Global | Kind::Defaults) || !name.is_empty();
        if !has_name {
            let message = format!("the {} has no name", first.text);
            notes.add(NoteCode::MissingField, Some(&first.place), "", message, "");
        }
        // `defaults a from b`, `backend c from a`; without one the last defaults hold.
        let from = line.iter().position(|word| word.text == "from").and_then(|at| line.get(at + 1));
        let inherited = match (kind, from) {
            (Kind::Global, _) | (Kind::Defaults, None) => Vec::new(),
            (_, Some(from)) => match defaults.iter().find(|(name, _)| *name == from.text) {
                Some((_, lines)) => lines.clone(),
                None => {
                    let message = format!("there are no defaults {:?} before this", from.text);
                    notes.add(NoteCode::Unresolved, Some(&from.place), "", message, "");
                    Vec::new()
                }
            },
            (_, None) => defaults.last().map(|(_, lines)| lines.clone()).unwrap_or_default(),
        };
        let head = first.clone();
        open = Some(Section { kind, name, head, inherited: inherited.len(), lines: inherited });
    }
    close(open, &mut sections, &mut defaults);
    sections
}

fn close(open: Option<Section>, sections: &mut Vec<Section>, defaults: &mut Vec<(String, Vec<Line>)>) {
    match open {
        Some(section) if section.kind == Kind::Defaults => defaults.push((section.name, section.lines)),
        Some(section) if section.kind != Kind::Global => sections.push(section),
        Some(_) | None => {}
    }
}
