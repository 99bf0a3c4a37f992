//! Killed labs leave things behind; the next lab removes them.
//!
//! Namespaces, folders and pins carry the maker's process id in their names: `shunt-PREFIX-PID-SERIAL…`,
//! and `PREFIX-PID-SERIAL` as the name of an instance.

use std::{fs, io, path::Path};

use super::{Error, Result, namespace};

/// Every name of a lab begins with it, in front of the prefix that its maker chose.
pub(super) const PREFIX: &str = "shunt-";
/// Where the daemon pins, by instance.
pub(super) const PINS: &str = "/sys/fs/bpf/shunt";

/// Removes what belongs to makers that no longer live. Others may be doing the same at this
/// moment: that something is already gone is no failure.
pub(super) fn remove() -> Result<()> {
    for name in names(Path::new(namespace::FOLDER))? {
        if is_orphan(&name) {
            noted(&name, namespace::remove(&name));
        }
    }
    let folder = std::env::temp_dir();
    for name in names(&folder)? {
        if !is_orphan(&name) {
            continue;
        }
        // Pins go by the folder of their lab, never by their name alone: an operator's instance may be
        // called the same.
        if let Some(instance) = name.strip_prefix(PREFIX) {
            let pins = Path::new(PINS).join(instance);
            if pins.exists() {
                noted(&name, fs::remove_dir_all(pins));
            }
        }
        noted(&name, fs::remove_dir_all(folder.join(&name)));
    }
    Ok(())
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(folder.display().to_string())(error)),
    };
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

fn is_orphan(name: &str) -> bool {
    maker(name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

/// The process that made this, if the name is one of a lab.
pub(super) fn maker(name: &str) -> Option<u32> {
    let mut parts = name.strip_prefix(PREFIX)?.split('-').skip(1);
    let pid = parts.next()?.parse().ok()?;
    parts.next()?.parse::<u32>().ok().map(|_serial| pid)
}

fn noted<E: std::fmt::Display>(name: &str, outcome: std::result::Result<(), E>) {
    if let Err(error) = outcome {
        tracing::debug!(name, %error, "left by a lab, not removed");
    }
}
