//! Which part may depend on which.
//!
//! Between crates cargo's own metadata shows it. Inside a crate the paths that the source names show it ([`paths`]): the
//! modules of lb-userspace and lb-core have rules of their own, and in no crate do files go round in a circle ([`circles`]).
//! Macros that build paths from pieces are not seen.

mod circles;
mod paths;
#[cfg(test)]
mod tests;
mod tokens;

use std::{path::Path, process::Command};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    command::{cargo, read},
    files,
};

/// Crates of ours that each of ours may name.
const CRATES: &[(&str, &[&str])] = &[
    ("lb-common", &[]),
    ("lb-ebpf", &["lb-common"]),
    ("lb-core", &["lb-common"]),
    ("lb-userspace", &["lb-common", "lb-core"]),
    ("lb-lab", &["lb-core", "lb-userspace"]),
    ("lb-demo", &["lb-core", "lb-lab", "lb-userspace"]),
    ("shunt-kube", &[]),
    ("lb-tests", &["lb-common", "lb-core", "lb-lab", "lb-userspace"]),
    ("lb-bench", &["lb-common", "lb-core", "lb-lab", "lb-tests", "lb-userspace"]),
    ("lb-fuzz", &["lb-common", "lb-core", "lb-userspace"]),
    ("xtask", &[]),
];

/// Crates that lb-core may not name, because they do something or know the time.
const IMPURE_CRATES: &[&str] = &[
    "tokio",
    "aya",
    "aya-log",
    "aya-obj",
    "hyper",
    "hyper-util",
    "tokio-rustls",
    "axum",
    "nix",
    "libc",
    "rtnetlink",
    "rand",
];
const IMPURE_PATHS: &[&str] = &[
    "std::time::Instant",
    "std::time::SystemTime",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::io",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::os",
    "tokio",
    "aya",
];

/// Modules of lb-userspace that touch the world. Only `daemon` joins them.
const EDGES: &[&str] =
    &["config", "probe", "evidence", "control", "dataplane", "journal", "discovery", "state"];

/// A foreign crate, and the modules of lb-userspace that may name it. `config` looks whether certificates are usable.
const FOREIGN: &[(&[&str], &[&str])] = &[
    (&["aya", "aya_log", "aya_obj"], &["dataplane"]),
    (&["axum"], &["control"]),
    (&["hyper", "hyper_util", "http_body_util"], &["probe", "control"]),
    (&["h2", "prost", "rustls_native_certs"], &["probe"]),
    (&["tokio_rustls"], &["probe", "config"]),
];

const PRINTING: &[&str] = &["println", "eprintln", "print", "eprint"];
const PRINTERS: &[&str] = &["cli"];

/// The sources of each crate, in which no files may go round in a circle.
const SOURCES: &[&str] = &[
    "lb-common/src",
    "lb-ebpf/src",
    "lb-userspace/core/src",
    "lb-userspace/demo/src",
    "lb-userspace/kube/src",
    "lb-userspace/lab/src",
    "lb-userspace/src",
    "tests/bench/src",
    "tests/guest",
    "tests/src",
    "xtask/src",
];
/// Files that still go round in a circle. One that no longer does is an error here, so that the list only shrinks.
const IN_CIRCLES: &[&str] = &[];

/// Everything that breaks a rule, one line each.
pub(crate) fn check(workspace: &Path) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    let metadata = ["metadata", "--no-deps", "--format-version=1"];
    broken.extend(crate_graph(&read(cargo().args(metadata))?)?);
    // The XDP crate builds for another target and may therefore be a workspace of its own.
    let ebpf = workspace.join("lb-ebpf/Cargo.toml");
    if ebpf.exists() {
        let mut command: Command = cargo();
        broken.extend(crate_graph(&read(command.args(metadata).arg("--manifest-path").arg(&ebpf))?)?);
    }
    for (root, rule) in [("lb-userspace/core/src", core as Rule), ("lb-userspace/src", userspace)] {
        let root = workspace.join(root);
        for file in files::below(&root, &["rs"])? {
            let text = files::read(&file)?;
            let module = paths::module_of(file.strip_prefix(&root)?);
            let shown = file.strip_prefix(workspace)?.display();
            broken.extend(rule(&module, &text).into_iter().map(|why| format!("{shown}{why}")));
        }
    }
    let mut circles = Vec::new();
    for root in SOURCES {
        circles.extend(circles::find(&crate_files(workspace, root)?));
    }
    broken.extend(judge(&circles, IN_CIRCLES));
    broken.sort();
    broken.dedup();
    Ok(broken)
}

/// All files of a crate's library, or of its program if there is none.
fn crate_files(workspace: &Path, root: &str) -> Result<Vec<circles::File>> {
    let folder = workspace.join(root);
    let has_library = folder.join("lib.rs").is_file();
    let mut found = Vec::new();
    for path in files::below(&folder, &["rs"])? {
        if has_library && path == folder.join("main.rs") {
            continue;
        }
        let module = paths::module_of(path.strip_prefix(&folder)?);
        let shown = path.strip_prefix(workspace)?.display().to_string();
        found.push(circles::File { shown, module, text: files::read(&path)? });
    }
    Ok(found)
}

fn judge(circles: &[circles::Circle], allowed: &[&str]) -> Vec<String> {
    let is_allowed = |file: &String| allowed.contains(&file.as_str());
    let forbidden = circles.iter().filter(|circle| !circle.files.iter().all(is_allowed));
    let mut broken: Vec<String> = forbidden
        .map(|circle| format!("{}: a circle of files\n    {}", circle.files[0], circle.lines.join("\n    ")))
        .collect();
    for file in allowed {
        if !circles.iter().any(|circle| circle.files.iter().any(|other| other == file)) {
            broken.push(format!(
                "{file}: in no circle any more; take it off IN_CIRCLES in xtask/src/layers.rs"
            ));
        }
    }
    broken
}

/// Looks at one file of a module; answers `:line: what is wrong`.
type Rule = fn(&[String], &str) -> Vec<String>;

fn crate_graph(metadata: &str) -> Result<Vec<String>> {
    let metadata: Value = serde_json::from_str(metadata).context("reading cargo's metadata")?;
    let mut broken = Vec::new();
    for package in metadata["packages"].as_array().context("cargo's metadata lists no packages")? {
        let name = package["name"].as_str().context("a package without a name")?;
        let Some((_, allowed)) = CRATES.iter().find(|(ours, _)| *ours == name) else {
            broken.push(format!("{name}: a crate of ours without a rule in xtask/src/layers.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().context("a package without dependencies")? {
            let on = dependency["name"].as_str().context("a dependency without a name")?;
            if CRATES.iter().any(|(ours, _)| *ours == on) && !allowed.contains(&on) {
                broken.push(format!("{name}: may not depend on {on}"));
            }
            if name == "lb-core" && IMPURE_CRATES.contains(&on) {
                broken.push(format!("{name}: may not depend on {on}, it decides and does nothing"));
            }
        }
    }
    Ok(broken)
}

fn core(module: &[String], source: &str) -> Vec<String> {
    if is_test(module) {
        return Vec::new();
    }
    let named = paths::named(module, source);
    let impure = named.iter().filter_map(|path| {
        let reached = IMPURE_PATHS.iter().find(|impure| path.reaches(impure))?;
        Some(format!(":{}: lb-core names {reached}", path.line))
    });
    impure.collect()
}

fn userspace(module: &[String], source: &str) -> Vec<String> {
    let own = module.first().map_or("", String::as_str);
    let mut broken = Vec::new();
    for path in paths::named(module, source) {
        let line = path.line;
        if let Some(other) = path.module_of_ours()
            && other != own
            && EDGES.contains(&own)
            && EDGES.contains(&other)
        {
            broken.push(format!(":{line}: `{own}` names `{other}`; edges meet only in `daemon`"));
        }
        for (crates, modules) in FOREIGN {
            let root = path.root();
            if crates.contains(&root) && !modules.contains(&own) {
                broken.push(format!(":{line}: only {} may name {root}", modules.join(", ")));
            }
        }
    }
    if !PRINTERS.contains(&own) && !is_test(module) {
        let printing =
            paths::macros(source).into_iter().filter(|(name, _)| PRINTING.contains(&name.as_str()));
        broken.extend(
            printing.map(|(name, line)| format!(":{line}: {name}! outside {}", PRINTERS.join(" and "))),
        );
    }
    broken
}

/// Tests may print, and take the time of what they test.
fn is_test(module: &[String]) -> bool {
    module.iter().any(|name| name == "tests")
}
