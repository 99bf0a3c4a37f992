//! `cargo xtask words`: the project speaks one language.
//!
//! Over all Rust, Markdown and TOML it looks for
//!
//! - words that the glossary has a better one for ([`BANNED`]), alone or as a part of a name;
//! - sentences in comments and documents that begin with a relative clause without a head ([`RIDDLES`]) and are no
//!   question. Headings may;
//! - Rust files above [`LONGEST_FILE`] lines that do not say at their head why they are one thing, on a line that begins
//!   with [`REASON`];
//! - lines of documents above [`WIDEST_LINE`] columns, outside tables and code.
//!
//! Generated and recorded input of the fuzzer, the list below and the glossary's own list are left out. Files that are
//! not clean yet have an [`allowance`].

mod allowance;
mod prose;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::Path};

use anyhow::Result;

use crate::files;

const BANNED: &[&str] = &[
    "told", "tell", "tells", "telling", "goods", "concern", "concerns", "embryo", "embryos", "forsaken",
    "mandate", "anew", "stir", "seat", "seats", "seated", "whoever", "whom", "reckoned", "overdue", "ending",
    "endings",
];
const RIDDLES: &[&str] = &["What", "Who", "Whoever", "Whom", "Whose"];
const LONGEST_FILE: usize = 400;
const REASON: &str = "//! One file because ";
const WIDEST_LINE: usize = 100;

/// Files that name the words in order to forbid them, and the heading from which on.
const LISTS: &[(&str, &str)] = &[
    ("xtask/src/words.rs", ""),
    ("xtask/src/words/tests.rs", ""),
    ("docs/glossary.md", "## Words that Shunt does not use"),
];
const LEFT_OUT: &[&str] = &["tests/fuzz/corpus/", "Cargo.lock", allowance::FILE];

/// Everything that is wrong, one line each, with what may still be wrong taken off.
pub(crate) fn check(workspace: &Path) -> Result<Vec<String>> {
    allowance::judge(&allowance::read(workspace)?, &findings(workspace)?)
}

/// Writes down as allowed what is wrong now, where that is less than before.
pub(crate) fn shrink(workspace: &Path) -> Result<()> {
    allowance::write(workspace, &allowance::read(workspace)?, &findings(workspace)?)
}

/// By file.
type Findings = BTreeMap<String, Vec<String>>;

fn findings(workspace: &Path) -> Result<Findings> {
    let mut found = Findings::new();
    for path in files::below(workspace, &["rs", "md", "toml"])? {
        let shown = path.strip_prefix(workspace)?.display().to_string();
        if LEFT_OUT.iter().any(|folder| shown.starts_with(folder)) {
            continue;
        }
        let text = files::read(&path)?;
        let wrong = look_at(&shown, &text);
        if !wrong.is_empty() {
            found.insert(shown, wrong);
        }
    }
    Ok(found)
}

/// `FILE:LINE: what is wrong`, for one file.
fn look_at(shown: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let list = LISTS.iter().find(|(file, _)| *file == shown).map(|(_, heading)| *heading);
    for (number, line) in numbered(text) {
        if list.is_some_and(|heading| heading.is_empty() || line == heading) {
            break;
        }
        for word in words(line).filter(|word| BANNED.contains(&word.as_str())) {
            wrong.push(format!("{shown}:{number}: `{word}` is not a word of the project"));
        }
    }
    for (number, sentence) in prose::sentences(shown, text) {
        let first = sentence.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        if RIDDLES.contains(&first) && !sentence.ends_with('?') {
            wrong.push(format!("{shown}:{number}: a sentence without an actor: {}", beginning(&sentence)));
        }
    }
    let lines = text.lines().count();
    if shown.ends_with(".rs") && lines > LONGEST_FILE && !text.lines().any(|line| line.starts_with(REASON)) {
        wrong.push(format!("{shown}: {lines} lines, and its head does not say `{}…`", REASON));
    }
    if shown.ends_with(".md") {
        for (number, line) in prose::document_lines(text) {
            let columns = line.chars().count();
            if columns > WIDEST_LINE {
                wrong.push(format!("{shown}:{number}: {columns} columns"));
            }
        }
    }
    wrong
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

fn beginning(sentence: &str) -> String {
    sentence.split_whitespace().take(6).collect::<Vec<_>>().join(" ")
}

/// Words in small letters; a name is cut at `_` and where small letters turn into capitals.
fn words(line: &str) -> impl Iterator<Item = String> {
    line.split(|c: char| !c.is_alphanumeric()).flat_map(|name| {
        let mut parts = vec![String::new()];
        let mut before = ' ';
        for c in name.chars() {
            if c.is_uppercase() && before.is_lowercase() {
                parts.push(String::new());
            }
            parts.last_mut().expect("there is one from the start").extend(c.to_lowercase());
            before = c;
        }
        parts.retain(|part| !part.is_empty());
        parts
    })
}
