//! Whether every test that `SPECIFICATION.md` names as the proof of a breaker rule is there.
//!
//! A name is `` `module::path::test` `` of lb-core, or begins with the crate it is in. A test that was
//! renamed or lost would else leave a promise that nothing keeps.

#[cfg(test)]
mod tests;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

/// The section whose rules are looked at.
const SECTION: &str = "## The breaker's rules";
/// Where the modules of a crate lie. Without a crate's name: lb-core.
const ROOTS: &[(&str, &[&str])] = &[
    ("lb_userspace", &["lb-userspace/src", "lb-userspace/tests"]),
    ("lb_tests", &["tests/tests"]),
    ("lb_fuzz", &["tests/fuzz/tests"]),
];
const CORE: &[&str] = &["lb-userspace/core/src", "lb-userspace/core/tests"];

/// Everything that is missing, one line each.
pub(crate) fn check(workspace: &Path) -> Result<Vec<String>> {
    let path = workspace.join("SPECIFICATION.md");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let rules = rules(&text);
    ensure!(!rules.is_empty(), "SPECIFICATION.md has no rules under `{SECTION}`");
    let mut broken = Vec::new();
    for rule in rules {
        if rule.tests.is_empty() {
            broken.push(format!("SPECIFICATION.md:{}: a rule without a test", rule.line));
        }
        for test in rule.tests {
            if !exists(workspace, test) {
                broken.push(format!("SPECIFICATION.md:{}: there is no test `{test}`", rule.line));
            }
        }
    }
    Ok(broken)
}

#[derive(Debug, PartialEq, Eq)]
struct Rule<'t> {
    /// From 1.
    line: usize,
    tests: Vec<&'t str>,
}

/// The rows of the section's tables: the last cell names the tests.
fn rules(text: &str) -> Vec<Rule<'_>> {
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    let section = numbered.skip_while(|(_, line)| *line != SECTION).skip(1);
    let section = section.take_while(|(_, line)| !line.starts_with("## "));
    let rows = section.filter_map(|(line, text)| {
        let cells: Vec<&str> =
            text.strip_prefix('|')?.strip_suffix('|')?.split(" | ").map(str::trim).collect();
        let last = *cells.last()?;
        // The head of a table and the line below it.
        let is_rule = cells.len() > 1 && last != "shown by" && !last.starts_with("--");
        is_rule.then(|| Rule { line, tests: quoted(last) })
    });
    rows.collect()
}

fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn exists(workspace: &Path, test: &str) -> bool {
    let mut segments: Vec<&str> = test.split("::").collect();
    let Some(name) = segments.pop() else { return false };
    let root = ROOTS.iter().find(|(of, _)| segments.first() == Some(of));
    let (folders, modules) = match root {
        Some((_, folders)) => (*folders, &segments[1..]),
        None => (CORE, &segments[..]),
    };
    folders.iter().any(|folder| {
        let folder = workspace.join(folder);
        // The module's own file, or one that has the rest of the modules inside.
        (1..=modules.len()).rev().any(|depth| {
            let inline = &modules[depth..];
            files(&folder, &modules[..depth]).iter().any(|file| {
                fs::read_to_string(file).is_ok_and(|source| {
                    inline.iter().all(|module| source.contains(&format!("mod {module} {{")))
                        && has(&source, name, !inline.is_empty())
                })
            })
        })
    })
}

fn files(root: &Path, modules: &[&str]) -> [PathBuf; 3] {
    let path = root.join(modules.join("/"));
    [path.with_extension("rs"), path.join("mod.rs"), path.join("main.rs")]
}

/// A function of this name with a test's attribute among those above it, inside a module of the file or in
/// none.
fn has(source: &str, name: &str, inside: bool) -> bool {
    let lines: Vec<&str> = source.lines().collect();
    let begins = |line: &str| {
        let rest = line.trim_start().trim_start_matches("async ").strip_prefix("fn ")?.strip_prefix(name)?;
        rest.starts_with('(').then_some(())
    };
    let is_test = |at: usize| {
        let above = lines[..at].iter().rev().map(|line| line.trim_start());
        let mut above = above.take_while(|line| line.starts_with('#') || line.starts_with("//"));
        above.any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    };
    let is_inside =
        |at: usize| lines[..at].iter().any(|line| line.starts_with("mod ") && line.ends_with('{'));
    let mut found = lines.iter().enumerate().filter(|(_, line)| begins(line).is_some()).map(|(at, _)| at);
    found.any(|at| is_test(at) && is_inside(at) == inside)
}
