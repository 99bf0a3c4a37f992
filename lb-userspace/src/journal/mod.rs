//! The inputs of a run, on disk: the daemon records them, replay reads them.
//!
//! [`line`] is the format, both ways. [`Recorder`] is the daemon's side: it gives every input of the engine
//! to a thread of its own, which writes it to a file that is bounded in size. Recording never delays the
//! daemon. When the thread does not keep up, the recorder leaves inputs out, counts them, and writes how many
//! are missing. When the disk fails, the daemon logs a warning and continues.

mod entry;
mod file;
pub mod line;
mod recorder;
#[cfg(test)]
mod tests;
mod writer;

pub use self::{
    file::{OpenError, Options, files},
    recorder::{Recorder, Recording},
};
