//! The machine's only file system: a shell, the fixtures, and the libraries that they need.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::command::{read, run};

/// Packs it, and returns its place. `veth`: the module of the kernel that is to boot.
pub(super) fn make(folder: &Path, fixtures: &Path, veth: &Path, script: &str) -> Result<PathBuf> {
    let root = folder.join("root");
    let _ = fs::remove_dir_all(&root);
    for name in ["bin", "proc", "sys", "dev", "tmp"] {
        let dir = root.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let busybox = which("busybox")?;
    for (from, to) in [(busybox.as_path(), "bin/busybox"), (fixtures, "fixtures")] {
        // Without what only a debugger reads, which is most of it.
        run(Command::new("strip").arg("-o").arg(root.join(to)).arg(from))?;
        for library in libraries(from)? {
            let to = root.join(library.strip_prefix("/").unwrap_or(&library));
            let dir = to.parent().context("a library lies in a folder")?;
            fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
            fs::copy(&library, &to).with_context(|| format!("copying {}", library.display()))?;
        }
    }
    fs::copy(veth, root.join("veth.ko")).with_context(|| format!("copying {}", veth.display()))?;
    let init = root.join("init");
    fs::write(&init, script).with_context(|| format!("writing {}", init.display()))?;
    fs::set_permissions(&init, Permissions::from_mode(0o755))?;
    let image = folder.join("root.cpio");
    let pack = "cd \"$1\" && find . | busybox cpio -o -H newc > \"$2\"";
    run(Command::new("sh").args(["-c", pack, "pack"]).arg(&root).arg(&image))?;
    fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))?;
    Ok(image)
}

fn which(program: &str) -> Result<PathBuf> {
    let path = read(Command::new("sh").args(["-c", "command -v \"$1\"", "which", program]))?;
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
