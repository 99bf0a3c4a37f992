//! Modules of a kernel, with those that they need.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{command::run, files};

/// Moves these modules and those that they need out of a package's tree into a folder, unpacked. One that is not
/// there is built in, or this kernel has none.
pub(super) fn take(tree: &Path, names: &[&str], folder: &Path) -> Result<()> {
    let mut there: BTreeMap<String, PathBuf> =
        files::below(tree, &["ko", "xz"])?.into_iter().map(|path| (name_of(&path), path)).collect();
    let mut open: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    while let Some(name) = open.pop() {
        let Some(mut path) = there.remove(&name) else { continue };
        if path.extension().is_some_and(|extension| extension == "xz") {
            run(Command::new("xz").arg("--decompress").arg(&path))?;
            path = path.with_extension("");
        }
        let to = file(folder, &name);
        fs::rename(&path, &to).with_context(|| format!("moving {}", path.display()))?;
        open.extend(needs(&to)?);
    }
    Ok(())
}

/// Those modules of the folder, in an order in which they can be loaded.
pub(super) fn in_order(folder: &Path, names: &[&str]) -> Result<Vec<PathBuf>> {
    let (mut order, mut seen) = (Vec::new(), BTreeSet::new());
    for name in names {
        visit(folder, name, &mut seen, &mut order)?;
    }
    Ok(order)
}

fn visit(folder: &Path, name: &str, seen: &mut BTreeSet<String>, order: &mut Vec<PathBuf>) -> Result<()> {
    let path = file(folder, name);
    if !path.exists() || !seen.insert(name.to_owned()) {
        return Ok(());
    }
    for needed in needs(&path)? {
        visit(folder, &needed, seen, order)?;
    }
    order.push(path);
    Ok(())
}

fn file(folder: &Path, name: &str) -> PathBuf {
    folder.join(name).with_extension("ko")
}

/// As other modules name it: `drivers/net/virtio-net.ko.xz` is `virtio_net`.
fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().unwrap_or_default().replace('-', "_")
}

fn needs(module: &Path) -> Result<Vec<String>> {
    let bytes = fs::read(module).with_context(|| format!("reading {}", module.display()))?;
    Ok(depends(&bytes))
}

/// In the section `.modinfo` each entry ends with a zero.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else { return Vec::new() };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_those_that_it_needs() {
        assert_eq!(
            depends(b"license=GPL\0depends=net_failover,crc32c-intel\0retpoline=Y\0"),
            ["net_failover", "crc32c_intel"]
        );
        assert!(depends(b"license=GPL\0depends=\0name=x\0").is_empty());
        assert!(depends(b"no module").is_empty());
    }

    #[test]
    fn modules_have_one_name_however_their_file_is_called() {
        assert_eq!(name_of(Path::new("kernel/x/crc32c-intel.ko.xz")), "crc32c_intel");
        assert_eq!(name_of(Path::new("veth.ko")), "veth");
    }
}
