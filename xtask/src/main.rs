//! Sets up, builds, checks and runs Shunt from a checkout: `cargo xtask --help`.

mod checks;
mod clock;
mod command;
mod demo;
mod deny;
mod documents;
mod files;
mod fuzz;
mod layers;
mod mutants;
mod place;
mod promises;
mod setup;
mod vm;
mod words;

use std::{ffi::OsString, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;

use crate::{command::cargo, place::workspace};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Sets up, builds, checks and runs Shunt from a checkout")]
enum Task {
    /// Install what building and testing need and this machine lacks
    Setup,
    /// Build the release binary, with the XDP program inside
    Build,
    /// Watch the breaker work between network namespaces
    Demo {
        /// Passed on to the demo; its own `--help` stands behind `--`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run every check: format, layers, words, documents, lints, tests, namespace labs
    Test {
        /// Leave out the namespace labs
        #[arg(long)]
        quick: bool,
    },
    /// Measure beside a direct path and other balancers in the same run
    ///
    /// `http` and `verdict` install the balancers that are missing, as far as they can be had, unless it is a smoke test.
    #[command(after_help = "\
Examples:
  cargo xtask bench --install-peers
  cargo xtask bench http --repeat 9
  cargo xtask bench http --peer haproxy-tcp --peer shunt-nat
  cargo xtask bench verdict --json
  cargo xtask bench --smoke")]
    Bench {
        /// Only install the balancers to compare with: from Debian, and Python packages into target/peers
        #[arg(long)]
        install_peers: bool,
        /// Passed on to the benchmark; its own `--help` stands behind `--`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Look for input that breaks a reader; the targets are the folders of tests/fuzz/corpus, and `packet`
    ///
    /// `packet` tries frames on the XDP program and holds what becomes of them against a model of it (root).
    #[command(after_help = "\
Examples:
  cargo xtask fuzz config --seconds 300
  cargo xtask fuzz config --keep
  cargo xtask fuzz packet --frames 5000000
  cargo xtask fuzz packet --frames 100000 --seed 42")]
    Fuzz {
        target: String,
        /// How long
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// Only add to the committed corpus what was found before and reaches something new
        #[arg(long)]
        keep: bool,
        /// Of `packet`: how many
        #[arg(long, default_value_t = 2_000_000)]
        frames: u64,
        /// Of `packet`: the seed that an earlier run printed [default: another each time]
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Load the program into Debian's kernels, in QEMU, and run some packet fixtures there
    #[command(after_help = "\
Examples:
  cargo xtask vm
  cargo xtask vm --update
  cargo xtask vm --lab
  cargo xtask vm --lab=full
  cargo xtask vm --lab=full --kernel 6.12 --row vmxnet3")]
    Vm {
        /// Write what the verifier had to do there, and on this kernel, to tests/verifier.toml
        #[arg(long)]
        update: bool,
        /// Run the daemon there instead, on the drivers of real interfaces; `full` tries more of them
        #[arg(
            long,
            conflicts_with = "update",
            value_enum,
            num_args = 0..=1,
            require_equals = true,
            default_missing_value = "short"
        )]
        lab: Option<vm::Extent>,
        /// Of the lab: only this row, by the name that it is printed with
        #[arg(long, requires = "lab")]
        row: Option<String>,
        /// Of the lab: only this kernel
        #[arg(long, requires = "lab", value_parser = ["6.1", "6.12"])]
        kernel: Option<String>,
    },
    /// Check which part depends on which, and that no files go round in a circle
    Layers,
    /// Check that code and documents speak the language of the glossary
    Words {
        /// Write the numbers of xtask/words-allowed.toml down where there is less to find
        #[arg(long)]
        shrink: bool,
    },
    /// Check that no page is missing and that every link leads somewhere
    Documents,
    /// Check licences, duplicates, sources and advisories with cargo-deny
    Deny {
        /// Install cargo-deny first, which takes some minutes
        #[arg(long)]
        install: bool,
    },
    /// Change the code in one place at a time and see whether a test notices (hours)
    ///
    /// cargo-mutants makes the changes in a copy of the checkout. An interrupted run goes on where it was, and
    /// after a change of the code only what lies in changed functions is tried again.
    #[command(after_help = "\
Examples:
  cargo xtask mutants --install
  cargo xtask mutants --part ebpf
  cargo xtask mutants --part core --shard 0/4 --minutes 30
  cargo xtask mutants --missed
  cargo xtask mutants --judge
  cargo xtask mutants --program
  cargo xtask mutants --program --only spilled-mark-forgotten")]
    Mutants {
        /// Install cargo-mutants first, which takes some minutes
        #[arg(long)]
        install: bool,
        /// Only this part of the code
        #[arg(long, value_enum)]
        part: Option<mutants::Part>,
        /// Only every nth mutant, from the kth (of 0 to n-1)
        #[arg(long, value_name = "K/N")]
        shard: Option<mutants::Shard>,
        /// Begin nothing after so many minutes
        #[arg(long)]
        minutes: Option<u64>,
        /// Try again what was missed before: tests have been added
        #[arg(long)]
        missed: bool,
        /// Try nothing, only judge what was found before
        #[arg(long, conflicts_with = "missed")]
        judge: bool,
        /// The mutants of the XDP program in tests/program-mutants.toml instead (root, half an hour)
        #[arg(long, conflicts_with_all = ["part", "shard", "minutes", "missed", "judge"])]
        program: bool,
        /// Of these only the one with this name
        #[arg(long, requires = "program")]
        only: Option<String>,
    },
    /// Run everything that continuous integration runs
    Ci,
}

fn main() -> Result<ExitCode> {
    let task = Task::parse();
    std::env::set_current_dir(workspace()).context("entering the workspace")?;
    match task {
        Task::Setup => setup::run(setup::Need::Tests)?,
        Task::Build => build()?,
        Task::Demo { args } => demo::run(&args)?,
        Task::Test { quick } => return checks::run(quick),
        Task::Ci => return checks::run(false),
        Task::Bench { install_peers: true, .. } => setup::peers(),
        Task::Bench { args, .. } => bench(&args)?,
        Task::Fuzz { target, frames, seed, .. } if target == "packet" => fuzz_packet(frames, seed)?,
        Task::Fuzz { target, seconds, keep, .. } => fuzz::run(&fuzz::Order { target, seconds, keep })?,
        Task::Vm { lab: Some(extent), row, kernel, .. } => {
            return vm::run_lab(&vm::Lab { extent, row, kernel });
        }
        Task::Vm { update, lab: None, .. } => return vm::run(update),
        Task::Layers => return lines("layers", layers::check(&workspace())?),
        Task::Words { shrink: true } => words::shrink(&workspace())?,
        Task::Words { shrink: false } => return lines("words", words::check(&workspace())?),
        Task::Documents => return lines("documents", documents::check(&workspace())?),
        Task::Deny { install } => deny::run(install)?,
        Task::Mutants { program: true, only, .. } => {
            setup::run(setup::Need::Tests)?;
            return lines("program mutants", mutants::program::run(only.as_deref())?);
        }
        Task::Mutants { install, part, shard, minutes, missed, judge, .. } => {
            let order = mutants::Order { part, shard, minutes, missed, judge };
            return lines("mutants", mutants::run(install, &order)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn build() -> Result<()> {
    setup::run(setup::Need::Build)?;
    command::run(cargo().args(["build", "--release", "--package", "lb-userspace"]))
}

fn bench(args: &[OsString]) -> Result<()> {
    setup::run(setup::Need::Tests)?;
    let has = |word: &str| args.iter().any(|arg| arg == word);
    let others = ["packet", "live", "scale", "storm"].into_iter().any(has);
    if !has("--smoke") && !has("--help") && !others {
        setup::peers();
    }
    command::run(cargo().args(["run", "--release", "--package", "lb-bench", "--"]).args(args))
}

/// The test that continuous integration runs, on more frames.
fn fuzz_packet(frames: u64, seed: Option<u64>) -> Result<()> {
    setup::run(setup::Need::Tests)?;
    let mut fuzz = cargo();
    fuzz.args(["test", "--package", "lb-tests", "--test", "model", "--", "--nocapture"]);
    fuzz.env("SHUNT_FRAMES", frames.to_string());
    if let Some(seed) = seed {
        fuzz.env("SHUNT_SEED", seed.to_string());
    }
    command::run(&mut fuzz)
}

/// The outcome of a check that lists what is wrong.
fn lines(name: &str, broken: Vec<String>) -> Result<ExitCode> {
    for line in &broken {
        eprintln!("{line}");
    }
    if broken.is_empty() {
        println!("{name}: ok");
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}
