//! Building everything in one go, and where it lies then.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::suites;
use crate::command::cargo;

/// All that was built and can be started.
#[derive(Debug, Default)]
pub(super) struct Built {
    pub(super) tests: Vec<Program>,
    /// Programs that are no tests.
    programs: Vec<Program>,
}

#[derive(Debug)]
pub(super) struct Program {
    pub(super) package: String,
    /// Of the target: `shunt`, `lb_core`, `packet`.
    pub(super) name: String,
    path: PathBuf,
    /// Where the package lies, and its tests expect to be started.
    folder: PathBuf,
}

impl Program {
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder);
        command
    }
}

impl Built {
    /// A suite of the labs.
    pub(super) fn suite(&self, name: &str) -> Option<&Program> {
        self.tests.iter().find(|program| program.package == suites::PACKAGE && program.name == name)
    }

    pub(super) fn program(&self, name: &str) -> Option<&Path> {
        self.programs.iter().find(|program| program.name == name).map(|program| program.path.as_path())
    }

    fn add(&mut self, message: &Value) -> Option<()> {
        let path = PathBuf::from(message["executable"].as_str()?);
        let manifest = Path::new(message["manifest_path"].as_str()?);
        let folder = manifest.parent()?.to_owned();
        // `path+file:///…/tests#lb-tests@0.1.0`, or `…/xtask#0.1.0` where package and folder have one name.
        let (before, after) = message["package_id"].as_str()?.rsplit_once('#')?;
        let package = match after.split_once('@') {
            Some((name, _version)) => name,
            None => before.rsplit('/').next()?,
        };
        let name = message["target"]["name"].as_str()?.to_owned();
        let program = Program { package: package.to_owned(), name, path, folder };
        let is_test = message["profile"]["test"].as_bool()?;
        match is_test {
            // `--all-targets` builds it as a test although its manifest says that it has none.
            true if message["target"]["test"] == json!(false) => {}
            true => self.tests.push(program),
            false => self.programs.push(program),
        }
        Some(())
    }
}

/// Everything with the features of the tests; quickly without the labs, which take longest to link.
pub(super) fn all(quick: bool) -> Result<Built> {
    let mut build = cargo();
    build.args(["build", "--workspace", "--all-targets", "--message-format", "json-render-diagnostics"]);
    if quick {
        build.args(["--exclude", suites::PACKAGE]);
    }
    eprintln!("  $ cargo build --workspace --all-targets");
    let output = build.stderr(Stdio::inherit()).output().context("starting cargo")?;
    ensure!(output.status.success(), "it does not build");
    let mut built = Built::default();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
        // Libraries have no executable.
        let _ = built.add(&message);
    }
    built.tests.sort_by(|a, b| (&a.package, &a.name).cmp(&(&b.package, &b.name)));
    ensure!(!built.tests.is_empty(), "cargo has not said where the tests are");
    Ok(built)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_have_their_package() {
        let mut built = Built::default();
        for (id, name, test) in [
            ("path+file:///w/tests#lb-tests@0.1.0", "packet", true),
            ("path+file:///w/xtask#0.1.0", "xtask", true),
            ("path+file:///w/tests/bench#lb-bench@0.1.0", "bench", false),
        ] {
            let message = json!({
                "package_id": id, "executable": "/w/target/x", "manifest_path": "/w/x/Cargo.toml",
                "target": { "name": name }, "profile": { "test": test },
            });
            built.add(&message).expect("a program");
        }
        let without_tests = json!({
            "package_id": "path+file:///w/tests#lb-tests@0.1.0", "executable": "/w/target/x",
            "manifest_path": "/w/x/Cargo.toml", "target": { "name": "lab-guest", "test": false },
            "profile": { "test": true },
        });
        built.add(&without_tests).expect("a program");
        assert_eq!(built.add(&json!({ "executable": null })), None);
        let packages: Vec<_> = built.tests.iter().map(|program| program.package.as_str()).collect();
        assert_eq!(packages, ["lb-tests", "xtask"]);
        assert!(built.suite("packet").is_some());
        assert!(built.program("bench").is_some());
    }
}
