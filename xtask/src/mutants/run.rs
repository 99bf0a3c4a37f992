//! One part's mutants, tried one after the other.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use super::{
    Shard,
    mutant::{self, Ended, Mutant, Outcome},
    part::{Part, Rigour},
    tally::Tally,
};
use crate::{
    clock::now,
    command::{self, cargo, patient, read},
    place::target_dir,
};

/// The mutants of one part.
pub(super) struct Run<'t> {
    part: Part,
    tree: &'t Path,
    pub(super) mutants: Vec<Mutant>,
    pub(super) ended: Ended,
    /// Where `ended` is kept.
    file: PathBuf,
}

impl<'t> Run<'t> {
    pub(super) fn new(part: Part, tree: &'t Path) -> Result<Self> {
        let file = target_dir().join("mutants").join(part.name()).with_extension("json");
        let listed = read(tool(part, part.files(), tree).args(["--list", "--json"]))?;
        let mutants = Mutant::all(&listed, tree)?;
        ensure!(!mutants.is_empty(), "{}: cargo-mutants finds nothing to change", part.name());
        let mut run = Self { part, tree, mutants, ended: Ended::read(&file)?, file };
        let interrupted = run.found();
        if interrupted.join("mutants.out/outcomes.json").is_file() {
            run.note(&interrupted)?;
        }
        Ok(run)
    }

    /// Tries what is left, file by file. With `missed` also what was missed before.
    pub(super) fn go(&mut self, shard: Option<Shard>, missed: bool, deadline: Option<Instant>) -> Result<()> {
        let is_in = |at: &usize| shard.is_none_or(|shard| at % shard.n == shard.k);
        let chosen = (0..self.mutants.len()).filter(is_in).map(|at| self.mutants[at].clone());
        let is_left = |mutant: &Mutant| match self.ended.of(mutant) {
            None => true,
            Some(Outcome::Missed) => missed,
            Some(Outcome::Caught | Outcome::Unviable | Outcome::Timeout) => false,
        };
        let left: Vec<_> = chosen.filter(is_left).collect();
        if left.is_empty() {
            return Ok(());
        }
        self.ensure_tests_pass()?;
        // cargo-mutants 27.1 also tries each "delete field" of a file that was not asked for. So a file has one turn.
        for batch in left.chunk_by(|one, next| one.file == next.file) {
            if deadline.is_some_and(|deadline| now() > deadline) {
                println!("{}: the time is over; the next run goes on here", self.part.name());
                break;
            }
            self.try_all(batch, Rigour::Quick)?;
            let is_missed = |mutant: &&Mutant| self.ended.of(mutant) == Some(Outcome::Missed);
            let missed: Vec<_> = batch.iter().filter(is_missed).cloned().collect();
            if !missed.is_empty() && !self.part.slow_tests().is_empty() {
                self.try_all(&missed, Rigour::Thorough)?;
            }
            println!("{}: {}", self.part.name(), self.tally());
        }
        Ok(())
    }

    /// Otherwise every mutant would count as noticed.
    fn ensure_tests_pass(&self) -> Result<()> {
        let mut test = patient(cargo());
        test.args(["test", "--quiet", "--profile", "mutants"]).args(self.part.targets(Rigour::Thorough));
        for package in self.part.tested_by().split(',') {
            test.args(["--package", package]);
        }
        command::run(beside(test.current_dir(self.tree), self.tree))
            .context("the tests must pass before anything is changed")
    }

    /// Tries these, of one file.
    fn try_all(&mut self, batch: &[Mutant], rigour: Rigour) -> Result<()> {
        let found = self.found();
        if found.is_dir() {
            fs::remove_dir_all(&found).with_context(|| format!("removing {}", found.display()))?;
        }
        fs::create_dir_all(&found).with_context(|| format!("making {}", found.display()))?;
        let names: Vec<_> = batch.iter().map(|mutant| escaped(&mutant.name)).collect();
        let mut run = tool(self.part, &[&batch[0].file], self.tree);
        run.arg("--output").arg(&found).args(["--re", &format!("^(?:{})$", names.join("|"))]);
        // The copy is ours. A build has its own limit: the first one also builds what is depended on.
        run.args(["--in-place", "--baseline", "skip", "--build-timeout", "900"]);
        run.args(["--timeout", rigour.patience()]);
        run.args(["--profile", "mutants", "--no-times", "--test-package", self.part.tested_by()]);
        run.args(self.part.targets(rigour).iter().map(|target| format!("--cargo-arg={target}")));
        run.args(["--", "--"]).args(self.part.skipped(rigour).iter().flat_map(|test| ["--skip", test]));
        let status = run.status().context("starting cargo-mutants")?;
        self.note(&found).with_context(|| format!("cargo-mutants: {status}"))?;
        let lost = batch.iter().find(|mutant| self.ended.of(mutant).is_none());
        ensure!(lost.is_none(), "{lost:?}: cargo-mutants: {status}");
        fs::remove_dir_all(&found).with_context(|| format!("removing {}", found.display()))
    }

    /// Notes how those ended that cargo-mutants has tried. It says so at any time, so an interrupted run has done
    /// something too.
    fn note(&mut self, found: &Path) -> Result<()> {
        let outcomes = mutant::outcomes(found)?;
        for mutant in &self.mutants {
            if let Some(outcome) = outcomes.get(&mutant.name) {
                self.ended.note(mutant, *outcome);
            }
        }
        self.ended.write(&self.file)
    }

    /// Where cargo-mutants leaves what it found.
    fn found(&self) -> PathBuf {
        self.file.with_extension("found")
    }

    pub(super) fn tally(&self) -> Tally {
        let count =
            |outcome| self.mutants.iter().filter(|mutant| self.ended.of(mutant) == Some(outcome)).count();
        Tally {
            all: self.mutants.len(),
            caught: count(Outcome::Caught),
            timeout: count(Outcome::Timeout),
            missed: count(Outcome::Missed),
            unviable: count(Outcome::Unviable),
        }
    }
}

/// cargo-mutants over these files of a part. None: over all of them.
fn tool(part: Part, files: &[&str], tree: &Path) -> Command {
    let mut tool = patient(cargo());
    tool.args(["mutants", "--no-config", "--package", part.package(), "--dir"]).arg(tree);
    tool.args(files.iter().flat_map(|file| ["--file", file]));
    beside(&mut tool, tree);
    tool
}

/// With a folder for what is built that is the copy's own.
fn beside<'c>(command: &'c mut Command, tree: &Path) -> &'c mut Command {
    command.env("CARGO_TARGET_DIR", tree.join("target"))
}

/// For a regular expression. There `\<` is the begin of a word.
fn escaped(name: &str) -> String {
    let escape = |c| r".+*?()|[]{}^$\".contains(c).then_some('\\');
    name.chars().flat_map(|c| escape(c).into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_patterns() {
        assert_eq!(escaped("a.rs:1: << with +"), r"a\.rs:1: << with \+");
    }
}
