//! Every check, cheap to dear, and one closing line: what passed, failed and was skipped.
//!
//! A lab test that cannot run here says so in the file that `SHUNT_SKIPS` names: one line
//! of what is missing, the test and the reason, separated by tabs. It counts as skipped; when this machine
//! does have what was missing, it counts as failed as well.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result};

use crate::{
    command::{self, cargo, on_path},
    layers, promises, setup, workspace,
};

/// Packages whose tests need nothing but a CPU.
const PURE: &[&str] =
    &["lb-common", "lb-core", "lb-ebpf", "lb-userspace", "lb-lab", "lb-demo", "lb-bench", "lb-fuzz", "xtask"];
/// What is run at tc ingress, too: frame by frame, and from end to end with devices that finish checksums and cut segments.
const AT_TC: &[&str] = &["packet", "families", "stacks", "detect", "redispatch"];
/// The file that skipped tests are written to.
const SKIPS: &str = "SHUNT_SKIPS";

#[derive(Default)]
struct Tally {
    passed: u32,
    failed: u32,
    skipped: u32,
}

pub(crate) fn run(quick: bool) -> Result<ExitCode> {
    setup::run(if quick { setup::Need::Build } else { setup::Need::Tests })?;
    let mut tally = Tally::default();
    tally.check("format", || command::run(cargo().args(["fmt", "--all", "--check"])));
    tally.check("layers", || {
        let broken = layers::check(&workspace())?;
        anyhow::ensure!(broken.is_empty(), "{}", broken.join("\n"));
        Ok(())
    });
    tally.check("promises", || {
        let broken = promises::check(&workspace())?;
        anyhow::ensure!(broken.is_empty(), "{}", broken.join("\n"));
        Ok(())
    });
    tally.check("lints", || {
        command::run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    });
    let packages = PURE.iter().flat_map(|package| ["--package", package]);
    // Ignored tests are run too: this machine can.
    let run_all = ["--", "--include-ignored"];
    tally.tests(cargo().args(["test", "--no-fail-fast"]).args(packages).args(run_all))?;
    if !quick {
        run_labs(&mut tally, &[], &[])?;
        // The same program at its other hook.
        run_labs(&mut tally, AT_TC, &[("SHUNT_LAB_TC", "1")])?;
        run_benchmark(&mut tally);
    }
    println!("\n{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Only whether it works, with the balancers that happen to be installed; its numbers are no check.
fn run_benchmark(tally: &mut Tally) {
    if !setup::is_root() {
        println!("skipped: benchmark: needs root, to make network namespaces");
        tally.skipped += 1;
        return;
    }
    tally.check("benchmark", || {
        let mut bench = cargo();
        bench.args(["run", "--quiet", "--package", "lb-bench", "--", "--smoke"]);
        // Its tables are for people who measure.
        command::run(bench.stdout(Stdio::null()))
    });
}

/// These tests, or all, one after the other: they share this machine's CPUs and its bpffs.
fn run_labs(tally: &mut Tally, tests: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    let file = env::temp_dir().join(format!("shunt-skips-{}", std::process::id()));
    fs::write(&file, "").with_context(|| format!("writing {}", file.display()))?;
    let mut labs = cargo();
    labs.args(["test", "--no-fail-fast", "--package", "lb-tests"]);
    labs.args(tests.iter().flat_map(|test| ["--test", test]));
    labs.args(["--", "--include-ignored", "--test-threads=1"]).envs(environment.iter().copied());
    let outcome = tally.tests(labs.env(SKIPS, &file));
    let skips = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()));
    fs::remove_file(&file)?;
    outcome?;
    for line in skips?.lines() {
        let (lacking, rest) = line.split_once('\t').unwrap_or((line, ""));
        let (test, reason) = rest.split_once('\t').unwrap_or((rest, ""));
        println!("skipped: {test}: {reason}");
        // The test itself returned normally.
        tally.passed = tally.passed.saturating_sub(1);
        tally.skipped += 1;
        if has(lacking) {
            println!("FAILED: {test} was skipped, though this machine can run it ({lacking})");
            tally.failed += 1;
        }
    }
    Ok(())
}

/// Whether this machine has what a skipped test missed: `root`, `tool NAME`, `kernel MAJOR.MINOR`.
fn has(lacking: &str) -> bool {
    let (kind, detail) = lacking.split_once(' ').unwrap_or((lacking, ""));
    match kind {
        "root" => setup::is_root(),
        "tool" => on_path(detail),
        "kernel" => running_kernel().zip(version(detail)).is_some_and(|(running, wanted)| running >= wanted),
        _ => false,
    }
}

fn running_kernel() -> Option<(u32, u32)> {
    version(&fs::read_to_string("/proc/sys/kernel/osrelease").ok()?)
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

impl Tally {
    fn check(&mut self, name: &str, check: impl FnOnce() -> Result<()>) {
        match check() {
            Ok(()) => self.passed += 1,
            Err(error) => {
                eprintln!("{name}: {error:#}");
                self.failed += 1;
            }
        }
    }

    /// Runs tests, shows what they say and adds up their results.
    fn tests(&mut self, command: &mut Command) -> Result<()> {
        let mut child = command.stdout(Stdio::piped()).spawn().context("starting the tests")?;
        let stdout = child.stdout.take().expect("standard output is piped");
        let failed_before = self.failed;
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            self.add(&line);
            writeln!(std::io::stdout(), "{line}")?;
        }
        // A test program that does not compile, or dies, has no result line.
        if !child.wait()?.success() && self.failed == failed_before {
            self.failed += 1;
        }
        Ok(())
    }

    /// `test result: ok. 3 passed; 0 failed; 1 ignored; …`. An ignored test is one that this machine can run.
    fn add(&mut self, line: &str) {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_add_up() {
        let mut tally = Tally::default();
        tally.add(
            "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        );
        tally.add(
            "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1s",
        );
        tally.add("running 12 tests");
        assert_eq!((tally.passed, tally.failed, tally.skipped), (15, 3, 1));
    }

    #[test]
    fn a_skip_without_cause_is_a_failure() {
        assert!(has("tool sh"));
        assert!(!has("tool no-such-program"));
        assert!(has("kernel 4.0"));
        assert!(!has("kernel 99.0"));
        assert!(!has("hardware"));
    }
}
