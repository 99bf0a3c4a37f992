//! `xtask/words-allowed.toml`: how many findings a file may still have. The numbers only shrink.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};

use super::Findings;
use crate::files;

pub(super) const FILE: &str = "xtask/words-allowed.toml";
const HEAD: &str =
    "# Findings of `cargo xtask words` that are still allowed. `cargo xtask words --shrink` writes it.\n";

/// By file.
pub(super) type Allowed = BTreeMap<String, usize>;

pub(super) fn read(workspace: &Path) -> Result<Allowed> {
    let path = workspace.join(FILE);
    if path.is_file() { parse(&files::read(&path)?) } else { Ok(Allowed::new()) }
}

fn parse(text: &str) -> Result<Allowed> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let rows = lines.map(|line| {
        let (file, count) = line.split_once('=').with_context(|| format!("{FILE}: `{line}` is no row"))?;
        let count = count.trim().parse().with_context(|| format!("{FILE}: `{line}` has no number"))?;
        Ok((file.trim().trim_matches('"').to_owned(), count))
    });
    rows.collect()
}

/// A file with more than it may have shows all of them; an allowance that is not needed is wrong itself.
pub(super) fn judge(allowed: &Allowed, findings: &Findings) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (file, found) in findings {
        if found.len() > allowed.get(file).copied().unwrap_or(0) {
            wrong.extend(found.iter().cloned());
        }
    }
    for (file, count) in allowed {
        let found = findings.get(file).map_or(0, Vec::len);
        if found < *count {
            wrong.push(format!(
                "{FILE}: {file} has {found} findings and {count} are allowed; `cargo xtask words --shrink`"
            ));
        }
    }
    Ok(wrong)
}

pub(super) fn write(workspace: &Path, before: &Allowed, findings: &Findings) -> Result<()> {
    let mut text = HEAD.to_owned();
    for (file, found) in findings {
        let count = found.len().min(before.get(file).copied().unwrap_or(0));
        if count > 0 {
            text += &format!("\"{file}\" = {count}\n");
        }
    }
    let path = workspace.join(FILE);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}
