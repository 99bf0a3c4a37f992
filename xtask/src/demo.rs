//! `cargo xtask demo`: from a fresh clone to the first packet, and how long each step took.
//!
//! It builds the three programs that it needs in one go, so that no crate is compiled twice for other features, and with a
//! profile of its own that compiles quickly.

use std::{ffi::OsString, os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result};

use crate::{
    clock::now,
    command::{self, cargo},
    place::target_dir,
    setup,
};

const PROFILE: &str = "demo";
const PACKAGES: &[&str] = &["lb-userspace", "lb-lab", "lb-demo"];

/// Becomes the demo, so that keys, signals and the exit code are its own.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    let begun = now();
    eprintln!("demo, step 1 of 3: set-up");
    setup::run(setup::Need::Demo)?;
    let ready = now();
    eprintln!("demo, step 2 of 3: build (some minutes the first time, seconds later)");
    let packages = PACKAGES.iter().flat_map(|package| ["--package", package]);
    command::run(cargo().args(["build", "--profile", PROFILE, "--bins"]).args(packages))?;
    let built = now();
    let seconds = |span: std::time::Duration| span.as_secs_f64();
    eprintln!(
        "demo, step 3 of 3: play (about a minute). Set-up took {:.0} s, the build {:.0} s",
        seconds(ready - begun),
        seconds(built - ready)
    );
    let program = target_dir().join(PROFILE).join("shunt-demo");
    let error = Command::new(&program).args(args).exec();
    Err(error).with_context(|| format!("running {}", program.display()))
}
