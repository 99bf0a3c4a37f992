//! How many files the daemon may open: sockets, maps and links count, too.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::{info, warn};

/// The daemon starts with so many. Its maps, links and threads take about 60, and some are left for probes and readers.
const LEAST: u64 = 128;

/// All probes and connections of the control socket at a time, with the rest. Below it, something may have to wait.
const ENOUGH: u64 = 1024;

#[derive(Debug, thiserror::Error)]
#[error("this process may open {0} files, and the daemon needs at least {LEAST}")]
pub struct TooFew(u64);

impl TooFew {
    pub fn remedy(&self) -> &'static str {
        "raise the hard limit: `ulimit -Hn 65536`, or `LimitNOFILE=65536` of its unit"
    }
}

/// Raises the soft limit to the hard one. The soft limit is for programs that use `select`, and this is none.
pub(super) fn raise_limit() -> Result<(), TooFew> {
    // Every process can read its own limits. If not, opening files fails later and says so.
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Ok(()) };
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            warn!(soft, hard, %error, "the limit of open files cannot be raised");
            soft
        }
    };
    match limit {
        0..LEAST => Err(TooFew(limit)),
        LEAST..ENOUGH => {
            warn!(limit, enough = ENOUGH, "this process may open few files: probes may have to wait");
            Ok(())
        }
        ENOUGH.. => {
            info!(limit, "open files");
            Ok(())
        }
    }
}
