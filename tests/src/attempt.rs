//! A daemon with a configuration, an instance and a socket of its own, tried once.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use lb_lab::{Error, Host, Lab, Result, until};

use crate::{answer::Answer, http::PATIENCE, lab::shunt};

const PINS: &str = "/sys/fs/bpf/shunt";

#[derive(Debug)]
pub struct Attempt {
    host: Host,
    pub instance: String,
    pub config: PathBuf,
    pub socket: PathBuf,
}

impl Attempt {
    /// `name` is another one for each daemon of a lab. `config` lacks `instance` and `control_socket` only.
    pub fn new(lab: &Lab, host: &Host, name: &str, config: &str) -> Result<Self> {
        let instance = format!("{}-{name}", lab.name().trim_start_matches("shunt-"));
        let socket = lab.folder().join(format!("{name}.sock"));
        let state = socket.with_extension("state.json");
        let head = format!("instance = {instance:?}\ncontrol_socket = {socket:?}\nstate_file = {state:?}\n");
        Self::verbatim(lab, host, name, (head + config).as_bytes())
    }

    /// With this file, whatever it is.
    pub fn verbatim(lab: &Lab, host: &Host, name: &str, file: &[u8]) -> Result<Self> {
        let config = lab.folder().join(format!("{name}.toml"));
        let written = fs::write(&config, file);
        written.map_err(|source| Error::Io { what: config.display().to_string(), source })?;
        Ok(Self {
            host: host.clone(),
            instance: format!("{}-{name}", lab.name().trim_start_matches("shunt-")),
            config,
            socket: lab.folder().join(format!("{name}.sock")),
        })
    }

    pub fn check(&self) -> Result<Answer> {
        Answer::of(&self.host, self.shunt(&["check", "-c"]).arg(&self.config))
    }

    /// It is expected to end by itself.
    pub fn run(&self) -> Result<Answer> {
        Answer::of(&self.host, self.shunt(&["run", "-c"]).arg(&self.config))
    }

    /// The same, on another socket than the file's.
    pub fn run_on(&self, socket: &Path) -> Result<Answer> {
        Answer::of(&self.host, self.shunt(&["run", "-c"]).arg(&self.config).arg("-s").arg(socket))
    }

    fn shunt(&self, args: &[&str]) -> Command {
        let mut command = self.host.command(shunt());
        command.args(args);
        command
    }

    /// Pins, socket and lock of it, and devices of its host that carry an XDP program.
    pub fn remains(&self) -> Result<Vec<String>> {
        let lock = self.socket.with_extension("sock.lock");
        let paths = [Path::new(PINS).join(&self.instance), self.socket.clone(), lock];
        let there = paths.into_iter().filter(|path| fs::symlink_metadata(path).is_ok());
        let mut found: Vec<_> = there.map(|path| path.display().to_string()).collect();
        found.extend(programs(&self.host)?);
        Ok(found)
    }

    /// That nothing but this remains. The kernel takes a program off a device a moment after the last pin and
    /// process that held it are gone.
    #[track_caller]
    pub fn left(&self, expected: &[String]) {
        let gone = until("it is gone", PATIENCE, || self.remains().is_ok_and(|left| left == expected));
        assert_eq!(self.remains().expect("`ip` works"), expected, "{gone:?}");
    }

    #[track_caller]
    pub fn left_nothing(&self) {
        self.left(&[]);
    }
}

/// Devices that carry an XDP program, with the program's number.
pub fn programs(host: &Host) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut device = String::new();
    for line in host.ip("-details link show")?.lines() {
        if !line.starts_with(' ') {
            device = line.split(':').nth(1).unwrap_or_default().trim().to_owned();
        } else if let Some(program) = line.trim().strip_prefix("prog/xdp ") {
            let id: Vec<_> = program.split_whitespace().take(2).collect();
            found.push(format!("{device}: {}", id.join(" ")));
        }
    }
    Ok(found)
}
