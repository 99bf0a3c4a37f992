//! Debian's kernels, out of their packages.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::command::{read, run};

/// A series, and the package that depends on the newest of it.
const SERIES: &[(&str, &str)] =
    &[("6.1", "linux-image-cloud-amd64"), ("6.12", "linux-image-6.12-cloud-amd64")];

pub(super) struct Kernel {
    /// The package's.
    pub(super) name: String,
    pub(super) image: PathBuf,
    /// Its module for pairs of virtual interfaces, which Debian does not build in.
    pub(super) veth: PathBuf,
}

/// The newest of each series that the package lists know, each fetched once.
pub(super) fn fetch(folder: &Path) -> Result<Vec<Kernel>> {
    SERIES.iter().map(|(series, meta)| one(folder, series, meta)).collect()
}

fn one(folder: &Path, series: &str, meta: &str) -> Result<Kernel> {
    let name = match newest(series, meta) {
        Some(name) => name,
        None => {
            run(Command::new("apt-get").args(["-q", "update"]))?;
            newest(series, meta)
                .with_context(|| format!("no Linux {series} in the package lists; {meta} would name it"))?
        }
    };
    let image = folder.join(format!("{name}.vmlinuz"));
    let veth = folder.join(format!("{name}.veth.ko"));
    if !image.exists() || !veth.exists() {
        unpack(folder, &name, &image, &veth)?;
    }
    Ok(Kernel { name, image, veth })
}

/// The package that the series' own package depends on.
fn newest(series: &str, meta: &str) -> Option<String> {
    let depends = read(Command::new("apt-cache").args(["depends", meta])).ok()?;
    chosen(series, &depends)
}

fn chosen(series: &str, depends: &str) -> Option<String> {
    let packages = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let mut of_series = packages.filter(|package| package.starts_with(&format!("linux-image-{series}.")));
    of_series.next().map(str::to_owned)
}

fn unpack(folder: &Path, name: &str, image: &Path, veth: &Path) -> Result<()> {
    let work = folder.join(name);
    // An interrupted run may have left it.
    let _ = fs::remove_dir_all(&work);
    fs::create_dir(&work).with_context(|| format!("making {}", work.display()))?;
    run(Command::new("apt-get").args(["-q", "download", name]).current_dir(&work))?;
    let package = files(&work)?.into_iter().next().context("apt-get has downloaded nothing")?;
    let tree = work.join("tree");
    run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&tree))?;
    let kernels = files(&tree.join("boot"))?;
    let found = kernels.iter().find(|path| path.to_string_lossy().contains("/vmlinuz-"));
    let Some(found) = found else { bail!("{name} holds no kernel") };
    let modules =
        files(&tree.join("lib/modules"))?.into_iter().next().context("the package has no modules")?;
    let driver = modules.join("kernel/drivers/net/veth.ko");
    if !driver.exists() {
        run(Command::new("xz").arg("--decompress").arg(driver.with_extension("ko.xz")))?;
    }
    fs::rename(&driver, veth).with_context(|| format!("moving {}", driver.display()))?;
    // Whole or not at all.
    fs::rename(found, image).with_context(|| format!("moving {}", found.display()))?;
    fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_not_another_that_begins_alike() {
        let depends = "linux-image-cloud-amd64\n  Depends: linux-image-6.12.117+deb12-cloud-amd64\n";
        assert_eq!(chosen("6.12", depends).as_deref(), Some("linux-image-6.12.117+deb12-cloud-amd64"));
        assert_eq!(chosen("6.1", depends), None);
    }
}
