//! Common to the suites in namespaces: the binary, and the reason why a test cannot run here.

use std::{
    env,
    fs::OpenOptions,
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use lb_lab::{Error, Host, Lab, Process, until_ok};

use crate::http::PATIENCE;

/// A need of a test that a machine may not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Root,
    /// A program.
    Tool(&'static str),
    /// A kernel of this version, major and minor.
    Kernel(u32, u32),
}

/// Whether this test must be left out, because something that it needs is not here. Prints that, and reports
/// it to `cargo xtask test`, which counts it and checks the reason. Each lab test begins with it.
#[must_use = "a test that is skipped returns"]
pub fn skipped(test: &str, needs: &[Need]) -> bool {
    let always = [Need::Root, Need::Tool("ip"), Need::Tool("ethtool")];
    let Some(lacking) = always.iter().chain(needs).find(|need| !need.is_met()) else { return false };
    let (key, reason) = lacking.described();
    note_skip(&key, test, &reason);
    true
}

/// Counts something as skipped. `key`: what is missing, as `xtask` reads it.
pub fn note_skip(key: &str, what: &str, reason: &str) {
    eprintln!("skipped: {what}: {reason}");
    if let Some(path) = env::var_os("SHUNT_SKIPS") {
        let file = OpenOptions::new().append(true).open(&path);
        let written = file.and_then(|mut file| writeln!(file, "{key}\t{what}\t{reason}"));
        written.expect("SHUNT_SKIPS names a file that can be written");
    }
}

impl Need {
    fn is_met(self) -> bool {
        match self {
            Self::Root => nix::unistd::geteuid().is_root(),
            Self::Tool(name) => on_path(name),
            Self::Kernel(major, minor) => running_kernel() >= Some((major, minor)),
        }
    }

    /// As `xtask/src/checks.rs` reads it, and for people.
    fn described(self) -> (String, String) {
        match self {
            Self::Root => ("root".to_owned(), "needs root, to make network namespaces".to_owned()),
            Self::Tool(name) => (format!("tool {name}"), format!("needs `{name}`")),
            Self::Kernel(major, minor) => {
                (format!("kernel {major}.{minor}"), format!("needs Linux {major}.{minor}"))
            }
        }
    }
}

/// Whether `PATH`, or the places of system tools, hold this program.
pub fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|dir| dir.join(program).is_file())
}

fn running_kernel() -> Option<(u32, u32)> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// `shunt`, of the same profile as the running test, built when it is not up to date.
pub fn shunt() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("lb-userspace", "shunt"))
}

/// Builds and finds `lab-backend` in the same way.
pub fn lab_backend() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("lb-lab", "lab-backend"))
}

/// A program of a package of ours, built when it is not up to date. `SHUNT_BUILT` says that all are: then cargo,
/// which might wait for another cargo, is not asked.
pub fn built(package: &str, name: &str) -> PathBuf {
    // target/PROFILE/deps/TEST
    let test = env::current_exe().expect("a test knows its own path");
    let profile = test.ancestors().nth(2).expect("tests lie in target/PROFILE/deps");
    if env::var_os("SHUNT_BUILT").is_some() {
        return profile.join(name);
    }
    let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--package", package, "--bin", name]);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().expect("cargo can be started").success(), "{name} does not build");
    profile.join(name)
}

/// nginx on a host, in the foreground, with these `server` blocks. It listens once this returns.
pub fn nginx(lab: &Lab, host: &Host, listen: SocketAddr, servers: &str) -> Result<Process, Error> {
    let folder = lab.folder().join(format!("nginx-{}", host.name()));
    let io = |source| Error::Io { what: folder.display().to_string(), source };
    std::fs::create_dir(&folder).map_err(io)?;
    let at = folder.display();
    let config = format!(
        "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;\n\
         events {{ worker_connections 16384; }}\n\
         http {{\n\
         access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;\n\
         fastcgi_temp_path {at}/fastcgi; uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;\n\
         keepalive_requests 1000000;\n\
         {servers}\n\
         }}\n"
    );
    let path = folder.join("nginx.conf");
    std::fs::write(&path, config).map_err(io)?;
    let mut command = host.command("nginx");
    command.arg("-c").arg(&path).stdin(Stdio::null());
    let mut process = host.spawn(&mut command)?;
    until_ok("nginx listens", PATIENCE, || match process.ended() {
        Some(ended) => Err(format!("it ended: {ended}")),
        None => connects(host, listen).map_err(|error| error.to_string()),
    })?;
    Ok(process)
}

/// Whether a connection from this host succeeds.
pub fn connects(host: &Host, to: SocketAddr) -> Result<(), Error> {
    host.enter(|| std::net::TcpStream::connect_timeout(&to, Duration::from_secs(1)))?
        .map(drop)
        .map_err(|source| Error::Io { what: format!("connecting to {to}"), source })
}

/// Devices of the namespace that the test itself is in.
pub fn own_devices() -> String {
    let output = Command::new("ip").args(["-oneline", "link"]).output().expect("`ip` was looked for");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The address that a host of the usual topology listens on.
pub fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}
