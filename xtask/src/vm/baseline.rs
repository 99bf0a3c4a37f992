//! `tests/verifier.toml`: what verifiers had to do at the last look.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result};

use crate::place::workspace;

/// How many instructions a kernel's verifier went through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verified {
    /// `6.1`
    pub(super) series: String,
    pub(super) count: u64,
}

/// In what `tests/tests/packet/verifier.rs` prints: `verified: 6.1 6000 on 6.1.0-56-cloud-amd64`.
pub(super) fn find(said: &str) -> Option<Verified> {
    let rest = said.lines().find_map(|line| line.split_once("verified: ").map(|(_, rest)| rest))?;
    let mut words = rest.split_whitespace();
    Some(Verified { series: words.next()?.to_owned(), count: words.next()?.parse().ok()? })
}

/// Writes these rows, and leaves those of other kernels as they are.
pub(super) fn write(all: &[Verified]) -> Result<()> {
    let path: PathBuf = workspace().join("tests/verifier.toml");
    let before = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    fs::write(&path, with(&before, all)).with_context(|| format!("writing {}", path.display()))?;
    println!("{}: written", path.display());
    Ok(())
}

fn with(text: &str, all: &[Verified]) -> String {
    let row = |line: &str| -> Option<(String, u64)> {
        let (series, count) = line.split_once('=')?;
        Some((series.trim().trim_matches('"').to_owned(), count.trim().parse().ok()?))
    };
    let mut rows: BTreeMap<String, u64> = text.lines().filter_map(row).collect();
    rows.extend(all.iter().map(|verified| (verified.series.clone(), verified.count)));
    let head = text.lines().filter(|line| row(line).is_none());
    let head: String = head.map(|line| format!("{line}\n")).collect();
    let rows: String = rows.iter().map(|(series, count)| format!("\"{series}\" = {count}\n")).collect();
    head + &rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_replaced_and_others_stay() {
        let text = "# What it is.\n[instructions]\n\"6.1\" = 10\n\"6.9\" = 30\n";
        let new = |series: &str, count| Verified { series: series.to_owned(), count };
        assert_eq!(
            with(text, &[new("6.12", 20), new("6.1", 11)]),
            "# What it is.\n[instructions]\n\"6.1\" = 11\n\"6.12\" = 20\n\"6.9\" = 30\n"
        );
    }

    #[test]
    fn the_line_is_found_behind_the_test_runners_words() {
        let said = "test verifier::the ... verified: 6.18 6123 on 6.18.44\nok\n";
        assert_eq!(find(said), Some(Verified { series: "6.18".to_owned(), count: 6123 }));
        assert_eq!(find("nothing"), None);
    }
}
