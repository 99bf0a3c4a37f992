//! How connections are spread.

use super::{
    say::{note, origin},
    words::Line,
};
use crate::import::{
    draft::Entry,
    limits,
    note::{NoteCode, Notes},
};

/// The key of the service, if there is one for the policy.
pub(super) fn read(line: &Line, notes: &Notes) -> Option<Entry> {
    let Some(policy) = line.get(1) else {
        note(notes, NoteCode::MissingField, &line[0], "the policy is missing");
        return None;
    };
    match policy.text.as_str() {
        "roundrobin" | "static-rr" | "leastconn" | "random" => {
            let message = "Shunt spreads connections evenly by a Maglev table, whatever the policy";
            note(notes, NoteCode::Differs, policy, message);
        }
        "source" => return Some(limits::by_source(origin(line))),
        "first" => {
            let message = "Shunt uses all backends; `fallback` has those for need";
            note(notes, NoteCode::NotCarried, policy, message);
        }
        _ => {
            note(notes, NoteCode::NeedsProxy, policy, "Shunt does not look into requests to choose a backend")
        }
    }
    None
}

pub(super) fn stick(line: &Line, notes: &Notes) -> Option<Entry> {
    let by_source = line.get(2).is_some_and(|by| by.text == "src");
    let shown = line.get(2).unwrap_or(&line[0]);
    if by_source {
        let differs = "In HAProxy the first connection of a client chooses, here its address does";
        return Some(limits::by_source(origin(line)).differs(differs));
    }
    note(notes, NoteCode::NeedsProxy, shown, "Shunt does not look into requests to choose a backend");
    None
}
