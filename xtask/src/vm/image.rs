//! A machine's only file system: a shell, programs with the libraries that they need, and modules.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::command::{read, run};

/// Everything in it beside the shell.
pub(super) struct Contents<'a> {
    /// Of this host, and their places there.
    pub(super) programs: &'a [(&'a Path, &'a str)],
    /// They lie in `/modules`.
    pub(super) modules: &'a [PathBuf],
    /// Texts and their places there.
    pub(super) files: &'a [(&'a str, &'a str)],
    /// The first process.
    pub(super) script: &'a str,
}

/// Packs it, and returns its place.
pub(super) fn make(folder: &Path, contents: &Contents<'_>) -> Result<PathBuf> {
    let root = folder.join("root");
    let _ = fs::remove_dir_all(&root);
    for name in ["bin", "proc", "sys", "dev", "tmp", "run", "modules"] {
        let dir = root.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let busybox = which("busybox")?;
    for (from, to) in [(busybox.as_path(), "bin/busybox")].iter().chain(contents.programs) {
        // Without what only a debugger reads, which is most of it.
        run(Command::new("strip").arg("-o").arg(place(&root, Path::new(to))?).arg(from))?;
        for library in libraries(from)? {
            copy(&library, &place(&root, &library)?)?;
        }
    }
    for module in contents.modules {
        copy(module, &loaded_from(&root, module))?;
    }
    for (to, text) in contents.files {
        let to = place(&root, Path::new(to))?;
        fs::write(&to, text).with_context(|| format!("writing {}", to.display()))?;
    }
    let init = root.join("init");
    fs::write(&init, contents.script).with_context(|| format!("writing {}", init.display()))?;
    fs::set_permissions(&init, Permissions::from_mode(0o755))?;
    let image = folder.join("root.cpio");
    let pack = "cd \"$1\" && find . | busybox cpio -o -H newc > \"$2\"";
    run(Command::new("sh").args(["-c", pack, "pack"]).arg(&root).arg(&image))?;
    fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))?;
    Ok(image)
}

/// Where a module lies below this root.
pub(super) fn loaded_from(root: &Path, module: &Path) -> PathBuf {
    root.join("modules").join(module.file_name().unwrap_or_default())
}

/// A path there, with its folder made.
fn place(root: &Path, path: &Path) -> Result<PathBuf> {
    let to = root.join(path.strip_prefix("/").unwrap_or(path));
    let dir = to.parent().context("a file lies in a folder")?;
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    Ok(to)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("copying {}", from.display()))
}

pub(super) fn which(program: &str) -> Result<PathBuf> {
    let find = "PATH=$PATH:/usr/sbin:/sbin command -v \"$1\"";
    let path = read(Command::new("sh").args(["-c", find, "which", program]))?;
    Ok(PathBuf::from(path.trim()))
}

/// With the loader. None for what is linked statically.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    // `ldd` fails for those, and says so.
    let Ok(text) = read(Command::new("ldd").arg(program)) else { return Ok(Vec::new()) };
    Ok(paths(&text))
}

fn paths(ldd: &str) -> Vec<PathBuf> {
    ldd.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_with_a_path() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(paths(ldd), expected.map(PathBuf::from));
    }
}
