//! `cargo xtask mutants`: whether a test notices when the code is wrong.
//!
//! cargo-mutants changes one place after another, builds, and runs the tests that should notice. How each mutant ended is
//! noted under `target/mutants`, so a run may be interrupted. A mutant that survives gets a test, or a row with the
//! reason in `tests/mutants.toml`. The program in the kernel has mutants that are made by hand ([`program`]).

mod mutant;
mod part;
pub(crate) mod program;
mod run;
mod survivors;
mod tally;
mod tree;

use std::{str::FromStr, time::Duration};

use anyhow::{Result, ensure};

pub(crate) use self::part::Part;
use self::run::Run;
use crate::{
    clock::now,
    command::{self, cargo, on_path, read},
    place::workspace,
};

const VERSION: &str = "27.1.0";
/// How many of the mutants that build must be noticed.
const LEAST_PERCENT: f64 = 90.0;

pub(crate) struct Order {
    pub(crate) part: Option<Part>,
    pub(crate) shard: Option<Shard>,
    pub(crate) minutes: Option<u64>,
    pub(crate) missed: bool,
    pub(crate) judge: bool,
}

/// Every nth mutant from the kth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    k: usize,
    n: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((k, n)) if k < n => Ok(Self { k, n }),
            _ => Err("this is not K/N with K below N, such as 0/4".to_owned()),
        }
    }
}

/// Everything that is wrong, one line each.
pub(crate) fn run(install: bool, order: &Order) -> Result<Vec<String>> {
    ensure_tool(install)?;
    let deadline = order.minutes.map(|minutes| now() + Duration::from_secs(60 * minutes));
    let tree = tree::copy()?;
    let survivors = survivors::read(&workspace())?;
    let mut wrong = Vec::new();
    for part in Part::ALL.into_iter().filter(|part| order.part.is_none_or(|only| only == *part)) {
        let mut run = Run::new(part, &tree)?;
        if !order.judge {
            run.go(order.shard, order.missed, deadline)?;
        }
        let tally = run.tally();
        println!("{}: {tally}", part.name());
        if tally.percent() < LEAST_PERCENT {
            wrong.push(format!("{}: less than {LEAST_PERCENT} % are noticed", part.name()));
        }
        wrong.extend(survivors::judge(&survivors, part.folder(), &run.mutants, &run.ended));
    }
    Ok(wrong)
}

fn ensure_tool(install: bool) -> Result<()> {
    let version = || read(cargo().args(["mutants", "--version"])).unwrap_or_default();
    let is_there = || on_path("cargo-mutants") && version().trim().ends_with(VERSION);
    if install && !is_there() {
        eprintln!("mutants: building cargo-mutants, some minutes");
        command::run(cargo().args([
            "install",
            "--quiet",
            "--locked",
            "cargo-mutants",
            "--version",
            VERSION,
        ]))?;
    }
    ensure!(is_there(), "cargo-mutants {VERSION} is not installed; `cargo xtask mutants --install` does it");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_one_of_several() {
        assert_eq!("1/4".parse(), Ok(Shard { k: 1, n: 4 }));
        for wrong in ["4/4", "0/0", "1", "a/b"] {
            wrong.parse::<Shard>().expect_err(wrong);
        }
    }
}
