//! Debian packages.

use std::process::Command;

use anyhow::{Result, bail};

use crate::command::{on_path, read};

/// A program and the Debian package that carries it.
pub(super) type Tool = (&'static str, &'static str);

pub(super) const BUILD: &[Tool] = &[("cc", "gcc")];
pub(super) const DEMO: &[Tool] = &[("cc", "gcc"), ("ip", "iproute2"), ("ethtool", "ethtool")];
pub(super) const TESTS: &[Tool] = &[
    ("cc", "gcc"),
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("nginx", "nginx-light"),
    ("curl", "curl"),
    ("wrk", "wrk"),
    ("openssl", "openssl"),
    ("kubectl", "kubernetes-client"),
];

/// Other kernels, in a machine of their own.
pub(super) const MACHINE: &[Tool] =
    &[("qemu-system-x86_64", "qemu-system-x86"), ("busybox", "busybox-static")];

/// Installs the packages of those programs that are not there.
pub(super) fn install_tools(tools: &[Tool]) -> Result<()> {
    let missing: Vec<Tool> = tools.iter().copied().filter(|(program, _)| !on_path(program)).collect();
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    if packages.contains(&"gcc") {
        packages.push("libc6-dev");
    }
    if packages.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
    eprintln!("setup: {} not found", names.join(", "));
    install(&packages)?;
    match missing.iter().find(|(program, _)| !on_path(program)) {
        None => Ok(()),
        Some((program, package)) => bail!("{package} is installed, but `{program}` is not on the PATH"),
    }
}

/// Whether dpkg knows the package as installed.
pub(super) fn installed(package: &str) -> bool {
    read(Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]))
        .is_ok_and(|status| status == "installed")
}

/// Installs packages and starts nothing. A shell does it, because its trap also holds when we are interrupted: while
/// `policy-rc.d` answers 101, no package starts a service. An administrator's own policy stays in force.
const INSTALL: &str = r#"
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt() { apt-get -q -o DPkg::Lock::Timeout=120 -o Acquire::Retries=2 -o Acquire::http::Timeout=20 "$@"; }
apt update
apt install --yes --no-install-recommends "$@"
"#;

pub(super) fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if !on_path("apt-get") {
        bail!("this machine has no apt-get; install by hand what these Debian packages carry: {list}");
    }
    if !is_root() {
        bail!("installing packages needs root; run this as root, or: apt-get install {list}");
    }
    eprintln!("setup: installing {list}");
    let output = Command::new("sh").args(["-c", INSTALL, "setup"]).args(packages).output()?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        bail!(
            "{}\napt-get could not install {list}; is a Debian 12 mirror (with its security archive) reachable?",
            String::from_utf8_lossy(&text).trim_end()
        );
    }
    Ok(())
}

pub(crate) fn is_root() -> bool {
    read(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}
