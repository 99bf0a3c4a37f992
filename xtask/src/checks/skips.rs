//! Tests that cannot run here.
//!
//! Such a test says so in the file that `SHUNT_SKIPS` names: one line of what is missing, the test and the reason,
//! separated by tabs. It counts as skipped; when this machine does have what was missing, it counts as failed as well.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::tally::Tally;
use crate::{command::on_path, setup};

/// The variable that names the file.
pub(super) const VARIABLE: &str = "SHUNT_SKIPS";

/// Of one suite. Removed when it is dropped.
pub(super) struct File(PathBuf);

impl File {
    pub(super) fn make(suite: &str) -> Result<Self> {
        let name = format!("shunt-skips-{}-{}", std::process::id(), suite.replace(' ', "-"));
        let path = env::temp_dir().join(name);
        fs::write(&path, "").with_context(|| format!("writing {}", path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn count(&self, tally: &mut Tally) -> Result<()> {
        let text = fs::read_to_string(&self.0).with_context(|| format!("reading {}", self.0.display()))?;
        for line in text.lines() {
            let (lacking, rest) = line.split_once('\t').unwrap_or((line, ""));
            let (test, reason) = rest.split_once('\t').unwrap_or((rest, ""));
            println!("skipped: {test}: {reason}");
            // The test itself returned normally.
            tally.passed = tally.passed.saturating_sub(1);
            tally.skipped += 1;
            if has(lacking) {
                tally.fail(&format!("{test} was skipped, though this machine can run it ({lacking})"));
            }
        }
        Ok(())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // A file that stays in the folder for temporary files harms nobody.
        let _ = fs::remove_file(&self.0);
    }
}

/// Whether this machine has what a skipped test missed: `root`, `tool NAME`, `kernel MAJOR.MINOR`.
fn has(lacking: &str) -> bool {
    let (kind, detail) = lacking.split_once(' ').unwrap_or((lacking, ""));
    match kind {
        "root" => setup::is_root(),
        "tool" => on_path(detail),
        "kernel" => running_kernel().zip(version(detail)).is_some_and(|(running, wanted)| running >= wanted),
        _ => false,
    }
}

fn running_kernel() -> Option<(u32, u32)> {
    version(&fs::read_to_string("/proc/sys/kernel/osrelease").ok()?)
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_without_cause_is_a_failure() {
        assert!(has("tool sh"));
        assert!(!has("tool no-such-program"));
        assert!(has("kernel 4.0"));
        assert!(!has("kernel 99.0"));
        assert!(!has("hardware"));
    }
}
