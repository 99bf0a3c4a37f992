//! Connects the command line with the daemon, the configuration and the maps.

use std::path::{Path, PathBuf};

use super::{
    exit::{Exit, Failure},
    logging,
    palette::Palette,
};
use crate::{
    config::{self, LoadError},
    daemon,
    dataplane::bpf::OpenError,
};

pub(super) const DEFAULT_BPFFS: &str = "/sys/fs/bpf";
pub(super) const DEFAULT_INSTANCE: &str = "default";

/// Runs the daemon until a signal stops it. `socket` and `record` override the configuration.
pub async fn run_daemon(
    config: &Path,
    socket: Option<&Path>,
    record: Option<PathBuf>,
) -> Result<Exit, Failure> {
    let mut file = load(config, Palette::of_stderr())?;
    if let Some(path) = record {
        file.record.get_or_insert_default().path = path;
    }
    let log = logging::init(&file.log.to_string())?;
    let options = daemon::Options {
        file,
        config_path: config.to_owned(),
        socket: socket.map(Path::to_owned),
        lost_log_lines: log.lost.clone(),
    };
    daemon::run(options).await.map_err(not_started)?;
    Ok(Exit::Done)
}

fn not_started(error: daemon::Error) -> Failure {
    match error {
        daemon::Error::Socket(error) => error.into(),
        daemon::Error::Open(error) => not_opened(error),
        daemon::Error::Record(error) => {
            let remedy = error.remedy();
            Failure::new(Exit::HostNotAble, error).remedy(remedy)
        }
        daemon::Error::State(error) => {
            let remedy = error.remedy();
            Failure::new(Exit::HostNotAble, error).remedy(remedy)
        }
        daemon::Error::OpenFiles(error) => {
            let remedy = error.remedy();
            Failure::new(Exit::HostNotAble, error).remedy(remedy)
        }
        error @ daemon::Error::Io { .. } => Failure::new(Exit::Failed, error),
    }
}

fn not_opened(error: OpenError) -> Failure {
    let exit = match &error {
        // There is traffic already, which would suffer.
        OpenError::Running(_)
        | OpenError::Busy { .. }
        | OpenError::Elsewhere { .. }
        | OpenError::VipTaken { .. }
        | OpenError::PortOverlap { .. }
        | OpenError::Layout { .. } => Exit::Refused,
        OpenError::NoInterface(_)
        | OpenError::NotPermitted
        | OpenError::Attach { .. }
        | OpenError::Unfinished { .. }
        | OpenError::UnfinishedGeneric { .. }
        | OpenError::NoTcx { .. }
        | OpenError::AttachTc { .. }
        | OpenError::Mtu { .. }
        | OpenError::Memory { .. }
        | OpenError::Cgroup { .. }
        | OpenError::Untrusted(_)
        | OpenError::Verifier(_)
        | OpenError::Bpffs { .. } => Exit::HostNotAble,
        OpenError::Load(_) | OpenError::Object(_) | OpenError::Descriptor(_) | OpenError::Map(_) => {
            Exit::Failed
        }
    };
    let remedy = error.remedy();
    let failure = Failure::new(exit, error);
    match remedy {
        Some(remedy) => failure.remedy(remedy),
        None => failure,
    }
}

/// Reads a configuration. An error lists everything that is wrong with it.
pub(super) fn load(config: &Path, palette: Palette) -> Result<config::File, Failure> {
    config::load(config).map_err(|error| match error {
        LoadError::Invalid(diagnostics) => Failure::message(
            Exit::Config,
            format!("{} is invalid\n\n{}", config.display(), diagnostics.render(palette.is_coloured())),
        ),
        LoadError::Io { .. } => unreadable(error),
    })
}

/// A configuration that cannot be read at all.
pub(super) fn unreadable(error: LoadError) -> Failure {
    Failure::new(Exit::Config, error)
        .remedy("name another file with `-c`; `shunt config example` prints one to start from")
}
