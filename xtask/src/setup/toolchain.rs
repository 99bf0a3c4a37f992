//! A compiler and a linker for `bpfel-unknown-none`.
//!
//! The target has no prebuilt `core`, so the library's source must belong to exactly the
//! compiler in use. Two ways lead there:
//!
//! - a rustup nightly with its `rust-src` component;
//! - where the Rust download server is out of reach: Debian's `rustc-web` and `rust-web-src`, linked into rustup
//!   under the name `debian`. bpf-linker is then built against Debian's LLVM, for its own default
//!   reads the bitcode of another LLVM and crashes.
//!
//! `build.rs` of lb-userspace looks for them in the same order as [`present`]: `debian`, then a nightly.

use std::{env, fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{
    command::{cargo, on_path, read, run, run_within},
    setup::packages,
};

const DEBIAN: &str = "debian";
/// Known to be of the same LLVM as bpf-linker.
const NIGHTLY: &str = "nightly-2026-05-20";
const BPF_LINKER: &str = "0.10.4";
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
const DEBIAN_PACKAGES: &[&str] =
    &["rustc-web", "rust-web-src", "llvm-22-dev", "zlib1g-dev", "libzstd-dev", "g++", "ca-certificates"];

/// Sees to it that one toolchain can build BPF programs, and names it.
pub(super) fn ready() -> Result<String> {
    if !on_path("rustup") {
        bail!("rustup not found; it manages the second toolchain that BPF needs (see rustup.rs)");
    }
    if let Some(toolchain) = present()? {
        match with_linker(&toolchain) {
            Ok(()) => return Ok(toolchain),
            Err(error) if toolchain == DEBIAN => return Err(error),
            // A nightly of another LLVM. Once `debian` is linked, the build prefers it.
            Err(error) => eprintln!("setup: {error:#}; taking Debian's compiler instead"),
        }
        return debian();
    }
    // A linked `debian` is what the build takes, so that is what has to work.
    if toolchains()?.iter().any(|name| name == DEBIAN) {
        return debian();
    }
    nightly().or_else(|error| {
        eprintln!("setup: no nightly with rust-src ({error:#}); taking Debian's compiler instead");
        debian().context("neither rustup's rust-src nor Debian's rust-web-src could be set up")
    })
}

/// The toolchain that the build takes as things are, if it has the library source.
fn present() -> Result<Option<String>> {
    let toolchains = toolchains()?;
    let debian = toolchains.iter().filter(|name| *name == DEBIAN);
    let nightlies = toolchains.iter().filter(|name| name.starts_with("nightly"));
    Ok(debian.chain(nightlies).find(|name| has_source(name)).cloned())
}

fn toolchains() -> Result<Vec<String>> {
    let list = read(Command::new("rustup").args(["toolchain", "list"]))?;
    Ok(list.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

fn has_source(toolchain: &str) -> bool {
    read(rustc(toolchain).args(["--print", "sysroot"]))
        .is_ok_and(|sysroot| PathBuf::from(sysroot.trim()).join("lib/rustlib/src/rust/library/core").exists())
}

/// The rustup way. Whether the server can be had at all is asked first, and shortly.
fn nightly() -> Result<String> {
    const NEWER_EXISTS: i32 = 100;
    let check =
        run_within(Duration::from_secs(15), Command::new("rustup").args(["check", "--no-self-update"]))?;
    if !check.success() && check.code() != Some(NEWER_EXISTS) {
        bail!("the Rust download server is out of reach");
    }
    let installed = toolchains()?.into_iter().find(|name| name.starts_with("nightly"));
    let toolchain = installed.clone().unwrap_or_else(|| NIGHTLY.to_owned());
    let mut add = Command::new("rustup");
    let limit = if installed.is_some() {
        add.args(["component", "add", "rust-src", "--toolchain", &toolchain]);
        Duration::from_secs(60)
    } else {
        add.args(["toolchain", "install", &toolchain, "--profile", "minimal", "--component", "rust-src"]);
        Duration::from_secs(600)
    };
    if !run_within(limit, &mut add)?.success() {
        bail!("rustup could not install rust-src for `{toolchain}`");
    }
    with_linker(&toolchain)?;
    Ok(toolchain)
}

fn debian() -> Result<String> {
    let missing: Vec<_> =
        DEBIAN_PACKAGES.iter().copied().filter(|package| !packages::installed(package)).collect();
    if !missing.is_empty() {
        packages::install(&missing)?;
    }
    run(Command::new("rustup").args(["toolchain", "link", DEBIAN, "/usr"]))?;
    with_linker(DEBIAN)?;
    Ok(DEBIAN.to_owned())
}

/// Sees to it that bpf-linker is there and reads what this toolchain writes.
fn with_linker(toolchain: &str) -> Result<()> {
    if links(toolchain).is_ok() {
        return Ok(());
    }
    install_linker(toolchain)?;
    links(toolchain)
}

fn install_linker(toolchain: &str) -> Result<()> {
    eprintln!("setup: building bpf-linker {BPF_LINKER} for `{toolchain}`, about a minute");
    let mut install = cargo();
    install.args(["install", "--quiet", "--force", "bpf-linker", "--version", BPF_LINKER]);
    if toolchain == DEBIAN {
        install.env("LLVM_PREFIX", LLVM_PREFIX).args(["--no-default-features", "--features", "llvm-22"]);
    }
    run(&mut install).context("is the crate registry reachable?")?;
    if on_path("bpf-linker") {
        return Ok(());
    }
    bail!("bpf-linker is installed, but not on the PATH; add cargo's bin directory to it")
}

/// Compiles and links a program: the only proof that compiler and linker agree.
fn links(toolchain: &str) -> Result<()> {
    let dir = env::temp_dir().join(format!("shunt-setup-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let source = dir.join("check.rs");
    let outcome = fs::write(&source, include_str!("link_check.rs.in")).map_err(Into::into).and_then(|()| {
        let options = ["--edition=2024", "--target=bpfel-unknown-none", "-Cpanic=abort", "-Copt-level=3"];
        let mut compile = rustc(toolchain);
        compile.args(options).arg("-Clinker=bpf-linker").arg("-o").arg(dir.join("check")).arg(&source);
        read(compile.env("RUSTC_BOOTSTRAP", "1")).map(drop)
    });
    fs::remove_dir_all(&dir)?;
    outcome.with_context(|| format!("toolchain `{toolchain}` cannot build BPF programs"))
}

/// The compiler of that toolchain, whatever toolchain runs us.
fn rustc(toolchain: &str) -> Command {
    let mut rustc = Command::new("rustup");
    rustc.args(["run", toolchain, "rustc"]);
    rustc
}
