//! The reference of all keys as Markdown, made from the comments of [`EXAMPLE`].
//!
//! A comment directly above keys documents these keys. A comment above a blank line or above a header documents the
//! table that follows, unless it shows a key or a table itself, in a line that is indented.

use std::collections::BTreeSet;

use super::EXAMPLE;

const WIDTH: usize = 100;

const HEAD: &str = "\
# Configuration

This page is generated from `dist/shunt.toml`, the file that `shunt config example` prints. Change
that file, then run `BLESS=1 cargo test -p lb-userspace --lib config::reference`.

";

/// `docs/configuration.md`.
pub fn reference() -> String {
    let mut page = Page { text: HEAD.to_owned(), ..Page::default() };
    for block in EXAMPLE.split("\n\n") {
        page.block(block);
    }
    page.text.trim_end().to_owned() + "\n"
}

#[derive(Default)]
struct Page {
    text: String,
    /// Comments about the next table.
    pending: Vec<Part>,
    /// Tables and keys that have their text.
    documented: BTreeSet<String>,
    /// The keys of this table were documented with an earlier table of the same kind.
    repeated: bool,
    /// The first key of the file has no header above it.
    has_heading: bool,
}

/// A piece of a comment.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Words(String),
    Toml(String),
}

struct Key<'a> {
    name: &'a str,
    value: &'a str,
    is_default: bool,
}

impl Page {
    /// Lines between two blank lines.
    fn block(&mut self, block: &str) {
        let mut comment = Vec::new();
        let mut keys = Vec::new();
        for line in block.lines() {
            if let Some(key) = key(line) {
                keys.push(key);
                continue;
            }
            if !keys.is_empty() {
                self.keys(&std::mem::take(&mut comment), &std::mem::take(&mut keys));
            }
            if line.starts_with('[') {
                self.pending.append(&mut comment);
                self.table(line);
            } else {
                add_line(&mut comment, line);
            }
        }
        if keys.is_empty() {
            self.without_keys(comment);
        } else {
            self.keys(&comment, &keys);
        }
    }

    /// A comment that no key follows.
    fn without_keys(&mut self, comment: Vec<Part>) {
        let shown = comment.iter().find_map(|part| match part {
            Part::Toml(toml) => Some(toml.clone()),
            Part::Words(_) => None,
        });
        match shown {
            Some(toml) if toml.starts_with('[') => {
                self.heading(toml.lines().next().unwrap_or_default());
                self.parts(&comment);
            }
            Some(toml) => {
                let name = toml.split(" = ").next().unwrap_or_default();
                self.paragraph(&format!("**`{name}`**, not set by default"));
                self.parts(&comment);
                self.documented.insert(name.to_owned());
            }
            None if self.has_heading => self.pending.extend(comment),
            None => self.parts(&comment),
        }
    }

    fn table(&mut self, header: &str) {
        let kind = kind_of(header);
        self.repeated = self.documented.contains(&kind);
        if self.repeated {
            return;
        }
        self.heading(header);
        let about = std::mem::take(&mut self.pending);
        self.parts(&about);
    }

    fn heading(&mut self, header: &str) {
        let kind = kind_of(header);
        self.paragraph(&format!("## `{kind}`"));
        self.documented.insert(kind);
        self.has_heading = true;
    }

    fn keys(&mut self, comment: &[Part], keys: &[Key<'_>]) {
        if self.repeated {
            return;
        }
        if !self.has_heading {
            self.paragraph("## Top level");
            self.has_heading = true;
        }
        if comment.is_empty() {
            return self.without_comment(keys);
        }
        let names: Vec<_> = keys
            .iter()
            .map(|Key { name, value, is_default }| {
                let value =
                    if *is_default { format!("default `{value}`") } else { format!("for example `{value}`") };
                format!("**`{name}`**, {value}")
            })
            .collect();
        self.paragraph(&names.join("; "));
        self.parts(comment);
        self.documented.extend(keys.iter().map(|key| key.name.to_owned()));
    }

    /// Keys whose text stands elsewhere, or names that the user chooses.
    fn without_comment(&mut self, keys: &[Key<'_>]) {
        let (above, free): (Vec<_>, Vec<_>) = keys.iter().partition(|key| self.documented.contains(key.name));
        if !above.is_empty() {
            let names: Vec<_> = above.iter().map(|key| format!("`{}`", key.name)).collect();
            self.paragraph(&format!("As above: {}.", names.join(", ")));
        }
        if !free.is_empty() {
            let lines: Vec<_> = free.iter().map(|key| format!("{} = {}", key.name, key.value)).collect();
            self.parts(&[Part::Toml(lines.join("\n"))]);
        }
    }

    fn parts(&mut self, parts: &[Part]) {
        for part in parts {
            match part {
                Part::Words(words) => self.paragraph(words),
                Part::Toml(toml) => self.text += &format!("```toml\n{toml}\n```\n\n"),
            }
        }
    }

    fn paragraph(&mut self, words: &str) {
        let mut column = 0;
        for word in words.split(' ') {
            let width = word.chars().count();
            if column > 0 && column + 1 + width > WIDTH {
                self.text.push('\n');
                column = 0;
            } else if column > 0 {
                self.text.push(' ');
                column += 1;
            }
            self.text += word;
            column += width;
        }
        self.text += "\n\n";
    }
}

/// `key = value` or `#key = value`.
fn key(line: &str) -> Option<Key<'_>> {
    let (line, is_default) = line.strip_prefix('#').map_or((line, false), |rest| (rest, true));
    let (name, value) = line.split_once(" = ")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    name.chars().all(plain).then_some(Key { name, value, is_default })
}

fn add_line(comment: &mut Vec<Part>, line: &str) {
    let line = line.strip_prefix('#').unwrap_or(line);
    match (line.strip_prefix("   "), line.trim(), comment.last_mut()) {
        (_, "", _) => comment.push(Part::Words(String::new())),
        (Some(code), _, Some(Part::Toml(toml))) => *toml += &format!("\n{code}"),
        (Some(code), _, _) => comment.push(Part::Toml(code.to_owned())),
        (None, words, Some(Part::Words(text))) => {
            if !text.is_empty() {
                text.push(' ');
            }
            *text += words;
        }
        (None, words, _) => comment.push(Part::Words(words.to_owned())),
    }
}

/// `[service.web.probe.http]` as `[service.NAME.probe.http]`.
fn kind_of(header: &str) -> String {
    let mut segments: Vec<_> = header.trim_matches(['[', ']']).split('.').collect();
    if let ["service", name, ..] = segments.as_mut_slice() {
        *name = "NAME";
    }
    format!("[{}]", segments.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys;

    #[test]
    fn the_page_in_docs_is_the_reference() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, reference()).expect("docs is writable");
        }
        let committed = std::fs::read_to_string(path).expect("docs/configuration.md is there");
        assert!(
            committed == reference(),
            "docs/configuration.md differs from dist/shunt.toml: run this test with BLESS=1"
        );
    }

    #[test]
    fn a_line_of_the_page_may_have_its_whole_width() {
        let mut page = Page::default();
        let word = "x".repeat(WIDTH - 4);
        page.paragraph(&format!("one {word} two"));
        assert_eq!(page.text, format!("one {word}\ntwo\n\n"));
        let mut page = Page::default();
        page.paragraph(&"x".repeat(WIDTH + 1));
        assert!(page.text.starts_with('x'), "no line is empty");
    }

    #[test]
    fn lines_are_at_most_a_hundred_columns_wide() {
        for line in EXAMPLE.lines().chain(reference().lines()) {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
    }

    #[test]
    fn every_key_has_its_text() {
        let page = reference();
        for table in [&keys::ROOT, &keys::TIMEOUTS, &keys::SERVICE, &keys::PROBE_HTTPS, &keys::BREAKER] {
            for key in table.known {
                let is_table = page.contains(&format!(".{key}]`")) || page.contains(&format!("[{key}]`"));
                let is_kind = page.contains(&format!("[{key}.NAME]`")) || page.contains(&format!(".{key}."));
                assert!(is_table || is_kind || page.contains(&format!("**`{key}`**")), "{key}");
            }
        }
    }
}
