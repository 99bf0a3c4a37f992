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

    /// Tests that were skipped and returned normally.
    pub(super) fn count(&self, tally: &mut Tally) -> Result<()> {
        let skipped = self.count_parts(tally)?;
        tally.passed = tally.passed.saturating_sub(skipped);
        Ok(())
    }

    /// Parts of one check that were skipped, while the check itself passed or failed. Returns how many.
    pub(super) fn count_parts(&self, tally: &mut Tally) -> Result<u32> {
        let mut skipped = 0;
        let text = fs::read_to_string(&self.0).with_context(|| format!("reading {}", self.0.display()))?;
        for line in text.lines() {
            let (lacking, rest) = line.split_once('\t').unwrap_or((line, ""));
            let (test, reason) = rest.split_once('\t').unwrap_or((rest, ""));
            println!("skipped: {test}: {reason}");
            skipped += 1;
            tally.skipped += 1;
            if has(lacking) {
                tally.fail(&format!("{test} was skipped, though this machine can run it ({lacking})"));
            }
        }
        Ok(skipped)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // A file that stays in the folder for temporary files harms nobody.
        let _ = fs::remove_file(&self.0);
    }
}

/// Whether this machine has what a skipped test missed: `root`, `tool NAME`, `kernel MAJOR.MINOR`. A `peer` is not
/// looked for again.
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

    /// A test that was skipped has returned normally. The benchmark is one check, whatever it leaves out.
    #[test]
    fn skipped_parts_cost_no_passed_check() {
        let file = File::make("a test of skips").expect("a temporary file");
        fs::write(
            file.path(),
            "peer\tbenchmark beside one\tnot here\npeer\tbenchmark beside two\tnot here\n",
        )
        .expect("written");
        let (mut tests, mut parts) = (Tally::default(), Tally::default());
        (tests.passed, parts.passed) = (5, 5);
        file.count(&mut tests).expect("read");
        assert_eq!(file.count_parts(&mut parts).expect("read"), 2);
        assert_eq!((tests.passed, tests.failed, tests.skipped), (3, 0, 2));
        assert_eq!((parts.passed, parts.failed, parts.skipped), (5, 0, 2));
    }
}
