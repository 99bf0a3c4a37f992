//! The documents: all are there, every relative link leads somewhere, and every page is in `docs/SUMMARY.md`.
//!
//! mdBook, which builds the pages from `book.toml`, takes minutes to install, so a build of it is no check here. This module
//! looks for the mistakes that it would find.

use std::path::{Component, Path, PathBuf};

use anyhow::Result;

use crate::files;

const PAGES: &str = "docs";
const SUMMARY: &str = "docs/SUMMARY.md";
const REQUIRED: &[&str] = &[
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "SECURITY.md",
    "SPECIFICATION.md",
    "book.toml",
    SUMMARY,
    "docs/breaker-rules.md",
    "docs/configuration.md",
    "docs/connections.md",
    "docs/glossary.md",
    "docs/operating.md",
    "docs/performance.md",
    "docs/design/ejection.md",
    "docs/design/evidence.md",
    "docs/design/flow-table.md",
    "docs/design/packet-path.md",
    "docs/design/replay.md",
    "docs/design/restart.md",
];

/// Everything that is wrong, one line each.
pub(crate) fn check(workspace: &Path) -> Result<Vec<String>> {
    let missing = REQUIRED.iter().filter(|file| !workspace.join(file).is_file());
    let mut wrong: Vec<String> = missing.map(|file| format!("{file}: missing")).collect();
    let mut listed = Vec::new();
    for path in files::below(workspace, &["md"])? {
        let shown = path.strip_prefix(workspace)?.to_owned();
        for (line, target) in links(&files::read(&path)?) {
            let place = beside(&shown, &target);
            if !workspace.join(&place).exists() {
                wrong.push(format!("{}:{line}: there is no {target}", shown.display()));
            }
            if shown == Path::new(SUMMARY) {
                listed.push(place);
            }
        }
    }
    for path in files::below(&workspace.join(PAGES), &["md"])? {
        let shown = path.strip_prefix(workspace)?.to_owned();
        if shown != Path::new(SUMMARY) && !listed.contains(&shown) {
            wrong.push(format!("{SUMMARY}: {} is not in it", shown.display()));
        }
    }
    Ok(wrong)
}

/// Relative targets of links, without what follows `#`, and their lines. Code has no links.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut code = false;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            code = !code;
        }
        if code {
            continue;
        }
        // Every second part stands between backticks.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
        for rest in prose.split("](").skip(1) {
            let target = rest.split([')', '#', ' ']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains(':') {
                found.push((index + 1, target.to_owned()));
            }
        }
    }
    found
}

/// A link's target, as a path from the root of the checkout.
fn beside(file: &Path, target: &str) -> PathBuf {
    let mut place = file.parent().map(Path::to_owned).unwrap_or_default();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => drop(place.pop()),
            Component::Normal(name) => place.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_relative_and_outside_code() {
        let text = "See [it](docs/a.md#part), [that](../b.md) and `[code](x.md)`, [page](https://example.org).\n\
                    ```\n[no](c.md)\n```\n[here](#below)\n";
        assert_eq!(links(text), [(1, "docs/a.md".to_owned()), (1, "../b.md".to_owned())]);
    }

    #[test]
    fn targets_are_found_from_their_file() {
        for (file, target, expected) in [
            ("README.md", "docs/a.md", "docs/a.md"),
            ("docs/design/x.md", "../a.md", "docs/a.md"),
            ("docs/x.md", "./y.md", "docs/y.md"),
        ] {
            assert_eq!(beside(Path::new(file), target), Path::new(expected));
        }
    }
}
