//! The file itself.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    num::NonZeroU16,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use lb_core::{
    config::{self, Backend},
    snapshot::Standing,
    state::State,
    time::Millis,
};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::files::{self, Distrust};

/// The states of all backends that there can be need less.
const MAX_BYTES: u64 = 64 << 20;

/// So many files that were set aside stay. Older ones are removed.
pub(super) const KEPT: usize = 3;

const ASIDE: &str = ".damaged-";

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The Unix time of `state`.
    pub written_unix_ms: u64,
    /// The last good sets of discovery.
    #[serde(default)]
    pub discovered: Vec<Discovered>,
    #[serde(flatten)]
    pub state: State,
}

/// The last good set of a service whose backends come from discovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovered {
    pub service: String,
    /// When the daemon last read it from the file.
    pub good_unix_ms: u64,
    pub backends: Vec<Member>,
}

/// A backend of such a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub name: String,
    pub address: SocketAddr,
    pub weight: NonZeroU16,
    pub state: Standing,
    pub id: Option<String>,
}

impl Discovered {
    pub fn of(service: &str, good_unix_ms: u64, backends: &[Backend]) -> Self {
        let member = |of: &Backend| Member {
            name: of.name.clone(),
            address: of.address,
            weight: NonZeroU16::new(of.weight).expect("a weight is at least 1"),
            state: of.standing(),
            id: of.identity().map(str::to_owned),
        };
        Self { service: service.to_owned(), good_unix_ms, backends: backends.iter().map(member).collect() }
    }

    pub fn into_backends(self) -> Vec<Backend> {
        let backend = |Member { name, address, weight, state, id }| Backend {
            name,
            address,
            weight: weight.get(),
            probe_address: None,
            max_connections: None,
            discovered: Some(config::Discovered { standing: state, identity: id }),
        };
        self.backends.into_iter().map(backend).collect()
    }
}

/// The folder of the state file is another user's, or any user's.
#[derive(Debug, thiserror::Error)]
#[error("the folder of the state file, {}, {why}", folder.display())]
pub struct UntrustedFolder {
    folder: PathBuf,
    why: Distrust,
}

impl UntrustedFolder {
    pub fn remedy(&self) -> String {
        self.why.remedy(&self.folder)
    }
}

#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("{0}")]
    Untrusted(Distrust),
    #[error("cannot be read")]
    Unreadable(#[from] io::Error),
    #[error("is larger than {} MiB", MAX_BYTES >> 20)]
    TooLarge,
    #[error("is damaged: {0}")]
    Damaged(serde_json::Error),
    #[error("has version {0}, this program's is {own}", own = State::VERSION)]
    Version(u64),
}

/// Whether other users may put a state of their own into the folder. One that is not there yet the daemon makes for itself.
pub fn trust_folder(path: &Path) -> Result<(), UntrustedFolder> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    match files::trust_folder(folder).as_ref().map_err(Distrust::of) {
        Err(Some(why)) => Err(UntrustedFolder { folder: folder.to_owned(), why }),
        // An error of another kind comes again when the file is read or written, and status shows that one.
        Ok(()) | Err(None) => Ok(()),
    }
}

/// The content of the file, its state aged until `unix_ms`. `None`: there is no file, or an unusable one.
pub fn load(path: &Path, unix_ms: u64) -> Option<Record> {
    match read(path) {
        Ok(Some(record)) => {
            // A clock that was set back makes no state younger.
            let age = Millis(unix_ms.saturating_sub(record.written_unix_ms));
            let backends: usize = record.state.services.iter().map(|service| service.backends.len()).sum();
            info!(path = %path.display(), backends, age_ms = age.0, "goes on with the state of an earlier run");
            Some(Record { state: record.state.aged(age), ..record })
        }
        Ok(None) => None,
        Err(unusable) => {
            set_aside(path, &unusable, unix_ms / 1000);
            None
        }
    }
}

fn read(path: &Path) -> Result<Option<Record>, Unusable> {
    /// The part that every version has.
    #[derive(Deserialize)]
    struct Versioned {
        version: u64,
    }
    let file = match files::open(path, OpenOptions::new().read(true)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Distrust::of(&error).map_or_else(|| error.into(), Unusable::Untrusted)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Unusable::TooLarge);
    }
    let Versioned { version } = serde_json::from_slice(&bytes).map_err(Unusable::Damaged)?;
    if version != u64::from(State::VERSION) {
        return Err(Unusable::Version(version));
    }
    serde_json::from_slice(&bytes).map(Some).map_err(Unusable::Damaged)
}

/// Everything that may lie beside and at the path of a state file.
pub fn files(path: &Path) -> Vec<PathBuf> {
    let mut all = vec![path.to_owned(), beside(path, ".new")];
    all.extend(set_aside_before(path).unwrap_or_default().into_iter().map(|(_, path)| path));
    all
}

/// Renames an unusable file, so that a person can look at it.
fn set_aside(path: &Path, why: &Unusable, unix_secs: u64) {
    let aside = beside(path, &format!("{ASIDE}{unix_secs}"));
    let why = chain(why);
    match fs::rename(path, &aside) {
        Ok(()) => warn!(
            path = %path.display(), aside = %aside.display(), why,
            "the state file is of no use and was set aside: ejections and overrides of the earlier run are forgotten"
        ),
        Err(error) => warn!(
            path = %path.display(), %error, why,
            "the state file is of no use, and cannot be set aside"
        ),
    }
    if let Err(error) = forget_old(path) {
        warn!(path = %path.display(), %error, "state files set aside earlier are not removed");
    }
}

/// Removes all but the last few that were set aside.
fn forget_old(path: &Path) -> io::Result<()> {
    let aside = set_aside_before(path)?;
    let old = aside.len().saturating_sub(KEPT);
    aside[..old].iter().try_for_each(|(_, path)| fs::remove_file(path))
}

/// Those that were set aside, with the time of each, oldest first.
fn set_aside_before(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let prefix = format!("{}{ASIDE}", name.to_string_lossy());
    let mut aside = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let age = name.strip_prefix(&prefix).and_then(|secs| secs.parse::<u64>().ok());
        aside.extend(age.map(|secs| (secs, entry.path())));
    }
    aside.sort_unstable();
    Ok(aside)
}

/// Replaces the file. With an error, the old one is still there.
pub(super) fn write(path: &Path, record: &Record) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
    files::trust_folder(folder)?;
    let new = beside(path, ".new");
    // A write that broke off may have left one, and another user may have put a link there: neither is written to.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&new)?;
    let mut text = serde_json::to_vec(record).expect("a state is plain data with text keys");
    text.push(b'\n');
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    // The name too has to be on the disk.
    File::open(folder)?.sync_all()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// An error and its cause in one line.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
