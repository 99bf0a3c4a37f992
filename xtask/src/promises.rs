//! Checks that every test exists that `SPECIFICATION.md` and `docs/breaker-rules.md` name as a proof.
//!
//! A breaker rule names a test as `` `module::path::test` `` of lb-core, or begins with the crate that has it. A
//! promise of the specification names `` `path/of/file.rs`: `test` ``, with as much of the path as is needed to
//! find one file, or a whole file. Without this check a renamed or lost test would leave a promise that nothing
//! keeps.

#[cfg(test)]
mod tests;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

/// The page of the promises. Their tables end where the limits begin, which name commands instead of tests.
const PROMISES: &str = "SPECIFICATION.md";
const LIMITS: &str = "## Limits";
/// The page of the breaker's rules. Each row of its tables is a rule.
const RULES: &str = "docs/breaker-rules.md";
/// Where the modules of a crate lie. Without a crate's name: lb-core.
const ROOTS: &[(&str, &[&str])] = &[
    ("lb_userspace", &["lb-userspace/src", "lb-userspace/tests"]),
    ("lb_tests", &["tests/tests"]),
    ("lb_fuzz", &["tests/fuzz/tests"]),
    ("lb_lab", &["lb-userspace/lab/src"]),
    ("lb_demo", &["lb-userspace/demo/src"]),
    ("lb_bench", &["tests/bench/src"]),
];
const CORE: &[&str] = &["lb-userspace/core/src", "lb-userspace/core/tests"];

/// Everything that is missing, one line each.
pub(crate) fn check(workspace: &Path) -> Result<Vec<String>> {
    let read = |page: &str| {
        let path = workspace.join(page);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let (specification, breaker_rules) = (read(PROMISES)?, read(RULES)?);
    let promises = promises(&specification);
    ensure!(!promises.is_empty(), "{PROMISES} has no promises above `{LIMITS}`");
    let rules = rules(&breaker_rules);
    ensure!(!rules.is_empty(), "{RULES} has no rules");
    let mut sources = Vec::new();
    collect(workspace, &mut sources)?;
    let mut broken = Vec::new();
    for promise in promises {
        let missing = missing(workspace, &sources, &promise.tests);
        broken.extend(missing.into_iter().map(|what| format!("{PROMISES}:{}: {what}", promise.line)));
    }
    for rule in rules {
        if rule.tests.is_empty() {
            broken.push(format!("{RULES}:{}: a rule without a test", rule.line));
        }
        for test in rule.tests {
            if !exists(workspace, test) {
                broken.push(format!("{RULES}:{}: there is no test `{test}`", rule.line));
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

/// The rows of the specification above its limits.
fn promises(text: &str) -> Vec<Rule<'_>> {
    rows(numbered(text).take_while(|(_, line)| *line != LIMITS))
}

/// The rows of the page of rules.
fn rules(text: &str) -> Vec<Rule<'_>> {
    rows(numbered(text))
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// The rows of the tables: the last cell names the tests.
fn rows<'t>(lines: impl Iterator<Item = (usize, &'t str)>) -> Vec<Rule<'t>> {
    let rows = lines.filter_map(|(line, text)| {
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

/// Every source file of ours.
fn collect(folder: &Path, sources: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !hidden && !path.ends_with("target") {
            collect(&path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(path);
        }
    }
    Ok(())
}

/// Names in a promise's last cell that stand for nothing. A test's name belongs to the files named before it.
fn missing(workspace: &Path, sources: &[PathBuf], quoted: &[&str]) -> Vec<String> {
    let mut files: Vec<&PathBuf> = Vec::new();
    let (mut broken, mut proofs) = (Vec::new(), 0);
    for word in quoted {
        let is_name =
            |word: &str| word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        let there = if word.ends_with(".rs") || word.ends_with('/') {
            let within = |path: &&PathBuf| match word.strip_suffix('/') {
                Some(folder) => path.parent().is_some_and(|parent| parent.ends_with(folder)),
                None => path.ends_with(word),
            };
            files = sources.iter().filter(within).collect();
            !files.is_empty()
        } else if word.contains("::") {
            exists(workspace, word)
        } else if word.contains('_') && is_name(word) {
            let sources = files.iter().filter_map(|file| fs::read_to_string(file).ok());
            sources.into_iter().any(|source| [true, false].iter().any(|inside| has(&source, word, *inside)))
        } else {
            // A crate or a command.
            continue;
        };
        proofs += 1;
        if !there {
            broken.push(format!("there is no `{word}`"));
        }
    }
    if proofs == 0 {
        broken.push("a promise without a test".to_owned());
    }
    broken
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

/// A function of this name with a test's attribute, or the macro that makes tests of it, above it, inside a module of the file or in
/// none.
fn has(source: &str, name: &str, inside: bool) -> bool {
    let lines: Vec<&str> = source.lines().collect();
    let begins = |line: &str| {
        let rest = line.trim_start().trim_start_matches("async ").strip_prefix("fn ")?.strip_prefix(name)?;
        rest.starts_with('(').then_some(())
    };
    let both_families = format!("both_families!({name});");
    let is_test = |at: usize| {
        let above = lines[..at].iter().rev().map(|line| line.trim_start());
        let mut above = above.take_while(|line| {
            line.starts_with('#') || line.starts_with("//") || line.starts_with("both_families!")
        });
        above.any(|line| {
            line.starts_with("#[test]") || line.starts_with("#[tokio::test") || line == both_families
        })
    };
    let is_inside =
        |at: usize| lines[..at].iter().any(|line| line.starts_with("mod ") && line.ends_with('{'));
    let mut found = lines.iter().enumerate().filter(|(_, line)| begins(line).is_some()).map(|(at, _)| at);
    found.any(|at| is_test(at) && is_inside(at) == inside)
}
