//! One mutant: where, what, and how it ended.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A test failed.
    Caught,
    /// All tests passed.
    Missed,
    /// It does not build.
    Unviable,
    /// The tests did not come to an end, which is noticed too.
    Timeout,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Caught, Self::Missed, Self::Unviable, Self::Timeout];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Caught => "caught",
            Self::Missed => "missed",
            Self::Unviable => "unviable",
            Self::Timeout => "timeout",
        }
    }

    /// As cargo-mutants calls it in `outcomes.json`.
    fn of_summary(summary: &str) -> Option<Self> {
        match summary {
            "CaughtMutant" => Some(Self::Caught),
            "MissedMutant" => Some(Self::Missed),
            "Unviable" => Some(Self::Unviable),
            "Timeout" => Some(Self::Timeout),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mutant {
    /// As cargo-mutants prints it, with line and column.
    pub(super) name: String,
    pub(super) file: String,
    /// `replace > with >= in Breaker::decay`
    pub(super) change: String,
    /// The first line that it changes, trimmed.
    pub(super) line: String,
    /// The same as long as nobody changes the function.
    pub(super) key: String,
}

impl Mutant {
    /// `json`: an entry of cargo-mutants' lists. `text`: of the file.
    fn read(json: &Value, text: &str) -> Option<Self> {
        let (name, file) = (json["name"].as_str()?, json["file"].as_str()?);
        let (_place, change) = name.split_once(": ")?;
        let number = |of: &Value| usize::try_from(of.as_u64()?).ok();
        let (line, column) =
            (number(&json["span"]["start"]["line"])?, number(&json["span"]["start"]["column"])?);
        // A mutant outside of functions has the file to itself.
        let function = &json["function"]["span"];
        let first = number(&function["start"]["line"]).unwrap_or(1);
        let last = number(&function["end"]["line"]).unwrap_or(usize::MAX);
        let body: Vec<&str> = text.lines().take(last).skip(first - 1).collect();
        let key = format!("{file}: {change} @ {}:{column} of {:016x}", line - first, hash(&body.join("\n")));
        let line = text.lines().nth(line - 1)?.trim().to_owned();
        Some(Self { name: name.to_owned(), file: file.to_owned(), change: change.to_owned(), line, key })
    }

    /// All of a list that `cargo mutants --list --json` prints.
    pub(super) fn all(json: &str, tree: &Path) -> Result<Vec<Self>> {
        let list: Value = serde_json::from_str(json).context("reading cargo-mutants' list")?;
        let mut texts = BTreeMap::new();
        let mut all = Vec::new();
        for entry in list.as_array().context("cargo-mutants lists nothing")? {
            let file = entry["file"].as_str().context("a mutant without a file")?;
            if !texts.contains_key(file) {
                texts.insert(file.to_owned(), crate::files::read(&tree.join(file))?);
            }
            all.push(Self::read(entry, &texts[file]).with_context(|| format!("a mutant of {file}"))?);
        }
        Ok(all)
    }
}

/// FNV-1a. The standard library's may change with the compiler.
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// By name, from the folder in which cargo-mutants leaves what it found.
pub(super) fn outcomes(folder: &Path) -> Result<BTreeMap<String, Outcome>> {
    let text = crate::files::read(&folder.join("mutants.out/outcomes.json"))?;
    let json: Value = serde_json::from_str(&text).context("reading outcomes.json")?;
    let all = json["outcomes"].as_array().context("outcomes.json has no outcomes")?;
    let one = |outcome: &Value| {
        let name = outcome["scenario"]["Mutant"]["name"].as_str()?;
        Some((name.to_owned(), Outcome::of_summary(outcome["summary"].as_str()?)?))
    };
    Ok(all.iter().filter_map(one).collect())
}

/// How mutants ended in this run and in those before, by key. It outlives an interruption.
#[derive(Default)]
pub(super) struct Ended(BTreeMap<String, Outcome>);

impl Ended {
    pub(super) fn read(file: &Path) -> Result<Self> {
        if !file.is_file() {
            return Ok(Self::default());
        }
        let rows: BTreeMap<String, String> =
            serde_json::from_str(&crate::files::read(file)?).context("reading how mutants ended")?;
        let row = |(key, name): (String, String)| {
            Some((key, Outcome::ALL.into_iter().find(|outcome| outcome.name() == name)?))
        };
        Ok(Self(rows.into_iter().filter_map(row).collect()))
    }

    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let rows: BTreeMap<&str, &str> =
            self.0.iter().map(|(key, outcome)| (key.as_str(), outcome.name())).collect();
        let text = serde_json::to_string_pretty(&rows).expect("text to text");
        fs::write(file, text).with_context(|| format!("writing {}", file.display()))
    }

    pub(super) fn of(&self, mutant: &Mutant) -> Option<Outcome> {
        self.0.get(&mutant.key).copied()
    }

    pub(super) fn note(&mut self, mutant: &Mutant, outcome: Outcome) {
        self.0.insert(mutant.key.clone(), outcome);
    }
}

#[cfg(test)]
pub(super) fn example(change: &str, line: &str) -> Mutant {
    Mutant {
        name: format!("a.rs:2:9: {change}"),
        file: "a.rs".to_owned(),
        change: change.to_owned(),
        line: line.to_owned(),
        key: format!("{change} {line}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(line: u64) -> Value {
        json!({
            "name": format!("a.rs:{line}:7: replace < with <= in f"), "file": "a.rs",
            "span": { "start": { "line": line, "column": 7 } },
            "function": { "span": { "start": { "line": line - 1 }, "end": { "line": line + 1 } } },
        })
    }

    #[test]
    fn its_key_stays_until_its_function_changes() {
        let read = |line, text| Mutant::read(&entry(line), text).expect("a mutant");
        let mutant = read(2, "fn f() {\n    a < b\n}\n");
        assert_eq!((mutant.change.as_str(), mutant.line.as_str()), ("replace < with <= in f", "a < b"));
        assert_eq!(mutant.key, read(3, "\nfn f() {\n    a < b\n}\nmore\n").key);
        assert_ne!(mutant.key, read(2, "fn f() {\n    a < c\n}\n").key);
    }
}
