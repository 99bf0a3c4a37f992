//! How connections are spread.

use super::{say::note, words::Line};
use crate::import::note::{NoteCode, Notes};

pub(super) fn read(line: &Line, notes: &Notes) {
    let Some(policy) = line.get(1) else {
        return note(notes, NoteCode::MissingField, &line[0], "the policy is missing");
    };
    match policy.text.as_str() {
        "roundrobin" | "static-rr" | "leastconn" | "random" => {
            let message = "Shunt spreads connections evenly by a Maglev table, whatever the policy";
            note(notes, NoteCode::Differs, policy, message);
        }
        "source" => {
            let message = "Shunt does not keep a client address at one backend yet";
            note(notes, NoteCode::NotCarried, policy, message);
        }
        "first" => {
            let message = "Shunt uses all backends; `fallback` has those for need";
            note(notes, NoteCode::NotCarried, policy, message);
        }
        _ => {
            note(notes, NoteCode::NeedsProxy, policy, "Shunt does not look into requests to choose a backend")
        }
    }
}

pub(super) fn stick(line: &Line, notes: &Notes) {
    let by_source = line.get(2).is_some_and(|by| by.text == "src");
    let shown = line.get(2).unwrap_or(&line[0]);
    if by_source {
        let message = "Shunt does not keep a client address at one backend yet";
        note(notes, NoteCode::NotCarried, shown, message);
    } else {
        note(notes, NoteCode::NeedsProxy, shown, "Shunt does not look into requests to choose a backend");
    }
}
