//! Why the daemon does not start, or ends.

use std::io;

use super::open_files::TooFew;
use crate::{control::socket::BindError, dataplane::bpf, journal, state::UntrustedFolder};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Socket(#[from] BindError),
    #[error(transparent)]
    Open(#[from] bpf::OpenError),
    #[error(transparent)]
    Record(#[from] journal::OpenError),
    #[error(transparent)]
    State(#[from] UntrustedFolder),
    #[error(transparent)]
    OpenFiles(#[from] TooFew),
    #[error("{doing}")]
    Io {
        doing: &'static str,
        #[source]
        source: io::Error,
    },
}

/// For `map_err`: the error of a step that is named by what it does.
pub(super) fn failed(doing: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io { doing, source }
}
