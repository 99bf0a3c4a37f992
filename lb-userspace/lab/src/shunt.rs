//! The daemon on a host of a lab, used as a person would: through its configuration file and its command line.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use lb_core::event::Event;

use super::{Error, Host, Lab, Process, Result, clock, namespace::checked, stale, until_ok};
use lb_userspace::control::model::{EventLine, Status};

/// Loading the program takes a verifier some time on a busy machine, and in a machine that QEMU translates a minute.
const START: Duration = Duration::from_secs(240);
const STOP: Duration = Duration::from_secs(3);

/// A running daemon. Dropping it stops the daemon and removes its programs and pins.
#[derive(Debug)]
pub struct Shunt {
    host: Host,
    binary: PathBuf,
    instance: String,
    config: PathBuf,
    socket: PathBuf,
    state: PathBuf,
    log: PathBuf,
    process: Process,
}

impl Shunt {
    /// Starts `shunt run` and returns once its control socket answers. `config` lacks only `instance`,
    /// `control_socket` and `state_file`; it begins with keys that stand before any table.
    pub fn start(lab: &Lab, host: &Host, binary: &Path, config: &str) -> Result<Self> {
        let instance = lab.name().strip_prefix(stale::PREFIX).unwrap_or(lab.name()).to_owned();
        let socket = lab.folder().join("control.sock");
        let path = lab.folder().join("shunt.toml");
        let log = lab.folder().join("shunt.log");
        let state = lab.folder().join("state.json");
        let mut head =
            format!("instance = {instance:?}\ncontrol_socket = {socket:?}\nstate_file = {state:?}\n");
        if super::Style::get().tc && !config.contains("xdp_mode") {
            head += "xdp_mode = \"tc\"\n";
        }
        fs::write(&path, head + config).map_err(Error::io(path.display().to_string()))?;
        let process = run(host, binary, &path, &log)?;
        let (host, binary) = (host.clone(), binary.to_owned());
        let mut shunt = Self { host, binary, instance, config: path, socket, state, log, process };
        shunt.ready()?;
        Ok(shunt)
    }

    fn ready(&mut self) -> Result<()> {
        until_ok("shunt answers", START, || match self.process.ended() {
            // Waiting longer would not help, so the failure of a dead daemon passes as a success of the wait.
            Some(ended) => Ok(Err(ended)),
            None => self.status().map(|_| Ok(())),
        })?
        .map_err(|ended| Error::Command {
            command: format!("shunt run: {ended}"),
            stderr: self.log().trim_end().to_owned(),
        })
    }

    /// Starts it again with the same configuration file, after it ended or was killed.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = run(&self.host, &self.binary, &self.config, &self.log)?;
        self.ready()
    }

    pub fn status(&self) -> Result<Status> {
        let json = self.ask(&["status", "-o", "json"])?;
        serde_json::from_str(&json).map_err(|error| Error::Command {
            command: "shunt status -o json".to_owned(),
            stderr: error.to_string(),
        })
    }

    /// Any other command of `shunt`, with this daemon's socket.
    pub fn ask(&self, args: &[&str]) -> Result<String> {
        checked(self.host.command(&self.binary).arg("--socket").arg(&self.socket).args(args))
    }

    /// Everything from the first event that the daemon keeps on.
    pub fn events(&self) -> Result<Events> {
        Events::follow(&self.host, &self.binary, &self.socket)
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub fn instance(&self) -> &str {
        &self.instance
    }

    pub fn config(&self) -> &Path {
        &self.config
    }

    pub fn binary(&self) -> &Path {
        &self.binary
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The file of all that it remembers over a restart.
    pub fn state_file(&self) -> &Path {
        &self.state
    }

    /// Where the kernel keeps what outlives the daemon.
    pub fn pins(&self) -> PathBuf {
        Path::new(stale::PINS).join(&self.instance)
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

fn run(host: &Host, binary: &Path, config: &Path, log: &Path) -> Result<Process> {
    let logged = || File::options().create(true).append(true).open(log);
    let out = logged().and_then(|out| Ok((out, logged()?)));
    let (out, err) = out.map_err(Error::io(log.display().to_string()))?;
    let mut command = host.command(binary);
    command.arg("run").arg("--config").arg(config).stdin(Stdio::null()).stdout(out).stderr(err);
    host.spawn(&mut command)
}

impl Drop for Shunt {
    fn drop(&mut self) {
        let stopped = self.process.stop(STOP).map(drop);
        let detached = self.ask(&["detach", "--instance", &self.instance]).map(drop);
        for error in [stopped, detached].into_iter().filter_map(Result::err) {
            tracing::warn!(instance = self.instance, %error, "shunt not taken down in order");
        }
        // Also when `detach` failed: a lab leaves nothing.
        if self.pins().exists()
            && let Err(error) = fs::remove_dir_all(self.pins())
        {
            tracing::warn!(pins = %self.pins().display(), %error, "pins not removed");
        }
    }
}

/// An event, and when it was heard of.
#[derive(Clone, Debug)]
pub struct Heard {
    /// By [`clock`].
    pub at: Duration,
    pub event: Event,
}

/// `shunt events --follow`, read as it comes.
#[derive(Debug)]
pub struct Events {
    heard: Arc<Mutex<Vec<Heard>>>,
    _process: Process,
}

impl Events {
    fn follow(host: &Host, binary: &Path, socket: &Path) -> Result<Self> {
        let mut command = host.command(binary);
        command.arg("--socket").arg(socket).args(["events", "--follow", "--output", "jsonl"]);
        let mut process = host.spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let stdout = process.child().stdout.take().expect("standard output is piped");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&heard);
        // Ends with the process, whose pipe it reads.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(|line| line.ok()) {
                let at = clock::now();
                match serde_json::from_str(&line) {
                    Ok(EventLine::Event(event)) => lock(&shared).push(Heard { at, event: *event }),
                    Ok(EventLine::Missed(missed)) => tracing::warn!(?missed, "events were missed"),
                    Err(error) => tracing::warn!(%error, line, "not an event"),
                }
            }
        });
        Ok(Self { heard, _process: process })
    }

    /// Those heard so far, from the given place on.
    pub fn since(&self, place: usize) -> Vec<Heard> {
        lock(&self.heard).get(place..).unwrap_or_default().to_vec()
    }

    /// Waits for the first event at or after `place` that fits; answers the place behind it too.
    pub fn wait(
        &self,
        what: &str,
        place: usize,
        limit: Duration,
        fits: impl Fn(&Event) -> bool,
    ) -> Result<(Heard, usize)> {
        until_ok(what, limit, || {
            let heard = self.since(place);
            match heard.iter().position(|heard| fits(&heard.event)) {
                Some(found) => Ok((heard[found].clone(), place + found + 1)),
                None => Err(heard.last().map_or("no event".to_owned(), |last| last.event.sentence())),
            }
        })
    }
}

/// A reader that panicked has still pushed whole events only.
fn lock(heard: &Mutex<Vec<Heard>>) -> MutexGuard<'_, Vec<Heard>> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}
