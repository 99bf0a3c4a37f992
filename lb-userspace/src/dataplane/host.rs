//! Facts about the host from `/proc`. A start refuses what does not fit, and `shunt doctor` reports it.

use std::{fs, io, ops::RangeInclusive};

/// The first kernel with tcx.
pub const TCX: (u32, u32) = (6, 6);

/// The version of the running kernel, major and minor. `None`: it has an unusual name.
pub fn kernel() -> Option<(u32, u32)> {
    version(&fs::read_to_string("/proc/sys/kernel/osrelease").ok()?)
}

pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The ports that the host's own connections may get (`net.ipv4.ip_local_port_range`).
pub fn ephemeral_ports() -> io::Result<RangeInclusive<u16>> {
    let path = "/proc/sys/net/ipv4/ip_local_port_range";
    let text = fs::read_to_string(path)?;
    let mut numbers = text.split_whitespace().filter_map(|number| number.parse::<u16>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(first), Some(last)) => Ok(first..=last),
        (Some(_) | None, _) => Err(not_understood(path)),
    }
}

/// The ports that the kernel gives to none of them all the same (`net.ipv4.ip_local_reserved_ports`).
pub fn reserved_ports() -> io::Result<Vec<RangeInclusive<u16>>> {
    let path = "/proc/sys/net/ipv4/ip_local_reserved_ports";
    reserved(&fs::read_to_string(path)?).ok_or_else(|| not_understood(path))
}

/// `80,8080-8090`
fn reserved(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let ranges = text.trim().split(',').filter(|range| !range.is_empty());
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    ranges.map(range).collect()
}

pub fn overlap(a: &RangeInclusive<u16>, b: &RangeInclusive<u16>) -> bool {
    a.start() <= b.end() && b.start() <= a.end()
}

/// Bytes that the host can give without swapping (`MemAvailable`).
pub fn available_memory() -> io::Result<u64> {
    let path = "/proc/meminfo";
    available(&fs::read_to_string(path)?).ok_or_else(|| not_understood(path))
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

fn not_understood(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{path} is not understood"))
}

/// Whether the flow tables fit into the available memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    Well,
    /// They take more than half of it.
    Tight,
    No,
}

pub const fn fit(needed: u64, available: u64) -> Fit {
    if needed > available {
        Fit::No
    } else if needed > available / 2 {
        Fit::Tight
    } else {
        Fit::Well
    }
}

/// The largest MTU whose frames fit into one buffer with every driver that has native XDP: a page of 4 KiB without the
/// program's headroom, the kernel's shared info and the link header.
pub const ONE_BUFFER_MTU: u32 = 3498;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_overlap_when_they_share_a_port() {
        assert!(overlap(&(1024..=32768), &(32768..=60999)));
        assert!(overlap(&(40000..=40001), &(32768..=60999)));
        assert!(!overlap(&(1024..=32767), &(32768..=60999)));
        assert!(!overlap(&(61000..=65535), &(32768..=60999)));
    }

    #[test]
    fn available_memory_is_found_among_the_lines() {
        let text = "MemTotal:       24653716 kB\nMemFree: 1 kB\nMemAvailable:   23120000 kB\n";
        assert_eq!(available(text), Some(23_120_000 << 10));
        assert_eq!(available("MemTotal: 5 kB\n"), None);
        assert_eq!(available("MemAvailable: many kB\n"), None);
    }

    #[test]
    fn more_than_half_of_the_memory_is_tight() {
        assert_eq!(fit(50, 100), Fit::Well);
        assert_eq!(fit(51, 100), Fit::Tight);
        assert_eq!(fit(100, 100), Fit::Tight);
        assert_eq!(fit(101, 100), Fit::No);
    }

    #[test]
    fn versions_have_two_numbers() {
        assert_eq!(version("6.1.0-50-cloud-amd64"), Some((6, 1)));
        assert_eq!(version("6.12+deb13"), Some((6, 12)));
        assert_eq!(version("strange"), None);
        assert!(kernel().is_some_and(|kernel| kernel > (5, 0)));
    }

    #[test]
    fn reserved_ports_are_numbers_and_ranges() {
        assert_eq!(reserved("\n"), Some(vec![]));
        assert_eq!(reserved("80,8080-8090\n"), Some(vec![80..=80, 8080..=8090]));
        assert_eq!(reserved("many\n"), None);
    }

    #[test]
    fn this_host_is_read() {
        reserved_ports().expect("Linux has it");
        assert!(!ephemeral_ports().expect("Linux has it").is_empty());
        assert!(available_memory().expect("Linux has it") > 1 << 20);
    }
}
