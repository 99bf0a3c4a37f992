//! How many tests passed and failed, and how long each step took.

use std::{
    env, fs,
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::clock::now;

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) passed: u32,
    pub(super) failed: u32,
    pub(super) skipped: u32,
    steps: Vec<(String, Duration)>,
}

impl Tally {
    /// A step of its own, timed.
    pub(super) fn step<T>(&mut self, name: &str, step: impl FnOnce() -> T) -> T {
        let begun = now();
        let outcome = step();
        self.steps.push((name.to_owned(), now() - begun));
        outcome
    }

    /// A check that passes or fails as a whole.
    pub(super) fn check(&mut self, name: &str, check: impl FnOnce() -> Result<()>) {
        match self.step(name, check) {
            Ok(()) => {
                println!("{name}: ok");
                self.passed += 1;
            }
            Err(error) => self.fail(&format!("{name}: {error:#}")),
        }
    }

    /// A check that lists what is wrong.
    pub(super) fn lines(&mut self, name: &str, check: impl FnOnce() -> Result<Vec<String>>) {
        self.check(name, || {
            let broken = check()?;
            ensure!(broken.is_empty(), "\n{}", broken.join("\n"));
            Ok(())
        });
    }

    pub(super) fn fail(&mut self, why: &str) {
        println!("FAILED: {why}");
        self.failed += 1;
    }

    /// Runs a test program, shows in one piece what it said, and adds up its results.
    pub(super) fn suite(&mut self, name: &str, command: &mut Command) -> Result<()> {
        eprintln!("  running {name}");
        let path =
            env::temp_dir().join(format!("shunt-suite-{}-{}", std::process::id(), name.replace(' ', "-")));
        let log = fs::File::create(&path).with_context(|| format!("making {}", path.display()))?;
        let errors = log.try_clone().context("a second handle of the log")?;
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let status = self.step(name, || command.status()).with_context(|| format!("starting {name}"))?;
        let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
        fs::remove_file(&path)?;
        let failed_before = self.failed;
        text.lines().for_each(|line| self.result(line));
        let (_, lasted) = self.steps.last().expect("the step that has just ended");
        // In one piece: the other lane writes, too.
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "\n--- {name}: {:.1} s\n{}", lasted.as_secs_f64(), text.trim())?;
        drop(stdout);
        // A program that dies has no result line.
        if !status.success() && self.failed == failed_before {
            self.fail(&format!("{name}: {status}"));
        }
        Ok(())
    }

    /// `test result: ok. 3 passed; 0 failed; 1 ignored; …`. An ignored test is one that this machine can run.
    fn result(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ") else { return };
        let count = |what: &str| -> u32 {
            let before = counts.split(what).next().unwrap_or("").trim_end();
            before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        let ignored = count("ignored");
        self.passed += count("passed");
        self.failed += count("failed") + ignored;
        self.skipped += ignored;
    }

    pub(super) fn add(&mut self, other: Self) {
        let Self { passed, failed, skipped, steps } = other;
        self.passed += passed;
        self.failed += failed;
        self.skipped += skipped;
        self.steps.extend(steps);
    }

    /// A table of the slowest steps, and how long all took.
    pub(super) fn slowest(&self, rows: usize, total: Duration) -> String {
        let mut steps: Vec<_> = self.steps.iter().collect();
        steps.sort_by_key(|(_, lasted)| std::cmp::Reverse(*lasted));
        let line = |(name, lasted): &(String, Duration)| format!("{:>8.1} s  {name}", lasted.as_secs_f64());
        let mut lines: Vec<_> = steps.into_iter().take(rows).map(line).collect();
        lines.insert(0, "Slowest steps and suites:".to_owned());
        lines.push(format!("{:>8.1} s  in all", total.as_secs_f64()));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_add_up() {
        let mut tally = Tally::default();
        tally.result(
            "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        );
        tally.result(
            "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1s",
        );
        tally.result("running 12 tests");
        assert_eq!((tally.passed, tally.failed, tally.skipped), (15, 3, 1));
    }

    #[test]
    fn the_slowest_come_first() {
        let steps = [("a", 1), ("b", 3), ("c", 2)].map(|(name, s)| (name.to_owned(), Duration::from_secs(s)));
        let tally = Tally { steps: steps.to_vec(), ..Tally::default() };
        let table = tally.slowest(2, Duration::from_secs(6));
        let rows: Vec<_> =
            table.lines().skip(1).map(|line| line.split_whitespace().last().unwrap_or("")).collect();
        assert_eq!(rows, ["b", "c", "all"]);
    }

    #[test]
    fn a_program_without_a_result_has_failed() {
        let mut tally = Tally::default();
        tally.suite("dies", Command::new("sh").args(["-c", "exit 3"])).expect("sh can be started");
        assert_eq!((tally.passed, tally.failed), (0, 1));
    }
}
