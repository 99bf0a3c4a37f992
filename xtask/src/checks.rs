//! Every check, cheap to dear, and one closing line: how many passed, failed and were skipped.
//!
//! Everything is built once, with the features that the tests need, and the test programs are run as they lie there. So no
//! crate is compiled a second time for other features. Suites run in lanes beside each other ([`suites`]), and the lints beside
//! them. At the end stands how long the slowest took.

mod build;
mod skips;
mod suites;
mod tally;

use std::{
    process::{Command, ExitCode, Stdio},
    thread,
};

use anyhow::{Context, Result, anyhow, ensure};

use self::{
    build::{Built, Program},
    suites::{Hook, Lane, SUITES, Suite},
    tally::Tally,
};
use crate::{
    clock::now,
    command::{self, cargo},
    deny, documents, layers,
    place::workspace,
    promises, setup, words,
};

/// How many rows the closing table has.
const SLOWEST: usize = 10;
/// Marks that all programs are up to date, so that no test starts cargo.
const BUILT: (&str, &str) = ("SHUNT_BUILT", "1");

pub(crate) fn run(quick: bool) -> Result<ExitCode> {
    let begun = now();
    setup::run(if quick { setup::Need::Build } else { setup::Need::Tests })?;
    let mut tally = Tally::default();
    tally.check("format", || command::run(cargo().args(["fmt", "--all", "--check"])));
    tally.lines("layers", || layers::check(&workspace()));
    tally.lines("words", || words::check(&workspace()));
    tally.lines("documents", || documents::check(&workspace()));
    tally.lines("promises", || promises::check(&workspace()));
    tally.lines("deny", || deny::check(&workspace()));
    match tally.step("build", || build::all(quick)) {
        Ok(built) if quick => {
            tally.add(lints());
            tally.add(pure(&built)?);
        }
        Ok(built) => {
            let ended = thread::scope(|scope| {
                let lints = scope.spawn(|| Ok(lints()));
                // Unit tests come first in the lane that computes.
                let computing =
                    scope.spawn(|| pure(&built).and_then(|tally| lane(&built, Lane::Computes, tally)));
                let waiting = scope.spawn(|| lane(&built, Lane::Waits, Tally::default()));
                let draining = scope.spawn(|| lane(&built, Lane::Drains, Tally::default()));
                [lints, computing, waiting, draining].map(thread::ScopedJoinHandle::join)
            });
            for lane in ended {
                tally.add(lane.expect("a lane does not panic")?);
            }
            for name in unlisted(&built) {
                tally.fail(&format!("{name}: a suite without a row in xtask/src/checks/suites.rs"));
            }
            benchmark(&built, &mut tally);
        }
        Err(error) => tally.fail(&format!("build: {error:#}")),
    }
    println!("\n{}", tally.slowest(SLOWEST, now() - begun));
    println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Clippy would keep both CPUs busy for minutes, so it leaves them to everything else that wants to run.
fn lints() -> Tally {
    let mut tally = Tally::default();
    tally.check("lints", || {
        let mut clippy = command::patient(cargo());
        command::run(clippy.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    });
    tally
}

/// The tests that need nothing but a CPU.
fn pure(built: &Built) -> Result<Tally> {
    let mut tally = Tally::default();
    for program in built.tests.iter().filter(|program| program.package != suites::PACKAGE) {
        let name = format!("{} {}", program.package, program.name);
        // Ignored tests are run too: this machine can.
        tally.suite(&name, program.command().arg("--include-ignored"))?;
    }
    Ok(tally)
}

/// The suites of one lane, one after the other.
fn lane(built: &Built, lane: Lane, mut tally: Tally) -> Result<Tally> {
    for suite in SUITES.iter().filter(|suite| suite.lane == lane) {
        let Some(program) = built.suite(suite.name) else {
            tally.fail(&format!("{}: there is no such suite", suite.name));
            continue;
        };
        for hook in suite.hooks {
            run_suite(&mut tally, suite, *hook, program)?;
        }
    }
    Ok(tally)
}

fn run_suite(tally: &mut Tally, suite: &Suite, hook: Hook, program: &Program) -> Result<()> {
    let name = match hook {
        Hook::Xdp => suite.name.to_owned(),
        Hook::Tc => format!("{} at tc", suite.name),
    };
    let skips = skips::File::make(&name)?;
    let mut command = program.command();
    // One test at a time: each has the timing of its lane for itself.
    command.args(["--include-ignored", "--test-threads=1"]);
    command.env(BUILT.0, BUILT.1).env(skips::VARIABLE, skips.path());
    if hook == Hook::Tc {
        command.env("SHUNT_LAB_TC", "1");
    }
    tally.suite(&name, &mut command)?;
    skips.count(tally)
}

fn unlisted(built: &Built) -> Vec<&str> {
    let suites = built.tests.iter().filter(|program| program.package == suites::PACKAGE);
    let names = suites.map(|program| program.name.as_str());
    names.filter(|name| !SUITES.iter().any(|suite| suite.name == *name)).collect()
}

/// Only whether it works, with the balancers that happen to be installed; its numbers are no check. It runs alone.
fn benchmark(built: &Built, tally: &mut Tally) {
    if !setup::is_root() {
        println!("skipped: benchmark: needs root, to make network namespaces");
        tally.skipped += 1;
        return;
    }
    let skips = skips::File::make("benchmark");
    tally.check("benchmark", || {
        let skips = skips.as_ref().map_err(|error| anyhow!("{error:#}"))?;
        let program = built.program("bench").context("cargo has not built the benchmark")?;
        // Its tables are for people who measure.
        let status = Command::new(program)
            .arg("--smoke")
            .env(BUILT.0, BUILT.1)
            .env(skips::VARIABLE, skips.path())
            .stdout(Stdio::null())
            .status();
        ensure!(status.context("starting the benchmark")?.success(), "a row does not work");
        Ok(())
    });
    // The other balancers that it would have measured beside Shunt.
    if let Ok(skips) = &skips
        && let Err(error) = skips.count_parts(tally)
    {
        tally.fail(&format!("benchmark: {error:#}"));
    }
}
