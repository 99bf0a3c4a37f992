//! Who may depend on whom.
//!
//! Between crates cargo's own metadata tells; inside lb-userspace and lb-core the paths that the source
//! names ([`paths`]). Macros that build paths from pieces are not seen.

mod paths;
#[cfg(test)]
mod tests;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command::{cargo, read};

/// Crates of ours that each of ours may name.
const CRATES: &[(&str, &[&str])] = &[
    ("lb-common", &[]),
    ("lb-ebpf", &["lb-common"]),
    ("lb-core", &["lb-common"]),
    ("lb-userspace", &["lb-common", "lb-core"]),
    ("lb-lab", &["lb-core", "lb-userspace"]),
    ("lb-demo", &["lb-core", "lb-lab", "lb-userspace"]),
    ("lb-tests", &["lb-common", "lb-core", "lb-lab", "lb-userspace"]),
    ("lb-bench", &["lb-common", "lb-core", "lb-lab", "lb-tests", "lb-userspace"]),
    ("lb-fuzz", &["lb-common", "lb-core", "lb-userspace"]),
    ("xtask", &[]),
];

/// What lb-core may not name, because it does something or knows the time.
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
        for file in sources(&root)? {
            let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let module = paths::module_of(file.strip_prefix(&root)?);
            let shown = file.strip_prefix(workspace)?.display();
            broken.extend(rule(&module, &text).into_iter().map(|why| format!("{shown}{why}")));
        }
    }
    broken.sort();
    broken.dedup();
    Ok(broken)
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

fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    Ok(found)
}
