//! `tests/program-mutants.toml`: slips that a person could make in the program, each with the tests that notice.
//!
//! cargo-mutants cannot build the program, so these are made by hand. A mutant that the verifier refuses would prove
//! nothing, so each must load.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::{
    survivors::{field, rows},
    tree,
};
use crate::{
    command::{self, cargo, patient},
    files,
    place::workspace,
};

const FILE: &str = "tests/program-mutants.toml";
/// Loads the program and sends nothing through it.
const LOADS: &str = "packet after_a_panic_a_program_is_not_used_again";

struct Slip {
    name: String,
    file: String,
    before: String,
    after: String,
    /// `packet vlan`: a suite, and parts of the names of its tests.
    tests: Vec<String>,
}

/// The mutants that no test notices, one line each.
pub(crate) fn run(only: Option<&str>) -> Result<Vec<String>> {
    let slips: Vec<_> =
        read(&workspace())?.into_iter().filter(|slip| only.is_none_or(|only| slip.name == only)).collect();
    ensure!(!slips.is_empty(), "{FILE} has no mutant of this name");
    let tree = tree::copy()?;
    let named: BTreeSet<_> = slips.iter().flat_map(|slip| &slip.tests).collect();
    for tests in named {
        ensure!(passes(&tree, tests)?, "`{tests}` must pass before anything is changed");
    }
    let mut wrong = Vec::new();
    for slip in &slips {
        let path = tree.join(&slip.file);
        let sound = files::read(&path)?;
        tree::put(&path, slip.applied(&sound)?.as_bytes())?;
        let outcome = slip.outcome(&tree);
        tree::put(&path, sound.as_bytes())?;
        match outcome.with_context(|| slip.name.clone())? {
            Some(tests) => println!("{}: noticed by `{tests}`", slip.name),
            None => wrong.push(format!("{}: no test notices it ({})", slip.name, slip.tests.join(", "))),
        }
    }
    Ok(wrong)
}

impl Slip {
    fn applied(&self, sound: &str) -> Result<String> {
        let found = sound.matches(&self.before).count();
        ensure!(found == 1, "{FILE}: {}: `before` is {found} times in {}", self.name, self.file);
        Ok(sound.replace(&self.before, &self.after))
    }

    /// The first of its tests that fails.
    fn outcome(&self, tree: &Path) -> Result<Option<&str>> {
        command::run(test(tree, LOADS).arg("--no-run")).context("it does not build")?;
        ensure!(passes(tree, LOADS)?, "the verifier refuses it");
        for tests in &self.tests {
            if !passes(tree, tests)? {
                return Ok(Some(tests));
            }
        }
        Ok(None)
    }
}

/// Builds the program too, because lb-userspace holds it.
fn test(tree: &Path, tests: &str) -> Command {
    let suite = tests.split(' ').next().expect("a text has a first part");
    let mut test = patient(cargo());
    test.args(["test", "--quiet", "--profile", "mutants", "--package", "lb-tests", "--test", suite]);
    test.current_dir(tree).env("CARGO_TARGET_DIR", tree.join("target"));
    test
}

fn passes(tree: &Path, tests: &str) -> Result<bool> {
    let mut test = test(tree, tests);
    let names = tests.split(' ').skip(1);
    test.args(["--", "--include-ignored", "--test-threads=1"]).args(names);
    let output = test.stdin(Stdio::null()).output().context("starting cargo")?;
    let printed = String::from_utf8_lossy(&output.stdout);
    // Cargo itself fails where a test file does not build, and a filter that fits nothing passes.
    let summary = printed.lines().find(|line| line.starts_with("test result:"));
    let summary =
        summary.with_context(|| format!("`{tests}`: {}", String::from_utf8_lossy(&output.stderr)))?;
    ensure!(!summary.contains(" 0 passed; 0 failed;"), "{FILE}: there is no test `{tests}`");
    Ok(output.status.success())
}

fn read(workspace: &Path) -> Result<Vec<Slip>> {
    rows(&files::read(&workspace.join(FILE))?, "mutant", FILE)?
        .iter()
        .map(|row| {
            let field = |name: &str| field(row, name, FILE);
            let tests = row.get("tests").and_then(|tests| tests.as_array()).into_iter().flatten();
            let tests = tests.filter_map(|tests| Some(tests.as_str()?.to_owned())).collect();
            let text = |name: &str| Ok::<_, anyhow::Error>(field(name)?.trim_end_matches('\n').to_owned());
            Ok(Slip {
                name: field("name")?,
                file: field("file")?,
                before: text("before")?,
                after: text("after")?,
                tests,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slip_can_be_made_and_has_its_tests() {
        let slips = read(&workspace()).expect("the list is sound");
        for slip in &slips {
            let sound = files::read(&workspace().join(&slip.file)).expect("the file is there");
            let mutant = slip.applied(&sound).expect("it is there once");
            assert_ne!(mutant, sound, "{}: it changes nothing", slip.name);
            assert!(!slip.tests.is_empty(), "{}: which tests?", slip.name);
        }
        let names: BTreeSet<_> = slips.iter().map(|slip| &slip.name).collect();
        assert_eq!(names.len(), slips.len(), "a name stands twice");
        assert!(slips.len() >= 20, "there were twenty");
    }
}
