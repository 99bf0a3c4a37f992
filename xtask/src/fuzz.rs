//! `cargo xtask fuzz TARGET`: libFuzzer on the stable compiler.
//!
//! The compiler's coverage pass is switched on by flags, which hold for everything that is built for the
//! named target triple, dependencies included, but not for build scripts. So what is built lies in a folder of its own.
//! Finds and the growing corpus stay under `target/fuzz`; `--keep` merges into `tests/fuzz/corpus` what
//! reaches something new.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    command::{self, cargo, read},
    place::target_dir,
};

/// Edges with a counter each, and what is compared with what.
const COVERAGE: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];
/// One input may take so many seconds.
const TIMEOUT: u32 = 10;
/// Bytes. Longer inputs reach nothing that these do not.
const LONGEST: u32 = 4096;

pub(crate) struct Order {
    pub(crate) target: String,
    pub(crate) seconds: u32,
    /// Merge what was found into the committed corpus, and try nothing new.
    pub(crate) keep: bool,
}

pub(crate) fn run(order: &Order) -> Result<()> {
    let committed = Path::new("tests/fuzz/corpus").join(&order.target);
    if !committed.is_dir() {
        bail!("there is no target `{}`; there are: {}", order.target, targets()?.join(", "));
    }
    let program = build()?;
    let grown = target_dir().join("fuzz/corpus").join(&order.target);
    let finds = target_dir().join("fuzz/finds").join(&order.target);
    for folder in [&grown, &finds] {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let mut fuzzer = Command::new(&program);
    fuzzer.env("FUZZ_TARGET", &order.target);
    fuzzer.arg(format!("-timeout={TIMEOUT}")).arg(format!("-max_len={LONGEST}"));
    if order.keep {
        // The fewest inputs that reach all edges, however often each.
        let fewest = ["-set_cover_merge=1", "-use_counters=0"];
        return command::run(fuzzer.args(fewest).arg(&committed).arg(&grown));
    }
    fuzzer.arg(format!("-artifact_prefix={}/", finds.display()));
    fuzzer.arg(format!("-max_total_time={}", order.seconds)).arg("-print_final_stats=1");
    command::run(fuzzer.arg(&grown).arg(&committed))
        .with_context(|| format!("what made it fail is in {}", finds.display()))
}

fn targets() -> Result<Vec<String>> {
    let entries = fs::read_dir("tests/fuzz/corpus").context("listing the corpora")?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn build() -> Result<PathBuf> {
    let host = host()?;
    let folder = target_dir().join("fuzz/build");
    let mut build = cargo();
    build.args([
        "build",
        "--profile",
        "fuzz",
        "--package",
        "lb-fuzz",
        "--bin",
        "fuzz",
        "--features",
        "libfuzzer",
    ]);
    build.args(["--target", &host]).arg("--target-dir").arg(&folder).env("RUSTFLAGS", COVERAGE.join(" "));
    command::run(&mut build)?;
    Ok(folder.join(host).join("fuzz/fuzz"))
}

/// The triple of the compiler itself.
fn host() -> Result<String> {
    let about = read(Command::new("rustc").arg("-vV"))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say what it runs on")?.to_owned())
}
