//! Whether others see the BPF filesystem that this process sees.

use std::{fs, io, path::Path};

/// Whether the BPF filesystem there is, or would be, in a mount namespace of this process's own. Its pins, and with them
/// forwarding, end with that namespace.
pub fn is_private(path: &Path) -> io::Result<bool> {
    let mounts = |of: &str| fs::read_to_string(format!("/proc/{of}/mountinfo"));
    Ok(device_at(&mounts("self")?, path) != device_at(&mounts("1")?, path))
}

/// The device of the filesystem at a path (`major:minor`), by the lines of `mountinfo` (proc_pid_mountinfo(5)). Of several
/// mounts at one place the last one is seen.
fn device_at<'a>(mounts: &'a str, path: &Path) -> Option<&'a str> {
    let parsed = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(2);
        let (device, point) = (fields.next()?, fields.nth(1)?);
        path.starts_with(point).then_some((point.len(), device))
    });
    parsed.max_by_key(|(length, _)| *length).map(|(_, device)| device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_and_deepest_mount_is_seen() {
        let host = "22 1 8:1 / / rw - ext4 x rw\n30 22 0:22 / /sys rw - sysfs x rw\n\
                    48 30 0:39 / /sys/fs/bpf rw,relatime - bpf bpf rw,mode=700\n31 22 0:5 / /sys/fs rw - tmpfs x rw\n";
        let path = Path::new("/sys/fs/bpf");
        assert_eq!(device_at(host, path), Some("0:39"));
        assert_eq!(device_at(host, Path::new("/srv/bpf")), Some("8:1"));
        // As `ip netns exec` leaves it.
        let own = format!("{host}60 22 0:50 / /sys rw - sysfs x rw\n").replace("/sys/fs", "/mnt/fs");
        assert_eq!(device_at(&own, path), Some("0:50"));
        assert_eq!(device_at("", path), None);
    }
}
