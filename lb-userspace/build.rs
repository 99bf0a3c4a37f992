//! Embeds the program for XDP and for tc.
//!
//! `SHUNT_BPF_OBJECT` and `SHUNT_BPF_TC_OBJECT` name objects built elsewhere (for packagers). Otherwise they are
//! built here, for a target without a prebuilt `core`, by a toolchain that has the
//! library's source; `cargo xtask setup` provides one.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// Variables that name the objects, and what they are called where they are built.
const OBJECTS: [(&str, &str); 2] = [("SHUNT_BPF_OBJECT", "shunt-xdp"), ("SHUNT_BPF_TC_OBJECT", "shunt-tc")];

fn main() {
    let mut built = None;
    for (variable, name) in OBJECTS {
        println!("cargo:rerun-if-env-changed={variable}");
        let object = match env::var_os(variable) {
            Some(path) => {
                let path = PathBuf::from(path);
                assert!(path.is_file(), "{variable}: {} is not a file", path.display());
                println!("cargo:rerun-if-changed={}", path.display());
                path
            }
            None => built.get_or_insert_with(build).join(name),
        };
        let size = std::fs::metadata(&object).map(|meta| meta.len()).unwrap_or(0);
        assert!(size > 0, "{} is empty or missing", object.display());
        println!("cargo:rustc-env={variable}={}", object.display());
    }
}

/// Gives the folder of the objects.
fn build() -> PathBuf {
    // Asked now, not compiled in: the folder may have been moved together with what is built.
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let root = package.parent().expect("the workspace root").to_path_buf();
    for input in ["lb-ebpf", "lb-common/src", "lb-common/Cargo.toml", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", root.join(input).display());
    }
    let toolchain = toolchain().unwrap_or_else(|| {
        panic!(
            "no Rust toolchain here can build for BPF: it needs the source of the standard library.\n\
             help: run `cargo xtask setup`, or name built objects in SHUNT_BPF_OBJECT and SHUNT_BPF_TC_OBJECT"
        )
    });
    let target_dir = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo")).join("bpf");
    let mut cargo = Command::new("cargo");
    cargo
        .arg(format!("+{toolchain}"))
        .args(["build", "--package", "lb-ebpf", "--bins", "--release", "--locked"])
        .args(["-Z", "build-std=core", "--target", "bpfel-unknown-none"])
        .arg("--target-dir")
        .arg(&target_dir)
        .current_dir(&root);
    // The outer cargo's settings are for the host.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CARGO") && name != "CARGO_HOME"
            || name.starts_with("RUST") && name != "RUSTUP_HOME"
        {
            cargo.env_remove(name);
        }
    }
    cargo
        // Both toolchains are used for their library source, not for being nightlies.
        .env("RUSTC_BOOTSTRAP", "1")
        // v3: 32-bit registers and atomics with a result (Linux 5.12).
        .env("CARGO_ENCODED_RUSTFLAGS", "-Cdebuginfo=2\u{1f}-Clink-arg=--btf\u{1f}-Ctarget-cpu=v3");
    let status = cargo.status().unwrap_or_else(|error| panic!("cannot run {cargo:?}: {error}"));
    assert!(status.success(), "the BPF programs did not build: {cargo:?}");
    target_dir.join("bpfel-unknown-none/release")
}

/// `debian` (rustc-web and rust-web-src, linked by `cargo xtask setup`), or a nightly
/// that has the component `rust-src`.
fn toolchain() -> Option<String> {
    let list = Command::new("rustup").args(["toolchain", "list"]).output().ok()?;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let names = || list.lines().filter_map(|line| line.split_whitespace().next());
    names()
        .find(|name| *name == "debian")
        .or_else(|| names().find(|name| name.starts_with("nightly") && has_source(name)))
        .map(str::to_owned)
}

fn has_source(toolchain: &str) -> bool {
    let sysroot = Command::new("rustc").arg(format!("+{toolchain}")).args(["--print", "sysroot"]).output();
    sysroot.is_ok_and(|output| {
        let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file()
    })
}
