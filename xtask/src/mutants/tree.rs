//! A copy of the checkout, in which files may be changed and what is built stays.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{command::read, place::target_dir};

/// Copies what differs, so that cargo builds nothing else again. An interrupted run may have left a mutant there.
pub(super) fn copy() -> Result<PathBuf> {
    let tree = target_dir().join("mutants/tree");
    let listed = read(Command::new("git").args(["ls-files", "-co", "--exclude-standard", "-z"]))?;
    let files: BTreeSet<PathBuf> =
        listed.split('\0').map(PathBuf::from).filter(|path| path.is_file()).collect();
    for file in &files {
        put(&tree.join(file), &fs::read(file).with_context(|| format!("reading {}", file.display()))?)?;
    }
    for file in crate::files::below(&tree, &["rs", "toml", "in"])? {
        if !files.contains(file.strip_prefix(&tree).expect("it is below")) {
            fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
        }
    }
    Ok(tree)
}

/// Writes a file unless it is the same already.
pub(super) fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    fs::create_dir_all(path.parent().expect("a file lies in a folder"))
        .and_then(|()| fs::write(path, bytes))
        .with_context(|| format!("writing {}", path.display()))
}
