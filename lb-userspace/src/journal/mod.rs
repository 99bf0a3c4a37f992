//! What a run was told, on disk: recorded by the daemon, read by replay.
//!
//! [`line`] is the format, both ways. [`Recorder`] is the daemon's end: it hands
//! every input of the engine to a thread of its own, which writes them to a file
//! that is bounded in size. Recording never holds the daemon up: what the thread
//! cannot take is counted and said to be missing, and what the disk cannot take
//! is a warning.

mod file;
pub mod line;
mod recorder;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;

pub use file::OpenError;
pub use recorder::{Recorder, Recording};

/// Where to record, and how much of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub path: PathBuf,
    /// In bytes, of one file. Past it, FILE becomes FILE.1, that FILE.2, and so on.
    pub max_size: u64,
    /// How many are kept, the one that is written included. At least 1.
    pub files: u32,
}
