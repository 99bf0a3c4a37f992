//! The binary that is measured.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// Builds `shunt` of this program's own profile when it is not up to date, and answers where it lies; the web server of
/// labs is built beside it. A debug build is no measure of anything, but shows that the benchmark works.
pub(crate) fn shunt(smoke: bool) -> Result<PathBuf> {
    let own = env::current_exe().context("finding this program")?;
    let folder = own.parent().context("this program lies in no folder")?;
    let release = folder.file_name().is_some_and(|name| name == "release");
    ensure!(release || smoke, "{} is no release build: use `cargo xtask bench`", own.display());
    if env::var_os("SHUNT_BUILT").is_some() {
        return Ok(folder.join("shunt"));
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--package", "lb-userspace", "--package", "lb-lab", "--bins"]);
    if release {
        build.arg("--release");
    }
    let status = build.current_dir(manifest).status().context("starting cargo")?;
    ensure!(status.success(), "shunt does not build");
    Ok(folder.join("shunt"))
}
