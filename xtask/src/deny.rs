//! Licences, duplicates and sources of all crates that are built in, by `deny.toml`.
//!
//! cargo-deny reads the same file and also looks at advisories, but must be built first. So the check that every change
//! passes is this one, over cargo's own metadata.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    command::{self, cargo, on_path, read},
    files,
};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Everything that `deny.toml` forbids, one line each.
pub(crate) fn check(workspace: &Path) -> Result<Vec<String>> {
    let rules = Rules::read(&files::read(&workspace.join("deny.toml"))?)?;
    let metadata =
        read(cargo().args(["metadata", "--format-version=1", "--locked", "--filter-platform", TARGET]))?;
    judge(&rules, &metadata)
}

/// The real cargo-deny, with advisories.
pub(crate) fn run(install: bool) -> Result<()> {
    if install && !on_path("cargo-deny") {
        eprintln!("deny: building cargo-deny, some minutes");
        command::run(cargo().args(["install", "--quiet", "--locked", "cargo-deny"]))?;
    }
    ensure!(on_path("cargo-deny"), "cargo-deny is not installed; `cargo xtask deny --install` does it");
    command::run(cargo().args(["deny", "check"]))
}

struct Rules {
    licences: Vec<String>,
    /// `NAME@VERSION`
    twice: Vec<String>,
}

impl Rules {
    fn read(text: &str) -> Result<Self> {
        let list = |name: &str| list(text, name).with_context(|| format!("deny.toml has no list `{name}`"));
        Ok(Self { licences: list("allow")?, twice: list("skip")? })
    }
}

/// The texts of `name = [ … ]`.
fn list(text: &str, name: &str) -> Option<Vec<String>> {
    let begin = format!("\n{name} = [");
    let (_, rest) = text.split_once(&begin)?;
    let (inside, _) = rest.split_once(']')?;
    Some(inside.split('"').skip(1).step_by(2).map(str::to_owned).collect())
}

fn judge(rules: &Rules, metadata: &str) -> Result<Vec<String>> {
    let metadata: Value = serde_json::from_str(metadata).context("reading cargo's metadata")?;
    let nodes = metadata["resolve"]["nodes"].as_array().context("cargo's metadata resolves nothing")?;
    let built: BTreeSet<&str> = nodes.iter().filter_map(|node| node["id"].as_str()).collect();
    let packages = metadata["packages"].as_array().context("cargo's metadata lists no packages")?;
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for package in
        packages.iter().filter(|package| package["id"].as_str().is_some_and(|id| built.contains(id)))
    {
        let name = package["name"].as_str().context("a package without a name")?;
        let version = package["version"].as_str().context("a package without a version")?;
        versions.entry(name).or_default().push(version);
        let licence = package["license"].as_str().unwrap_or("none");
        if !Licence::new(licence).satisfied(&rules.licences) {
            wrong.push(format!("{name} {version}: its licence is {licence}"));
        }
        // Ours have no source.
        if let Some(source) = package["source"].as_str()
            && !is_usual_registry(source)
        {
            wrong.push(format!("{name} {version}: it comes from {source}"));
        }
    }
    let twice =
        |name: &str, version: &str| rules.twice.iter().any(|known| *known == format!("{name}@{version}"));
    for (name, versions) in &versions {
        let other: Vec<_> = versions.iter().filter(|version| !twice(name, version)).collect();
        if other.len() > 1 {
            wrong.push(format!("{name}: built in several versions: {}", versions.join(", ")));
        }
    }
    for known in &rules.twice {
        let (name, version) =
            known.split_once('@').with_context(|| format!("deny.toml: `{known}` has no version"))?;
        if versions.get(name).is_none_or(|all| all.len() < 2 || !all.contains(&version)) {
            wrong.push(format!("deny.toml: {known} need not be skipped"));
        }
    }
    Ok(wrong)
}

/// The registry that cargo uses unless a manifest names another one, by the name of its index.
fn is_usual_registry(source: &str) -> bool {
    source.starts_with("registry+") && source.ends_with("/crates.io-index")
}

/// An SPDX expression, read word by word.
struct Licence<'t> {
    words: Vec<&'t str>,
    at: usize,
}

impl<'t> Licence<'t> {
    fn new(text: &'t str) -> Self {
        let mut words = Vec::new();
        for word in text.split([' ', '/']).filter(|word| !word.is_empty()) {
            let (open, rest) = word.strip_prefix('(').map_or((None, word), |rest| (Some("("), rest));
            let (rest, close) = rest.strip_suffix(')').map_or((rest, None), |rest| (rest, Some(")")));
            words.extend(open.into_iter().chain([rest]).chain(close));
        }
        Self { words, at: 0 }
    }

    fn satisfied(mut self, allowed: &[String]) -> bool {
        self.either(allowed) && self.at == self.words.len()
    }

    /// `A OR B`. Older crates write `A/B`, which leaves out the word.
    fn either(&mut self, allowed: &[String]) -> bool {
        let mut any = self.all(allowed);
        while let Some(word) = self.words.get(self.at).copied().filter(|word| *word != ")") {
            self.at += usize::from(word == "OR");
            any |= self.all(allowed);
        }
        any
    }

    fn all(&mut self, allowed: &[String]) -> bool {
        let mut all = self.one(allowed);
        while self.words.get(self.at) == Some(&"AND") {
            self.at += 1;
            all &= self.one(allowed);
        }
        all
    }

    /// A name, perhaps with an exception, which only adds permissions; or brackets.
    fn one(&mut self, allowed: &[String]) -> bool {
        let Some(word) = self.words.get(self.at).copied() else { return false };
        self.at += 1;
        if word == "(" {
            let inside = self.either(allowed);
            self.at += 1;
            return inside;
        }
        if self.words.get(self.at) == Some(&"WITH") {
            self.at += 2;
        }
        allowed.iter().any(|name| name == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::workspace;

    #[test]
    fn licences_are_expressions() {
        let allowed = ["MIT", "Apache-2.0", "Unicode-3.0"].map(str::to_owned);
        for (text, fine) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("MIT OR GPL-3.0", true),
            ("GPL-3.0/MIT", true),
            ("MIT AND GPL-3.0", false),
            ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
            ("(BSD-2-Clause OR GPL-3.0) AND Unicode-3.0", false),
            ("Apache-2.0 WITH LLVM-exception OR GPL-3.0", true),
            ("none", false),
        ] {
            assert_eq!(Licence::new(text).satisfied(&allowed), fine, "{text}");
        }
    }

    #[test]
    fn no_crate_is_forbidden() {
        assert_eq!(check(&workspace()).expect("cargo knows it"), Vec::<String>::new());
    }
}
