//! The memory that the daemon's control groups leave it: the smallest rest in the whole hierarchy, of version 1 or 2.
//!
//! The kernel charges maps to the group of the process that makes them. One that exceeds its limit is killed, in the
//! middle of its start and without a word of its own.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The group that leaves least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    /// The file with the limit.
    pub file: PathBuf,
    pub limit: u64,
    /// Bytes that the group can still take; what the kernel can drop from its caches is counted as free.
    pub left: u64,
}

/// `None`: no group of this process has a limit.
pub fn memory_limit() -> io::Result<Option<MemoryLimit>> {
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(find(&groups, &mounts, &|path| fs::read_to_string(path).ok()))
}

type Read<'a> = &'a dyn Fn(&Path) -> Option<String>;

fn find(groups: &str, mounts: &str, read: Read<'_>) -> Option<MemoryLimit> {
    let levels = groups.lines().filter_map(|line| levels(line, mounts)).flatten();
    levels.flat_map(|(version, folder)| version.limits(&folder, read)).min_by_key(|limit| limit.left)
}

#[derive(Clone, Copy)]
enum Version {
    One,
    Two,
}

impl Version {
    /// The limits of one group. `memory.high` slows a process down instead of killing it, but maps cannot be dropped: a
    /// process above it for good stands still.
    fn limits(self, folder: &Path, read: Read<'_>) -> Vec<MemoryLimit> {
        let (files, usage, caches): (&[&str], _, _) = match self {
            Self::One => (
                &["memory.limit_in_bytes"],
                "memory.usage_in_bytes",
                ["total_active_file ", "total_inactive_file "],
            ),
            Self::Two => {
                (&["memory.max", "memory.high"], "memory.current", ["active_file ", "inactive_file "])
            }
        };
        let number = |file: &str| read(&folder.join(file))?.trim().parse::<u64>().ok();
        let stat = read(&folder.join("memory.stat")).unwrap_or_default();
        let cached: u64 = stat
            .lines()
            .filter_map(|line| caches.iter().find_map(|name| line.strip_prefix(name)))
            .filter_map(|bytes| bytes.trim().parse::<u64>().ok())
            .sum();
        let used = number(usage).unwrap_or(0).saturating_sub(cached);
        // `max` is no number, and version 1 writes the largest number of pages.
        let limits = files.iter().filter_map(|file| Some((file, number(file)?)));
        limits
            .filter(|(_, limit)| *limit < 1 << 60)
            .map(|(file, limit)| MemoryLimit {
                file: folder.join(file),
                limit,
                left: limit.saturating_sub(used),
            })
            .collect()
    }
}

/// The folders of a group and of all above it, from a line of `/proc/self/cgroup` with the memory controller.
fn levels(line: &str, mounts: &str) -> Option<Vec<(Version, PathBuf)>> {
    let mut parts = line.splitn(3, ':');
    let (number, controllers, group) = (parts.next()?, parts.next()?, parts.next()?);
    let version = match (number, controllers) {
        ("0", "") => Version::Two,
        (_, controllers) if controllers.split(',').any(|name| name == "memory") => Version::One,
        (_, _) => return None,
    };
    let (root, point) = mounts.lines().find_map(|line| mount(version, line))?;
    // Of another root nothing is mounted here but the group itself.
    let below = Path::new(group).strip_prefix(&root).unwrap_or(Path::new(""));
    let folder = point.join(below);
    let levels = folder.ancestors().take_while(|level| level.starts_with(&point));
    Some(levels.map(|level| (version, level.to_owned())).collect())
}

/// Root and mount point of a line of `/proc/self/mountinfo`, if it is the one with the memory controller.
fn mount(version: Version, line: &str) -> Option<(PathBuf, PathBuf)> {
    let (before, after) = line.split_once(" - ")?;
    let mut after = after.split(' ');
    let (kind, options) = (after.next()?, after.nth(1)?);
    let is_it = match version {
        Version::One => kind == "cgroup" && options.split(',').any(|name| name == "memory"),
        Version::Two => kind == "cgroup2",
    };
    let mut before = before.split(' ').skip(3);
    let (root, point) = (before.next()?, before.next()?);
    is_it.then(|| (unescaped(root), unescaped(point)))
}

/// The kernel writes a space as `\040`.
fn unescaped(path: &str) -> PathBuf {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\").into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn found(groups: &str, mounts: &str, files: &[(&str, &str)]) -> Option<MemoryLimit> {
        let files: BTreeMap<PathBuf, String> =
            files.iter().map(|(path, text)| (path.into(), (*text).to_owned())).collect();
        find(groups, mounts, &|path| files.get(path).cloned())
    }

    #[test]
    fn the_group_that_leaves_least_counts_in_version_2() {
        let mounts = "22 1 0:2 / / rw - ext4 /dev/vda rw\n\
                      30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let files = [
            ("/sys/fs/cgroup/system.slice/shunt.service/memory.max", "max\n"),
            ("/sys/fs/cgroup/system.slice/shunt.service/memory.high", "104857600\n"),
            ("/sys/fs/cgroup/system.slice/shunt.service/memory.current", "10485760\n"),
            (
                "/sys/fs/cgroup/system.slice/shunt.service/memory.stat",
                "anon 5\ninactive_file 3145728\nactive_file 1048576\n",
            ),
            ("/sys/fs/cgroup/system.slice/memory.max", "209715200\n"),
            ("/sys/fs/cgroup/system.slice/memory.current", "178257920\n"),
        ];
        let groups = "0::/system.slice/shunt.service\n";
        let least = found(groups, mounts, &files).expect("limits");
        assert_eq!((least.limit, least.left), (200 * MIB, 30 * MIB));
        assert!(least.file.ends_with("system.slice/memory.max"));
        let own = found(groups, mounts, &files[..4]).expect("its own");
        assert_eq!((own.limit, own.left), (100 * MIB, 94 * MIB), "caches can be dropped");
        assert_eq!(found(groups, mounts, &files[..1]), None);
    }

    #[test]
    fn version_1_has_its_own_names_and_mounts() {
        let mounts = "31 22 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      32 22 0:28 /pod /sys/fs/cgroup/the\\040memory rw - cgroup cgroup rw,memory\n\
                      33 22 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let files = [
            ("/sys/fs/cgroup/the memory/a/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/the memory/memory.limit_in_bytes", "31457280\n"),
            ("/sys/fs/cgroup/the memory/memory.usage_in_bytes", "41943040\n"),
        ];
        let groups = "5:cpu:/pod\n4:memory:/pod/a\n0::/\n";
        let limit = found(groups, mounts, &files).expect("the pod's");
        assert_eq!((limit.limit, limit.left), (30 * MIB, 0));
        // A group that is not below the root of the mount: the mount shows the group itself.
        assert_eq!(found("4:memory:/elsewhere\n", mounts, &files).map(|limit| limit.limit), Some(30 * MIB));
        assert_eq!(found("4:memory:/pod/a\n", "", &files), None);
    }

    #[test]
    fn this_process_is_asked() {
        memory_limit().expect("Linux says it");
    }
}
