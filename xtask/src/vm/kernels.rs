//! Debian's kernels, out of their packages.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    command::{read, run},
    vm::modules,
};

/// A series, and the packages that depend on the newest of it: the kernel for virtual machines, and the one for all.
const SERIES: &[(&str, &str, &str)] = &[
    ("6.1", "linux-image-cloud-amd64", "linux-image-amd64"),
    ("6.12", "linux-image-6.12-cloud-amd64", "linux-image-6.12-amd64"),
];

/// The modules that are kept of a package, beside those that they need.
const MODULES: &[&str] =
    &["veth", "virtio_pci", "virtio_net", "vmxnet3", "e1000e", "8021q", "bonding", "sch_netem"];

/// Of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavour {
    /// Smaller, without the drivers of hardware.
    Cloud,
    Full,
}

pub(super) struct Kernel {
    /// The package's.
    pub(super) name: String,
    pub(super) series: &'static str,
    pub(super) image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// Those that are not built in, in an order in which they can be loaded.
    pub(super) fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        modules::in_order(&self.modules, names)
    }
}

/// The newest of each series that the package lists know, each fetched once.
pub(super) fn fetch(folder: &Path, flavour: Flavour) -> Result<Vec<Kernel>> {
    SERIES
        .iter()
        .map(|(series, cloud, full)| match flavour {
            Flavour::Cloud => one(folder, series, cloud),
            Flavour::Full => one(folder, series, full),
        })
        .collect()
}

fn one(folder: &Path, series: &'static str, meta: &str) -> Result<Kernel> {
    let name = match newest(series, meta) {
        Some(name) => name,
        None => {
            run(Command::new("apt-get").args(["-q", "update"]))?;
            newest(series, meta)
                .with_context(|| format!("no Linux {series} in the package lists; {meta} would name it"))?
        }
    };
    let image = folder.join(format!("{name}.vmlinuz"));
    let modules = folder.join(format!("{name}.modules"));
    let kept = modules.join("kept");
    if !image.exists() || fs::read_to_string(&kept).ok() != Some(MODULES.join(" ")) {
        unpack(folder, &name, &image, &modules)?;
        // Last, so that it stands for a whole folder.
        fs::write(&kept, MODULES.join(" ")).with_context(|| format!("writing {}", kept.display()))?;
    }
    Ok(Kernel { name, series, image, modules })
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

fn unpack(folder: &Path, name: &str, image: &Path, modules: &Path) -> Result<()> {
    let work = folder.join(name);
    // An interrupted run may have left them.
    let _ = fs::remove_dir_all(&work);
    let _ = fs::remove_dir_all(modules);
    for dir in [&work, modules] {
        fs::create_dir(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    run(Command::new("apt-get").args(["-q", "download", name]).current_dir(&work))?;
    let package = files(&work)?.into_iter().next().context("apt-get has downloaded nothing")?;
    let tree = work.join("tree");
    run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&tree))?;
    let kernels = files(&tree.join("boot"))?;
    let found = kernels.iter().find(|path| path.to_string_lossy().contains("/vmlinuz-"));
    let Some(found) = found else { bail!("{name} holds no kernel") };
    modules::take(&tree.join("lib/modules"), MODULES, modules)?;
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
