//! The release binary that is measured.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// Builds `shunt` when it is not up to date, and answers where it lies.
pub(crate) fn shunt() -> Result<PathBuf> {
    let own = env::current_exe().context("finding this program")?;
    let folder = own.parent().context("this program lies in no folder")?;
    // What was built for debugging is no measure of anything.
    ensure!(
        folder.file_name().is_some_and(|name| name == "release"),
        "{} is no release build: use `cargo xtask bench`",
        own.display()
    );
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--release", "--package", "lb-userspace", "--bin", "shunt"]);
    let status = build.current_dir(manifest).status().context("starting cargo")?;
    ensure!(status.success(), "shunt does not build");
    Ok(folder.join("shunt"))
}
