//! Reads a discovery file.
//!
//! A link may lead to it, as in a ConfigMap. The daemon is root, and the file says where traffic goes, so nobody but root
//! and the daemon's user may be able to change the file that is found, or the names in the folder of the path.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use lb_core::codes::DiscoveryCode;

use super::{
    document::{MAX_BYTES, too_large},
    fault::Fault,
};
use crate::files::{self, Distrust};

/// Write permission of all users.
const OTHERS_WRITE: u32 = 0o002;

/// The content of the file.
pub fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    if let Some(folder) = path.parent() {
        files::trust_folder(folder).map_err(|error| fault("its folder", &error))?;
    }
    let its = |error: io::Error| fault("it", &error);
    // To open a device may already do something.
    if !fs::metadata(path).map_err(its)?.is_file() {
        return Err(Fault::new(DiscoveryCode::Unreadable, "it is not a file"));
    }
    let mut options = OpenOptions::new();
    // It may have become a pipe since, and nobody waits for the other end of one.
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path).map_err(its)?;
    let found = file.metadata().map_err(its)?;
    files::owned(&found).map_err(|why| fault("it", &why.into()))?;
    if found.mode() & OTHERS_WRITE != 0 {
        return Err(fault("it", &Distrust::Open(found.mode() & 0o7777).into()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(its)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(too_large());
    }
    Ok(bytes)
}

fn fault(subject: &str, error: &io::Error) -> Fault {
    match (Distrust::of(error), error.kind()) {
        (Some(why), _) => Fault::new(DiscoveryCode::Untrusted, format!("{subject} {why}")),
        (None, io::ErrorKind::NotFound) => {
            Fault::new(DiscoveryCode::Missing, format!("{subject} does not exist"))
        }
        (None, _) => Fault::new(DiscoveryCode::Unreadable, format!("{subject} cannot be read: {error}")),
    }
}
